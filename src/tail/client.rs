//! [`Client`]: opens a run's stream over HTTP and reads it event by event.

use std::cell::Cell;
use std::error::Error;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt as _, Stream, StreamExt as _, stream};
use reqwest::{Response, StatusCode, header};
use runcast_actors::protocol::{Timestamp, json_string_or_field};
use sse_stream::{Sse, SseByteStream};
use url::Url;

use super::args::TailArgs;

/// How long the name, the connection and TLS may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the head of the answer may take.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);
/// An event is no longer than this, so that a server that never ends one does
/// not fill our memory. A broker's `limits.max_event_bytes` is far below.
const EVENT_BYTES_MAX: usize = 64 << 20;
/// As much of an error's body is read.
const PROBLEM_BYTES_MAX: usize = 64 << 10;

/// Asks a broker for the stream of one run.
pub(super) struct Client {
    http: reqwest::Client,
    stream: Url,
    /// The broker as it may be told: without a password.
    place: String,
    args: TailArgs,
}

/// What the broker answered.
pub(super) enum Opened {
    /// A stream, to be read.
    Stream(Connection),
    /// The run is over, and the cursor says that its end was seen.
    Over,
}

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    /// Asking again is of no use.
    #[error("{detail}")]
    Refused {
        /// The answer's status.
        status: StatusCode,
        /// What the broker says about it.
        detail: String,
    },
    /// Asking again may help.
    #[error("{0}")]
    Failed(String),
}

impl Client {
    /// Makes a client for what the command line asks for.
    pub(super) fn new(args: &TailArgs) -> anyhow::Result<Self> {
        // Another crate may have chosen one before us; any will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .user_agent(concat!("runcast-tail/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self {
            http,
            stream: stream_url(args),
            place: args.url.origin().ascii_serialization(),
            args: args.clone(),
        })
    }

    /// Opens the stream after `cursor`, or where the command line says.
    pub(super) async fn open(&self, cursor: Option<&str>) -> Result<Opened, OpenError> {
        let mut url = self.stream.clone();
        let filters = [
            ("from", Some(self.args.since.begin())),
            ("kinds", self.args.kinds.clone()),
            ("sources", self.args.sources.clone()),
            ("log_level", self.args.log_level.clone()),
        ];
        for (key, value) in filters {
            if let Some(value) = value {
                url.query_pairs_mut().append_pair(key, &value);
            }
        }
        self.request(url, cursor).await
    }

    /// Opens the stream at the run's last status event, whatever the filters.
    pub(super) async fn open_last_status(&self) -> Result<Opened, OpenError> {
        let mut url = self.stream.clone();
        let query = [("from", "-1"), ("kinds", "status")];
        url.query_pairs_mut().extend_pairs(query);
        self.request(url, None).await
    }

    async fn request(&self, url: Url, cursor: Option<&str>) -> Result<Opened, OpenError> {
        let mut request = self
            .http
            .get(url)
            .header(header::ACCEPT, "text/event-stream")
            .header(header::CACHE_CONTROL, "no-store");
        if let Some(token) = &self.args.token {
            request = request.bearer_auth(token.reveal());
        }
        if let Some(cursor) = cursor {
            request = request.header("Last-Event-ID", cursor);
        }
        let response = tokio::time::timeout(OPEN_TIMEOUT, request.send())
            .await
            .map_err(|_| {
                OpenError::Failed(format!(
                    "no answer from {} for {OPEN_TIMEOUT:?}",
                    self.place
                ))
            })?
            .map_err(|error| {
                let reason = first_cause(&error);
                OpenError::Failed(format!("no answer from {}: {reason}", self.place))
            })?;
        match response.status() {
            StatusCode::OK if is_event_stream(&response) => {
                Ok(Opened::Stream(Connection::new(response)))
            }
            StatusCode::OK => Err(OpenError::Refused {
                status: StatusCode::OK,
                detail: "the answer is no event stream; is --url a Runcast broker?".to_owned(),
            }),
            StatusCode::NO_CONTENT => Ok(Opened::Over),
            status => Err(refusal(status, response).await),
        }
    }
}

/// Returns the address of the stream, with the backend but without filters.
fn stream_url(args: &TailArgs) -> Url {
    let mut url = args.url.clone();
    // A run id is made of characters that need no escaping in a path.
    let base = url.path().trim_end_matches('/').to_owned();
    url.set_path(&format!("{base}/api/v1/runs/{}/stream", args.run_id));
    if let Some(backend) = &args.backend {
        url.query_pairs_mut().append_pair("backend", backend);
    }
    url
}

fn is_event_stream(response: &Response) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE);
    kind.and_then(|kind| kind.to_str().ok())
        .is_some_and(|kind| kind.starts_with("text/event-stream"))
}

/// Reads what an answer that is no stream says.
async fn refusal(status: StatusCode, mut response: Response) -> OpenError {
    let mut body = Vec::new();
    while let Ok(Ok(Some(chunk))) = tokio::time::timeout(OPEN_TIMEOUT, response.chunk()).await {
        body.extend_from_slice(&chunk);
        if body.len() > PROBLEM_BYTES_MAX {
            break;
        }
    }
    let told = std::str::from_utf8(&body).ok();
    let detail = told
        .filter(|text| text.trim_start().starts_with('{'))
        .and_then(|text| json_string_or_field(text, "detail"))
        .map_or_else(
            || status.to_string(),
            |detail| format!("{detail} ({status})"),
        );
    let passing = [
        StatusCode::REQUEST_TIMEOUT,
        StatusCode::TOO_EARLY,
        StatusCode::TOO_MANY_REQUESTS,
    ];
    if status.is_server_error() || passing.contains(&status) {
        OpenError::Failed(detail)
    } else {
        OpenError::Refused { status, detail }
    }
}

type Events = Pin<Box<dyn Stream<Item = Result<Sse, sse_stream::Error>>>>;

/// A stream that is being read.
pub(super) struct Connection {
    /// The broker's clock when it answered, to the second.
    pub(super) date: Option<Timestamp>,
    events: Events,
    /// Bytes read since the last whole event.
    pending_bytes: Rc<Cell<usize>>,
}

/// Why the body of a stream cannot be read on.
#[derive(Debug, thiserror::Error)]
enum BodyError {
    /// The connection broke.
    #[error(transparent)]
    Http(#[from] reqwest::Error),
    /// The event under way is too long.
    #[error("an event is longer than {EVENT_BYTES_MAX} bytes")]
    TooLong,
}

impl Connection {
    fn new(response: Response) -> Self {
        let date = response.headers().get(header::DATE).and_then(read_date);
        let pending_bytes = Rc::new(Cell::new(0));
        let chunks = chunks(response, Rc::clone(&pending_bytes));
        Self {
            date,
            events: Box::pin(SseByteStream::new(Box::pin(chunks))),
            pending_bytes,
        }
    }

    /// Returns the next event if it is here already; `None` if not.
    pub(super) fn ready(&mut self) -> Option<Result<Sse, String>> {
        let next = self.events.next().now_or_never()?;
        Some(self.taken(next))
    }

    /// Waits for the next event.
    ///
    /// # Errors
    ///
    /// Why the stream ended, or that it was silent for `silence`.
    pub(super) async fn next(&mut self, silence: Duration) -> Result<Sse, String> {
        match tokio::time::timeout(silence, self.events.next()).await {
            Ok(next) => self.taken(next),
            Err(_) => Err(format!("nothing heard for {} s", silence.as_secs())),
        }
    }

    fn taken(&self, next: Option<Result<Sse, sse_stream::Error>>) -> Result<Sse, String> {
        self.pending_bytes.set(0);
        match next {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(format!("the connection broke: {}", first_cause(&error))),
            None => Err("the connection was closed".to_owned()),
        }
    }
}

/// The body, which fails once more than an event's worth of bytes made none.
fn chunks(
    response: Response,
    pending_bytes: Rc<Cell<usize>>,
) -> impl Stream<Item = Result<Bytes, BodyError>> {
    stream::try_unfold(response, move |mut response| {
        let pending_bytes = Rc::clone(&pending_bytes);
        async move {
            if pending_bytes.get() > EVENT_BYTES_MAX {
                return Err(BodyError::TooLong);
            }
            let Some(chunk) = response.chunk().await? else {
                return Ok(None);
            };
            pending_bytes.set(pending_bytes.get() + chunk.len());
            Ok(Some((chunk, response)))
        }
    })
}

fn read_date(value: &header::HeaderValue) -> Option<Timestamp> {
    let zoned = jiff::fmt::rfc2822::parse(value.to_str().ok()?).ok()?;
    Some(Timestamp::from_micros(zoned.timestamp().as_microsecond()))
}

/// Returns the first cause of an error: reqwest says what it was doing and
/// keeps the reason ("connection refused") some levels down.
fn first_cause(error: &dyn Error) -> String {
    let mut first = error;
    while let Some(cause) = first.source() {
        first = cause;
    }
    first.to_string()
}
