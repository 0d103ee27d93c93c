//! [`Posts`]: events posted through a failover, and what a client must see of
//! those that were accepted.

use std::cell::RefCell;
use std::time::Duration;

use serde_json::json;

use super::broker::accepted_ids;
use super::sse::{Next, SseClient};
use super::wait::eventually;
use super::{Broker, Frame};

/// How long a failover may take on a busy machine.
pub(crate) const FAILOVER: Duration = Duration::from_secs(30);

/// What was accepted, in order.
#[derive(Default)]
pub(crate) struct Posts {
    pub(crate) accepted: Vec<String>,
}

/// Follows run 42 and posts to it, before and after its master is gone: nothing
/// may be lost in silence. Returns the client.
pub(crate) async fn check_failover(broker: &Broker, kill_master: impl FnOnce()) -> SseClient {
    let mut client = broker.follow("42/stream").await;
    let mut posts = Posts::default();
    posts.post(broker, "42", 50).await;
    kill_master();
    posts.post(broker, "42", 50).await;
    posts.check(&mut client).await;
    client
}

impl Posts {
    /// Posts until `count` more events are accepted; a refused one counts as
    /// lost by its publisher.
    pub(crate) async fn post(&mut self, broker: &Broker, run_id: &str, count: usize) {
        let goal = self.accepted.len() + count;
        while self.accepted.len() < goal {
            let n = self.accepted.len();
            let event = json!({"kind": "output", "source": "stdout", "data": n});
            let ids = RefCell::new(Vec::new());
            eventually("an event is accepted", FAILOVER, async || {
                let answer = broker.post(run_id, &event).await;
                if answer.status() != 202 {
                    answer.problem(503);
                    return false;
                }
                ids.replace(accepted_ids(&answer));
                true
            })
            .await;
            self.accepted.append(&mut ids.into_inner());
        }
    }

    /// Reads until the last accepted event and checks that no id comes twice,
    /// that accepted events come in order, and that each that is missing is
    /// told by a `gap` at its very place.
    pub(crate) async fn check(&self, client: &mut SseClient) {
        let frames = self.read(client).await;
        let mut seen: Vec<&str> = Vec::new();
        // Accepted events before this one were seen or told.
        let mut next = 0;
        let mut is_told = false;
        for frame in &frames {
            if frame.event == "gap" {
                is_told = true;
            }
            if !frame.is_run_event() {
                continue;
            }
            let id = frame.id();
            assert!(!seen.contains(&id), "{id} came twice");
            seen.push(id);
            let Some(at) = self.accepted.iter().position(|accepted| accepted == id) else {
                // Its publisher was told 503, or another published it.
                continue;
            };
            assert!(at >= next, "{id} came late");
            let missing = &self.accepted[next..at];
            assert!(
                missing.is_empty() || is_told,
                "lost in silence: {missing:?}"
            );
            next = at + 1;
            is_told = false;
        }
        assert_eq!(next, self.accepted.len(), "the last one came");
    }

    async fn read(&self, client: &mut SseClient) -> Vec<Frame> {
        let last = self.accepted.last().expect("something was accepted");
        let mut frames: Vec<Frame> = Vec::new();
        while frames
            .last()
            .is_none_or(|frame| frame.id.as_deref() != Some(last))
        {
            match client.next_within(FAILOVER).await {
                Next::Frame(frame) => frames.push(frame),
                other => panic!("{other:?} before {last}, after {frames:#?}"),
            }
        }
        frames
    }
}
