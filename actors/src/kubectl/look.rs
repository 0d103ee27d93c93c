//! [`PodLooks`]: one look at a run's pods, for whoever asks why it is quiet.

use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use super::engine::Cluster;
use super::pods::{Container, Phase, Pod};
use super::{Engine, FollowPermits, KubectlCounters};
use crate::protocol::RunId;
use crate::settings::KubectlSettings;

/// How long what was seen counts: a page may ask each second.
const SEEN_FOR: Duration = Duration::from_secs(3);

/// Most runs whose pods are remembered.
const RUNS_MAX: u64 = 1000;

/// Most looks at once, beside those of the runs that are followed; each may
/// be a process of about 50 MB. Who finds none free is told so.
const LOOKS_MAX: usize = 2;

/// How long one look may take: somebody waits for the answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// Most pods told of.
const PODS_TOLD: usize = 3;

/// Looks at pods, a few at once, and remembers for a moment
/// what it saw.
#[derive(Debug)]
pub(crate) struct PodLooks {
    seen: Cache<RunId, Arc<str>>,
    free: Semaphore,
    cluster: Cluster,
    /// Never told to: a look has its time, and ends with whoever asked.
    _stop: watch::Sender<bool>,
}

impl PodLooks {
    pub(crate) fn new(settings: &KubectlSettings, counters: Arc<KubectlCounters>) -> Self {
        let stop = watch::Sender::new(false);
        Self {
            seen: Cache::builder()
                .max_capacity(RUNS_MAX)
                .time_to_live(SEEN_FOR)
                .build(),
            free: Semaphore::new(LOOKS_MAX),
            cluster: Cluster {
                engine: Engine::new(settings.clone()),
                counters,
                permits: Arc::new(FollowPermits::new(0)),
                stop: stop.subscribe(),
            },
            _stop: stop,
        }
    }

    /// Says in plain words how the pods of `run_id` are. Those who ask for one
    /// run at one time share a look.
    pub(crate) async fn words(&self, run_id: &RunId) -> Arc<str> {
        let look = async { Arc::from(self.look(run_id).await) };
        self.seen.get_with_by_ref(run_id, look).await
    }

    async fn look(&self, run_id: &RunId) -> String {
        let Ok(_free) = self.free.try_acquire() else {
            return "its pods were not looked at, other looks are under way".to_owned();
        };
        match timeout(PATIENCE, self.cluster.pods(run_id)).await {
            Ok(Ok(list)) => words_of(&list.pods, &self.cluster.settings().selector_of(run_id)),
            Ok(Err(failure)) => {
                format!("its pods cannot be seen: {}", failure.problem().detail)
            }
            Err(_) => "its pods cannot be seen: the cluster did not answer in time".to_owned(),
        }
    }
}

/// Says how a run's pods are.
fn words_of(pods: &[Pod], selector: &str) -> String {
    if pods.is_empty() {
        return format!("no pod has the label {selector}");
    }
    let mut told: Vec<String> = pods.iter().take(PODS_TOLD).map(pod_words).collect();
    if let Some(more) = pods.len().checked_sub(PODS_TOLD).filter(|more| *more > 0) {
        told.push(format!("{more} more"));
    }
    told.join("; ")
}

fn pod_words(pod: &Pod) -> String {
    let phase = match pod.phase {
        Phase::Pending => "Pending",
        Phase::Running => "Running",
        Phase::Succeeded => "Succeeded",
        Phase::Failed => "Failed",
        Phase::Unknown => "Unknown (its node does not answer)",
    };
    let mut words = format!("pod {} is {phase}", pod.name);
    let mut about: Vec<String> = pod.containers.iter().filter_map(container_words).collect();
    if about.is_empty() {
        about.extend(pod.waiting.clone());
    }
    if !about.is_empty() {
        words.push_str(": ");
        words.push_str(&about.join(", "));
    }
    words
}

/// What is worth telling of a container: that it waits, failed or was
/// restarted.
fn container_words(container: &Container) -> Option<String> {
    let name = &container.name;
    let failed = |exit: &Option<(i64, Option<String>)>| {
        let (code, reason) = exit.as_ref().filter(|(code, _)| *code != 0)?;
        let reason = reason.as_deref().filter(|reason| *reason != "Error");
        Some(match reason {
            Some(reason) => format!("{reason} (exit code {code})"),
            None => format!("exit code {code}"),
        })
    };
    let exit = failed(&container.exit);
    match (&container.waiting, exit) {
        (Some(waiting), Some(exit)) => Some(format!("{name} {waiting}, last {exit}")),
        (Some(waiting), None) => Some(format!("{name} {waiting}")),
        (None, Some(exit)) => Some(format!("{name} {exit}")),
        (None, None) if container.restarts > 0 => Some(match failed(&container.last_exit) {
            Some(exit) => format!("{name} restarted {} times, last {exit}", container.restarts),
            None => format!("{name} restarted {} times", container.restarts),
        }),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kubectl::pods::parse_pods;

    fn words(status: Value) -> String {
        let list =
            json!({"kind": "List", "items": [{"metadata": {"name": "p"}, "status": status}]});
        let list = parse_pods(list.to_string().as_bytes()).expect("pods");
        words_of(&list.pods, "run-id=42")
    }

    fn container(state: Value, last_state: Value) -> Value {
        json!([{"name": "c", "restartCount": 2, "state": state, "lastState": last_state}])
    }

    #[test]
    fn trouble_is_named() {
        let oom = json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}});
        let error = json!({"terminated": {"exitCode": 1, "reason": "Error"}});
        let running = json!({"running": {"startedAt": "2026-11-23T20:00:00Z"}});
        let waits = |reason| json!({"waiting": {"reason": reason}});
        let unscheduled = json!([{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}]);
        for (status, expected) in [
            (
                json!({"phase": "Pending", "conditions": unscheduled}),
                "pod p is Pending: Unschedulable (0/1 nodes)",
            ),
            (
                json!({"phase": "Pending", "containerStatuses": container(waits("ImagePullBackOff"), json!({}))}),
                "pod p is Pending: c ImagePullBackOff",
            ),
            (
                json!({"phase": "Running", "containerStatuses": container(waits("CrashLoopBackOff"), error)}),
                "pod p is Running: c CrashLoopBackOff, last exit code 1",
            ),
            (
                json!({"phase": "Running", "containerStatuses": container(running, oom.clone())}),
                "pod p is Running: c restarted 2 times, last OOMKilled (exit code 137)",
            ),
            (
                json!({"phase": "Failed", "containerStatuses": container(oom, json!({}))}),
                "pod p is Failed: c OOMKilled (exit code 137)",
            ),
            (
                json!({"phase": "Failed", "reason": "Evicted"}),
                "pod p is Failed: Evicted",
            ),
            (json!({"phase": "Succeeded"}), "pod p is Succeeded"),
        ] {
            assert_eq!(words(status), expected);
        }
        assert_eq!(words_of(&[], "run-id=42"), "no pod has the label run-id=42");
    }
}
