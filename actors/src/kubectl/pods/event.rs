//! [`PodEvent`]: what a watch of pods tells. Pure.

#[cfg(feature = "kubernetes-api")]
use serde::Deserialize;

use super::Pod;
#[cfg(feature = "kubernetes-api")]
use super::{RawPod, RawVersion};

/// What a watch tells.
#[derive(Debug, PartialEq, Eq)]
#[cfg_attr(
    not(feature = "kubernetes-api"),
    expect(dead_code, reason = "only api makes it")
)]
pub(crate) enum PodEvent {
    /// A pod is new, or is otherwise than it was; and the version since then.
    Is(Box<Pod>, String),
    /// The pod of this uid is there no more.
    Deleted(String, String),
    /// Nothing happened up to this version.
    Bookmark(String),
    /// The watch has ended; unless `well`, what happened last may be missing.
    Over { well: bool },
}

/// Parses an event of a watch of pods.
///
/// # Errors
/// When it is no JSON object of the shape of such an event.
#[cfg(feature = "kubernetes-api")]
pub(crate) fn parse_event(json: &[u8]) -> Result<PodEvent, serde_json::Error> {
    #[derive(Deserialize)]
    struct RawEvent<'a> {
        #[serde(rename = "type")]
        kind: &'a str,
        #[serde(borrow)]
        object: &'a serde_json::value::RawValue,
    }
    #[derive(Deserialize)]
    struct RawObject {
        metadata: RawVersion,
    }
    let event: RawEvent<'_> = serde_json::from_slice(json)?;
    let object = event.object.get();
    // The version is too old (410), or whatever else ends the watch.
    if event.kind == "ERROR" {
        return Ok(PodEvent::Over { well: false });
    }
    let version = serde_json::from_str::<RawObject>(object)?;
    let version = version.metadata.resource_version;
    if event.kind == "BOOKMARK" {
        return Ok(PodEvent::Bookmark(version));
    }
    let pod: Pod = serde_json::from_str(object).map(|raw: RawPod| raw.into())?;
    Ok(match event.kind {
        "DELETED" => PodEvent::Deleted(pod.uid, version),
        _ => PodEvent::Is(Box::new(pod), version),
    })
}

#[cfg(all(test, feature = "kubernetes-api"))]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kubectl::pods::Phase;

    #[test]
    fn a_watch_tells_of_pods_and_of_its_end() {
        let event = |kind: &str, object: Value| {
            let event = json!({"type": kind, "object": object});
            parse_event(event.to_string().as_bytes())
        };
        let of_pod = json!({"metadata": {"name": "p", "uid": "u", "resourceVersion": "7"},
            "status": {"phase": "Running"}});
        for kind in ["ADDED", "MODIFIED"] {
            let PodEvent::Is(pod, version) = event(kind, of_pod.clone()).expect("an event") else {
                panic!("{kind} tells of a pod");
            };
            assert_eq!((pod.phase, &*version), (Phase::Running, "7"));
        }
        for (kind, object, expected) in [
            (
                "DELETED",
                of_pod,
                PodEvent::Deleted("u".to_owned(), "7".to_owned()),
            ),
            (
                "BOOKMARK",
                json!({"kind": "Pod", "metadata": {"resourceVersion": "9"}}),
                PodEvent::Bookmark("9".to_owned()),
            ),
            (
                "ERROR",
                json!({"kind": "Status", "code": 410, "reason": "Expired"}),
                PodEvent::Over { well: false },
            ),
        ] {
            assert_eq!(event(kind, object).expect("an event"), expected);
        }
        assert!(event("ADDED", json!({})).is_err() && parse_event(b"{").is_err());
    }
}
