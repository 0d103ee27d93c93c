//! The heads of requests within bounds, in bytes and in time.
//!
//! actix takes a head of 128 KiB, and minds how long one takes for the first
//! request of a connection only. [`HeadWatch`] stands where a connection is
//! read and knows bytes, not requests; [`check_head`] sees each request that
//! was read and tells the watch of it.

use std::cell::Cell;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::{Method, StatusCode, header};
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
    /// A request is being answered.
    Serving,
    /// It belongs to the head of the next one.
    Between,
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
    /// Read before the first request was whole.
    bytes: usize,
    /// What was read has been looked at, and was no whole head.
    has_waited: bool,
    /// When the head that has begun must be here.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl HeadWatch {
    pub(super) fn new(limits: &LimitSettings) -> Self {
        Self {
            bytes_max: limits.max_header_bytes.as_u64() as usize,
            timeout: limits.header_timeout,
            bytes: 0,
            has_waited: false,
            deadline: None,
        }
    }

    /// Says what may be read now. Later heads than the first are bounded in
    /// bytes by what actix reads ahead and by [`check_head`].
    pub(super) fn verdict(&mut self, stage: RequestStage, cx: &mut Context<'_>) -> HeadVerdict {
        match (stage, &mut self.deadline) {
            (RequestStage::First, _) if self.bytes > self.bytes_max => {
                if mem::replace(&mut self.has_waited, true) {
                    return HeadVerdict::TooLarge;
                }
                cx.waker().wake_by_ref();
                HeadVerdict::Wait
            }
            (RequestStage::Between, Some(deadline)) => match deadline.as_mut().poll(cx) {
                Poll::Ready(()) => HeadVerdict::Late,
                Poll::Pending => HeadVerdict::Read,
            },
            (RequestStage::Ending, Some(deadline)) => match deadline.as_mut().poll(cx) {
                Poll::Ready(()) => HeadVerdict::Over,
                Poll::Pending => HeadVerdict::Read,
            },
            (RequestStage::Between | RequestStage::First | RequestStage::Ending, _) => {
                HeadVerdict::Read
            }
            (RequestStage::Serving, _) => {
                self.deadline = None;
                self.bytes = 0;
                HeadVerdict::Read
            }
        }
    }

    /// Notes what was read.
    pub(super) fn read(&mut self, bytes: usize, stage: RequestStage) {
        match stage {
            RequestStage::First => self.bytes += bytes,
            // Polled, and so set, when the connection is asked for more.
            RequestStage::Between if bytes > 0 && self.deadline.is_none() => {
                self.deadline = Some(Box::pin(sleep(self.timeout)));
            }
            RequestStage::Between | RequestStage::Serving | RequestStage::Ending => {}
        }
    }

    /// Notes that an answer was written. If it is the last one, the time begins
    /// that it has to be read.
    pub(super) fn written(&mut self, stage: RequestStage, cx: &mut Context<'_>) {
        if stage == RequestStage::Ending && self.deadline.is_none() {
            let mut deadline = Box::pin(sleep(LINGER));
            // So that the connection is looked at again then.
            if deadline.as_mut().poll(cx).is_pending() {
                self.deadline = Some(deadline);
            }
        }
    }
}

/// Where a connection is among its requests.
#[derive(Debug, Default)]
pub(super) struct Requests {
    stage: Cell<RequestStage>,
}

impl Requests {
    pub(super) fn stage(&self) -> RequestStage {
        self.stage.get()
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
    let stage = |stage| {
        if let Some(connection) = &connection {
            connection.requests().stage.set(stage);
        }
    };
    stage(RequestStage::Serving);
    if let Some(state) = request.app_data::<Data<HttpState>>() {
        let limit = state.broker.settings().limits.max_header_bytes.as_u64();
        if head_bytes(&request) > limit {
            state.broker.refused(Limit::HeaderBytes);
            let mut refusal = ApiError::head_too_large(limit).error_response();
            close_after(&mut refusal);
            stage(RequestStage::Ending);
            return Ok(request.into_response(refusal).map_into_right_body());
        }
    }
    let has_body = has_body(&request);
    let takes_body = request.method() == Method::POST;
    let answer = next.call(request).await;
    let answer = answer.inspect_err(|_| stage(RequestStage::Between));
    let mut answer = answer?.map_into_left_body();
    if has_body && !(takes_body && was_read(answer.status())) {
        close_after(answer.response_mut());
        stage(RequestStage::Ending);
    } else {
        stage(RequestStage::Between);
    }
    Ok(answer)
}

fn has_body(request: &ServiceRequest) -> bool {
    let headers = request.headers();
    let length = headers.get(header::CONTENT_LENGTH);
    length.is_some_and(|length| length != "0") || headers.contains_key(header::TRANSFER_ENCODING)
}

/// Whether the body of a request with this answer was read to its end. actix
/// would wait for the rest of one that was not, for ever.
fn was_read(status: StatusCode) -> bool {
    !status.is_client_error() && !status.is_server_error()
        || matches!(
            status,
            StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY | StatusCode::TOO_MANY_REQUESTS
        )
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
