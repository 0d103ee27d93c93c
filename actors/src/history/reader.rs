//! [`History`]: reads a page, with as many reads of the store as that takes.

use super::collector::{Collector, PageRules};
use super::standing::Standing;
use super::{HistoryFrom, HistoryPage, HistoryQuery};
use crate::broker::BrokerShared;
use crate::protocol::{Cursor, DurableId, EventId, Gap, GapReason};
use crate::sse::gap_data;
use crate::store::{Page, PageFrom, PageQuery, StoreError};

/// Most reads of the store for one page: a filter that nothing passes ends
/// there, and the page says where to go on.
const READS_MAX: usize = 256;

/// Most events read for one page; a filter ends there, too.
const SCANNED_EVENTS_MAX: usize = 16_000;

/// Events of one read if a filter may hide some.
const SCAN_EVENTS: usize = 1000;

/// A page is full once it holds as many bytes; one event always fits. It takes
/// several reads, of `history.page_bytes` each: what is published waits while
/// Redis makes one.
const PAGE_BYTES_MAX: usize = 1024 * 1024;

/// Reads pages of runs' histories.
pub(crate) struct History<'a> {
    pub(crate) shared: &'a BrokerShared,
}

/// A page's beginning: its first read, and what is told of the cursor.
struct Opening {
    page: Page,
    /// The event that the page follows on, or ends before, if it does.
    beside: Option<DurableId>,
    told: Option<(GapReason, Option<u64>)>,
}

impl History<'_> {
    /// Reads the page that `query` asks for.
    ///
    /// # Errors
    /// When the store does not answer.
    pub(crate) async fn page(&self, query: &HistoryQuery) -> Result<HistoryPage, StoreError> {
        match &query.from {
            HistoryFrom::Oldest => {
                let opening = Opening {
                    page: self.first_read(query, PageFrom::After(0)).await?,
                    beside: None,
                    told: None,
                };
                self.forwards(query, opening, None).await
            }
            HistoryFrom::After(cursor) => {
                let opening = self.open_after(query, cursor).await?;
                self.forwards(query, opening, Some(cursor)).await
            }
            HistoryFrom::Before(cursor) => {
                let opening = self.open_before(query, cursor).await?;
                self.backwards(query, opening, cursor).await
            }
        }
    }

    // ---- forwards ----------------------------------------------------------

    async fn open_after(
        &self,
        query: &HistoryQuery,
        cursor: &Cursor,
    ) -> Result<Opening, StoreError> {
        let (seen, instead) = durable_part(cursor);
        let after = PageFrom::After(seen.map_or(0, |seen| seen.seq));
        let page = self.first_read(query, after).await?;
        let Some(seen) = seen else {
            return Ok(Opening {
                page,
                beside: None,
                told: instead.map(|reason| (reason, None)),
            });
        };
        let (beside, told) = match Standing::after(seen, &page) {
            Standing::Known => (Some(seen), None),
            Standing::Missing(missed) => (None, Some((GapReason::Trimmed, Some(missed)))),
            Standing::Foreign(reason) => {
                let common = match reason {
                    GapReason::Rewound => self.last_common(query, seen, &page).await?,
                    _ => 0,
                };
                return Ok(Opening {
                    page: self.first_read(query, PageFrom::After(common)).await?,
                    beside: None,
                    told: Some((instead.unwrap_or(reason), None)),
                });
            }
        };
        Ok(Opening {
            page,
            beside,
            told: instead.map(|reason| (reason, None)).or(told),
        })
    }

    /// Returns the seq after which all is new to who has seen `seen`, an event
    /// that the run as `page` knows it lost: that of the newest one that is no
    /// younger. A stream goes on there, too.
    async fn last_common(
        &self,
        query: &HistoryQuery,
        seen: DurableId,
        page: &Page,
    ) -> Result<u64, StoreError> {
        let last = page.head.as_ref().map(|head| head.last);
        let last = last.unwrap_or(seen);
        let mut bound = match last.epoch == seen.epoch {
            true => last.seq.min(seen.seq).saturating_add(1),
            false => last.seq.saturating_add(1),
        };
        for _ in 0..READS_MAX {
            let page = self
                .read(query, PageFrom::Before(bound), SCAN_EVENTS)
                .await?;
            let mut newest_first = page.events.iter().rev();
            if let Some(common) = newest_first.find(|event| event.id.us <= seen.us) {
                return Ok(common.id.seq);
            }
            let Some(oldest) = page.events.first().filter(|_| page.more) else {
                return Ok(0);
            };
            bound = oldest.id.seq;
        }
        Ok(bound - 1)
    }

    async fn forwards(
        &self,
        query: &HistoryQuery,
        opening: Opening,
        cursor: Option<&Cursor>,
    ) -> Result<HistoryPage, StoreError> {
        let Opening {
            mut page,
            beside,
            told,
        } = opening;
        let first = page.events.first().map(|event| event.id);
        let has_older = first.is_some_and(|first| Some(first) != page.first);
        let gap = told.zip(cursor).map(|((reason, missed), cursor)| {
            gap_data(&Gap {
                after: Some(cursor.to_string()),
                before: first.map(|id| id.to_string()),
                missed,
                reason,
            })
        });
        let mut collector = Collector::new(self.rules(query));
        let mut last = beside;
        let (mut reads, mut scanned) = (1, 0);
        let more = 'page: loop {
            let count = page.events.len();
            scanned += count;
            for (index, event) in page.events.iter().enumerate() {
                // What lies between cursor and first event was told already.
                let follows = reads > 1 || index > 0;
                collector.push(event, last, follows);
                last = Some(event.id);
                if collector.is_full() {
                    break 'page page.more || index + 1 < count;
                }
            }
            let Some(seen) = last.filter(|_| page.more && count > 0) else {
                break false;
            };
            if reads == READS_MAX || scanned >= SCANNED_EVENTS_MAX {
                break true;
            }
            reads += 1;
            page = self
                .read(query, PageFrom::After(seen.seq), collector.room())
                .await?;
            if matches!(Standing::after(seen, &page), Standing::Foreign(_)) {
                // The run began anew meanwhile: the next page tells.
                break true;
            }
        };
        Ok(HistoryPage {
            events: collector.into_events(),
            next: last.filter(|_| more).map(|id| id.to_string()),
            previous: first.filter(|_| has_older).map(|id| id.to_string()),
            gap,
        })
    }

    // ---- backwards ---------------------------------------------------------

    /// Nothing of another epoch lies before a cursor; then the page is empty.
    async fn open_before(
        &self,
        query: &HistoryQuery,
        cursor: &Cursor,
    ) -> Result<Opening, StoreError> {
        let (seen, instead) = durable_part(cursor);
        let nothing = |reason| Opening {
            page: Page::default(),
            beside: None,
            told: Some((reason, None)),
        };
        let Some(seen) = seen else {
            return Ok(nothing(instead.unwrap_or(GapReason::BadCursor)));
        };
        // A plain event, and the run's end, lie after the event they name.
        let includes_seen = cursor.end || instead.is_some();
        let bound = seen.seq.saturating_add(u64::from(includes_seen));
        let page = self.first_read(query, PageFrom::Before(bound)).await?;
        let told = match Standing::before(seen, bound, &page) {
            Standing::Known => None,
            Standing::Missing(missed) => Some((GapReason::Trimmed, Some(missed))),
            Standing::Foreign(GapReason::Rewound) => Some((GapReason::Rewound, None)),
            Standing::Foreign(reason) => return Ok(nothing(instead.unwrap_or(reason))),
        };
        Ok(Opening {
            page,
            beside: None,
            told: instead.map(|reason| (reason, None)).or(told),
        })
    }

    async fn backwards(
        &self,
        query: &HistoryQuery,
        opening: Opening,
        cursor: &Cursor,
    ) -> Result<HistoryPage, StoreError> {
        let Opening { mut page, told, .. } = opening;
        let newest = page.events.last().map(|event| event.id);
        let end = page.head.as_ref().map(|head| head.last);
        let has_newer = newest.is_some() && newest != end;
        let gap = told.map(|(reason, missed)| {
            gap_data(&Gap {
                after: newest.map(|id| id.to_string()),
                before: Some(cursor.to_string()),
                missed,
                reason,
            })
        });
        let mut collector = Collector::new(self.rules(query));
        let mut oldest = None;
        let (mut reads, mut scanned) = (1, 0);
        let more = 'page: loop {
            scanned += page.events.len();
            for (index, event) in page.events.iter().enumerate().rev() {
                let before = index.checked_sub(1).map(|index| page.events[index].id);
                collector.push_back(event, before, oldest);
                oldest = Some(event.id);
                if collector.is_full() {
                    break 'page page.more || index > 0;
                }
            }
            let Some(seen) = oldest.filter(|_| page.more && !page.events.is_empty()) else {
                break false;
            };
            if reads == READS_MAX || scanned >= SCANNED_EVENTS_MAX {
                break true;
            }
            reads += 1;
            page = self
                .read(query, PageFrom::Before(seen.seq), collector.room())
                .await?;
            if matches!(
                Standing::before(seen, seen.seq, &page),
                Standing::Foreign(_)
            ) {
                break true;
            }
        };
        let mut events = collector.into_events();
        events.reverse();
        Ok(HistoryPage {
            events,
            next: newest.filter(|_| has_newer).map(|id| id.to_string()),
            previous: oldest.filter(|_| more).map(|id| id.to_string()),
            gap,
        })
    }

    // ---- reading -----------------------------------------------------------

    async fn first_read(&self, query: &HistoryQuery, from: PageFrom) -> Result<Page, StoreError> {
        self.read(query, from, query.limit).await
    }

    /// Reads as much as may be needed to find `wanted` events, and as one read
    /// may bring.
    async fn read(
        &self,
        query: &HistoryQuery,
        from: PageFrom,
        wanted: usize,
    ) -> Result<Page, StoreError> {
        let filter = &query.filter;
        let events_max = match filter.kinds.is_empty() && filter.sources.is_empty() {
            true => wanted,
            false => wanted.max(SCAN_EVENTS),
        };
        let page = PageQuery {
            from,
            events_max,
            bytes_max: self.shared.settings.history.page_bytes.as_u64() as usize,
        };
        self.shared.read_page(&query.run_id, page).await
    }

    fn rules<'q>(&self, query: &'q HistoryQuery) -> PageRules<'q> {
        let limits = &self.shared.settings.live.now().limits;
        PageRules {
            run_id: &query.run_id,
            backend: self.shared.settings.backend(),
            filter: &query.filter,
            events_max: query.limit,
            bytes_max: PAGE_BYTES_MAX,
            event_bytes_max: limits.max_event_bytes.as_u64(),
            source_bytes_max: limits.max_source_bytes,
        }
    }
}

/// Returns the durable event that a cursor names, or goes back to; and the
/// reason that is told whatever stands there. History holds no plain events,
/// so what came between one and the next durable event cannot be told.
fn durable_part(cursor: &Cursor) -> (Option<DurableId>, Option<GapReason>) {
    match &cursor.id {
        EventId::Durable(id) => (Some(*id), None),
        EventId::Plain(plain) => (plain.durable, Some(GapReason::Restarted)),
        EventId::Kubectl(_) => (None, Some(GapReason::BadCursor)),
    }
}
