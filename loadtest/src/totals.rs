//! [`Totals`]: what subscribers have seen, added up.

use std::collections::BTreeMap;
use std::ops::Range;

use hdrhistogram::Histogram;

use crate::sequence::{Arrival, Sequence};
use crate::sse::EventName;
use crate::stamp::Stamp;

/// Longest latency told apart from a longer one: 10 minutes.
const LATENCY_NS_MAX: u64 = 600_000_000_000;

/// What one thread's subscribers have seen, or all threads' together.
#[derive(Debug)]
pub(crate) struct Totals {
    /// Nanoseconds from the publisher's send to the subscriber's read.
    pub(crate) latency: Histogram<u64>,
    /// Nanoseconds from `connect` to the response head.
    pub(crate) connect_latency: Histogram<u64>,
    /// Distinct messages received.
    pub(crate) deliveries: u64,
    /// Messages received again.
    pub(crate) duplicated: u64,
    /// Messages received after a newer one.
    pub(crate) out_of_order: u64,
    /// Messages sent to a subscriber's run that it never received.
    pub(crate) lost: u64,
    /// Messages of another run.
    pub(crate) misrouted: u64,
    /// `gap` events.
    pub(crate) gaps: u64,
    /// `heartbeat` events.
    pub(crate) heartbeats: u64,
    /// `problem` events.
    pub(crate) problems: u64,
    /// Bytes read, response heads included.
    pub(crate) bytes: u64,
    /// Streams not opened or closed early, by cause.
    pub(crate) failures: BTreeMap<String, u64>,
}

impl Totals {
    pub(crate) fn new() -> Self {
        let histogram = || {
            Histogram::new_with_bounds(1_000, LATENCY_NS_MAX, 3).expect("the bounds are in order")
        };
        Self {
            latency: histogram(),
            connect_latency: histogram(),
            deliveries: 0,
            duplicated: 0,
            out_of_order: 0,
            lost: 0,
            misrouted: 0,
            gaps: 0,
            heartbeats: 0,
            problems: 0,
            bytes: 0,
            failures: BTreeMap::new(),
        }
    }

    /// Takes note of a `data` line read at `now_ns`; returns 1 if it is a
    /// message not seen before.
    pub(crate) fn on_data(
        &mut self,
        event: EventName,
        data: &[u8],
        run: u32,
        sequence: &mut Sequence,
        now_ns: u64,
        measured: &Range<u64>,
    ) -> u64 {
        match event {
            EventName::Message => {}
            EventName::Heartbeat => self.heartbeats += 1,
            EventName::Gap => self.gaps += 1,
            EventName::Problem => self.problems += 1,
            EventName::Close | EventName::Other => {}
        }
        if event != EventName::Message {
            return 0;
        }
        let Some(stamp) = Stamp::find(data) else {
            return 0;
        };
        if stamp.run != run {
            self.misrouted += 1;
            return 0;
        }
        match sequence.saw(stamp.seq) {
            Arrival::New => {}
            Arrival::OutOfOrder => self.out_of_order += 1,
            Arrival::Duplicate => {
                self.duplicated += 1;
                return 0;
            }
        }
        self.deliveries += 1;
        if measured.contains(&stamp.sent_ns) {
            let latency_ns = now_ns.saturating_sub(stamp.sent_ns);
            self.latency.saturating_record(latency_ns);
        }
        1
    }

    /// Takes note of a stream that could not be opened or was closed early.
    pub(crate) fn on_failure(&mut self, why: &str) {
        if let Some(count) = self.failures.get_mut(why) {
            *count += 1;
        } else {
            self.failures.insert(why.to_owned(), 1);
        }
    }

    /// Adds another thread's totals.
    pub(crate) fn add(&mut self, other: &Self) {
        let same = "all histograms have the same bounds";
        self.latency.add(&other.latency).expect(same);
        self.connect_latency
            .add(&other.connect_latency)
            .expect(same);
        self.deliveries += other.deliveries;
        self.duplicated += other.duplicated;
        self.out_of_order += other.out_of_order;
        self.lost += other.lost;
        self.misrouted += other.misrouted;
        self.gaps += other.gaps;
        self.heartbeats += other.heartbeats;
        self.problems += other.problems;
        self.bytes += other.bytes;
        for (why, count) in &other.failures {
            *self.failures.entry(why.clone()).or_default() += count;
        }
    }
}
