//! `GET /api/v1/runs/{run_id}/explain`: why a run is as it is, in plain words.

use actix_web::HttpResponse;
use actix_web::web::Data;
use runcast_actors::broker::{HubState, RunExplanation, StoredRun};
use runcast_actors::protocol::{BackendKind, EventKind, RunId};
use runcast_actors::settings::DefaultBackend;
use serde::Serialize;
use utoipa::ToSchema;

use super::HttpState;
use super::backend_choice::Backends;
use super::caller::Caller;
use super::health::{DependencyJson, dependency};
use super::problem::{ApiError, ProblemJson, json_answer};
use super::run_path::RunPath;

/// Why a run is as it is.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ExplanationJson {
    run_id: String,
    /// What bare `/stream` would give now; `null` if it would be refused.
    backend: Option<&'static str>,
    /// All of it in sentences, what matters most first.
    says: Vec<String>,
    /// What can be done about it; empty if nothing is wrong.
    #[serde(rename = "do")]
    to_do: Vec<String>,
    /// Why nothing comes, as the run's own route says it.
    quiet_because: String,
    /// `null` on an embedded broker.
    redis: Option<DependencyJson>,
    /// `null` for a run the store does not know.
    store: Option<StoredRunJson>,
    /// Why the store does not say.
    store_error: Option<String>,
    /// The run's hubs on this broker, one for a backend.
    hubs: Vec<HubJson>,
    /// How its pods are; `null` without kubectl.
    pods: Option<String>,
}

/// A run as its store holds it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StoredRunJson {
    epoch: u64,
    first_id: Option<String>,
    last_id: Option<String>,
    /// Events accepted in this epoch.
    accepted: u64,
    /// Those of them that are kept.
    kept: u64,
    /// Since when it is over.
    closed_at: Option<String>,
}

/// A run's hub on one backend.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct HubJson {
    backend: &'static str,
    /// Streams open on this broker.
    clients: u64,
    /// Bytes of its ring.
    ring_bytes: u64,
    last_id: Option<String>,
    /// Events that the store has and the hub has not.
    behind: Option<u64>,
}

/// Explains one run on this broker: its backend, its store, its hubs, its pods,
/// its gaps, and what to do.
#[utoipa::path(
    get,
    path = "/api/v1/runs/{run_id}/explain",
    tag = "runs",
    params(("run_id" = String, Path, description = "The run", max_length = 128)),
    responses(
        (status = 200, description = "The explanation; also of a run never seen", body = ExplanationJson),
        (status = 400, description = "Bad run id", content_type = "application/problem+json", body = ProblemJson<'_>),
        (status = 401, description = "No token, or one that does not count", content_type = "application/problem+json", body = ProblemJson<'_>),
        (status = 403, description = "For admins: the token has no right to this run", content_type = "application/problem+json", body = ProblemJson<'_>),
        (status = 404, description = "No such run, or none that the token may read", content_type = "application/problem+json", body = ProblemJson<'_>),
    )
)]
pub(super) async fn explain(
    caller: Caller,
    RunPath(run_id): RunPath,
    state: Data<HttpState>,
) -> Result<HttpResponse, ApiError> {
    caller.may_read(&run_id)?;
    let backends = state.backends();
    let choice = backends.choose(None, &run_id);
    let mut known = state.broker.explain(&run_id).await;
    // How a run goes is told by its statuses alone; its end by `end`, too.
    if !(known.run.summary.ended || caller.kinds().has(EventKind::Status)) {
        known.run.summary.status = None;
    }
    let words = Words::of(&run_id, &known, backends, choice.as_ref().ok().copied());
    Ok(json_answer(&ExplanationJson {
        run_id: run_id.to_string(),
        backend: choice.ok().map(BackendKind::as_str),
        says: words.says,
        to_do: words.to_do,
        quiet_because: known.run.quiet_because,
        redis: known
            .redis
            .map(|redis| dependency("redis", redis, &state.broker)),
        store_error: known.store.as_ref().err().cloned(),
        store: known.store.ok().flatten().map(StoredRunJson::from),
        hubs: known.hubs.into_iter().map(HubJson::from).collect(),
        pods: known.pods,
    }))
}

/// What is said of a run.
#[derive(Debug, Default)]
struct Words {
    says: Vec<String>,
    to_do: Vec<String>,
}

impl Words {
    fn of(
        run_id: &RunId,
        known: &RunExplanation,
        backends: Backends,
        backend: Option<BackendKind>,
    ) -> Self {
        let mut words = Self::default();
        words.quiet(known);
        words.backend(run_id, backends, backend);
        words.redis(known);
        words.store(known);
        words.hubs(known);
        if let Some(pods) = &known.pods {
            words.says.push(format!("Pods: {pods}."));
        }
        words.gaps(known);
        words
    }

    fn say(&mut self, sentence: impl Into<String>) {
        self.says.push(sentence.into());
    }

    fn advise(&mut self, sentence: impl Into<String>) {
        self.to_do.push(sentence.into());
    }

    fn quiet(&mut self, known: &RunExplanation) {
        let run = &known.run.summary;
        if run.ended {
            let status = run.status.as_deref().unwrap_or("unknown");
            self.say(format!(
                "The run is over: {status}. Its streams get what is kept, and end."
            ));
            return;
        }
        let because = &known.run.quiet_because;
        match because.strip_prefix("it is not: ") {
            Some(rest) => self.say(format!("It is not quiet: {rest}.")),
            None => self.say(format!("Why it is quiet: {because}.")),
        }
        if run.last_event_ts.is_none() {
            self.advise(
                "See that the publisher uses this very run id, the Redis of this broker, and \
                 redis.channel_prefix: PUBLISH run:<id>:output:stdout reaches it.",
            );
        }
    }

    fn backend(&mut self, run_id: &RunId, backends: Backends, backend: Option<BackendKind>) {
        let Some(backend) = backend else {
            self.say(format!(
                "Bare /stream is refused: streaming.default_backend is kubectl, which is switched \
                 off or cannot select the run id {run_id}."
            ));
            return self.advise("Ask for /stream/redis.");
        };
        let why = match backends.default {
            DefaultBackend::Auto => "that is Redis, and the pods' logs while Redis is of no use",
            _ => "streaming.default_backend says so",
        };
        self.say(format!(
            "Bare /stream serves it from {}: {why}.",
            backend.as_str()
        ));
    }

    fn redis(&mut self, known: &RunExplanation) {
        let Some(redis) = known.redis.as_ref().filter(|redis| !redis.up) else {
            return;
        };
        let error = redis.error.as_deref().unwrap_or("no reason known");
        self.say(format!(
            "The subscription to Redis is down since {}: {error}. Open streams wait; durable events \
             come when it is back.",
            redis.since
        ));
        self.advise(
            "runcast check, where the broker runs, says what Redis does not allow or answer.",
        );
    }

    fn store(&mut self, known: &RunExplanation) {
        let stored = match &known.store {
            Err(error) => return self.say(format!("What is kept of it is not known: {error}.")),
            Ok(None) => {
                self.say(
                    "The store keeps nothing of it: it was never published durably, or its history \
                     has expired (history.ttl). A plain PUBLISH is live only.",
                );
                return match known.records_plain {
                    true => {}
                    false => self.advise(
                        "For a history, publish durably (runcast publish, FCALL runcast_publish, \
                         POST), or set history.record_plain = true.",
                    ),
                };
            }
            Ok(Some(stored)) => stored,
        };
        let StoredRun { accepted, kept, .. } = stored;
        self.say(format!(
            "The store has accepted {accepted} events in this epoch and keeps the newest {kept}, up \
             to {}.",
            stored.last
        ));
        if stored.kept < stored.accepted {
            self.say(
                "Older ones were trimmed (history.max_events, history.max_bytes_per_run): who was \
                 away for them gets a gap with reason trimmed.",
            );
        }
        if let Some((status, at)) = stored.closed.as_ref().filter(|_| !known.run.summary.ended) {
            self.say(format!(
                "A terminal status ({status}) was accepted at {at}; late output is taken for \
                 runs.end_grace, then end is sent."
            ));
        }
    }

    fn hubs(&mut self, known: &RunExplanation) {
        if known.hubs.is_empty() {
            return self.say("Nobody follows it on this broker, and it is not in its memory.");
        }
        for hub in &known.hubs {
            let (clients, bytes) = (hub.clients, hub.ring_bytes);
            self.say(format!(
                "On {} {clients} streams follow it here, with {bytes} bytes in memory.",
                hub.backend.as_str()
            ));
            if let Some(behind) = hub.behind.filter(|behind| *behind > 0) {
                self.say(format!(
                    "This broker is {behind} events behind the store; it compares every \
                     redis.check_interval and reads what is missing."
                ));
            }
            if hub.backend == BackendKind::Kubectl {
                self.say(format!("As kubectl sees it: {}.", hub.quiet_because));
            }
        }
    }

    fn gaps(&mut self, known: &RunExplanation) {
        // Each reason once, the newest first.
        let mut told = Vec::new();
        for gap in known.run.gaps.iter().rev() {
            let Ok(gap) = serde_json::from_str::<serde_json::Value>(gap) else {
                continue;
            };
            let Some(reason) = gap["reason"].as_str().map(str::to_owned) else {
                continue;
            };
            if told.contains(&reason) {
                continue;
            }
            let missed = match gap["missed"].as_u64() {
                Some(missed) => format!("{missed} events are missing"),
                None => "events may be missing".to_owned(),
            };
            let (why, advice) = gap_words(&reason);
            self.say(format!("A gap ({reason}): {missed}, because {why}."));
            if let Some(advice) = advice {
                self.advise(advice);
            }
            told.push(reason);
        }
    }
}

/// Why there is a gap, and what keeps the next one away.
fn gap_words(reason: &str) -> (&'static str, Option<&'static str>) {
    match reason {
        "trimmed" => (
            "they were older than what is kept",
            Some("Raise history.max_events or history.max_bytes_per_run."),
        ),
        "expired" => ("the run began anew", None),
        "disconnected" => (
            "the subscription to Redis was lost for a while",
            Some("Publish durably: such events are read again after an outage."),
        ),
        "restarted" => ("the broker that knew them is gone", None),
        "slow_client" => (
            "the client was slower than what is kept",
            Some("Publish durably, or raise hub.ring_bytes."),
        ),
        "too_large" => (
            "an event was larger than limits.max_event_bytes",
            Some("Publish smaller events, or raise limits.max_event_bytes."),
        ),
        "rewound" => (
            "Redis lost its newest entries in a failover",
            Some("See Redis' appendfsync and min-replicas-to-write."),
        ),
        "producer" => ("the publisher's own numbers jumped", None),
        "bad_cursor" => ("a client came back with a cursor of something else", None),
        "overflow" => (
            "a queue of this broker was full",
            Some("See the alert RuncastQueueFull in docs/operations.md."),
        ),
        _ => ("of a reason that this version does not know", None),
    }
}

impl From<StoredRun> for StoredRunJson {
    fn from(run: StoredRun) -> Self {
        Self {
            epoch: run.last.epoch,
            first_id: run.first.map(|id| id.to_string()),
            last_id: (run.last.seq > 0).then(|| run.last.to_string()),
            accepted: run.accepted,
            kept: run.kept,
            closed_at: run.closed.map(|(_, at)| at.to_string()),
        }
    }
}

impl From<HubState> for HubJson {
    fn from(hub: HubState) -> Self {
        Self {
            backend: hub.backend.as_str(),
            clients: hub.clients,
            ring_bytes: hub.ring_bytes,
            last_id: hub.last_id,
            behind: hub.behind,
        }
    }
}

#[cfg(test)]
mod tests {
    use runcast_actors::protocol::GapReason;

    use super::*;

    #[test]
    fn every_reason_of_a_gap_has_words() {
        for reason in GapReason::ALL {
            let (why, _) = gap_words(reason.as_str());
            assert!(!why.contains("does not know"), "{reason}");
        }
    }
}
