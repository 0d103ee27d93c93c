//! [`ArchiveError`]: why the archive did not answer.

use std::error::Error;

/// Why something could not be read from the archive, or written to it. Its
/// text has no credentials and no address: clients see it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ArchiveError {
    /// There is no such object, or no more.
    #[error("the archive has no such object")]
    Missing,
    /// The directory or the bucket does not answer, or refuses.
    #[error("the archive does not answer: {0}")]
    Unavailable(&'static str),
    /// An object is not what was written.
    #[error("the archived history is damaged: {0}")]
    Damaged(&'static str),
    /// As many read it as may, and wait.
    #[error("the archive has too many readers")]
    Busy,
}

impl ArchiveError {
    /// Sorts an error of the place; what exactly it was goes to the log only.
    pub(super) fn of(error: &object_store::Error) -> Self {
        use object_store::Error as E;
        match error {
            E::NotFound { .. } => Self::Missing,
            E::PermissionDenied { .. } => Self::Unavailable("permission denied"),
            E::Unauthenticated { .. } => Self::Unavailable("credentials refused"),
            _ => Self::Unavailable("the request failed"),
        }
    }
}

/// Returns an error with all its causes in one line, for the log.
pub(super) fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let told = error.to_string();
        if !text.contains(&told) {
            text = format!("{text}: {told}");
        }
        cause = error.source();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
