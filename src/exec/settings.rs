//! [`ExecSettings`]: the section `[exec]`.

use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

/// `[exec]`: what `runcast exec` keeps of a command's output while Redis does
/// not take it, and how long it waits.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ExecSettings {
    /// Bytes of lines kept in memory, each with some 100 bytes of its own.
    pub(crate) spool_memory_bytes: ByteSize,
    /// Bytes of lines kept on disk once memory is full; past it the newest
    /// are dropped. 0 uses no file.
    pub(crate) spool_disk_bytes: ByteSize,
    /// Where that file is; empty is the directory for temporary files.
    pub(crate) spool_dir: String,
    /// How long text without a line break waits for one.
    #[serde(with = "humantime_serde")]
    pub(crate) partial_line_after: Duration,
    /// How long what the command started may keep its output open after its
    /// end.
    #[serde(with = "humantime_serde")]
    pub(crate) orphan_timeout: Duration,
    /// How long the spool may take to empty after the command's end.
    #[serde(with = "humantime_serde")]
    pub(crate) flush_timeout: Duration,
}

impl Default for ExecSettings {
    fn default() -> Self {
        Self {
            spool_memory_bytes: ByteSize::mib(16),
            spool_disk_bytes: ByteSize::mib(256),
            spool_dir: String::new(),
            partial_line_after: Duration::from_millis(200),
            orphan_timeout: Duration::from_secs(2),
            flush_timeout: Duration::from_secs(10),
        }
    }
}
