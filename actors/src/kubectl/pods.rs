//! Pods and Jobs as the API server describes them, reduced to what following
//! them needs. Pure.

use serde::Deserialize;

mod event;

pub(crate) use event::PodEvent;
#[cfg(feature = "kubernetes-api")]
pub(crate) use event::parse_event;

/// Where a pod stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Accepted, nothing has run, or its init containers run.
    Pending,
    /// At least one container runs or will run again.
    Running,
    /// Over, all containers ended well.
    Succeeded,
    /// Over, not all containers ended well; or evicted.
    Failed,
    /// The node does not answer.
    Unknown,
}

/// One pod of the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) phase: Phase,
    /// The Job that owns it, and may make another pod after it failed.
    pub(crate) job: Option<String>,
    pub(crate) containers: Vec<Container>,
    /// Why no container has started, in the words of the API.
    pub(crate) waiting: Option<String>,
    /// When its last container ended, in nanoseconds since the epoch.
    pub(crate) finished_ns: Option<u64>,
}

impl Pod {
    /// Whether nothing of it will ever run again.
    pub(crate) fn is_terminal(&self) -> bool {
        matches!(self.phase, Phase::Succeeded | Phase::Failed)
    }
}

/// What log a container has at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Log {
    /// None: it has not started.
    None,
    /// One that grows.
    Growing,
    /// That of an instance that has ended.
    Ended,
}

/// One container of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Container {
    pub(crate) name: String,
    /// How often it was restarted: the number of the instance whose log is read.
    pub(crate) restarts: u32,
    pub(crate) log: Log,
    /// Reason of its waiting state.
    pub(crate) waiting: Option<String>,
    /// When the present instance began.
    pub(crate) started_ns: Option<u64>,
    /// How the instance whose log is read ended, if it did.
    pub(crate) exit: Option<(i64, Option<String>)>,
    /// How the instance before ended: exit code and reason.
    pub(crate) last_exit: Option<(i64, Option<String>)>,
}

/// The pods of a run at one moment.
#[derive(Debug)]
pub(crate) struct PodList {
    pub(crate) pods: Vec<Pod>,
    /// From where a watch goes on; empty in kubectl's answer.
    pub(crate) version: String,
}

/// Parses a list of pods.
///
/// # Errors
/// When it is no JSON list of pods.
pub(crate) fn parse_pods(json: &[u8]) -> Result<PodList, serde_json::Error> {
    let list: RawPodList = serde_json::from_slice(json)?;
    Ok(PodList {
        pods: list.items.into_iter().map(Pod::from).collect(),
        version: list.metadata.resource_version,
    })
}

/// Parses a pod.
///
/// # Errors
/// When it is no JSON object of the shape of a pod.
pub(crate) fn parse_pod(json: &[u8]) -> Result<Pod, serde_json::Error> {
    serde_json::from_slice(json).map(|raw: RawPod| Pod::from(raw))
}

/// How a Job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Job {
    /// It may still start pods.
    Going,
    /// Condition `Complete`.
    Complete,
    /// Condition `Failed`.
    Failed,
}

/// Parses a Job.
///
/// # Errors
/// When it is no JSON object of the shape of a Job.
pub(crate) fn parse_job(json: &[u8]) -> Result<Job, serde_json::Error> {
    let job: RawJob = serde_json::from_slice(json)?;
    let has = |name: &str| {
        let mut conditions = job.status.conditions.iter();
        conditions.any(|condition| condition.kind == name && condition.status == "True")
    };
    Ok(if has("Complete") {
        Job::Complete
    } else if has("Failed") {
        Job::Failed
    } else {
        Job::Going
    })
}

#[derive(Deserialize)]
struct RawPodList {
    #[serde(default)]
    metadata: RawVersion,
    items: Vec<RawPod>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawVersion {
    resource_version: String,
}

#[derive(Deserialize)]
struct RawPod {
    metadata: RawMetadata,
    #[serde(default)]
    status: RawPodStatus,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawMetadata {
    name: String,
    #[serde(default)]
    uid: String,
    #[serde(default)]
    owner_references: Vec<RawOwner>,
}

#[derive(Deserialize)]
struct RawOwner {
    kind: String,
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawPodStatus {
    phase: String,
    reason: Option<String>,
    conditions: Vec<RawCondition>,
    init_container_statuses: Vec<RawContainer>,
    container_statuses: Vec<RawContainer>,
    ephemeral_container_statuses: Vec<RawContainer>,
}

#[derive(Deserialize)]
struct RawCondition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    reason: Option<String>,
    message: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawContainer {
    name: String,
    #[serde(default)]
    restart_count: u32,
    #[serde(default)]
    state: RawState,
    #[serde(default)]
    last_state: RawState,
}

#[derive(Default, Deserialize)]
struct RawState {
    waiting: Option<RawStateDetail>,
    running: Option<RawStateDetail>,
    terminated: Option<RawStateDetail>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawStateDetail {
    reason: Option<String>,
    started_at: Option<String>,
    finished_at: Option<String>,
    exit_code: Option<i64>,
}

#[derive(Deserialize)]
struct RawJob {
    #[serde(default)]
    status: RawJobStatus,
}

#[derive(Default, Deserialize)]
struct RawJobStatus {
    #[serde(default)]
    conditions: Vec<RawCondition>,
}

impl From<RawPod> for Pod {
    fn from(raw: RawPod) -> Self {
        let RawPod { metadata, status } = raw;
        let finished_ns = finished_ns(&status);
        let waiting = waiting(&status);
        let containers = [
            status.init_container_statuses,
            status.container_statuses,
            status.ephemeral_container_statuses,
        ];
        Self {
            phase: match status.phase.as_str() {
                "Pending" | "" => Phase::Pending,
                "Running" => Phase::Running,
                "Succeeded" => Phase::Succeeded,
                "Failed" => Phase::Failed,
                _ => Phase::Unknown,
            },
            job: metadata
                .owner_references
                .into_iter()
                .find(|owner| owner.kind == "Job")
                .map(|owner| owner.name),
            containers: containers
                .into_iter()
                .flatten()
                .map(Container::from)
                .collect(),
            name: metadata.name,
            uid: metadata.uid,
            waiting,
            finished_ns,
        }
    }
}

impl From<RawContainer> for Container {
    fn from(raw: RawContainer) -> Self {
        let log = if raw.state.running.is_some() {
            Log::Growing
        } else if raw.state.terminated.is_some() || raw.last_state.terminated.is_some() {
            // Waiting for its next start, the log of the last instance is
            // what the API shows.
            Log::Ended
        } else {
            Log::None
        };
        // `lastState` tells of the instance before, unless the container waits
        // for its next start: then that is the instance whose log is read.
        let is_running = raw.state.running.is_some();
        let (present, before) = match raw.state.running.or(raw.state.terminated) {
            Some(present) => (Some(present), raw.last_state.terminated),
            None => (raw.last_state.terminated, None),
        };
        Self {
            name: raw.name,
            restarts: raw.restart_count,
            log,
            waiting: raw.state.waiting.map(|state| reason_or(state, "waiting")),
            started_ns: present
                .as_ref()
                .and_then(|state| nanos(state.started_at.as_deref()?)),
            exit: present.filter(|_| !is_running).map(exit_of),
            last_exit: before.map(exit_of),
        }
    }
}

fn exit_of(state: RawStateDetail) -> (i64, Option<String>) {
    (state.exit_code.unwrap_or(0), state.reason)
}

fn reason_or(state: RawStateDetail, otherwise: &str) -> String {
    state.reason.unwrap_or_else(|| otherwise.to_owned())
}

/// Returns why a pod without a started container waits: a container's reason
/// if it says more than that it is being made, else the scheduler's.
fn waiting(status: &RawPodStatus) -> Option<String> {
    let mut reasons = status
        .init_container_statuses
        .iter()
        .chain(&status.container_statuses)
        .filter_map(|container| container.state.waiting.as_ref()?.reason.clone());
    let unmet = status
        .conditions
        .iter()
        .find(|condition| condition.kind == "PodScheduled" && condition.status != "True")
        .map(|condition| {
            let reason = condition.reason.as_deref().unwrap_or("not scheduled");
            match condition.message.as_deref() {
                Some(message) => format!("{reason} ({message})"),
                None => reason.to_owned(),
            }
        });
    let first = reasons.next();
    match first.as_deref() {
        // The second container waits for the first, which knows why.
        Some("PodInitializing") => reasons.next().or(first),
        Some(_) => first,
        None => unmet.or_else(|| status.reason.clone()),
    }
}

fn finished_ns(status: &RawPodStatus) -> Option<u64> {
    status
        .init_container_statuses
        .iter()
        .chain(&status.container_statuses)
        .filter_map(|container| {
            let ended = container.state.terminated.as_ref()?;
            nanos(ended.finished_at.as_deref()?)
        })
        .max()
}

fn nanos(text: &str) -> Option<u64> {
    let time: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(time.as_nanosecond()).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(status: Value) -> Pod {
        let list = json!({"kind": "List", "items": [{
            "metadata": {"name": "p", "uid": "u", "ownerReferences": [{"kind": "Job", "name": "j"}]},
            "spec": {},
            "status": status,
        }]});
        let mut list = parse_pods(list.to_string().as_bytes()).expect("pods");
        list.pods.remove(0)
    }

    fn container(state: Value, last_state: Value) -> Container {
        let status =
            json!({"name": "c", "restartCount": 2, "state": state, "lastState": last_state});
        let pod = pod(json!({"phase": "Running", "containerStatuses": [status]}));
        pod.containers.into_iter().next().expect("one container")
    }

    #[test]
    fn a_container_has_a_log_once_it_has_started() {
        let none = json!({});
        let ended = json!({"terminated": {"exitCode": 3, "reason": "Error"}});
        let running = json!({"running": {"startedAt": "2026-11-23T20:00:00Z"}});
        let looping = json!({"waiting": {"reason": "CrashLoopBackOff"}});
        assert_eq!(container(none.clone(), none.clone()).log, Log::None);
        assert_eq!(container(looping.clone(), none.clone()).log, Log::None);
        assert_eq!(container(ended.clone(), none).log, Log::Ended);
        let waits = container(looping, ended.clone());
        assert_eq!(waits.log, Log::Ended);
        assert_eq!(waits.waiting.as_deref(), Some("CrashLoopBackOff"));
        let runs = container(running, ended);
        assert_eq!((runs.log, runs.restarts), (Log::Growing, 2));
        assert_eq!(runs.started_ns, Some(1_795_464_000_000_000_000));
        assert_eq!(runs.last_exit, Some((3, Some("Error".to_owned()))));
    }

    #[test]
    fn a_waiting_pod_says_why() {
        let waits =
            |reason: &str| json!({"name": reason, "state": {"waiting": {"reason": reason}}});
        for (status, expected) in [
            (
                json!({"containerStatuses": [waits("ContainerCreating")]}),
                Some("ContainerCreating"),
            ),
            (
                json!({
                    "initContainerStatuses": [waits("PodInitializing")],
                    "containerStatuses": [waits("ErrImagePull")],
                }),
                Some("ErrImagePull"),
            ),
            (
                json!({"conditions": [{
                    "type": "PodScheduled", "status": "False",
                    "reason": "Unschedulable", "message": "0/3 nodes",
                }]}),
                Some("Unschedulable (0/3 nodes)"),
            ),
            (json!({"reason": "NodeLost"}), Some("NodeLost")),
            (json!({}), None),
        ] {
            assert_eq!(pod(status.clone()).waiting.as_deref(), expected, "{status}");
        }
    }

    #[test]
    fn only_two_phases_are_final() {
        for (phase, terminal) in [
            ("Pending", false),
            ("Running", false),
            ("Unknown", false),
            ("", false),
            ("Succeeded", true),
            ("Failed", true),
        ] {
            let pod = pod(json!({"phase": phase}));
            assert_eq!(pod.is_terminal(), terminal, "{phase}");
            assert_eq!(pod.job.as_deref(), Some("j"));
        }
    }

    #[test]
    fn the_last_container_to_finish_gives_the_time() {
        let ended = |at: &str| json!({"name": at, "state": {"terminated": {"finishedAt": at}}});
        let pod = pod(json!({"phase": "Succeeded", "containerStatuses":
            [ended("2026-11-23T20:00:05Z"), ended("2026-11-23T20:00:01Z")]}));
        assert_eq!(pod.finished_ns, Some(1_795_464_005_000_000_000));
    }

    #[test]
    fn a_job_is_over_by_its_conditions_only() {
        for (status, expected) in [
            (json!({}), Job::Going),
            (json!({"failed": 1}), Job::Going),
            (
                json!({"conditions": [{"type": "Complete", "status": "True"}]}),
                Job::Complete,
            ),
            (
                json!({"conditions": [{"type": "Suspended", "status": "True"},
                {"type": "Failed", "status": "True"}]}),
                Job::Failed,
            ),
            (
                json!({"conditions": [{"type": "Failed", "status": "False"}]}),
                Job::Going,
            ),
        ] {
            let job = json!({"kind": "Job", "status": status});
            assert_eq!(
                parse_job(job.to_string().as_bytes()).expect("job"),
                expected
            );
        }
        assert!(parse_job(b"").is_err() && parse_pods(b"{}").is_err());
    }
}
