//! The state of the stand-in's cluster, and what it looks like in JSON.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{Ask, Fault};

#[derive(Debug, Default, Clone)]
pub(super) struct Instance {
    /// Time, text, and whether a line feed follows.
    pub(super) lines: Vec<(u64, Vec<u8>, bool)>,
    pub(super) exit_code: Option<i32>,
}

#[derive(Debug, Default)]
pub(super) struct Container {
    pub(super) init: bool,
    pub(super) instances: Vec<Instance>,
    pub(super) waiting: Option<String>,
}

#[derive(Debug, Default)]
pub(super) struct Pod {
    pub(super) uid: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) phase: String,
    pub(super) job: Option<String>,
    pub(super) containers: Vec<(String, Container)>,
}

#[derive(Debug, Default)]
pub(super) struct Cluster {
    pub(super) pods: BTreeMap<String, Pod>,
    pub(super) jobs: BTreeMap<String, Option<&'static str>>,
    pub(super) faults: Vec<(Ask, Fault, usize)>,
    pub(super) requests: Vec<String>,
    pub(super) pods_made: u64,
    /// Raised to cut, or to end, every log that is being followed.
    pub(super) cuts: u64,
    pub(super) ends: u64,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) cluster: Mutex<Cluster>,
    /// Moved by every change, so that followed logs look again.
    pub(super) changed: watch::Sender<u64>,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Cluster> {
        self.cluster.lock().expect("no test panics with the lock")
    }

    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Cluster) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.send_modify(|version| *version += 1);
        result
    }
}

pub(super) fn ok(body: Value) -> HttpResponse {
    HttpResponse::Ok().json(body)
}

pub(super) fn status(code: u16, reason: &str, message: &str) -> HttpResponse {
    let status_code = StatusCode::from_u16(code).expect("a status code");
    HttpResponse::build(status_code).json(json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    }))
}

pub(super) fn not_found(kind: &str, name: &str) -> HttpResponse {
    status(404, "NotFound", &format!("{kind} \"{name}\" not found"))
}

pub(super) fn groups() -> Value {
    let version = json!({"groupVersion": "batch/v1", "version": "v1"});
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [
        {"name": "batch", "versions": [version], "preferredVersion": version},
    ]})
}

pub(super) fn resources(group: &str, name: &str, kind: &str, short: &str) -> Value {
    let verbs = ["get", "list", "watch"];
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group, "resources": [
        {"name": name, "singularName": "", "namespaced": true, "kind": kind, "verbs": verbs, "shortNames": [short]},
        {"name": format!("{name}/log"), "singularName": "", "namespaced": true, "kind": kind, "verbs": ["get"]},
    ]})
}

pub(super) fn list_pods(shared: &Shared, selector: Option<&String>) -> Value {
    let wanted = selector.and_then(|selector| selector.split_once('='));
    let cluster = shared.lock();
    let chosen = cluster.pods.iter().filter(|(_, pod)| {
        wanted.is_none_or(|(key, value)| pod.labels.get(key).is_some_and(|it| it == value))
    });
    let items: Vec<Value> = chosen.map(|(name, pod)| pod_json(name, pod)).collect();
    json!({"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items})
}

pub(super) fn read_pod(shared: &Shared, name: &str) -> HttpResponse {
    match shared.lock().pods.get(name) {
        Some(pod) => ok(pod_json(name, pod)),
        None => not_found("pods", name),
    }
}

pub(super) fn read_job(shared: &Shared, name: &str) -> HttpResponse {
    let Some(condition) = shared.lock().jobs.get(name).copied() else {
        return not_found("jobs.batch", name);
    };
    let conditions: Vec<Value> = condition
        .into_iter()
        .map(|condition| json!({"type": condition, "status": "True"}))
        .collect();
    ok(
        json!({"kind": "Job", "apiVersion": "batch/v1", "metadata": {"name": name, "namespace": "default"},
        "spec": {}, "status": {"conditions": conditions}}),
    )
}

fn pod_json(name: &str, pod: &Pod) -> Value {
    let of = |init: bool| pod.containers.iter().filter(move |(_, it)| it.init == init);
    let specs = |init| {
        of(init)
            .map(|(name, _)| json!({"name": name, "image": "i"}))
            .collect::<Vec<_>>()
    };
    let statuses = |init| {
        of(init)
            .map(|(name, it)| status_json(name, it))
            .collect::<Vec<_>>()
    };
    let owners: Vec<Value> = pod
        .job
        .iter()
        .map(|job| json!({"apiVersion": "batch/v1", "kind": "Job", "name": job, "uid": "j", "controller": true}))
        .collect();
    json!({"kind": "Pod", "apiVersion": "v1",
        "metadata": {"name": name, "namespace": "default", "uid": pod.uid, "labels": pod.labels, "ownerReferences": owners},
        "spec": {"containers": specs(false), "initContainers": specs(true)},
        "status": {"phase": pod.phase, "containerStatuses": statuses(false), "initContainerStatuses": statuses(true)}})
}

fn status_json(name: &str, container: &Container) -> Value {
    let started = "2026-11-23T20:00:00Z";
    let terminated = |instance: &Instance| {
        instance.exit_code.map(|code| {
            json!({"terminated": {
                "exitCode": code, "reason": if code == 0 { "Completed" } else { "Error" },
                "startedAt": started, "finishedAt": "2026-11-23T20:10:00Z",
            }})
        })
    };
    let mut instances = container.instances.iter().rev();
    let mut last_state = json!({});
    let present = instances.next();
    let state = match (&container.waiting, present) {
        (Some(reason), present) => {
            last_state = present.and_then(terminated).unwrap_or(last_state);
            json!({"waiting": {"reason": reason}})
        }
        (None, Some(present)) => {
            last_state = instances.next().and_then(terminated).unwrap_or(last_state);
            terminated(present).unwrap_or_else(|| json!({"running": {"startedAt": started}}))
        }
        (None, None) => json!({}),
    };
    json!({"name": name, "restartCount": container.instances.len().saturating_sub(1), "ready": true,
        "image": "i", "imageID": "i", "state": state, "lastState": last_state})
}
