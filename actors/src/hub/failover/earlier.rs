//! What Redis showed before the hub's log begins, as far as one page goes.

use actix::prelude::*;
use tracing::debug;

use super::super::RunHub;
use crate::failover::{Content, Entry, Origin};
use crate::order::{LogIndex as _, PAGE_EVENTS};
use crate::protocol::Place;
use crate::store::{Page, PageFrom, PageQuery, StoredEvent};

/// The last events before a log's base. Read while Redis is well, so that a join
/// can be found although nothing came since the first client.
pub(super) struct Earlier {
    /// Where the log began when it was read.
    base: Place,
    /// Oldest first; at most one page. Empty while it is on its way.
    entries: Vec<Entry>,
    /// They are all there are.
    is_whole: bool,
}

impl Earlier {
    /// Returns its entries if the log still begins at `base`, and whether they
    /// are all there are before it.
    pub(super) fn before(&self, base: Option<Place>) -> Option<(&[Entry], bool)> {
        (base == Some(self.base)).then_some((&self.entries, self.is_whole))
    }
}

impl RunHub {
    /// Reads what lies before the log, once.
    pub(in crate::hub) fn read_earlier(&mut self, ctx: &mut Context<Self>) {
        let base = self.log.base().filter(|base| base.seq > 0);
        let (Some(failover), Some(base)) = (&mut self.failover, base) else {
            return;
        };
        if failover.earlier.is_some() || self.log.events_through() >= PAGE_EVENTS as u64 {
            return;
        }
        failover.earlier = Some(Earlier {
            base,
            entries: Vec::new(),
            is_whole: false,
        });
        let shared = self.shared.clone();
        let run_id = self.run_id.clone();
        let query = PageQuery {
            from: PageFrom::Before(base.seq + 1),
            events_max: PAGE_EVENTS,
            bytes_max: shared.settings.history.page_bytes.as_u64() as usize,
        };
        let reading = async move { shared.read_hub_page(&run_id, query, true).await };
        ctx.spawn(reading.into_actor(self).map(|page, hub, _| match page {
            Ok((page, _)) => hub.earlier_was_read(&page),
            // Then a gap is told where it would have shown the join.
            Err(error) => debug!(run_id = %hub.run_id, %error, "earlier events not read"),
        }));
    }

    fn earlier_was_read(&mut self, page: &Page) {
        let failover = self.failover.as_mut();
        let Some(earlier) = failover.and_then(|failover| failover.earlier.as_mut()) else {
            return;
        };
        let of_epoch = |event: &&StoredEvent| event.id.epoch == earlier.base.epoch;
        earlier.entries = page.events.iter().filter(of_epoch).map(entry_of).collect();
        let first = page.events.first();
        earlier.is_whole = first.is_some_and(|event| event.id.seq == 1);
    }
}

fn entry_of(event: &StoredEvent) -> Entry {
    Entry {
        content: Content::of(&event.payload),
        ts: event.id.us as i64,
        origin: Origin::Durable,
        kind: event.kind,
        container: 0,
    }
}
