//! The heads of requests within bounds, in bytes and in time.
//!
//! actix takes a head of 128 KiB, and minds how long one takes for the first
//! request of a connection only. It also reads ahead as much as that while it
//! cannot serve what it has, and then looks for room again and again.
//! [`HeadWatch`] stands where a connection is read and knows bytes, not
//! requests; [`check_head`] sees each request that was read and tells the watch
//! of it.

use std::cell::Cell;
use std::mem;
use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::{Method, header};
use actix_web::middleware::Next;
use actix_web::web::Data;
use actix_web::{Error, HttpResponse, ResponseError as _};
use runcast_actors::metrics::Limit;
use runcast_actors::settings::LimitSettings;
use tokio::time::{Sleep, sleep};

use super::HttpState;
use super::connection::ConnectionHandle;
use super::problem::ApiError;

/// An answer to a request that was not read whole has this time to be read
/// before the connection ends, which may destroy it on its way.
const LINGER: Duration = Duration::from_secs(1);

/// What a connection does with what it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum RequestStage {
    /// It belongs to the head of the first request.
    #[default]
    First,
    /// A request is being answered; it belongs to later ones.
    Serving,
    /// It belongs to the body of a post.
    Body,
    /// It belongs to the head of the next one.
    Between,
    /// It is of no use: a stream is being sent, and nothing comes after it.
    Streaming,
    /// It is of no use: the rest of a body that nobody wants, and then the end.
    Ending,
}

/// What may be read now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HeadVerdict {
    /// More.
    Read,
    /// Nothing, until what was read has been looked at.
    Wait,
    /// Nothing, until what was read has been answered, and the client has read
    /// it: [`HeadWatch::written`] then says to go on.
    Hold,
    /// What comes is to be thrown away.
    Discard,
    /// Nothing any more: the head is too large.
    TooLarge,
    /// Nothing any more: the head is not here in time.
    Late,
    /// Nothing any more: the answer has had its time to be read.
    Over,
}

/// Watches the heads that a connection reads.
#[derive(Debug)]
pub(super) struct HeadWatch {
    bytes_max: usize,
    timeout: Duration,
    /// Read since all that was read before had been answered.
    bytes: usize,
    /// The newest of them.
    tail: [u8; 4],
    /// A request has begun since then.
    has_begun: bool,
    /// Nothing more was to be had: what was read is looked at before more is
    /// asked for.
    is_looked_at: bool,
    /// More was asked for and not read.
    is_held: bool,
    /// When the head that has begun must be here.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl HeadWatch {
    pub(super) fn new(limits: &LimitSettings) -> Self {
        Self {
            bytes_max: limits.max_header_bytes.as_u64() as usize,
            timeout: limits.header_timeout,
            bytes: 0,
            tail: [0; 4],
            has_begun: false,
            is_looked_at: false,
            is_held: false,
            deadline: None,
        }
    }

    /// Says what may be read now. `is_blocked`: there are answers that the
    /// client does not take.
    pub(super) fn verdict(
        &mut self,
        requests: &Requests,
        is_blocked: bool,
        cx: &mut Context<'_>,
    ) -> HeadVerdict {
        self.note_begun(requests);
        let verdict = match requests.stage() {
            RequestStage::Streaming => HeadVerdict::Discard,
            _ if is_blocked => HeadVerdict::Hold,
            RequestStage::Ending => self.in_time(HeadVerdict::Over, cx),
            RequestStage::Body => {
                self.bytes = 0;
                HeadVerdict::Read
            }
            stage => self.verdict_of_head(stage, cx),
        };
        self.is_looked_at = matches!(verdict, HeadVerdict::Wait | HeadVerdict::Hold);
        self.is_held = verdict == HeadVerdict::Hold;
        verdict
    }

    fn verdict_of_head(&mut self, stage: RequestStage, cx: &mut Context<'_>) -> HeadVerdict {
        if self.is_looked_at && stage == RequestStage::Between && mem::take(&mut self.has_begun) {
            // Whole requests have been answered: what is left is a part of one.
            self.bytes = 0;
        }
        match stage {
            _ if self.bytes <= self.bytes_max => self.in_time(HeadVerdict::Late, cx),
            _ if !self.is_looked_at => {
                cx.waker().wake_by_ref();
                HeadVerdict::Wait
            }
            RequestStage::Serving => HeadVerdict::Hold,
            _ => HeadVerdict::TooLarge,
        }
    }

    /// More may be read until the deadline, if there is one.
    fn in_time(&mut self, otherwise: HeadVerdict, cx: &mut Context<'_>) -> HeadVerdict {
        let deadline = self.deadline.as_mut();
        match deadline.is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready()) {
            true => otherwise,
            false => HeadVerdict::Read,
        }
    }

    fn note_begun(&mut self, requests: &Requests) {
        if requests.has_begun.take() {
            self.has_begun = true;
            self.deadline = None;
        }
    }

    /// Whether any of the first head is here, as long as it is not whole.
    pub(super) fn has_begun_first(&self) -> bool {
        self.bytes > 0
    }

    /// Notes what was read; nothing, if there was nothing to be had.
    pub(super) fn read(&mut self, bytes: &[u8], stage: RequestStage) {
        self.is_looked_at = bytes.is_empty();
        self.bytes += bytes.len();
        for &byte in &bytes[bytes.len().saturating_sub(self.tail.len())..] {
            self.tail.rotate_left(1);
            self.tail[3] = byte;
        }
        // Polled, and so set, when the connection is asked for more.
        if stage == RequestStage::Between && !bytes.is_empty() && self.deadline.is_none() {
            self.deadline = Some(Box::pin(sleep(self.timeout)));
        }
    }

    /// Notes that all answers so far were written. If there is no other to
    /// come, the time begins that it has to be read; if a head has begun, that
    /// of the head.
    pub(super) fn written(&mut self, requests: &Requests, cx: &mut Context<'_>) {
        self.note_begun(requests);
        let stage = requests.stage();
        let time = match stage {
            RequestStage::Ending => Some(LINGER),
            RequestStage::Between if self.has_part_of_head(requests) => Some(self.timeout),
            _ => None,
        };
        if let (Some(time), None) = (time, &self.deadline) {
            let mut deadline = Box::pin(sleep(time));
            // So that the connection is looked at again then.
            if deadline.as_mut().poll(cx).is_pending() {
                self.deadline = Some(deadline);
            }
        }
        if self.is_held && stage != RequestStage::Serving {
            self.is_held = false;
            cx.waker().wake_by_ref();
        }
    }

    /// Whether a part of a head came along with the last request. Behind a body
    /// that is not known: there the connection's keep-alive has to do.
    fn has_part_of_head(&self, requests: &Requests) -> bool {
        let is_whole = self.tail.ends_with(b"\n\r\n") || self.tail.ends_with(b"\n\n");
        !is_whole && !requests.had_body.get()
    }
}

/// Where a connection is among its requests.
#[derive(Debug, Default)]
pub(super) struct Requests {
    stage: Cell<RequestStage>,
    /// One has, since this was last looked at.
    has_begun: Cell<bool>,
    /// The last one had.
    had_body: Cell<bool>,
}

impl Requests {
    pub(super) fn stage(&self) -> RequestStage {
        self.stage.get()
    }

    /// The body of the request was read to its end.
    pub(super) fn body_was_read(&self) {
        if self.stage() == RequestStage::Body {
            self.stage.set(RequestStage::Serving);
        }
    }

    /// The request is answered by a stream that stays with actix.
    pub(super) fn stream_begins(&self) {
        self.stage.set(RequestStage::Streaming);
    }

    fn begin(&self, has_body: bool, takes_body: bool) {
        self.has_begun.set(true);
        self.had_body.set(has_body);
        self.stage.set(match has_body && takes_body {
            true => RequestStage::Body,
            false => RequestStage::Serving,
        });
    }

    /// The answer is there: what is read next belongs to `stage`.
    fn end(&self, stage: RequestStage) {
        if self.stage() != RequestStage::Streaming {
            self.stage.set(stage);
        }
    }
}

/// Middleware: refuses a request whose head is larger than
/// `limits.max_header_bytes`, and tells the connection when a request begins
/// to be answered and when its answer is there.
pub(super) async fn check_head<B: MessageBody>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, Error> {
    let connection = request.conn_data::<ConnectionHandle>().cloned();
    let requests = connection.as_ref().map(ConnectionHandle::requests);
    let end = |stage| requests.iter().for_each(|requests| requests.end(stage));
    let has_body = has_body(&request);
    let takes_body = request.method() == Method::POST;
    if let Some(requests) = requests {
        requests.begin(has_body, takes_body);
    }
    if let Some(state) = request.app_data::<Data<HttpState>>() {
        let limit = state.broker.live().limits.max_header_bytes.as_u64();
        if head_bytes(&request) > limit {
            state.broker.refused(Limit::HeaderBytes);
            let mut refusal = ApiError::head_too_large(limit).error_response();
            close_after(&mut refusal);
            end(RequestStage::Ending);
            return Ok(request.into_response(refusal).map_into_right_body());
        }
    }
    let answer = next.call(request).await;
    let answer = answer.inspect_err(|_| end(RequestStage::Between));
    let mut answer = answer?.map_into_left_body();
    let was_read = requests.is_none_or(|requests| requests.stage() == RequestStage::Serving);
    // actix would wait for the rest of one that was not, for ever.
    if has_body && !(takes_body && was_read) {
        close_after(answer.response_mut());
        end(RequestStage::Ending);
    } else {
        end(RequestStage::Between);
    }
    Ok(answer)
}

fn has_body(request: &ServiceRequest) -> bool {
    let headers = request.headers();
    let length = headers.get(header::CONTENT_LENGTH);
    length.is_some_and(|length| length != "0") || headers.contains_key(header::TRANSFER_ENCODING)
}

fn close_after<B>(answer: &mut HttpResponse<B>) {
    answer
        .head_mut()
        .set_connection_type(actix_http::ConnectionType::Close);
}

/// Bytes of a request's line and headers, as they were sent but for spaces.
fn head_bytes(request: &ServiceRequest) -> u64 {
    const LINE: usize = "  HTTP/1.1\r\n\r\n".len();
    const HEADER: usize = ": \r\n".len();
    let uri = request
        .uri()
        .path_and_query()
        .map_or(0, |uri| uri.as_str().len());
    let line = LINE + request.method().as_str().len() + uri;
    let headers = request.headers().iter();
    let headers = headers.map(|(name, value)| HEADER + name.as_str().len() + value.len());
    (line + headers.sum::<usize>()) as u64
}
