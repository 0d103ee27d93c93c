//! [`ship`]: from the spool to the run's store.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use runcast_actors::broker::{NewEvent, PublishError};
use runcast_actors::protocol::EventKind;

use super::notice;
use super::spool::{Line, Origin, Spool};
use crate::producer::{Numbered, Sender, Trouble};

/// How far shipping has come, for the last words.
#[derive(Debug, Default)]
pub(super) struct Shipped {
    /// Taken from the spool and not settled.
    pub(super) waiting: u64,
    /// Lines the store refused or lost.
    pub(super) refused: u64,
    /// What keeps lines from being taken, if anything.
    pub(super) trouble: Option<Trouble>,
}

/// Sources of the lines.
#[derive(Debug, Clone)]
pub(super) struct Sources {
    stdout: String,
    stderr: String,
}

impl Sources {
    /// `<prefix>stdout` and `<prefix>stderr`.
    pub(super) fn new(prefix: &str) -> Self {
        Self {
            stdout: format!("{prefix}stdout"),
            stderr: format!("{prefix}stderr"),
        }
    }

    /// Bytes of the longer one.
    pub(super) fn longest(&self) -> usize {
        self.stdout.len().max(self.stderr.len())
    }

    fn event(&self, line: Line) -> Numbered {
        let (kind, source) = match line.origin {
            Origin::Stdout => (EventKind::Output, self.stdout.clone()),
            Origin::Stderr => (EventKind::Output, self.stderr.clone()),
            Origin::Status => (EventKind::Status, String::new()),
        };
        let event = NewEvent {
            kind,
            source,
            payload: line.payload,
        };
        Numbered {
            seq: line.seq,
            event,
        }
    }
}

/// Sends all lines of the spool in order until it is closed and empty, or the
/// run takes no more. While the store is away it tries for ever.
pub(super) async fn ship(
    spool: Arc<Spool>,
    mut sender: Sender,
    sources: Sources,
    longest_pause: Duration,
    shipped: Rc<RefCell<Shipped>>,
) {
    while let Some(lines) = spool.take().await {
        sender.push(lines.into_iter().map(|line| sources.event(line)));
        while sender.waiting() > 0 {
            shipped.borrow_mut().waiting = sender.waiting() as u64;
            let (settled, trouble) = sender.send().await;
            let refused = settled.iter().filter(|event| event.result.is_err()).count();
            let is_refused = matches!(trouble, Some(Trouble::Refused(_)));
            tell_change(shipped.borrow().trouble.as_ref(), trouble.as_ref());
            {
                let mut shipped = shipped.borrow_mut();
                shipped.refused += refused as u64;
                shipped.waiting = sender.waiting() as u64;
                shipped.trouble.clone_from(&trouble);
            }
            if is_refused {
                spool.abandon();
                return;
            }
            if trouble.is_some() {
                sender.pause(longest_pause).await;
            }
        }
    }
}

/// Says that the store went or came back, once each.
fn tell_change(before: Option<&Trouble>, now: Option<&Trouble>) {
    match (before, now) {
        (None, Some(Trouble::Unavailable(reason))) => notice(format!(
            "not published for now, kept until Redis takes it: {reason}"
        )),
        (Some(_), None) => notice("Redis takes events again".to_owned()),
        (_, Some(Trouble::Refused(PublishError::Closed))) => {
            notice("not published any more: the run is over; --restart begins it anew".to_owned());
        }
        (_, Some(Trouble::Refused(error))) => {
            notice(format!("not published any more: {error}"));
        }
        _ => {}
    }
}
