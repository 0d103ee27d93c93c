//! Reading the bodies of posts, each and all together within bounds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use actix_web::HttpRequest;
use actix_web::http::header;
use actix_web::web::Payload;
use bytes::{Bytes, BytesMut};
use dashmap::DashMap;
use futures_util::StreamExt as _;
use runcast_actors::broker::Broker;
use runcast_actors::metrics::Limit;
use runcast_actors::protocol::Problem;

use super::caller::Client;
use super::connection::ConnectionHandle;
use super::problem::ApiError;

/// Room for the bodies of all posts that are being read or published, and each
/// client's part of it. Without it a few hundred connections with unfinished
/// bodies fill the memory; without the parts one client's could keep all others
/// from posting.
#[derive(Debug)]
pub(super) struct BodyRoom {
    held: Arc<Held>,
    /// Has the limits, and counts whom they refuse.
    broker: Broker,
}

#[derive(Debug, Default)]
struct Held {
    all: AtomicU64,
    /// Of those who hold anything, so bounded by the bytes in all.
    by_client: DashMap<Client, u64>,
}

/// Bytes of one body; gives their room back when dropped.
#[derive(Debug)]
pub(super) struct HeldRoom {
    held: Arc<Held>,
    client: Client,
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
        self.held.all.load(Relaxed)
    }

    fn hold(&self, client: Client) -> HeldRoom {
        HeldRoom {
            held: Arc::clone(&self.held),
            client,
            bytes: 0,
        }
    }

    /// Reads a body of at most `limit` bytes.
    ///
    /// # Errors
    /// 413 for a longer one, 408 for a slow one, 400 for a broken one, 429 when
    /// there is no room for it beside the client's others, 503 when there is
    /// none beside everybody's.
    pub(super) async fn read(
        &self,
        request: &HttpRequest,
        payload: Payload,
        limit: u64,
        client: Client,
    ) -> Result<RequestBody, ApiError> {
        let declared = request
            .headers()
            .get(header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if declared.is_some_and(|bytes| bytes > limit) {
            return Err(self.too_large(limit));
        }
        let body_timeout = self.broker.live().limits.body_timeout;
        let body = tokio::time::timeout(body_timeout, self.read_all(payload, limit, client))
            .await
            .map_err(|_| {
                self.broker.refused(Limit::BodyTime);
                let detail = "the request body did not arrive in time; send it again, or in parts";
                Problem::new(408, "request-timeout", "Request timeout", detail)
            })??;
        if let Some(connection) = request.conn_data::<ConnectionHandle>() {
            connection.requests().body_was_read();
        }
        Ok(body)
    }

    /// Takes room as bytes arrive: what a client only announces costs nothing.
    async fn read_all(
        &self,
        mut payload: Payload,
        limit: u64,
        client: Client,
    ) -> Result<RequestBody, ApiError> {
        let limits = &self.broker.live().limits;
        let total_max = limits.total_body_bytes.as_u64();
        let client_max = limits.body_bytes_per_client.as_u64();
        let mut room = self.hold(client);
        let mut bytes = BytesMut::new();
        while let Some(chunk) = payload.next().await {
            let chunk = chunk.map_err(|error| {
                let detail = format!("the request body could not be read: {error}");
                Problem::new(400, "bad-body", "Bad body", detail)
            })?;
            if (bytes.len() + chunk.len()) as u64 > limit {
                return Err(self.too_large(limit));
            }
            let (of_all, of_client) = room.grow(chunk.len() as u64);
            if of_all > total_max {
                return Err(self.full(total_max));
            }
            if of_client > client_max {
                return Err(self.full_of_one(client_max));
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

    fn full_of_one(&self, limit: u64) -> ApiError {
        self.broker.refused(Limit::BodyBytesPerClient);
        let detail = format!(
            "your posts under way hold {limit} bytes already (limits.body_bytes_per_client); wait for their answers"
        );
        Problem::new(429, "too-many-posts", "Too many posts", detail).into()
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
    /// Takes room for more; returns what all bodies hold now, and what the
    /// client's do.
    fn grow(&mut self, bytes: u64) -> (u64, u64) {
        self.bytes += bytes;
        let of_all = self.held.all.fetch_add(bytes, Relaxed) + bytes;
        let mut of_client = self.held.by_client.entry(self.client.clone()).or_default();
        *of_client += bytes;
        (of_all, *of_client)
    }
}

impl Drop for HeldRoom {
    fn drop(&mut self) {
        self.held.all.fetch_sub(self.bytes, Relaxed);
        self.held.by_client.remove_if_mut(&self.client, |_, bytes| {
            *bytes -= self.bytes;
            *bytes == 0
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_has_its_part_and_gives_it_back() {
        let held: Arc<Held> = Arc::default();
        let room = |name: &str| HeldRoom {
            held: Arc::clone(&held),
            client: Client::Subject(name.into()),
            bytes: 0,
        };
        let (mut one, mut same, mut other) = (room("a"), room("a"), room("b"));
        let idle = room("c");
        assert_eq!(one.grow(3), (3, 3));
        assert_eq!(same.grow(4), (7, 7));
        assert_eq!(other.grow(5), (12, 5));
        drop((one, idle));
        assert_eq!(same.grow(1), (10, 5));
        drop((same, other));
        assert_eq!(held.all.load(Relaxed), 0);
        assert!(held.by_client.is_empty());
    }
}
