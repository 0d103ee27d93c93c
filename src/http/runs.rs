//! `GET /api/v1/runs` and `GET /api/v1/runs/{run_id}`: what is known of runs.

use std::cmp::Reverse;

use actix_web::HttpResponse;
use actix_web::web::Data;
use runcast_actors::broker::{RunDetail, RunSummary};
use runcast_actors::protocol::{BackendKind, RunId};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::HttpState;
use super::problem::{ApiError, ProblemJson, json_answer};
use super::run_path::RunPath;

/// Runs this broker knows.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RunsJson {
    /// The run with the newest event first.
    runs: Vec<RunJson>,
    /// Cursor of the next page; `null` on the last one.
    next: Option<String>,
}

/// One run in short.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RunJson {
    run_id: String,
    /// `redis`, `kubectl` or `embedded`.
    backend: &'static str,
    /// Its last status in short; `null` before any.
    status: Option<String>,
    /// Whether `end` was sent.
    ended: bool,
    /// Streams open on this broker.
    clients: u64,
    /// Time of its last event.
    last_event_ts: Option<String>,
    /// Id of its last event.
    last_id: Option<String>,
}

/// One run at length.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RunDetailJson {
    #[serde(flatten)]
    run: RunJson,
    /// Id of the oldest event kept.
    first_id: Option<String>,
    /// Of a run with durable events: when it began, in ms; a restart changes it.
    epoch: Option<u64>,
    /// Events seen, by kind.
    events: EventCountsJson,
    /// The newest gaps, as the data of their `gap` events, oldest first.
    #[schema(value_type = Vec<Object>)]
    gaps: Vec<Box<RawValue>>,
    /// Why nothing comes, in plain words.
    quiet_because: String,
}

/// Events by kind.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(super) struct EventCountsJson {
    output: u64,
    status: u64,
    log: u64,
}

/// Lists the runs this broker knows.
#[utoipa::path(
    get,
    path = "/api/v1/runs",
    tag = "runs",
    responses((status = 200, description = "The runs", body = RunsJson))
)]
pub(super) async fn runs(state: Data<HttpState>) -> HttpResponse {
    let mut runs = state.broker.runs().await;
    runs.sort_by(|a, b| {
        let key = |run: &RunSummary| Reverse(run.last_event_ts);
        key(a).cmp(&key(b)).then_with(|| a.run_id.cmp(&b.run_id))
    });
    json_answer(&RunsJson {
        runs: runs.into_iter().map(RunJson::from).collect(),
        next: None,
    })
}

/// Tells what is known of one run; also of a run never seen.
#[utoipa::path(
    get,
    path = "/api/v1/runs/{run_id}",
    tag = "runs",
    params(("run_id" = String, Path, description = "The run", max_length = 128)),
    responses(
        (status = 200, description = "The run; status null if it was never seen", body = RunDetailJson),
        (status = 400, description = "Bad run id", content_type = "application/problem+json", body = ProblemJson<'_>),
    )
)]
pub(super) async fn run(
    RunPath(run_id): RunPath,
    state: Data<HttpState>,
) -> Result<HttpResponse, ApiError> {
    let detail = match state.broker.run(&run_id).await {
        Some(detail) => RunDetailJson::from(detail),
        None => RunDetailJson::never_seen(&run_id, state.backends().bare()),
    };
    Ok(json_answer(&detail))
}

impl From<RunSummary> for RunJson {
    fn from(run: RunSummary) -> Self {
        Self {
            run_id: run.run_id.to_string(),
            backend: run.backend.as_str(),
            status: run.status,
            ended: run.ended,
            clients: run.clients,
            last_event_ts: run.last_event_ts.map(|ts| ts.to_string()),
            last_id: run.last_id,
        }
    }
}

impl From<RunDetail> for RunDetailJson {
    fn from(detail: RunDetail) -> Self {
        let [output, status, log] = detail.events;
        Self {
            run: detail.summary.into(),
            first_id: detail.first_id,
            epoch: detail.epoch,
            events: EventCountsJson {
                output,
                status,
                log,
            },
            // What is no JSON is not ours; leaving it out keeps the answer whole.
            gaps: detail
                .gaps
                .into_iter()
                .filter_map(|gap| RawValue::from_string(gap).ok())
                .collect(),
            quiet_because: detail.quiet_because,
        }
    }
}

impl RunDetailJson {
    fn never_seen(run_id: &RunId, backend: BackendKind) -> Self {
        Self {
            run: RunJson {
                run_id: run_id.to_string(),
                backend: backend.as_str(),
                status: None,
                ended: false,
                clients: 0,
                last_event_ts: None,
                last_id: None,
            },
            first_id: None,
            epoch: None,
            events: EventCountsJson::default(),
            gaps: Vec::new(),
            quiet_because: "this broker has seen no event and no client of this run".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use runcast_actors::protocol::Timestamp;

    use super::*;

    #[test]
    fn a_run_is_told_in_the_shape_of_the_contract() {
        let detail = RunDetail {
            summary: RunSummary {
                run_id: RunId::parse("42").expect("valid"),
                backend: BackendKind::Redis,
                status: Some("running".to_owned()),
                ended: false,
                clients: 2,
                last_event_ts: Some(Timestamp::from_micros(1_795_464_000_123_456)),
                last_id: Some("1-2-3".to_owned()),
            },
            first_id: Some("1-1-1".to_owned()),
            epoch: Some(1),
            events: [5, 1, 0],
            gaps: vec![
                r#"{"after":null,"before":null,"missed":12345678901234567890,"reason":"trimmed"}"#
                    .to_owned(),
            ],
            quiet_because: "it is not quiet".to_owned(),
        };
        let json = serde_json::to_string(&RunDetailJson::from(detail)).expect("JSON");
        assert_eq!(
            json,
            r#"{"run_id":"42","backend":"redis","status":"running","ended":false,"clients":2,"last_event_ts":"2026-11-23T20:00:00.123Z","last_id":"1-2-3","first_id":"1-1-1","epoch":1,"events":{"output":5,"status":1,"log":0},"gaps":[{"after":null,"before":null,"missed":12345678901234567890,"reason":"trimmed"}],"quiet_because":"it is not quiet"}"#
        );
    }
}
