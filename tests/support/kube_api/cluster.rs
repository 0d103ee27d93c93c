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
    /// The same of watches: to end them, and to have forgotten all before.
    pub(super) watch_ends: u64,
    pub(super) watches_forbidden: bool,
    pub(super) forgotten: u64,
    /// Counts changes.
    pub(super) version: u64,
    /// Pods that were deleted, and since which version.
    pub(super) deleted: Vec<(u64, Value)>,
    /// The one token that is let in, if not any.
    pub(super) token: Option<String>,
    /// Logs and watches that are being answered.
    pub(super) open: usize,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) cluster: Mutex<Cluster>,
    /// Moved by every change, so that followed logs look again.
    pub(super) changed: watch::Sender<u64>,
}

impl Cluster {
    /// Returns the pods that `selector` chooses.
    pub(super) fn pods_of(&self, selector: Option<&String>) -> Vec<Value> {
        let pods = self.pods.iter().map(|(name, pod)| pod_json(name, pod));
        pods.filter(|pod| is_chosen(pod, selector)).collect()
    }

    /// Whether requests for pods fail now.
    pub(super) fn pods_fail(&self) -> bool {
        let mut faults = self.faults.iter();
        faults.any(|(ask, _, times)| *ask == Ask::Pods && *times > 0)
    }

    /// Removes a pod.
    pub(super) fn delete(&mut self, name: &str) {
        let pod = self.pods.remove(name).expect("the pod exists");
        self.deleted.push((self.version, pod_json(name, &pod)));
    }
}

/// Whether `selector`, one label at most, chooses `pod`.
pub(super) fn is_chosen(pod: &Value, selector: Option<&String>) -> bool {
    let wanted = selector.and_then(|selector| selector.split_once('='));
    wanted.is_none_or(|(key, value)| pod["metadata"]["labels"][key] == value)
}

/// An answer that lasts: counted while it does.
pub(super) struct Lasting(pub(super) actix_web::web::Data<Shared>);

impl Lasting {
    /// With the cluster locked.
    pub(super) fn begin(shared: &actix_web::web::Data<Shared>, cluster: &mut Cluster) -> Self {
        cluster.open += 1;
        Self(shared.clone())
    }
}

impl Drop for Lasting {
    fn drop(&mut self) {
        self.0.lock().open -= 1;
    }
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Cluster> {
        self.cluster.lock().expect("no test panics with the lock")
    }

    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Cluster) -> T) -> T {
        let result = {
            let mut cluster = self.lock();
            cluster.version += 1;
            change(&mut cluster)
        };
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
    let cluster = shared.lock();
    let items = cluster.pods_of(selector);
    let version = cluster.version.to_string();
    json!({"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": version}, "items": items})
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
