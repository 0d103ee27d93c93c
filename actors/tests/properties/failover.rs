//! Matching of two backends: whatever comes first, and however equal, each line
//! is shown once.

use std::collections::HashMap;

use proptest::prelude::*;
use runcast_actors::failover::{Content, Entry, Line, Matcher, Origin, RedisEvent};
use runcast_actors::protocol::EventKind;

const SECOND: i64 = 1_000_000;
const WINDOW: i64 = 5 * SECOND;

/// A line that an agent printed, and published so much later.
#[derive(Debug, Clone, Copy)]
struct Said {
    word: u8,
    ts: i64,
}

impl Said {
    fn content(self) -> Content {
        Content::of(format!("word {}", self.word).as_bytes())
    }

    fn line(self) -> Line {
        Line {
            content: self.content(),
            ts: self.ts,
            kind: EventKind::Output,
            container: 1,
        }
    }

    fn event(self, lag: i64) -> RedisEvent {
        RedisEvent {
            content: self.content(),
            ts: self.ts + lag,
            is_durable: true,
        }
    }

    fn entry(self, lag: i64) -> Entry {
        Entry {
            content: self.content(),
            ts: self.ts + lag,
            origin: Origin::Durable,
            kind: EventKind::Output,
            container: 0,
        }
    }
}

/// How often each word was shown.
#[derive(Debug, Default, PartialEq)]
struct Shown(HashMap<u8, usize>);

impl Shown {
    fn add(&mut self, said: Said) {
        *self.0.entry(said.word).or_default() += 1;
    }
}

proptest! {
    /// Redis shows some lines and dies; the pod's log is read from its start; then
    /// Redis brings the rest in its order, late, while more lines come.
    #[test]
    fn each_line_is_shown_once_by_whichever_brings_it_first(
        words in prop::collection::vec(0..4_u8, 1..120),
        published in 0..120_usize,
        printed in 0..120_usize,
        lag in 0..100 * SECOND,
        turns in prop::collection::vec(any::<bool>(), 240),
    ) {
        let said: Vec<Said> = words
            .iter()
            .zip(0_i64..)
            .map(|(word, second)| Said { word: *word, ts: second * SECOND })
            .collect();
        let published = published.min(said.len());
        let printed = printed.clamp(published, said.len());
        let mut matcher = Matcher::new(WINDOW, 1_000);
        let mut shown = Shown::default();
        for said in &said[..published] {
            matcher.remember(said.entry(lag));
            shown.add(*said);
        }
        let show_line = |matcher: &mut Matcher, shown: &mut Shown, said: Said| {
            if matcher.meets_shown(&said.line()).is_none() {
                matcher.await_line(&said.line());
                shown.add(said);
            }
        };
        for said in &said[..printed] {
            show_line(&mut matcher, &mut shown, *said);
        }
        // What came until now is all that was printed, once.
        let mut once = Shown::default();
        said[..printed].iter().for_each(|said| once.add(*said));
        prop_assert_eq!(&shown, &once);

        let (mut lines, mut events) = (said[printed..].iter(), said[published..].iter());
        for turn in turns {
            if turn {
                let Some(said) = lines.next() else { continue };
                show_line(&mut matcher, &mut shown, *said);
            } else {
                let Some(said) = events.next() else { continue };
                let event = said.event(lag);
                if matcher.meets_awaited(&event).is_none() {
                    matcher.remember(said.entry(lag));
                    shown.add(*said);
                }
            }
        }
        for said in lines {
            show_line(&mut matcher, &mut shown, *said);
        }
        for said in events {
            if matcher.meets_awaited(&said.event(lag)).is_none() {
                matcher.remember(said.entry(lag));
                shown.add(*said);
            }
        }
        let mut once = Shown::default();
        said.iter().for_each(|said| once.add(*said));
        prop_assert_eq!(&shown, &once);
        prop_assert_eq!(matcher.awaited(), 0);
    }

    /// Nothing but what was shown is ever held back.
    #[test]
    fn what_was_never_shown_is_new(words in prop::collection::vec("[a-c]{1,3}", 0..40)) {
        let mut matcher = Matcher::new(WINDOW, 10);
        let said = Said { word: 0, ts: 0 };
        for (word, ts) in words.iter().zip(0_i64..) {
            let content = Content::of(word.as_bytes());
            matcher.remember(Entry { content, ts, ..said.entry(0) });
            matcher.await_line(&Line { content, ts, ..said.line() });
        }
        prop_assert!(matcher.meets_shown(&said.line()).is_none());
        prop_assert!(matcher.meets_awaited(&said.event(0)).is_none());
        prop_assert!(matcher.awaited() <= 10);
    }
}
