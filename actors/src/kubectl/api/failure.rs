//! What the API, its absence, or our own configuration mean in the words of
//! [`FailureReason`]: the same that kubectl's stderr is read as.

use std::error::Error;

use http::{Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy;
use kube::client::AuthError;
use kube::config::KubeconfigError;
use serde::Deserialize;

use crate::kubectl::failure::{Failure, FailureReason, said_of_the_log};

/// Most bytes of an error's body that are read.
const STATUS_BYTES_MAX: usize = 64 * 1024;

/// What the API says of an error, as far as it matters here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    reason: String,
    message: String,
}

/// Returns what an answer that is no success means.
pub(super) async fn of_status(answer: Response<Incoming>) -> Failure {
    let code = answer.status();
    let body = Limited::new(answer.into_body(), STATUS_BYTES_MAX)
        .collect()
        .await;
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    // What stands between may answer in words of its own.
    let status: Status = serde_json::from_slice(&body).unwrap_or_default();
    let reason = reason_of(code, &status);
    tracing::debug!(
        reason = reason.slug(), %code, said = status.reason, message = status.message,
        "the Kubernetes API refused"
    );
    reason.into()
}

fn reason_of(code: StatusCode, status: &Status) -> FailureReason {
    if let Some(reason) = said_of_the_log(&status.message) {
        return reason;
    }
    match (code.as_u16(), status.reason.as_str()) {
        (401, _) => FailureReason::Unauthorized,
        (403, _) => FailureReason::Forbidden,
        (404, _) => FailureReason::NotFound,
        (429, _) => FailureReason::Overloaded,
        (504, _) | (_, "Timeout" | "ServerTimeout") => FailureReason::Timeout,
        _ => FailureReason::ApiError,
    }
}

/// Returns what an error before the head of an answer means.
pub(super) fn of_sending(error: &(dyn Error + Send + Sync + 'static)) -> Failure {
    tracing::debug!(error = %chain(error), "a request to the Kubernetes API failed");
    let is_connect = |error: &legacy::Error| error.is_connect();
    if find(error).is_some_and(is_connect) {
        FailureReason::Unreachable.into()
    } else if find::<AuthError>(error).is_some() {
        FailureReason::Unauthorized.into()
    } else {
        FailureReason::Interrupted.into()
    }
}

/// Returns what an error in the body of an answer means: it broke, or is too
/// long.
pub(super) fn of_answer(error: &(dyn Error + Send + Sync + 'static)) -> Failure {
    tracing::debug!(error = %chain(error), "an answer of the Kubernetes API broke off");
    match find::<http_body_util::LengthLimitError>(error) {
        Some(_) => FailureReason::Failed.into(),
        None => FailureReason::Interrupted.into(),
    }
}

/// Returns what it means that a request cannot be written.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(super) fn of_request(error: kube::core::request::Error) -> Failure {
    tracing::warn!(%error, "a request to the Kubernetes API cannot be written");
    FailureReason::Failed.into()
}

/// Returns what it means that the kubeconfig cannot be used.
pub(super) fn of_kubeconfig(error: &KubeconfigError) -> Failure {
    tracing::warn!(error = %chain(error), "the kubeconfig cannot be used");
    Failure::about(FailureReason::Failed, "the kubeconfig cannot be used")
}

/// Returns what it means that no client can be made of the configuration.
pub(super) fn of_config(error: &kube::Error) -> Failure {
    tracing::warn!(error = %chain(error), "the credentials for the Kubernetes API cannot be used");
    match error {
        kube::Error::Auth(_) => FailureReason::Unauthorized.into(),
        _ => Failure::about(FailureReason::Failed, "the kubeconfig cannot be used"),
    }
}

/// Returns `error` and its sources.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

/// Returns the first error of type `T` among `error` and its sources.
fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    causes(error).find_map(|error| error.downcast_ref())
}

/// Returns an error and its sources as one text.
fn chain(error: &(dyn Error + 'static)) -> String {
    let each: Vec<_> = causes(error).map(ToString::to_string).collect();
    each.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use FailureReason::*;

    #[test]
    fn the_api_is_understood_as_kubectl_is() {
        for (code, reason, message, expected) in [
            (403, "Forbidden", "pods is forbidden", Forbidden),
            (401, "Unauthorized", "Unauthorized", Unauthorized),
            (404, "NotFound", "pods \"x\" not found", NotFound),
            (429, "TooManyRequests", "too many requests", Overloaded),
            (504, "Timeout", "the request timed out", Timeout),
            (500, "ServerTimeout", "try again", Timeout),
            (500, "InternalError", "an error on the server", ApiError),
            (503, "ServiceUnavailable", "currently unable", ApiError),
            (502, "", "", ApiError),
            (
                400,
                "BadRequest",
                "container \"c\" in pod \"p\" is waiting to start: ContainerCreating",
                NotStarted,
            ),
            (
                400,
                "BadRequest",
                "previous terminated container \"c\" in pod \"p\" not found",
                NotStarted,
            ),
            (
                400,
                "BadRequest",
                "container nope is not valid for pod x",
                NotFound,
            ),
            (
                500,
                "InternalError",
                "unable to retrieve container logs for containerd://1",
                LogUnavailable,
            ),
        ] {
            let status = Status {
                reason: reason.to_owned(),
                message: message.to_owned(),
            };
            let code = StatusCode::from_u16(code).expect("a code");
            assert_eq!(reason_of(code, &status), expected, "{code} {reason}");
        }
    }
}
