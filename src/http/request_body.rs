//! Reading the bodies of posts, each and all together within bounds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use actix_web::HttpRequest;
use actix_web::http::header;
use actix_web::web::Payload;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use runcast_actors::broker::Broker;
use runcast_actors::metrics::Limit;
use runcast_actors::protocol::Problem;

use super::problem::ApiError;

/// Room for the bodies of all posts that are being read or published. Without
/// it a few hundred connections with unfinished bodies fill the memory.
#[derive(Debug)]
pub(super) struct BodyRoom {
    held: Arc<AtomicU64>,
    /// Has the limits, and counts whom they refuse.
    broker: Broker,
}

/// Bytes of one body; gives their room back when dropped.
#[derive(Debug)]
pub(super) struct HeldRoom {
    all: Arc<AtomicU64>,
    bytes: u64,
}

/// A whole body, and the room it takes until its events are published.
#[derive(Debug)]
pub(super) struct RequestBody {
    /// What was sent.
    pub(super) bytes: Bytes,
    /// To be kept as long as anything made of it.
    pub(super) room: HeldRoom,
}

impl BodyRoom {
    /// Makes the room that `broker`'s limits give.
    pub(super) fn new(broker: Broker) -> Self {
        Self {
            held: Arc::default(),
            broker,
        }
    }

    /// Bytes held now.
    pub(super) fn held(&self) -> u64 {
        self.held.load(Relaxed)
    }

    fn hold(&self) -> HeldRoom {
        HeldRoom {
            all: Arc::clone(&self.held),
            bytes: 0,
        }
    }

    /// Reads a body of at most `limit` bytes.
    ///
    /// # Errors
    /// 413 for a longer one, 408 for a slow one, 400 for a broken one, 503 when
    /// there is no room for it beside the others.
    pub(super) async fn read(
        &self,
        request: &HttpRequest,
        payload: Payload,
        limit: u64,
    ) -> Result<RequestBody, ApiError> {
        let declared = request
            .headers()
            .get(header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if declared.is_some_and(|bytes| bytes > limit) {
            return Err(self.too_large(limit));
        }
        let body_timeout = self.broker.settings().limits.body_timeout;
        tokio::time::timeout(body_timeout, self.read_all(payload, limit))
            .await
            .map_err(|_| {
                self.broker.refused(Limit::BodyTime);
                let detail = "the request body did not arrive in time; send it again, or in parts";
                Problem::new(408, "request-timeout", "Request timeout", detail)
            })?
    }

    /// Takes room as bytes arrive: what a client only announces costs nothing.
    async fn read_all(&self, mut payload: Payload, limit: u64) -> Result<RequestBody, ApiError> {
        let total_max = self.broker.settings().limits.total_body_bytes.as_u64();
        let mut room = self.hold();
        let mut bytes = BytesMut::new();
        while let Some(chunk) = payload.next().await {
            let chunk = chunk.map_err(|error| {
                let detail = format!("the request body could not be read: {error}");
                Problem::new(400, "bad-body", "Bad body", detail)
            })?;
            if (bytes.len() + chunk.len()) as u64 > limit {
                return Err(self.too_large(limit));
            }
            if room.grow(chunk.len() as u64) > total_max {
                return Err(self.full(total_max));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(RequestBody {
            bytes: bytes.freeze(),
            room,
        })
    }

    fn too_large(&self, limit: u64) -> ApiError {
        self.broker.refused(Limit::BodyBytes);
        let detail = format!("the body is larger than {limit} bytes; send its events in parts");
        Problem::new(413, "body-too-large", "Body too large", detail).into()
    }

    fn full(&self, limit: u64) -> ApiError {
        self.broker.refused(Limit::TotalBodyBytes);
        let detail = format!(
            "the posts under way hold {limit} bytes already (limits.total_body_bytes); try again"
        );
        Problem::new(503, "too-many-posts", "Too many posts", detail).into()
    }
}

impl HeldRoom {
    /// Takes room for more; returns what all bodies hold now.
    fn grow(&mut self, bytes: u64) -> u64 {
        self.bytes += bytes;
        self.all.fetch_add(bytes, Relaxed) + bytes
    }
}

impl Drop for HeldRoom {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Relaxed);
    }
}
