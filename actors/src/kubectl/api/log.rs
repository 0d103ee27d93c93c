//! [`ApiLog`]: a log that is being read by a request.

use std::fmt;
use std::pin::Pin;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::failure;
use crate::kubectl::failure::Failure;

type Opening = Pin<Box<dyn Future<Output = Result<Incoming, Failure>>>>;

/// A log, from the request for it to its last byte. Dropping it closes the
/// connection.
pub(crate) struct ApiLog(State);

enum State {
    /// The head of the answer has not come: of a log without a line a kubelet
    /// sends none.
    Opening(Opening),
    Open(Incoming),
    Over(Result<(), Failure>),
}

impl fmt::Debug for ApiLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.0 {
            State::Opening(_) => "opening",
            State::Open(_) => "open",
            State::Over(_) => "over",
        };
        f.debug_tuple("ApiLog").field(&state).finish()
    }
}

impl ApiLog {
    /// Returns the log that `opening` gives.
    pub(super) fn new(opening: impl Future<Output = Result<Incoming, Failure>> + 'static) -> Self {
        Self(State::Opening(Box::pin(opening)))
    }

    /// Appends what comes next to `buffer`, and returns how many bytes; 0 when
    /// it is over. It may be dropped while it waits, and called again.
    pub(crate) async fn read(&mut self, buffer: &mut Vec<u8>) -> usize {
        loop {
            self.0 = match &mut self.0 {
                State::Opening(opening) => match opening.await {
                    Ok(body) => State::Open(body),
                    Err(failure) => State::Over(Err(failure)),
                },
                State::Open(body) => match body.frame().await {
                    Some(Ok(frame)) => {
                        let data = frame.into_data().unwrap_or_default();
                        if data.is_empty() {
                            continue;
                        }
                        buffer.extend_from_slice(&data);
                        return data.len();
                    }
                    Some(Err(error)) => State::Over(Err(failure::of_answer(&error))),
                    None => State::Over(Ok(())),
                },
                State::Over(_) => return 0,
            };
        }
    }

    /// Says how it ended.
    ///
    /// # Errors
    /// It could not be had, or broke.
    pub(crate) fn ended(self) -> Result<(), Failure> {
        match self.0 {
            State::Over(result) => result,
            State::Opening(_) | State::Open(_) => Ok(()),
        }
    }
}
