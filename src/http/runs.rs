//! `GET /api/v1/runs` and `GET /api/v1/runs/{run_id}`: what is known of runs.

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use runcast_actors::broker::{RunDetail, RunSummary};
use runcast_actors::protocol::{EventKind, RunId};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::HttpState;
use super::caller::Caller;
use super::problem::{ApiError, ProblemJson, json_answer};
use super::query::Pairs;
use super::run_path::RunPath;
use crate::auth::Kinds;

/// Runs this broker knows.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RunsJson {
    /// By run id.
    runs: Vec<RunJson>,
    /// What `after` is for the next page; `null` on the last one.
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
    /// Left out, as the others, if the token may not read the kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<u64>,
}

impl RunJson {
    /// Leaves out what only events of other kinds say; how a run ended, `end`
    /// says to everybody.
    pub(super) fn narrowed(mut self, kinds: Kinds) -> Self {
        if !(self.ended || kinds.has(EventKind::Status)) {
            self.status = None;
        }
        self
    }
}

impl RunDetailJson {
    fn narrowed(mut self, kinds: Kinds) -> Self {
        self.run = self.run.narrowed(kinds);
        let counts = &mut self.events;
        for (kind, count) in [
            (EventKind::Output, &mut counts.output),
            (EventKind::Status, &mut counts.status),
            (EventKind::Log, &mut counts.log),
        ] {
            if !kinds.has(kind) {
                *count = None;
            }
        }
        self
    }
}

/// Lists the runs this broker knows, by run id.
#[utoipa::path(
    get,
    path = "/api/v1/runs",
    tag = "runs",
    params(
        ("after" = Option<String>, Query, description = "The run id that the page begins after: next of the page before"),
        ("limit" = Option<usize>, Query, description = "Most runs of the page: 1 to 1000, default 100"),
    ),
    responses(
        (status = 200, description = "A page of runs", body = RunsJson),
        (status = 400, description = "Bad query value", content_type = "application/problem+json", body = ProblemJson<'_>),
        (status = 401, description = "No token, or one that does not count", content_type = "application/problem+json", body = ProblemJson<'_>),
    )
)]
pub(super) async fn runs(
    caller: Caller,
    request: HttpRequest,
    state: Data<HttpState>,
) -> Result<HttpResponse, ApiError> {
    let (after, limit) = page_of(&Pairs::parse(request.query_string()))?;
    let visible = |run_id: &RunId| caller.sees(run_id);
    let (runs, more) = state.broker.runs(after.as_ref(), limit, visible).await;
    let next = runs
        .last()
        .filter(|_| more)
        .map(|run| run.run_id.to_string());
    let kinds = caller.kinds();
    let runs = runs.into_iter().map(RunJson::from);
    let runs = runs.map(|run| run.narrowed(kinds)).collect();
    Ok(json_answer(&RunsJson { runs, next }))
}

fn page_of(query: &Pairs) -> Result<(Option<RunId>, usize), ApiError> {
    let after = query
        .get("after")
        .map(|text| RunId::parse(text).map_err(|_| ApiError::bad_query("after", text, "a run id")));
    Ok((after.transpose()?, query.page_size("limit")?))
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
        (status = 401, description = "No token, or one that does not count", content_type = "application/problem+json", body = ProblemJson<'_>),
        (status = 403, description = "For admins: the token has no right to this run", content_type = "application/problem+json", body = ProblemJson<'_>),
        (status = 404, description = "No such run, or none that the token may read", content_type = "application/problem+json", body = ProblemJson<'_>),
    )
)]
pub(super) async fn run(
    caller: Caller,
    RunPath(run_id): RunPath,
    state: Data<HttpState>,
) -> Result<HttpResponse, ApiError> {
    caller.may_read(&run_id)?;
    let detail = state.broker.run(&run_id).await;
    let detail = RunDetailJson::from(detail).narrowed(caller.kinds());
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
        let [output, status, log] = detail.events.map(Some);
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

#[cfg(test)]
mod tests {
    use runcast_actors::protocol::{BackendKind, Timestamp};

    use super::*;

    #[test]
    fn a_page_has_a_beginning_and_a_bound() {
        let page = |query| page_of(&Pairs::parse(query)).map_err(|error| error.to_string());
        assert_eq!(page(""), Ok((None, 100)));
        assert_eq!(
            page("after=42&limit=1000"),
            Ok((RunId::parse("42").ok(), 1000))
        );
        for query in ["after=..", "limit=0", "limit=1001", "limit=x", "limit=-1"] {
            assert!(page(query).is_err(), "{query}");
        }
    }

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
            last_durable: None,
            events: [5, 1, 0],
            plain_events: [0; 3],
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
