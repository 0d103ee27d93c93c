//! [`Seen`]: the ids shown lately, so that none is shown twice.

use std::collections::{HashSet, VecDeque};

/// As many ids as are remembered: what a run keeps by default. Some 2 MB.
const IDS_MAX: usize = 10_000;

/// The last ids shown and the cursor to come back with.
///
/// A server that knows the cursor sends nothing twice. One that does not says
/// `gap` and sends all it has, of which some may have been shown.
#[derive(Debug, Default)]
pub(super) struct Seen {
    order: VecDeque<String>,
    ids: HashSet<String>,
    cursor: Option<String>,
}

impl Seen {
    /// Returns the id to come back with.
    pub(super) fn cursor(&self) -> Option<&str> {
        self.cursor.as_deref()
    }

    /// Moves the cursor without showing anything.
    pub(super) fn move_to(&mut self, id: &str) {
        self.cursor = Some(id.to_owned());
    }

    /// Moves the cursor; returns whether the event of this id is new.
    pub(super) fn show(&mut self, id: &str) -> bool {
        self.move_to(id);
        if !self.ids.insert(id.to_owned()) {
            return false;
        }
        self.order.push_back(id.to_owned());
        if self.order.len() > IDS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_shown_once_and_the_memory_is_bounded() {
        let mut seen = Seen::default();
        assert_eq!(seen.cursor(), None);
        assert!(seen.show("1-1-1"));
        assert!(!seen.show("1-1-1"));
        for n in 0..IDS_MAX {
            assert!(seen.show(&format!("2-{n}-1")));
        }
        assert_eq!(seen.ids.len(), IDS_MAX);
        assert!(seen.show("1-1-1"), "long forgotten");
        seen.move_to("x");
        assert_eq!(seen.cursor(), Some("x"));
    }
}
