//! The kinds of numbers: counters, gauges, sets of them, histograms.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{EventResult, Limit, RejectReason, Switch};
use crate::protocol::{BackendKind, EventKind, GapReason};
use crate::session::CloseReason;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Makes one that is 0.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds `count`.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Relaxed);
    }

    /// Adds `count` where only one thread ever writes: no locked instruction.
    pub(crate) fn add_local(&self, count: u64) {
        self.0.store(self.0.load(Relaxed) + count, Relaxed);
    }

    /// Returns the number.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Adds `count`.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Relaxed);
    }

    /// Takes `count` off.
    pub fn sub(&self, count: u64) {
        self.0.fetch_sub(count, Relaxed);
    }

    /// Sets the number.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// Returns the number.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Numbers of a closed set, one per member.
#[derive(Debug)]
pub struct PerMember<T, const N: usize>([T; N]);

impl<T: Default, const N: usize> Default for PerMember<T, N> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| T::default()))
    }
}

/// Maps a member of a closed set to its place in `ALL`.
macro_rules! member_index {
    ($($set:ty),+) => {$(
        impl Member for $set {
            fn index(self) -> usize {
                Self::ALL.iter().position(|member| *member == self).unwrap_or(0)
            }
        }
    )+};
}

/// A member of a closed set that counters are kept for.
pub trait Member {
    /// Its place in the set.
    fn index(self) -> usize;
}

member_index!(
    EventKind,
    BackendKind,
    GapReason,
    CloseReason,
    EventResult,
    RejectReason,
    Limit,
    Switch
);

impl<T, const N: usize> PerMember<T, N> {
    /// Returns the number of `member`.
    pub fn of(&self, member: impl Member) -> &T {
        &self.0[member.index()]
    }
}

/// A histogram with fixed bounds; only one thread writes it.
#[derive(Debug)]
pub struct Histogram<const N: usize> {
    bounds: &'static [f64; N],
    pub(super) buckets: [Counter; N],
    pub(super) above: Counter,
    /// In millionths of the unit.
    pub(super) sum_micro: Counter,
}

impl<const N: usize> Histogram<N> {
    pub(super) fn new(bounds: &'static [f64; N]) -> Self {
        Self {
            bounds,
            buckets: std::array::from_fn(|_| Counter::default()),
            above: Counter::default(),
            sum_micro: Counter::default(),
        }
    }

    pub(super) fn observe(&self, value: f64) {
        let at = self.bounds.partition_point(|bound| *bound < value);
        self.buckets.get(at).unwrap_or(&self.above).add_local(1);
        self.sum_micro.add_local((value * 1e6) as u64);
    }
}
