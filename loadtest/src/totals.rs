//! [`Totals`]: what subscribers have seen, added up.

use std::collections::BTreeMap;
use std::ops::Range;

use hdrhistogram::Histogram;

use crate::sequence::{Arrival, Sequence};
use crate::sse::{Event, EventName};

/// Longest latency told apart from a longer one: 10 minutes.
const LATENCY_NS_MAX: u64 = 600_000_000_000;

/// Most points of a latency over time; what comes after counts to the last.
/// A point takes some 170 kB.
const POINTS_MAX: u64 = 60;

/// Returns a histogram of nanoseconds.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1_000, LATENCY_NS_MAX, 3).expect("the bounds are in order")
}

/// What one thread's subscribers have seen, or all threads' together.
#[derive(Debug)]
pub(crate) struct Seen {
    /// Those that read.
    pub(crate) reading: Totals,
    /// Those that were stalled.
    pub(crate) stalled: Totals,
}

impl Seen {
    /// Nothing yet; the latency gets points of so many nanoseconds, or one.
    pub(crate) fn new(point_ns: u64) -> Self {
        Self {
            reading: Totals::new(point_ns),
            stalled: Totals::new(0),
        }
    }

    /// Returns the totals of one kind.
    pub(crate) fn of(&mut self, stalled: bool) -> &mut Totals {
        if stalled {
            &mut self.stalled
        } else {
            &mut self.reading
        }
    }

    /// Adds another thread's.
    pub(crate) fn add(&mut self, other: &Self) {
        self.reading.add(&other.reading);
        self.stalled.add(&other.stalled);
    }
}

/// Latency by when a message was sent.
#[derive(Debug)]
pub(crate) struct Latency {
    point_ns: u64,
    points: Vec<Histogram<u64>>,
}

impl Latency {
    fn new(point_ns: u64) -> Self {
        Self {
            point_ns,
            points: Vec::new(),
        }
    }

    fn record(&mut self, offset_ns: u64, latency_ns: u64) {
        let point = offset_ns.checked_div(self.point_ns).unwrap_or_default();
        let point = point.min(POINTS_MAX - 1) as usize;
        if point >= self.points.len() {
            self.points.resize_with(point + 1, histogram);
        }
        self.points[point].saturating_record(latency_ns);
    }

    /// Returns its points, one after the other in time.
    pub(crate) fn points(&self) -> &[Histogram<u64>] {
        &self.points
    }

    /// Returns all points in one.
    pub(crate) fn total(&self) -> Histogram<u64> {
        let mut total = histogram();
        for point in &self.points {
            add(&mut total, point);
        }
        total
    }

    fn add(&mut self, other: &Self) {
        let points = self.points.len().max(other.points.len());
        self.points.resize_with(points, histogram);
        for (point, other) in self.points.iter_mut().zip(&other.points) {
            add(point, other);
        }
    }
}

fn add(to: &mut Histogram<u64>, other: &Histogram<u64>) {
    to.add(other).expect("all histograms have the same bounds");
}

/// The times that an event is seen by, of `CLOCK_MONOTONIC`.
#[derive(Debug, Clone)]
pub(crate) struct Times {
    /// When the subscriber's first head came.
    pub(crate) joined_ns: u64,
    /// When the event was read.
    pub(crate) now_ns: u64,
    /// What is sent in it counts for the latency.
    pub(crate) measured: Range<u64>,
}

/// What subscribers have seen together.
#[derive(Debug)]
pub(crate) struct Totals {
    /// Nanoseconds from the publisher's send to the subscriber's read.
    pub(crate) latency: Latency,
    /// Nanoseconds from `connect` to the response head.
    pub(crate) connect_latency: Histogram<u64>,
    /// The same of those that came and went.
    pub(crate) churned: Histogram<u64>,
    /// Nanoseconds from going until all that was missed was read, of those
    /// that went by themselves.
    pub(crate) reconnect_latency: Histogram<u64>,
    /// The same of those that went all at once …
    pub(crate) drop_latency: Histogram<u64>,
    /// … and how many went.
    pub(crate) dropped: u64,
    /// Distinct messages received.
    pub(crate) deliveries: u64,
    /// Messages received again.
    pub(crate) duplicated: u64,
    /// Messages received after a newer one.
    pub(crate) out_of_order: u64,
    /// Messages sent to a subscriber's run that it never received.
    pub(crate) lost: u64,
    /// Messages that `gap` events count as lost.
    pub(crate) told: u64,
    /// Those of the lost that no `gap` counts, of streams that were not cut.
    pub(crate) untold: u64,
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
    fn new(point_ns: u64) -> Self {
        Self {
            latency: Latency::new(point_ns),
            connect_latency: histogram(),
            churned: histogram(),
            reconnect_latency: histogram(),
            drop_latency: histogram(),
            dropped: 0,
            deliveries: 0,
            duplicated: 0,
            out_of_order: 0,
            lost: 0,
            told: 0,
            untold: 0,
            misrouted: 0,
            gaps: 0,
            heartbeats: 0,
            problems: 0,
            bytes: 0,
            failures: BTreeMap::new(),
        }
    }

    /// Takes note of an event; returns 1 if it is a message not seen before.
    pub(crate) fn on_event(
        &mut self,
        event: &Event,
        run: u32,
        sequence: &mut Sequence,
        times: &Times,
    ) -> u64 {
        match event.name {
            EventName::Message => {}
            EventName::Heartbeat => self.heartbeats += 1,
            EventName::Gap => self.gaps += 1,
            EventName::Problem => self.problems += 1,
            EventName::Hello | EventName::Close | EventName::Other => {}
        }
        let (EventName::Message, Some(stamp)) = (event.name, event.stamp) else {
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
        // What a stream begins with that was sent before it has no latency.
        if times.measured.contains(&stamp.sent_ns) && stamp.sent_ns >= times.joined_ns {
            let latency_ns = times.now_ns.saturating_sub(stamp.sent_ns);
            let offset_ns = stamp.sent_ns - times.measured.start;
            self.latency.record(offset_ns, latency_ns);
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
        self.latency.add(&other.latency);
        add(&mut self.connect_latency, &other.connect_latency);
        add(&mut self.churned, &other.churned);
        add(&mut self.reconnect_latency, &other.reconnect_latency);
        add(&mut self.drop_latency, &other.drop_latency);
        self.dropped += other.dropped;
        self.deliveries += other.deliveries;
        self.duplicated += other.duplicated;
        self.out_of_order += other.out_of_order;
        self.lost += other.lost;
        self.told += other.told;
        self.untold += other.untold;
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
