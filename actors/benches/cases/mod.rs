//! The cases that are measured: each a part of the way of an event from Redis
//! to its clients, and the way as a whole. `micro` takes their time,
//! `instructions` counts them.

mod decode;
mod encode;
mod input;
mod parts;
mod path;
mod ring;

use std::fmt;

/// Something that is measured.
pub(crate) trait Case {
    /// Makes the input of the next `run`; not measured.
    fn prepare(&mut self) {}

    /// Does it once, for all of [`Spec::items`].
    fn run(&mut self);
}

/// What is known of a case before it is made.
pub(crate) struct Spec {
    /// `part/what of it`.
    pub(crate) name: &'static str,
    /// What one `run` handles: messages, or deliveries where many are made of
    /// one message.
    pub(crate) items: u64,
    /// Makes it.
    pub(crate) make: fn() -> Box<dyn Case>,
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// How many messages come together, where they do: what Redis sends in one
/// segment when runs are busy.
const BATCH: u64 = 64;

/// Clients of the one run with many.
const CLIENTS: u64 = 64;

const fn spec(name: &'static str, items: u64, make: fn() -> Box<dyn Case>) -> Spec {
    Spec { name, items, make }
}

/// All cases, in the order of the way.
pub(crate) const SPECS: &[Spec] = &[
    spec("decode/channel", BATCH, decode::channel),
    spec("decode/channel framed", BATCH, decode::channel_framed),
    spec("decode/framed event", BATCH, decode::framed_event),
    spec("decode/JSON of 200 bytes", BATCH, decode::json),
    spec("decode/JSON of 60 bytes", BATCH, decode::token),
    spec("decode/text of 200 bytes", BATCH, decode::text),
    spec("encode/JSON of 200 bytes", BATCH, encode::json),
    spec("encode/JSON of 60 bytes", BATCH, encode::token),
    spec("encode/text of 200 bytes", BATCH, encode::text),
    spec("ring/append", BATCH, ring::append),
    spec("ring/read", BATCH, ring::read),
    spec("ring/find id", BATCH, ring::find_id),
    spec("redis/read batch", BATCH, parts::read),
    spec("hub/route batch", BATCH, || parts::route(1)),
    spec("hub/route batch of 64 runs", BATCH, || parts::route(BATCH)),
    spec("hub/handle batch", BATCH, || parts::handle(false)),
    spec("hub/handle durable batch", BATCH, || parts::handle(true)),
    spec("worker/deliver one", 1, || parts::deliver(1, 1)),
    spec("worker/deliver batch", BATCH, || parts::deliver(BATCH, 1)),
    spec("worker/deliver one to 64", CLIENTS, || {
        parts::deliver(1, CLIENTS)
    }),
    spec("path/one", 1, || path::plain(1, 1, 1)),
    spec("path/batch", BATCH, || path::plain(BATCH, 1, 1)),
    spec("path/durable batch", BATCH, path::durable),
    spec("path/batch of 64 runs", BATCH, || {
        path::plain(BATCH, BATCH, 1)
    }),
    spec("path/one to 64", CLIENTS, || path::plain(1, 1, CLIENTS)),
];

/// A case that needs no input and does `once` for each item.
struct Repeat<F>(F);

impl<F: FnMut()> Case for Repeat<F> {
    fn run(&mut self) {
        for _ in 0..BATCH {
            (self.0)();
        }
    }
}

fn repeat(once: impl FnMut() + 'static) -> Box<dyn Case> {
    Box::new(Repeat(once))
}
