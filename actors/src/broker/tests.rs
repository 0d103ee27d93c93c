//! Failures of our own, in a whole embedded broker.

use std::future::poll_fn;

use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::hub::Panic;
use crate::protocol::{EventKind, LogLevel};
use crate::store::AppendBatch;
use crate::worker::RunMessage;

/// How long anything may take.
const SOON: Duration = Duration::from_secs(10);

const EMBEDDED: BackendKind = BackendKind::Embedded;

fn broker() -> Broker {
    let mut settings = BrokerSettings::default();
    settings
        .live
        .change(|live| live.streaming.default_backend = DefaultBackend::Embedded);
    settings.kubectl.enabled = false;
    settings.hub.quarantine = Duration::from_secs(2);
    Broker::start(settings)
}

/// A client of a run, and what it was sent.
struct Client {
    body: StreamBody,
    text: String,
}

impl Client {
    async fn open(broker: &Broker, run_id: &str) -> Self {
        let request = StreamRequest {
            run_id: RunId::parse(run_id).expect("a run id"),
            backend: EMBEDDED,
            filter: StreamFilter {
                kinds: Vec::new(),
                sources: Vec::new(),
                log_level: LogLevel::Info,
            },
            start: StreamStart::Start,
            peer: None,
            bearer: None,
            ticket: None,
        };
        let body = match broker.open_stream(request).await {
            StreamAnswer::Stream(body) | StreamAnswer::Refused { body, .. } => body,
            other => panic!("no stream: {other:?}"),
        };
        Self {
            body,
            text: String::new(),
        }
    }

    /// Reads until it was sent `wanted`, or to its end.
    async fn until(&mut self, wanted: Option<&str>) {
        let reading = async {
            while !wanted.is_some_and(|wanted| self.text.contains(wanted)) {
                match poll_fn(|cx| self.body.poll_piece(cx)).await {
                    Some(piece) => self.text += &String::from_utf8_lossy(piece.bytes()),
                    None => return wanted.is_none(),
                }
            }
            true
        };
        let read = timeout(SOON, reading).await.unwrap_or(false);
        assert!(read, "no {wanted:?} in {}", self.text);
    }
}

async fn publish(broker: &Broker, run_id: &str, payload: &'static str) {
    let event = NewEvent {
        kind: EventKind::Output,
        source: "stdout".to_owned(),
        payload: payload.into(),
    };
    let batch = AppendBatch {
        events: vec![event],
        ..AppendBatch::default()
    };
    let run_id = RunId::parse(run_id).expect("a run id");
    let results = broker.publish(run_id, batch).await.expect("it takes it");
    assert!(results[0].is_ok(), "{results:?}");
}

/// Has the hub of a run panic.
async fn panic_in_hub(broker: &Broker, run_id: &str) {
    let hub = broker
        .shared
        .registry
        .with(EMBEDDED, run_id, |entry| entry.hub.clone());
    let hub = hub.expect("it has a hub");
    hub.send(Panic).await.expect_err("it is dead");
}

#[actix::test]
async fn a_hub_that_panics_again_and_again_costs_its_run_alone() {
    let broker = broker();
    let mut client = Client::open(&broker, "42").await;
    let mut other = Client::open(&broker, "43").await;
    client.until(Some("event: hello")).await;
    other.until(Some("event: hello")).await;
    for payload in ["\"after 0\"", "\"after 1\"", "\"after 2\""] {
        publish(&broker, "42", payload).await;
        client.until(Some(payload)).await;
        panic_in_hub(&broker, "42").await;
    }
    client.until(None).await;
    assert!(client.text.contains("run-quarantined"), "{}", client.text);
    assert!(client.text.contains("event: goodbye"), "{}", client.text);
    for payload in ["\"after 0\"", "\"after 1\"", "\"after 2\""] {
        assert_eq!(client.text.matches(payload).count(), 1, "{}", client.text);
    }
    assert_eq!(broker.shared.metrics.hub_panics.get(), 3);

    // It alone is not served, and what is posted is kept.
    let mut refused = Client::open(&broker, "42").await;
    refused.until(None).await;
    assert!(refused.text.contains("run-quarantined"), "{}", refused.text);
    publish(&broker, "42", "\"meanwhile\"").await;
    publish(&broker, "43", "\"elsewhere\"").await;
    other.until(Some("\"elsewhere\"")).await;
    assert!(!other.text.contains("event: gap"), "{}", other.text);

    let begin = Instant::now();
    loop {
        let mut back = Client::open(&broker, "42").await;
        back.until(Some("event: ")).await;
        if back.text.contains("event: hello") {
            back.until(Some("\"meanwhile\"")).await;
            break;
        }
        assert!(begin.elapsed() < SOON, "it stays in quarantine");
        sleep(Duration::from_millis(50)).await;
    }
    broker.stop().await;
}

#[actix::test]
async fn the_runs_of_a_worker_that_panics_go_on() {
    let broker = broker();
    let mut clients = [
        Client::open(&broker, "42").await,
        Client::open(&broker, "43").await,
    ];
    for client in &mut clients {
        client.until(Some("event: hello")).await;
    }
    let worker = Worker::current(&broker.shared);
    let run = worker
        .run(EMBEDDED, &RunId::parse("42").expect("a run id"))
        .expect("it is served");
    worker
        .inbox()
        .push(WorkerMessage::Run(run.attach_id(), RunMessage::Panic));
    let restarts = &broker.shared.metrics.actor_restarts;
    let panicked = async {
        while restarts.get() < 3 {
            tokio::task::yield_now().await;
        }
    };
    // The pump, and two runs that attach anew.
    timeout(SOON, panicked).await.expect("it panics");
    for (run_id, client) in ["42", "43"].into_iter().zip(&mut clients) {
        publish(&broker, run_id, "\"after\"").await;
        client.until(Some("\"after\"")).await;
    }
    drop(clients);
    // No attachment of before keeps a hub.
    let unwatched = async {
        loop {
            let is_unwatched = ["42", "43"].into_iter().all(|run_id| {
                let stats = broker
                    .shared
                    .registry
                    .peek(EMBEDDED, run_id, |entry| entry.stats.is_unwatched());
                stats.unwrap_or(true)
            });
            if is_unwatched {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, unwatched).await.expect("nobody watches");
    broker.stop().await;
}
