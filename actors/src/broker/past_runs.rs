//! [`PastRuns`]: runs whose hub is gone, as it last told of them.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{RunDetail, RunSummary};
use crate::metrics::Gauge;
use crate::protocol::{BackendKind, RunId};

/// A run of one backend: the order of a list of runs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RunKey {
    pub(super) run_id: RunId,
    backend: usize,
}

impl RunKey {
    pub(super) fn new(run_id: RunId, backend: BackendKind) -> Self {
        Self {
            run_id,
            backend: backend as usize,
        }
    }
}

/// What a hub knew when it ended.
#[derive(Debug, Clone)]
pub(super) struct PastRun {
    summary: RunSummary,
    epoch: Option<u64>,
}

impl PastRun {
    /// The run as a list shows it while it has no hub.
    pub(super) fn into_summary(self) -> RunSummary {
        self.summary
    }

    /// The run as a list shows it, now that it has a hub again: one that nobody
    /// watches begins with the next event, and knows nothing of those before.
    pub(super) fn under(self, hub: RunDetail) -> RunSummary {
        let mut run = hub.summary;
        if run.last_event_ts.is_none() {
            return RunSummary {
                clients: run.clients,
                ..self.summary
            };
        }
        if hub.epoch == self.epoch && !self.summary.ended {
            run.status = run.status.or(self.summary.status);
        }
        run
    }
}

/// Remembers runs whose hub has ended, so that a list of runs still has those
/// that went quiet. Bounded by `hub.max_past_runs`: the one whose hub ended
/// first goes first. One goes `history.ttl` after its hub ended, too: no store
/// has anything of it then.
#[derive(Debug)]
pub(crate) struct PastRuns {
    runs_max: usize,
    ttl: Duration,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    runs: BTreeMap<RunKey, (u64, PastRun)>,
    /// The same in the order in which their hubs ended.
    ends: BTreeMap<u64, (Instant, RunKey)>,
    next_no: u64,
}

impl PastRuns {
    pub(crate) fn new(runs_max: usize, ttl: Duration) -> Self {
        Self {
            runs_max,
            ttl,
            kept: Mutex::default(),
        }
    }

    /// Notes what a hub knows that ends, and counts the runs in `gauge`.
    /// Nothing is noted of a run without events: it was only asked for.
    pub(crate) fn note(&self, run: &RunDetail, gauge: &Gauge) {
        self.note_at(run, gauge, Instant::now());
    }

    fn note_at(&self, run: &RunDetail, gauge: &Gauge, now: Instant) {
        let mut kept = self.lock();
        if run.summary.last_event_ts.is_some() {
            let past = PastRun {
                summary: RunSummary {
                    clients: 0,
                    ..run.summary.clone()
                },
                epoch: run.epoch,
            };
            kept.insert(past, now);
        }
        kept.forget(self.runs_max, self.ttl, now);
        gauge.set(kept.runs.len() as u64);
    }

    /// Returns the first `count` runs after the run id `after` that are
    /// `visible`, in order.
    pub(super) fn page(
        &self,
        after: Option<&RunId>,
        count: usize,
        visible: impl Fn(&RunId) -> bool,
    ) -> Vec<(RunKey, PastRun)> {
        self.page_at(after, count, visible, Instant::now())
    }

    fn page_at(
        &self,
        after: Option<&RunId>,
        count: usize,
        visible: impl Fn(&RunId) -> bool,
        now: Instant,
    ) -> Vec<(RunKey, PastRun)> {
        let mut kept = self.lock();
        kept.forget(self.runs_max, self.ttl, now);
        let start = after.map_or(Bound::Unbounded, |run_id| {
            Bound::Excluded(RunKey {
                run_id: run_id.clone(),
                backend: usize::MAX,
            })
        });
        let runs = kept.runs.range((start, Bound::Unbounded));
        runs.filter(|(key, _)| visible(&key.run_id))
            .take(count)
            .map(|(key, (_, run))| (key.clone(), run.clone()))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn insert(&mut self, mut run: PastRun, now: Instant) {
        let key = RunKey::new(run.summary.run_id.clone(), run.summary.backend);
        if let Some((no, before)) = self.runs.remove(&key) {
            self.ends.remove(&no);
            if before.epoch == run.epoch && !before.summary.ended {
                run.summary.status = run.summary.status.or(before.summary.status);
            }
        }
        self.ends.insert(self.next_no, (now, key.clone()));
        self.runs.insert(key, (self.next_no, run));
        self.next_no += 1;
    }

    fn forget(&mut self, runs_max: usize, ttl: Duration, now: Instant) {
        while let Some(first) = self.ends.first_entry() {
            let is_due = now.saturating_duration_since(first.get().0) >= ttl;
            if !is_due && self.runs.len() <= runs_max {
                return;
            }
            let (_, key) = first.remove();
            self.runs.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::run_view::never_seen;
    use super::*;
    use crate::protocol::Timestamp;

    fn run(run_id: &str, status: Option<&str>) -> RunDetail {
        let run_id = RunId::parse(run_id).expect("valid");
        let mut run = never_seen(&run_id, BackendKind::Redis);
        run.summary.status = status.map(str::to_owned);
        run.summary.last_event_ts = Some(Timestamp::from_micros(1));
        run.epoch = Some(7);
        run
    }

    fn names(past: &PastRuns, after: Option<&str>, count: usize) -> Vec<String> {
        let after = after.map(|text| RunId::parse(text).expect("valid"));
        let page = past.page(after.as_ref(), count, |_| true);
        page.into_iter()
            .map(|(key, _)| key.run_id.to_string())
            .collect()
    }

    fn status(past: &PastRuns) -> Option<String> {
        let mut page = past.page(None, 1, |_| true);
        page.pop().and_then(|(_, run)| run.into_summary().status)
    }

    #[test]
    fn the_run_whose_hub_ended_first_goes_first() {
        let (past, gauge) = (PastRuns::new(2, Duration::from_secs(9)), Gauge::default());
        for run_id in ["b", "c", "b", "a"] {
            past.note(&run(run_id, None), &gauge);
        }
        assert_eq!(names(&past, None, 9), ["a", "b"]);
        assert_eq!(names(&past, Some("a"), 9), ["b"]);
        assert_eq!(names(&past, None, 1), ["a"]);
        assert_eq!(gauge.get(), 2);
    }

    #[test]
    fn a_run_is_forgotten_with_its_history_and_one_without_events_never_noted() {
        let (past, gauge) = (PastRuns::new(9, Duration::from_secs(9)), Gauge::default());
        let now = Instant::now();
        let mut asked_for = run("asked-for", None);
        asked_for.summary.last_event_ts = None;
        past.note_at(&asked_for, &gauge, now);
        past.note_at(&run("a", None), &gauge, now);
        past.note_at(&run("b", None), &gauge, now + Duration::from_secs(5));
        let left = past.page_at(None, 9, |_| true, now + Duration::from_secs(9));
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].0.run_id.as_str(), "b");
    }

    #[test]
    fn a_new_hub_does_not_make_a_run_forget_its_status() {
        let (past, gauge) = (PastRuns::new(9, Duration::from_secs(9)), Gauge::default());
        past.note(&run("a", Some("running")), &gauge);
        let told = |hub: RunDetail| {
            let (_, past) = past.page(None, 1, |_| true).pop().expect("noted");
            past.under(hub)
        };
        // It has seen nothing yet, or an event after the status.
        let mut blank = never_seen(&RunId::parse("a").expect("valid"), BackendKind::Redis);
        blank.summary.clients = 3;
        let shown = told(blank);
        assert_eq!(
            (shown.status.as_deref(), shown.clients),
            (Some("running"), 3)
        );
        assert_eq!(told(run("a", None)).status.as_deref(), Some("running"));
        assert_eq!(
            told(run("a", Some("paused"))).status.as_deref(),
            Some("paused")
        );
        // Another life of the run.
        let mut anew = run("a", None);
        anew.epoch = Some(8);
        assert_eq!(told(anew.clone()).status, None);
        // And when that hub ends in its turn.
        past.note(&run("a", None), &gauge);
        assert_eq!(status(&past).as_deref(), Some("running"));
        past.note(&anew, &gauge);
        assert_eq!(status(&past), None);
    }
}
