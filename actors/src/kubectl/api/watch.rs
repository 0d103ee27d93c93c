//! [`Watch`]: what the API tells of a run's pods as it happens.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};

use crate::kubectl::counters::WatchPlace;
use crate::kubectl::line::{LineSplitter, Piece};
use crate::kubectl::pods::{PodEvent, parse_event};

/// Most bytes of one event: a pod is at most 1.5 MiB in the API's store.
const EVENT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The events of a selector's pods. Dropping it closes the connection.
pub(crate) struct Watch {
    body: Incoming,
    lines: LineSplitter,
    /// Lines that came with the one told last.
    pending: VecDeque<Piece>,
    since: Instant,
    /// When it must have ended.
    until: Instant,
    _place: WatchPlace,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

impl Watch {
    /// Returns the watch whose answer is `body`, of at most `life`.
    pub(super) fn new(body: Incoming, life: Duration, place: WatchPlace) -> Self {
        let since = Instant::now();
        Self {
            body,
            lines: LineSplitter::new(EVENT_BYTES_MAX),
            pending: VecDeque::new(),
            since,
            until: since + life,
            _place: place,
        }
    }

    /// Returns how long it has been open.
    pub(crate) fn lived(&self) -> Duration {
        self.since.elapsed()
    }

    /// Returns what happens next. It may be dropped while it waits, and called
    /// again; after [`PodEvent::Over`] it is of no use.
    pub(crate) async fn next(&mut self) -> PodEvent {
        let broken = PodEvent::Over { well: false };
        loop {
            match self.pending.pop_front() {
                Some(Piece::Line(line)) => {
                    return parse_event(&line).unwrap_or_else(|error| {
                        tracing::warn!(%error, "an event of the watch could not be read");
                        broken
                    });
                }
                Some(Piece::TooLong { .. }) => {
                    tracing::warn!("an event of the watch is too long");
                    return broken;
                }
                None => {}
            }
            let Ok(frame) = timeout_at(self.until, self.body.frame()).await else {
                return broken;
            };
            match frame {
                Some(Ok(frame)) => {
                    let data = frame.into_data().unwrap_or_default();
                    let pending = &mut self.pending;
                    self.lines.feed(&data, |piece| pending.push_back(piece));
                }
                Some(Err(_)) => return broken,
                None => return PodEvent::Over { well: true },
            }
        }
    }
}
