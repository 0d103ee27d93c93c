//! `[archive]`: where the histories of runs that ended are kept for long.

use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

/// `[archive]`: where the histories of runs that ended are kept for long.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ArchiveSettings {
    /// `file:///directory` or `s3://bucket/prefix`; empty is no archive.
    pub url: String,
    /// Of an S3-compatible server that is not AWS: `https://host[:port]`.
    pub endpoint: String,
    /// Of the bucket; empty: of `AWS_REGION`, else `us-east-1`.
    pub region: String,
    /// The bucket stands in the path of a request, not in its host.
    pub path_style: bool,
    /// How long one request may take, without an answer.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// Most runs written at once.
    pub max_writes: usize,
    /// Most runs that wait to be written; further ones are found by a sweep.
    pub queue: usize,
    /// How often Redis is looked through for runs that nobody archived.
    #[serde(with = "humantime_serde")]
    pub sweep_interval: Duration,
    /// Most reads of the archive at once; as many more may wait.
    pub max_reads: usize,
    /// Bytes of histories read that are kept in memory for the next page.
    pub cache_bytes: ByteSize,
    /// How long an object is kept; 0 is for ever.
    #[serde(with = "humantime_serde")]
    pub max_age: Duration,
    /// Most bytes of all objects, the oldest go first; 0 is no bound.
    pub max_bytes: ByteSize,
    /// How often objects are counted, and removed if they are too old or too
    /// many.
    #[serde(with = "humantime_serde")]
    pub retention_interval: Duration,
}

impl Default for ArchiveSettings {
    fn default() -> Self {
        Self {
            url: String::new(),
            endpoint: String::new(),
            region: String::new(),
            path_style: true,
            timeout: Duration::from_secs(10),
            max_writes: 2,
            queue: 10_000,
            sweep_interval: Duration::from_secs(300),
            max_reads: 16,
            cache_bytes: ByteSize::mib(16),
            max_age: Duration::ZERO,
            max_bytes: ByteSize::b(0),
            retention_interval: Duration::from_secs(3600),
        }
    }
}

impl ArchiveSettings {
    /// Whether there is an archive.
    pub fn is_on(&self) -> bool {
        !self.url.is_empty()
    }
}
