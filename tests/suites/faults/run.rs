//! [`Run`]: what the publishers and the clients of one run share.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::ledger::Ledger;

/// How a run is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mix {
    /// By one agent that only knows `PUBLISH`.
    Plain,
    /// Through the function and over HTTP.
    Durable,
    /// Through the function, and by one agent that only knows `PUBLISH`.
    Both,
}

/// One run of a trial.
pub(crate) struct Run {
    pub(crate) id: String,
    pub(crate) mix: Mix,
    pub(crate) ledger: RefCell<Ledger>,
    /// Whoever has seen this event is done.
    pub(crate) last: Cell<usize>,
    /// The run ends with a terminal status: whoever has had `end` is done.
    pub(crate) ends: bool,
    /// Events that its next publisher shall publish at once.
    pub(crate) burst: Cell<usize>,
    /// Its next publisher through the function shall begin it anew.
    pub(crate) restart: Cell<bool>,
    /// Publishers go on.
    pub(crate) is_live: Cell<bool>,
    /// Clients leave and stall.
    pub(crate) is_rough: Cell<bool>,
    /// Nobody waits any longer.
    pub(crate) is_over: Cell<bool>,
}

impl Run {
    pub(crate) fn new(id: String, mix: Mix, ends: bool) -> Rc<Self> {
        Rc::new(Self {
            id,
            mix,
            ledger: RefCell::default(),
            last: Cell::new(usize::MAX),
            ends,
            burst: Cell::new(0),
            restart: Cell::new(false),
            is_live: Cell::new(true),
            is_rough: Cell::new(true),
            is_over: Cell::new(false),
        })
    }

    pub(crate) fn stream_key(&self) -> String {
        format!("run:{{{}}}:stream", self.id)
    }

    pub(crate) fn meta_key(&self) -> String {
        format!("run:{{{}}}:meta", self.id)
    }

    pub(crate) fn published(&self) -> usize {
        self.ledger.borrow().events.len()
    }
}

/// Returns the payload of event `n`.
pub(crate) fn payload(n: usize, bytes: usize) -> String {
    format!("{{\"n\":{n},\"text\":\"{}\"}}", "x".repeat(bytes))
}

/// Reads the number of an event from its payload, or from a frame around it.
pub(crate) fn number_in(data: &[u8]) -> Option<usize> {
    const HEAD: &[u8] = b"{\"n\":";
    let begin = memchr::memmem::find(data, HEAD)? + HEAD.len();
    let digits = data[begin..]
        .iter()
        .take_while(|byte| byte.is_ascii_digit());
    digits.fold(None, |number, digit| {
        Some(number.unwrap_or(0) * 10 + usize::from(digit - b'0'))
    })
}
