//! [`Problem`]: a failure told to a client, as RFC 9457 problem details.

use serde::{Serialize, Serializer};

/// A failure in the form of RFC 9457: the body of an HTTP error and the data
/// of a stream's `problem` event.
///
/// ```text
/// {"type":"urn:runcast:problem:backend-disabled","title":"Backend disabled","status":404,
///  "detail":"the kubectl backend is switched off; set kubectl.enabled = true"}
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Stable suffix of the `type`, such as `backend-disabled`.
    #[serde(rename = "type", serialize_with = "as_type")]
    pub slug: &'static str,
    /// The same in words, the same for every occurrence.
    pub title: &'static str,
    /// The HTTP status it has, or would have before a stream begins.
    pub status: u16,
    /// One sentence about this occurrence that says what to do.
    pub detail: String,
    /// Whether trying again can help; only in `problem` events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retryable: Option<bool>,
}

fn as_type<S: Serializer>(slug: &&'static str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("urn:runcast:problem:{slug}"))
}

impl Problem {
    /// Makes a problem as an HTTP error tells it.
    pub fn new(
        status: u16,
        slug: &'static str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            slug,
            title,
            status,
            detail: detail.into(),
            retryable: None,
        }
    }

    /// Adds what a `problem` event has beside the HTTP members.
    pub fn retryable(mut self, retryable: bool) -> Self {
        self.retryable = Some(retryable);
        self
    }
}
