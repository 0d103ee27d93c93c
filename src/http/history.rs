//! `GET /api/v1/runs/{run_id}/events`: pages of a run's history.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};

use actix_web::body::{BodySize, MessageBody};
use actix_web::http::header::{self, ContentType};
use actix_web::web::{self, Data};
use actix_web::{HttpRequest, HttpResponse};
use bytes::Bytes;
use runcast_actors::history::{HistoryEvent, HistoryFrom, HistoryPage, HistoryQuery};
use runcast_actors::protocol::{Cursor, LogLevel, Problem, RunId};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::HttpState;
use super::caller::Caller;
use super::problem::{ApiError, ProblemJson};
use super::query::Pairs;
use super::run_path::RunPath;
use super::stream_query::{BackendChoice, filter, parse_backend};

/// What a cursor in a query may be, for its error.
const CURSOR_ALLOWED: &str = "the id of an event, or next or previous of a page";

/// Bytes of an answer handed to the connection at once.
const PIECE_BYTES: usize = 16 * 1024;

/// Bounds the pages being read or sent at once: each holds up to a megabyte
/// read and as much again written.
#[derive(Debug, Default)]
pub(super) struct HistoryReads {
    open: Arc<AtomicUsize>,
}

/// One of them; it is given back when this is dropped.
#[derive(Debug)]
struct HistoryRead(Arc<AtomicUsize>);

impl Drop for HistoryRead {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// A page larger than this is made JSON on a thread of its own: a whole one
/// takes milliseconds.
const SMALL_BYTES: usize = 32 * 1024;

impl HistoryReads {
    /// Returns how many are under way.
    pub(super) fn count(&self) -> usize {
        self.open.load(Relaxed)
    }

    /// Admits one more, if there are fewer than `max`.
    fn take(&self, max: usize) -> Option<HistoryRead> {
        let read = HistoryRead(Arc::clone(&self.open));
        let others = self.open.fetch_add(1, Relaxed);
        (others < max).then_some(read)
    }
}

/// A page on its way to its client; a slow one keeps its place among the reads
/// until the last piece is taken.
struct PageBody {
    json: Bytes,
    _read: HistoryRead,
}

impl MessageBody for PageBody {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.json.len() as u64)
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Infallible>>> {
        let piece = self.json.len().min(PIECE_BYTES);
        let piece = self.json.split_to(piece);
        Poll::Ready((!piece.is_empty()).then_some(Ok(piece)))
    }
}

/// A page of a run's durable events.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct HistoryJson {
    /// Oldest first, whichever the direction.
    events: Vec<HistoryEventJson>,
    /// What `after` is for the page that follows; `null` if nothing more is
    /// kept now.
    next: Option<String>,
    /// What `before` is for the page before it; `null` if nothing older is
    /// kept.
    previous: Option<String>,
    /// What is missing between the cursor and the page, as the data of a `gap`
    /// event; `null` if nothing is.
    #[schema(value_type = Option<Object>)]
    gap: Option<Box<RawValue>>,
}

/// What a stream would send as one frame.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct HistoryEventJson {
    /// `output`, `status`, `log`, or `gap` where events are missing in between.
    #[schema(example = "output")]
    event: &'static str,
    /// `null` for a gap.
    id: Option<String>,
    /// As on the stream.
    #[schema(value_type = Object)]
    data: Box<RawValue>,
}

/// Reads a page of a run's history, forwards or backwards.
#[utoipa::path(
    get,
    path = "/api/v1/runs/{run_id}/events",
    tag = "runs",
    params(
        ("run_id" = String, Path, description = "The run", max_length = 128),
        ("after" = Option<String>, Query, description = "The oldest events after this id, or next of a page; without after and before, the oldest kept"),
        ("before" = Option<String>, Query, description = "The newest events before this id, or previous of a page"),
        ("limit" = Option<usize>, Query, description = "Most events of the page: 1 to 1000, default 100"),
        ("kinds" = Option<String>, Query, description = "Comma-separated: output, status, log; default all"),
        ("sources" = Option<String>, Query, description = "Comma-separated sources; default all"),
        ("log_level" = Option<String>, Query, description = "Least level of log events: trace, debug, info, warn, error, fatal"),
    ),
    responses(
        (status = 200, description = "A page; empty for a run never seen", body = HistoryJson),
        (status = 400, description = "Bad run id or query value, or both after and before", content_type = "application/problem+json", body = ProblemJson<'_>),
        (status = 401, description = "No token, or one that does not count", content_type = "application/problem+json", body = ProblemJson<'_>),
        (status = 403, description = "The token may read none of these kinds; for admins, not this run", content_type = "application/problem+json", body = ProblemJson<'_>),
        (status = 404, description = "backend=kubectl, which has no history; no such run, or none that the token may read", content_type = "application/problem+json", body = ProblemJson<'_>),
        (status = 503, description = "The store is unavailable, or too many pages are being read", content_type = "application/problem+json", body = ProblemJson<'_>),
    )
)]
pub(super) async fn history(
    caller: Caller,
    RunPath(run_id): RunPath,
    request: HttpRequest,
    state: Data<HttpState>,
) -> Result<HttpResponse, ApiError> {
    caller.may_read(&run_id)?;
    let log_level = state.broker.live().streaming.log_level;
    let mut query = query_of(run_id, &Pairs::parse(request.query_string()), log_level)?;
    caller.narrow(&mut query.filter)?;
    let max = state.broker.live().limits.history_reads;
    let Some(read) = state.history_reads.take(max) else {
        state.metrics.history_refused.inc();
        return Err(too_many_reads(max));
    };
    let page = state.broker.history(&query).await?;
    let json = match page.bytes() > SMALL_BYTES {
        // The streams of this worker wait meanwhile.
        true => web::block(move || page_json(page))
            .await
            .map_err(|_| shutting_down())?,
        false => page_json(page),
    };
    Ok(HttpResponse::Ok()
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header(ContentType::json())
        .body(PageBody {
            json: json.into(),
            _read: read,
        }))
}

/// The threads of the process are ending.
fn shutting_down() -> Problem {
    let detail = "this broker is shutting down; ask again to reach another";
    Problem::new(503, "draining", "Shutting down", detail)
}

fn page_json(page: HistoryPage) -> Vec<u8> {
    let page = HistoryJson::from(page);
    serde_json::to_vec(&page).expect("our answers have only text keys")
}

fn too_many_reads(max: usize) -> ApiError {
    let detail = format!(
        "this broker reads its limit of {max} pages of history (limits.history_reads) at once; try again"
    );
    Problem::new(503, "too-many-reads", "Too many reads", detail).into()
}

fn query_of(run_id: RunId, pairs: &Pairs, log_level: LogLevel) -> Result<HistoryQuery, ApiError> {
    if pairs.get("backend").map(parse_backend).transpose()? == Some(BackendChoice::Kubectl) {
        let detail = "kubectl has no history here; its stream begins with all that the pods' logs hold: use /stream/kubectl";
        return Err(Problem::new(404, "no-history", "No history", detail).into());
    }
    let from = match (cursor(pairs, "after")?, cursor(pairs, "before")?) {
        (None, None) => HistoryFrom::Oldest,
        (Some(cursor), None) => HistoryFrom::After(cursor),
        (None, Some(cursor)) => HistoryFrom::Before(cursor),
        (Some(_), Some(before)) => {
            let allowed = "given together with after; a page has one edge";
            return Err(ApiError::bad_query("before", &before.to_string(), allowed));
        }
    };
    Ok(HistoryQuery {
        run_id,
        from,
        limit: pairs.page_size("limit")?,
        filter: filter(pairs, log_level)?,
    })
}

fn cursor(pairs: &Pairs, key: &'static str) -> Result<Option<Cursor>, ApiError> {
    let parse = |text: &str| {
        text.parse()
            .map_err(|_| ApiError::bad_query(key, text, CURSOR_ALLOWED))
    };
    pairs.get(key).map(parse).transpose()
}

impl From<HistoryPage> for HistoryJson {
    fn from(page: HistoryPage) -> Self {
        Self {
            events: page
                .events
                .into_iter()
                .map(HistoryEventJson::from)
                .collect(),
            next: page.next,
            previous: page.previous,
            gap: page.gap.map(raw),
        }
    }
}

impl From<HistoryEvent> for HistoryEventJson {
    fn from(event: HistoryEvent) -> Self {
        Self {
            event: event.event,
            id: event.id.map(|id| id.to_string()),
            data: raw(event.data),
        }
    }
}

fn raw(json: String) -> Box<RawValue> {
    RawValue::from_string(json).expect("the data of a frame is JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "1795464000123-7-1795464000123456";

    fn parse(query: &str) -> Result<HistoryQuery, String> {
        let run_id = RunId::parse("42").expect("valid");
        query_of(run_id, &Pairs::parse(query), LogLevel::Info).map_err(|error| error.to_string())
    }

    #[test]
    fn a_page_has_at_most_one_edge() {
        let cursor: Cursor = ID.parse().expect("an id");
        for (query, from) in [
            ("", HistoryFrom::Oldest),
            ("after=&before=&backend=redis", HistoryFrom::Oldest),
            (&format!("after={ID}"), HistoryFrom::After(cursor.clone())),
            (&format!("before={ID}"), HistoryFrom::Before(cursor)),
        ] {
            let parsed = parse(query).expect("valid");
            assert_eq!((parsed.from, parsed.limit), (from, 100));
        }
    }

    #[test]
    fn bad_values_are_named() {
        let both = format!("after={ID}&before={ID}");
        for (query, part) in [
            ("after=x", "\"after\" cannot be \"x\""),
            ("before=1-2", "\"before\" cannot be \"1-2\""),
            (both.as_str(), "together with after"),
            ("limit=0", "1 to 1000"),
            ("limit=1001", "1 to 1000"),
            ("kinds=x", "output, status and log"),
            ("backend=kubectl", "no-history"),
            ("backend=files", "redis, kubectl or auto"),
        ] {
            let error = parse(query).expect_err(query);
            assert!(error.contains(part), "{error}");
        }
    }
}
