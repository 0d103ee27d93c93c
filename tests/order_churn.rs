//! Clients that hop over three brokers while their run is trimmed, begins anew
//! or loses subscriptions: each id once, in order, every hole told.

use std::time::Duration;

use futures_util::future::{join, join_all};

use crate::support::broker::BrokerSettings;
use crate::support::kept::{Kept, Store, append, parts};
use crate::support::redis::Publisher;
use crate::support::sse::{Next, gap_of};
use crate::support::{Broker, Frame, SseClient};

const SEED: u64 = 20_261_124;

/// What a client knows of the order it was promised.
#[derive(Debug, Default)]
struct Order {
    /// The id of the event seen last.
    last: Option<String>,
    /// What was told since.
    hole: Option<Hole>,
    gaps: u64,
    events: u64,
}

/// One gap, or more in a row, whose counts add up: before the event that one
/// named was sent, that may be gone too.
#[derive(Debug)]
struct Hole {
    missed: Option<u64>,
    /// The run began anew.
    is_new_life: bool,
    /// The event that must come next, if the newest gap named it.
    before: Option<String>,
}

impl Order {
    /// Takes the next frame of an event or a gap; says whether it was an event.
    fn take(&mut self, frame: &Frame) -> bool {
        match frame.event.as_str() {
            "gap" => self.take_gap(frame),
            _ => self.take_event(frame.id()),
        }
        frame.event != "gap"
    }

    fn take_gap(&mut self, frame: &Frame) {
        let (reason, gap) = gap_of(frame);
        assert_eq!(gap["after"].as_str(), self.last.as_deref(), "{gap}");
        let hole = self.hole.take();
        let known = hole.as_ref().map_or(Some(0), |hole| hole.missed);
        self.hole = Some(Hole {
            missed: known
                .zip(gap["missed"].as_u64())
                .map(|(one, two)| one + two),
            is_new_life: reason == "expired" || hole.is_some_and(|hole| hole.is_new_life),
            before: gap["before"].as_str().map(str::to_owned),
        });
        let is_due = matches!(&*reason, "expired" | "trimmed" | "slow_client");
        assert!(is_due, "nothing else happened: {gap}");
        self.gaps += 1;
    }

    fn take_event(&mut self, id: &str) {
        let (epoch, seq, _) = parts(id);
        let hole = self.hole.take();
        if let Some(named) = hole.as_ref().and_then(|hole| hole.before.as_deref()) {
            assert_eq!(named, id, "the gap named another");
        }
        if let Some((last_epoch, last_seq, _)) = self.last.as_deref().map(parts) {
            let is_told = |hole: &Hole| hole.is_new_life;
            if hole.as_ref().is_some_and(is_told) {
                assert!(epoch > last_epoch, "{id} after {:?}", self.last);
            } else {
                // Trimmed exactly up to a place: nothing proves that place any
                // more, and the gap has no count.
                let missed = hole.map_or(Some(0), |hole| hole.missed);
                let due = missed.map_or(seq, |missed| last_seq + 1 + missed);
                assert!(epoch == last_epoch && seq > last_seq, "a twin: {id}");
                assert_eq!(seq, due, "a hole, or a false count");
            }
        }
        self.last = Some(id.to_owned());
        self.events += 1;
    }
}

/// Follows the run until the last event, hopping at random.
async fn hop(brokers: &[Broker], seed: u64) -> Order {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut order = Order::default();
    let mut client = brokers[0].follow("42/stream").await;
    loop {
        let frame = match client.next_within(Duration::from_secs(5)).await {
            Next::Frame(frame) => frame,
            other => panic!("seed {seed}: {other:?} after {order:?}"),
        };
        if frame.event == "heartbeat" || !order.take(&frame) {
            continue;
        }
        let id = frame.id();
        if frame.payload() == "\"last\"" {
            return order;
        }
        if random.u32(..40) == 0 {
            client = hop_to(&brokers[random.usize(..3)], id, &mut order).await;
        }
    }
}

async fn hop_to(broker: &Broker, id: &str, order: &mut Order) -> SseClient {
    let mut client = broker.resume("42/stream", id).await;
    let preamble = client.preamble().await;
    if preamble.hello["resume"] == "gap" {
        let gap = client.event().await;
        assert!(!order.take(&gap), "{gap:?} after a hello that says gap");
    } else {
        assert_eq!(preamble.cursor.as_deref(), Some(id));
    }
    client
}

/// Runs six hopping clients against `publishing`.
async fn churn(
    settings: impl FnOnce(BrokerSettings) -> BrokerSettings,
    publishing: impl AsyncFnOnce(&mut Publisher),
) -> Vec<Order> {
    let kept = Kept::empty(Store::Redis, settings).await;
    let mut publisher = kept.publisher().await;
    append(&mut publisher, "42", "0").await;
    let mut brokers = Vec::new();
    for _ in 0..3 {
        brokers.push(kept.settings.start_ready().await);
    }
    let clients = join_all((0..6).map(|n| hop(&brokers, SEED + n)));
    let publishing = async {
        publishing(&mut publisher).await;
        append(&mut publisher, "42", "last").await;
    };
    let (orders, ()) = join(clients, publishing).await;
    assert!(orders.iter().all(|order| order.events > 100), "{orders:?}");
    orders
}

fn small(settings: BrokerSettings) -> BrokerSettings {
    settings
        .set("limits.max_event_bytes", "1KiB")
        .set("hub.ring_bytes", "4KiB")
        .set("history.page_bytes", "1KiB")
}

async fn cut(publisher: &mut Publisher) {
    let _: i64 = publisher
        .command(&["CLIENT", "KILL", "TYPE", "pubsub"])
        .await;
}

#[tokio::test]
async fn hops_while_subscriptions_are_cut_see_no_gap_at_all() {
    let orders = churn(small, async |publisher| {
        for n in 1..3000 {
            append(publisher, "42", &n.to_string()).await;
            if n % 251 == 0 {
                cut(publisher).await;
            }
        }
    })
    .await;
    for order in orders {
        assert_eq!((order.events, order.gaps), (3001, 0), "{order:?}");
    }
}

#[tokio::test]
async fn hops_over_a_run_that_is_trimmed_have_true_counts() {
    let orders = churn(small, async |publisher| {
        for n in 1..3000 {
            append(publisher, "42", &n.to_string()).await;
            if n % 97 == 0 {
                // Clients that are behind, or away, find less than they left.
                let trim = ["XTRIM", "run:{42}:stream", "MAXLEN", "=", "3"];
                let _: i64 = publisher.command(&trim).await;
            }
        }
    })
    .await;
    for order in orders {
        assert!(order.events <= 3001, "{order:?}");
    }
}

#[tokio::test]
async fn hops_over_a_run_that_begins_anew_again_and_again_are_told_each_time() {
    let orders = churn(small, async |publisher| {
        for n in 1..3000 {
            if n % 200 == 0 {
                let call = [
                    "FCALL",
                    "runcast_publish",
                    "2",
                    "run:{42}:stream",
                    "run:{42}:meta",
                    "42",
                    "output",
                    "stdout",
                    "anew",
                    "RESTART",
                ];
                let answer: Vec<String> = publisher.command(&call).await;
                assert_eq!(answer[0], "OK");
            }
            append(publisher, "42", &n.to_string()).await;
            if n % 450 == 0 {
                cut(publisher).await;
            }
        }
    })
    .await;
    for order in orders {
        assert!(order.gaps > 3, "{order:?}");
    }
}
