//! `GET /api/v1/runs/{run_id}/stream`, and with a backend named in the path.

use actix_web::body;
use actix_web::http::header::{self, HeaderName};
use actix_web::http::{Method, Version};
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder};
use runcast_actors::broker::{StreamAnswer, StreamRequest};
use runcast_actors::protocol::BackendKind;
use runcast_actors::session::{CloseReason, StreamBody};
use utoipa::ToSchema;

use super::Gate;
use super::HttpState;
use super::caller::Follower;
use super::connection::{ConnectionHandle, HandedOver};
use super::problem::{ApiError, ProblemJson};
use super::run_path::RunPath;
use super::stream_query::{BackendChoice, StreamQuery};
use super::stream_writer::Framing;

/// Names the backend that serves a stream.
pub(super) const X_STREAMING_BACKEND: &str = "X-Streaming-Backend";

/// Holds back nothing: without it nginx gathers events until the end.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Header a reconnecting EventSource sends.
const LAST_EVENT_ID: &str = "Last-Event-ID";

/// Temporary trouble is a status only for a client that wants no stream.
const FOR_NOW: &str = "The stream cannot begin for now. Only if `Accept` leaves out text/event-stream; else 200 with retry, problem and goodbye";
const TOO_MANY: &str = "This address or subject has too many streams open. Told as a 503 is";

/// One event of a stream, of which the body is a sequence.
#[derive(ToSchema)]
#[allow(dead_code, reason = "it describes what the broker writes")]
struct StreamEvent {
    /// What it is; a block with `retry` alone has none.
    #[schema(
        pattern = "^(output|status|log|hello|heartbeat|cursor|gap|source|problem|goodbye|end)$"
    )]
    event: Option<String>,
    /// One line of JSON, as docs/protocol.md says for each event.
    #[schema(content_media_type = "application/json")]
    data: Option<String>,
    /// Of what changes a client's position: where it goes on after it.
    id: Option<String>,
    /// Milliseconds to wait before coming back.
    retry: Option<u32>,
}

/// Streams a run from the default backend.
#[utoipa::path(
    get,
    path = "/api/v1/runs/{run_id}/stream",
    tag = "stream",
    params(
        ("run_id" = String, Path, description = "1–128 of A-Z a-z 0-9 . _ -, first and last alphanumeric", max_length = 128),
        ("kinds" = Option<String>, Query, description = "Comma-separated: output, status, log; default all"),
        ("sources" = Option<String>, Query, description = "Comma-separated sources; default all"),
        ("log_level" = Option<String>, Query, description = "Least level of log events: trace, debug, info, warn, error, fatal"),
        ("from" = Option<String>, Query, description = "start (default), now, -N, or the id of an event"),
        ("last_event_id" = Option<String>, Query, description = "As the Last-Event-ID header, which wins"),
        ("lastEventId" = Option<String>, Query, description = "The same in the spelling of EventSource polyfills"),
        ("backend" = Option<String>, Query, description = "redis, kubectl or auto"),
        ("ticket" = Option<String>, Query, description = "A ticket of POST /api/v1/tickets, in place of a token"),
        ("Last-Event-ID" = Option<String>, Header, description = "Id of the last event seen"),
    ),
    responses(
        (status = 200, description = "Server-Sent Events, see docs/protocol.md", content_type = "text/event-stream", body = StreamEvent,
         headers(("X-Streaming-Backend" = String, description = "redis, kubectl or embedded"))),
        (status = 204, description = "The client has seen the run's end; do not come back"),
        (status = 400, description = "Bad run id or query value", content_type = "application/problem+json", body = ProblemJson<'_>),
        (status = 401, description = "No token, or one that does not count", content_type = "application/problem+json", body = ProblemJson<'_>),
        (status = 403, description = "The token may read none of these kinds; for admins, not this run", content_type = "application/problem+json", body = ProblemJson<'_>),
        (status = 404, description = "The backend is switched off; no such run, or none that the token may read", content_type = "application/problem+json", body = ProblemJson<'_>),
        (status = 429, description = TOO_MANY, content_type = "application/problem+json", body = ProblemJson<'_>),
        (status = 503, description = FOR_NOW, content_type = "application/problem+json", body = ProblemJson<'_>),
    )
)]
pub(super) async fn stream(
    caller: Result<Follower, ApiError>,
    run: RunPath,
    request: HttpRequest,
    state: Data<HttpState>,
) -> Result<HttpResponse, ApiError> {
    let query = parse_query(&request, &state)?;
    let backend = query.backend;
    open(caller, run, query, backend, &request, &state).await
}

/// Streams a run from Redis, or from the embedded store where there is none.
#[utoipa::path(
    get,
    path = "/api/v1/runs/{run_id}/stream/redis",
    tag = "stream",
    params(("run_id" = String, Path, description = "As of /stream; so are the query keys, except backend")),
    responses(
        (status = 200, description = "Server-Sent Events", content_type = "text/event-stream", body = StreamEvent),
        (status = 204, description = "The client has seen the run's end"),
        (status = 400, description = "Bad run id or query value", content_type = "application/problem+json", body = ProblemJson<'_>),
        (status = 401, description = "No token, or one that does not count", content_type = "application/problem+json", body = ProblemJson<'_>),
        (status = 403, description = "The token may read none of these kinds; for admins, not this run", content_type = "application/problem+json", body = ProblemJson<'_>),
        (status = 404, description = "No such run, or none that the token may read", content_type = "application/problem+json", body = ProblemJson<'_>),
        (status = 429, description = TOO_MANY, content_type = "application/problem+json", body = ProblemJson<'_>),
        (status = 503, description = FOR_NOW, content_type = "application/problem+json", body = ProblemJson<'_>),
    )
)]
pub(super) async fn stream_redis(
    caller: Result<Follower, ApiError>,
    run: RunPath,
    request: HttpRequest,
    state: Data<HttpState>,
) -> Result<HttpResponse, ApiError> {
    let query = parse_query(&request, &state)?;
    open(
        caller,
        run,
        query,
        Some(BackendChoice::Redis),
        &request,
        &state,
    )
    .await
}

/// Streams a run from `kubectl logs` of its pods.
#[utoipa::path(
    get,
    path = "/api/v1/runs/{run_id}/stream/kubectl",
    tag = "stream",
    params(("run_id" = String, Path, description = "At most 63 characters here; the query keys are those of /stream, except backend")),
    responses(
        (status = 200, description = "Server-Sent Events", content_type = "text/event-stream", body = StreamEvent),
        (status = 204, description = "The client has seen the run's end"),
        (status = 400, description = "Bad run id or query value", content_type = "application/problem+json", body = ProblemJson<'_>),
        (status = 401, description = "No token, or one that does not count", content_type = "application/problem+json", body = ProblemJson<'_>),
        (status = 403, description = "The token may read none of these kinds; for admins, not this run", content_type = "application/problem+json", body = ProblemJson<'_>),
        (status = 404, description = "The kubectl backend is switched off; no such run, or none that the token may read", content_type = "application/problem+json", body = ProblemJson<'_>),
        (status = 429, description = TOO_MANY, content_type = "application/problem+json", body = ProblemJson<'_>),
        (status = 503, description = FOR_NOW, content_type = "application/problem+json", body = ProblemJson<'_>),
    )
)]
pub(super) async fn stream_kubectl(
    caller: Result<Follower, ApiError>,
    run: RunPath,
    request: HttpRequest,
    state: Data<HttpState>,
) -> Result<HttpResponse, ApiError> {
    let query = parse_query(&request, &state)?;
    open(
        caller,
        run,
        query,
        Some(BackendChoice::Kubectl),
        &request,
        &state,
    )
    .await
}

fn parse_query(request: &HttpRequest, state: &HttpState) -> Result<StreamQuery, ApiError> {
    let last_event_id = request.headers().get(LAST_EVENT_ID);
    StreamQuery::parse(
        request.query_string(),
        last_event_id.map(|value| value.as_bytes()),
        state.broker.live().streaming.log_level,
    )
}

/// `Accept` decides only how temporary trouble is told: whoever asks this path
/// wants its stream, and an EventSource that gets a 406 never comes back.
async fn open(
    caller: Result<Follower, ApiError>,
    RunPath(run_id): RunPath,
    query: StreamQuery,
    choice: Option<BackendChoice>,
    request: &HttpRequest,
    state: &HttpState,
) -> Result<HttpResponse, ApiError> {
    let accepts_stream = accepts_stream(request);
    let Follower { caller, ticket } = match caller {
        Ok(follower) => follower,
        // Trouble that passes is told in a stream, as all such.
        Err(error) if error.is_ours() && accepts_stream => {
            let backend = state.backends().choose(choice, &run_id)?;
            let backend = state.broker.live_backend(backend, &run_id);
            let problem = error.into_problem().retryable(true);
            let retry = state.broker.live().retry;
            let body = StreamBody::failed(&problem, CloseReason::Unavailable, retry);
            return Ok(stream_answer(body, backend, request));
        }
        Err(error) => return Err(error),
    };
    caller.may_read(&run_id)?;
    let mut filter = query.filter;
    caller.narrow(&mut filter)?;
    let backend = state.backends().choose(choice, &run_id)?;
    let live = state.broker.live_backend(backend, &run_id);
    if request.method() == Method::HEAD {
        // The head of the answer only: no session, no kubectl is started.
        return Ok(stream_head(HttpResponse::Ok(), live)
            .insert_header((header::CONTENT_TYPE, "text/event-stream"))
            // Not `finish`, which tells a length: a stream has none.
            .body(body::None::new()));
    }
    let wish = StreamRequest {
        peer: state.addresses.of(request),
        run_id,
        backend,
        filter,
        start: query.start,
        bearer: caller.bearer().cloned(),
        ticket: ticket.map(|ticket| ticket.0),
    };
    let has_ticket = wish.ticket.is_some();
    let answer = state.broker.open_stream(wish).await;
    if let (StreamAnswer::Stream(_), true, Some(gate)) = (&answer, has_ticket, &state.gate) {
        gate.tickets.with_label_values(&["used"]).inc();
    }
    Ok(match answer {
        StreamAnswer::Refused { problem, .. } if !accepts_stream => return Err(problem.into()),
        StreamAnswer::Stream(body) | StreamAnswer::Refused { body, .. } => {
            stream_answer(body, live, request)
        }
        StreamAnswer::TicketUsed => return Err(used_ticket(state)),
        StreamAnswer::Ended => stream_head(HttpResponse::NoContent(), live).finish(),
    })
}

/// 401 for a ticket that another one was faster with.
fn used_ticket(state: &HttpState) -> ApiError {
    let gate = state.gate.as_ref();
    gate.map_or_else(ApiError::auth_disabled, Gate::bad_ticket)
}

/// Answers 200 with a stream, which takes the connection over.
fn stream_answer(body: StreamBody, backend: BackendKind, request: &HttpRequest) -> HttpResponse {
    let mut head = stream_head(HttpResponse::Ok(), backend);
    head.insert_header((header::CONTENT_TYPE, "text/event-stream"));
    // The stream takes the connection over, and ends with it.
    head.force_close();
    // HTTP/1.0 knows no chunks (RFC 9112, section 6.1).
    let framing = match request.version() < Version::HTTP_11 {
        true => Framing::UntilClose,
        false => Framing::Chunked,
    };
    let mut answer = match request.conn_data::<ConnectionHandle>() {
        Some(connection) if connection.takes_streams() => {
            head.body(HandedOver::new(body, framing, connection.clone()))
        }
        Some(connection) => {
            connection.requests().stream_begins();
            head.body(body)
        }
        None => head.body(body),
    };
    let is_chunked = framing == Framing::Chunked;
    answer.head_mut().no_chunking(!is_chunked);
    answer
}

/// Whether the client takes `text/event-stream`; no `Accept` at all takes
/// anything.
fn accepts_stream(request: &HttpRequest) -> bool {
    let mut accept = request.headers().get_all(header::ACCEPT).peekable();
    accept.peek().is_none()
        || accept
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|range| range.split(';').next())
            .any(|range| {
                let range = range.trim().to_ascii_lowercase();
                matches!(range.as_str(), "" | "*/*" | "text/*" | "text/event-stream")
            })
}

fn stream_head(mut answer: HttpResponseBuilder, backend: BackendKind) -> HttpResponseBuilder {
    answer
        .insert_header((header::CACHE_CONTROL, "no-cache, no-store, no-transform"))
        .insert_header((X_ACCEL_BUFFERING, "no"))
        .insert_header((X_STREAMING_BACKEND, backend.as_str()));
    answer
}
