//! `pods?watch`: a chunked answer with an event for each change of a pod.

use std::collections::BTreeMap;

use actix_web::{HttpResponse, web};
use bytes::Bytes;
use futures_util::stream;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::cluster::{Lasting, Shared, is_chosen, status};

/// One answer to a request for a watch.
struct WatchStream {
    shared: web::Data<Shared>,
    selector: Option<String>,
    /// The pods as they were told last, by uid.
    told: BTreeMap<String, Value>,
    /// What is to be told first.
    first: Vec<u8>,
    ends: u64,
    forgotten: u64,
    changed: watch::Receiver<u64>,
    over: bool,
    _lasting: Lasting,
}

/// Watches from `resourceVersion` on. What has happened since is not known one
/// by one: all pods that are there are told as changed.
pub(super) fn watch(shared: &web::Data<Shared>, query: &BTreeMap<String, String>) -> HttpResponse {
    let selector = query.get("labelSelector");
    let from = query.get("resourceVersion").and_then(|it| it.parse().ok());
    let from: u64 = from.expect("the version of a list");
    let mut cluster = shared.lock();
    if cluster.watches_forbidden {
        return status(403, "Forbidden", "pods is forbidden: cannot watch");
    }
    if from < cluster.forgotten {
        return status(410, "Expired", "too old resource version");
    }
    let mut stream = WatchStream {
        shared: shared.clone(),
        selector: selector.cloned(),
        told: BTreeMap::new(),
        first: Vec::new(),
        ends: cluster.watch_ends,
        forgotten: cluster.forgotten,
        changed: shared.changed.subscribe(),
        over: false,
        _lasting: Lasting::begin(shared, &mut cluster),
    };
    let version = cluster.version;
    let since = cluster
        .deleted
        .iter()
        .filter(|(deleted, _)| *deleted > from);
    for (_, pod) in since.filter(|(_, pod)| is_chosen(pod, selector)) {
        push(&mut stream.first, "DELETED", pod, version);
    }
    if version > from {
        stream.compare(cluster.pods_of(selector), version);
    } else {
        for pod in cluster.pods_of(selector) {
            stream.told.insert(uid(&pod), pod);
        }
    }
    let bookmark = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {}});
    push(&mut stream.first, "BOOKMARK", &bookmark, version);
    let body = stream::unfold(stream, |mut stream| async move {
        let item = stream.next_bytes().await?;
        Some((item, stream))
    });
    HttpResponse::Ok()
        .content_type("application/json")
        .streaming(body)
}

impl WatchStream {
    /// Returns the next events; an error cuts the connection.
    async fn next_bytes(&mut self) -> Option<Result<Bytes, std::io::Error>> {
        loop {
            if !self.first.is_empty() {
                return Some(Ok(std::mem::take(&mut self.first).into()));
            }
            if self.over {
                return None;
            }
            if self.changed.changed().await.is_err() {
                return None;
            }
            let shared = self.shared.clone();
            let cluster = shared.lock();
            if cluster.pods_fail() {
                self.over = true;
                return Some(Err(std::io::Error::other("cut")));
            }
            if cluster.forgotten != self.forgotten {
                let gone =
                    json!({"kind": "Status", "code": 410, "reason": "Expired", "metadata": {}});
                push(&mut self.first, "ERROR", &gone, cluster.version);
                self.over = true;
                continue;
            }
            let pods = cluster.pods_of(self.selector.as_ref());
            self.compare(pods, cluster.version);
            self.over = cluster.watch_ends != self.ends;
        }
    }

    /// Adds an event for each difference between what was told and `pods`.
    fn compare(&mut self, pods: Vec<Value>, version: u64) {
        let pods: BTreeMap<String, Value> = pods.into_iter().map(|pod| (uid(&pod), pod)).collect();
        for (uid, pod) in &pods {
            let kind = match self.told.get(uid) {
                Some(told) if told == pod => continue,
                Some(_) => "MODIFIED",
                None => "ADDED",
            };
            push(&mut self.first, kind, pod, version);
        }
        for (_, pod) in self.told.iter().filter(|(uid, _)| !pods.contains_key(*uid)) {
            push(&mut self.first, "DELETED", pod, version);
        }
        self.told = pods;
    }
}

fn uid(pod: &Value) -> String {
    pod["metadata"]["uid"].as_str().expect("a uid").to_owned()
}

fn push(events: &mut Vec<u8>, kind: &str, object: &Value, version: u64) {
    let mut object = object.clone();
    object["metadata"]["resourceVersion"] = version.to_string().into();
    let event = json!({"type": kind, "object": object});
    events.extend_from_slice(event.to_string().as_bytes());
    events.push(b'\n');
}
