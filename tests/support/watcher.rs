//! [`Watcher`]: a client that keeps all it was sent.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::sse::Next;
use super::{Broker, Frame, SseClient};

/// kubectl is started again and again, on a busy machine.
const LATER: Duration = Duration::from_secs(90);

/// A client and all that it was sent.
pub(crate) struct Watcher {
    pub(crate) client: SseClient,
    pub(crate) frames: Vec<Frame>,
}

impl Watcher {
    /// Opens a stream and waits until it has begun.
    pub(crate) async fn open(broker: &Broker, run_and_rest: &str) -> Self {
        let mut watcher = Self::of(broker.stream(run_and_rest).await);
        let greeted = |seen: &Self| seen.frames.iter().any(|it| it.event == "hello");
        watcher.until("hello", greeted).await;
        watcher
    }

    /// Comes back with a cursor.
    pub(crate) async fn resume(broker: &Broker, run_and_rest: &str, id: &str) -> Self {
        Self::of(broker.resume(run_and_rest, id).await)
    }

    fn of(client: SseClient) -> Self {
        Self {
            client,
            frames: Vec::new(),
        }
    }

    /// Reads until `done`, or the stream's end.
    pub(crate) async fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !done(self) {
            match self.client.next_within(Duration::from_secs(1)).await {
                Next::Frame(frame) => self.frames.push(frame),
                Next::Silence => {}
                other => panic!("{other:?} before {what}: {:#?}", self.tail()),
            }
            let left = begun.elapsed() < LATER;
            assert!(left, "in vain: {what}, after {:#?}", self.tail());
        }
    }

    /// Reads until an output has this text.
    pub(crate) async fn until_text(&mut self, text: &str) {
        self.until(text, |seen| seen.texts().iter().any(|it| it == text))
            .await;
    }

    /// Reads until it was told that often that events come from `to`.
    pub(crate) async fn until_source(&mut self, to: &str, count: usize) {
        let what = format!("source {to} for the {count}. time");
        let to = to.to_owned();
        self.until(&what, |seen| {
            let sources = seen.sources();
            sources.iter().filter(|it| it["to"] == *to).count() >= count
        })
        .await;
    }

    fn tail(&self) -> &[Frame] {
        &self.frames[self.frames.len().saturating_sub(12)..]
    }

    fn events(&self) -> impl Iterator<Item = &Frame> {
        self.frames.iter().filter(|frame| frame.is_run_event())
    }

    /// The texts of its outputs, in order.
    pub(crate) fn texts(&self) -> Vec<String> {
        let outputs = self.events().filter(|frame| frame.event == "output");
        outputs.map(text_of).collect()
    }

    /// What it was told about where events come from.
    pub(crate) fn sources(&self) -> Vec<Value> {
        let sources = self.frames.iter().filter(|it| it.event == "source");
        sources.map(Frame::json).collect()
    }

    /// Reasons of its gaps.
    pub(crate) fn gaps(&self) -> Vec<String> {
        let gaps = self.frames.iter().filter(|it| it.event == "gap");
        gaps.map(|gap| gap.json()["reason"].as_str().unwrap_or_default().to_owned())
            .collect()
    }

    /// Id of its last event.
    pub(crate) fn last_id(&self) -> String {
        let last = self.events().last().expect("an event");
        last.id().to_owned()
    }

    /// How many events came from Redis, and from kubectl.
    pub(crate) fn by_backend(&self) -> (usize, usize) {
        let of = |backend: &str| {
            let same = |frame: &&Frame| frame.envelope().backend == backend;
            self.events().filter(same).count()
        };
        (of("redis"), of("kubectl"))
    }
}

fn text_of(frame: &Frame) -> String {
    let payload = frame.payload();
    serde_json::from_str(&payload).unwrap_or(payload)
}

/// `<prefix> <n>` for each `n`.
pub(crate) fn numbered(prefix: &str, range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| format!("{prefix} {n}")).collect()
}
