//! [`Place`]: the directory or the bucket that objects lie in.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, RetryConfig};

use super::error::{ArchiveError, causes};
use super::s3_client::S3Client;
use crate::broker::lock;
use crate::protocol::RunId;
use crate::settings::ArchiveSettings;

/// Attempts after the first one, if that failed for a while only.
const RETRIES_MAX: usize = 2;

/// What an object's name ends with.
const SUFFIX: &str = ".ndjson.zst";

/// All objects lie below it.
const RUNS: &str = "runs";

/// A setting of `[archive]` that cannot be used: its key, and what is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadArchive {
    /// The key.
    pub key: &'static str,
    /// What is allowed.
    pub rule: &'static str,
}

/// Checks the settings of an archive, without touching it.
///
/// # Errors
/// The first key that cannot be used.
pub fn check(settings: &ArchiveSettings) -> Result<(), BadArchive> {
    Kind::of(settings).map(drop)
}

/// Lists the archive, as a look whether it can be used; returns how long that
/// took.
///
/// # Errors
/// A sentence that says what is wrong, without credentials.
pub(crate) async fn reach(settings: &ArchiveSettings) -> Result<Duration, String> {
    let begin = Instant::now();
    let place = Place::new(settings);
    let store = place.open()?;
    let mut list = store.list(Some(&place.runs()));
    match tokio::time::timeout(settings.timeout, list.next()).await {
        Err(_) => Err("no answer in time (archive.timeout)".to_owned()),
        Ok(Some(Err(error))) => Err(causes(&error)),
        Ok(_) => Ok(begin.elapsed()),
    }
}

/// What the URL names.
enum Kind {
    Directory(String),
    Bucket { bucket: String, prefix: Path },
}

impl Kind {
    fn of(settings: &ArchiveSettings) -> Result<Self, BadArchive> {
        let bad = |key, rule| BadArchive { key, rule };
        let endpoint = settings.endpoint.as_str();
        let host = endpoint
            .strip_prefix("https://")
            .or(endpoint.strip_prefix("http://"));
        let is_host = |host: &str| {
            let is_good = |c: char| c.is_ascii_alphanumeric() || ".-:[]_".contains(c);
            !host.is_empty() && host.chars().all(is_good)
        };
        if !endpoint.is_empty() && !host.is_some_and(is_host) {
            let rule = "must be https://host[:port], or http:// for a server nearby; credentials come from the environment";
            return Err(bad("archive.endpoint", rule));
        }
        if let Some(directory) = settings.url.strip_prefix("file://") {
            return match directory.starts_with('/') && directory.len() > 1 {
                true => Ok(Self::Directory(directory.to_owned())),
                false => Err(bad(
                    "archive.url",
                    "must be an absolute path, as in file:///var/lib/runcast",
                )),
            };
        }
        let rule = "must be file:///directory, s3://bucket or s3://bucket/prefix, or empty";
        let rest = settings
            .url
            .strip_prefix("s3://")
            .ok_or(bad("archive.url", rule))?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let in_bucket = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-".contains(c);
        if !(3..=63).contains(&bucket.len()) || !bucket.chars().all(in_bucket) {
            return Err(bad(
                "archive.url",
                "must have a bucket of 3 to 63 a-z 0-9 . -",
            ));
        }
        let prefix = Path::parse(prefix.trim_end_matches('/')).map_err(|_| {
            bad(
                "archive.url",
                "must have a prefix without . and .. and empty parts",
            )
        })?;
        Ok(Self::Bucket {
            bucket: bucket.to_owned(),
            prefix,
        })
    }
}

/// Where objects lie. It is opened when it is first used, and again while that
/// fails: a directory may be mounted late.
pub(super) struct Place {
    settings: ArchiveSettings,
    opened: Mutex<Option<Arc<dyn ObjectStore>>>,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").finish_non_exhaustive()
    }
}

impl Place {
    pub(super) fn new(settings: &ArchiveSettings) -> Self {
        Self {
            settings: settings.clone(),
            opened: Mutex::default(),
        }
    }

    /// A place whose objects are there already.
    #[cfg(test)]
    pub(super) fn with_store(settings: &ArchiveSettings, store: Arc<dyn ObjectStore>) -> Self {
        Self {
            opened: Mutex::new(Some(store)),
            ..Self::new(settings)
        }
    }

    /// The objects.
    pub(super) fn store(&self) -> Result<Arc<dyn ObjectStore>, ArchiveError> {
        if let Some(store) = &*lock(&self.opened) {
            return Ok(Arc::clone(store));
        }
        let store = self.open().map_err(|error| {
            tracing::warn!(error, "the archive cannot be opened");
            ArchiveError::Unavailable("it cannot be opened")
        })?;
        *lock(&self.opened) = Some(Arc::clone(&store));
        Ok(store)
    }

    /// The directory, if it is one.
    pub(super) fn directory(&self) -> Option<&str> {
        self.settings.url.strip_prefix("file://")
    }

    fn open(&self) -> Result<Arc<dyn ObjectStore>, String> {
        let settings = &self.settings;
        match Kind::of(settings).map_err(|bad| bad.rule)? {
            Kind::Directory(directory) => {
                std::fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
                let store = LocalFileSystem::new_with_prefix(directory);
                let store = store.map_err(|error| causes(&error))?;
                Ok(Arc::new(
                    store.with_automatic_cleanup(true).with_fsync(true),
                ))
            }
            Kind::Bucket { bucket, .. } => {
                let retry = RetryConfig {
                    max_retries: RETRIES_MAX,
                    retry_timeout: settings.timeout,
                    ..RetryConfig::default()
                };
                let mut builder = AmazonS3Builder::from_env()
                    .with_bucket_name(bucket)
                    .with_virtual_hosted_style_request(!settings.path_style)
                    .with_retry(retry)
                    .with_http_connector(S3Client::new(settings.timeout));
                if !settings.region.is_empty() {
                    builder = builder.with_region(&settings.region);
                }
                if !settings.endpoint.is_empty() {
                    builder = builder
                        .with_endpoint(&settings.endpoint)
                        .with_allow_http(settings.endpoint.starts_with("http://"));
                }
                let store = builder.build().map_err(|error| causes(&error))?;
                Ok(Arc::new(store))
            }
        }
    }

    // ---- names ---------------------------------------------------------------

    /// All objects lie below.
    pub(super) fn runs(&self) -> Path {
        let prefix = match Kind::of(&self.settings) {
            Ok(Kind::Bucket { prefix, .. }) => prefix,
            Ok(Kind::Directory(_)) | Err(_) => Path::default(),
        };
        prefix.join(RUNS)
    }

    /// All epochs of a run lie in it. A run id has no `/`, and neither begins
    /// nor ends with a dot.
    pub(super) fn run(&self, run_id: &RunId) -> Path {
        self.runs().join(run_id.as_str())
    }

    /// The object of an epoch of a run.
    pub(super) fn object(&self, run_id: &RunId, epoch: u64) -> Path {
        self.run(run_id).join(format!("{epoch}{SUFFIX}"))
    }

    /// The epoch that an object is named after; `None` if it is none of ours.
    pub(super) fn epoch_of(object: &ObjectMeta) -> Option<u64> {
        let name = object.location.filename()?;
        name.strip_suffix(SUFFIX)?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: &str, endpoint: &str) -> ArchiveSettings {
        ArchiveSettings {
            url: url.to_owned(),
            endpoint: endpoint.to_owned(),
            ..ArchiveSettings::default()
        }
    }

    #[test]
    fn urls_are_checked() {
        for (url, endpoint, key) in [
            ("file:///var/lib/runcast", "", None),
            ("s3://runs", "", None),
            ("s3://runs/a/b", "http://127.0.0.1:9000", None),
            ("s3://runs/a/", "https://[::1]:9000", None),
            ("file://var", "", Some("archive.url")),
            ("file:///", "", Some("archive.url")),
            ("s3://", "", Some("archive.url")),
            ("s3://Runs", "", Some("archive.url")),
            ("s3://key:secret@runs", "", Some("archive.url")),
            ("s3://runs/../other", "", Some("archive.url")),
            ("gs://runs", "", Some("archive.url")),
            ("s3://runs", "127.0.0.1:9000", Some("archive.endpoint")),
            (
                "s3://runs",
                "https://key:secret@host",
                Some("archive.endpoint"),
            ),
        ] {
            let bad = check(&settings(url, endpoint)).err().map(|bad| bad.key);
            assert_eq!(bad, key, "{url} {endpoint}");
        }
    }

    /// Every run id there is stays below the prefix, as one part of the path.
    #[test]
    fn no_run_id_leaves_the_prefix() {
        let place = Place::new(&settings("s3://runs/a", ""));
        for text in ["42", "a..b", "A.b_c-d", "x--y", "0.ndjson.zst", "CON"] {
            let run_id = RunId::parse(text).expect("a run id");
            let object = place.object(&run_id, 7).to_string();
            assert_eq!(object, format!("a/runs/{text}/7.ndjson.zst"));
        }
        for text in ["..", "a/b", "../a", ".a", "a\\b", "a%2fb", ""] {
            assert!(RunId::parse(text).is_err(), "{text}");
        }
    }
}
