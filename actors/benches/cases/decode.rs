//! What publishers' bytes are.

use std::hint::black_box;

use runcast_actors::protocol::{Channel, FramedEvent, Payload};

use super::input::{JSON, Published, TEXT, TOKEN};
use super::{Case, repeat};

pub(crate) fn channel() -> Box<dyn Case> {
    parse_channel(Published::plain(42, JSON))
}

pub(crate) fn channel_framed() -> Box<dyn Case> {
    parse_channel(Published::durable(42, 1, JSON))
}

fn parse_channel(published: Published) -> Box<dyn Case> {
    let name = published.channel.into_bytes();
    repeat(move || {
        black_box(Channel::parse("run:", black_box(&name))).expect("a channel of ours");
    })
}

pub(crate) fn framed_event() -> Box<dyn Case> {
    let message = Published::durable(42, 1234, JSON).payload;
    repeat(move || {
        black_box(FramedEvent::parse(black_box(&message))).expect("well-formed");
    })
}

pub(crate) fn json() -> Box<dyn Case> {
    classify(JSON)
}

pub(crate) fn token() -> Box<dyn Case> {
    classify(TOKEN)
}

pub(crate) fn text() -> Box<dyn Case> {
    classify(TEXT)
}

fn classify(payload: &'static str) -> Box<dyn Case> {
    repeat(move || {
        black_box(Payload::classify(black_box(payload.as_bytes())));
    })
}
