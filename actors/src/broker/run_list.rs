//! The list of runs: those with a hub, and those that had one.

use std::collections::BTreeMap;

use futures_util::future::join_all;

use super::past_runs::{PastRun, RunKey};
use super::{Broker, RunSummary};
use crate::hub::{Describe, HubEntry};
use crate::protocol::{BackendKind, RunId};

impl Broker {
    /// Returns up to `limit` runs that this broker knows and that are
    /// `visible`, by run id, after `after`; and whether there are more. Those
    /// without a hub are told as it left them.
    pub async fn runs(
        &self,
        after: Option<&RunId>,
        limit: usize,
        visible: impl Fn(&RunId) -> bool,
    ) -> (Vec<RunSummary>, bool) {
        // The page, and as much more as one run can be.
        let count = limit + BackendKind::ALL.len();
        let mut page: BTreeMap<RunKey, Known> = BTreeMap::new();
        for (key, hub) in self.hubs_after(after, count, &visible) {
            page.entry(key).or_default().hub = Some(hub);
        }
        for (key, past) in self.shared.past_runs.page(after, count, &visible) {
            page.entry(key).or_default().past = Some(past);
        }
        let keys: Vec<&RunKey> = page.keys().collect();
        let end = end_of_page(&keys, limit);
        let more = end < keys.len();
        let asked = page.into_values().take(end).map(Known::describe);
        let described = join_all(asked).await;
        (described.into_iter().flatten().collect(), more)
    }

    /// Returns the first `count` hubs after `after`, by run id; of many hubs,
    /// most are never copied.
    fn hubs_after(
        &self,
        after: Option<&RunId>,
        count: usize,
        visible: impl Fn(&RunId) -> bool,
    ) -> BTreeMap<RunKey, HubEntry> {
        let mut page: BTreeMap<RunKey, HubEntry> = BTreeMap::new();
        // Who serves `auto` is counted by the hub of Redis that it follows.
        let listed = |backend: &BackendKind| *backend != BackendKind::Auto;
        for backend in BackendKind::ALL.into_iter().filter(listed) {
            self.shared.registry.each(backend, |run_id, entry| {
                let is_full = page.len() >= count;
                let is_beyond = |(last, _): (&RunKey, _)| *run_id > last.run_id;
                if after.is_some_and(|after| run_id <= after)
                    || is_full && page.last_key_value().is_some_and(is_beyond)
                    || !visible(run_id)
                {
                    return;
                }
                page.insert(RunKey::new(run_id.clone(), backend), entry.clone());
                if is_full {
                    page.pop_last();
                }
            });
        }
        page
    }
}

/// A run of a page of runs: its hub, what is left of an earlier one, or both.
#[derive(Default)]
struct Known {
    hub: Option<HubEntry>,
    past: Option<PastRun>,
}

impl Known {
    async fn describe(self) -> Option<RunSummary> {
        // A hub that ends meanwhile does not answer.
        let hub = match self.hub {
            Some(entry) => entry.hub.send(Describe).await.ok(),
            None => None,
        };
        match (hub, self.past) {
            (Some(hub), Some(past)) => Some(past.under(hub)),
            (Some(hub), None) => Some(hub.summary),
            (None, past) => past.map(PastRun::into_summary),
        }
    }
}

/// Where a page of at most `limit` ends: the next one begins after a run, so no
/// run is cut. One on more backends than `limit` is a page by itself.
fn end_of_page(keys: &[&RunKey], limit: usize) -> usize {
    let Some(beyond) = keys.get(limit) else {
        return keys.len();
    };
    match keys.partition_point(|key| key.run_id < beyond.run_id) {
        0 => keys.partition_point(|key| key.run_id <= beyond.run_id),
        end => end,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_runs_ends_between_two_runs() {
        let keys = [
            ("a", BackendKind::Redis),
            ("b", BackendKind::Redis),
            ("b", BackendKind::Kubectl),
            ("c", BackendKind::Redis),
        ]
        .map(|(run_id, backend)| RunKey::new(RunId::parse(run_id).expect("valid"), backend));
        let keys: Vec<&RunKey> = keys.iter().collect();
        let ends = [1, 2, 3, 4, 5].map(|limit| end_of_page(&keys, limit));
        assert_eq!(ends, [1, 1, 3, 4, 4]);
        // The run that is left over is not lost with a limit of one.
        assert_eq!(end_of_page(&keys[1..], 1), 2);
    }
}
