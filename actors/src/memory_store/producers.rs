//! [`Producers`]: how far each producer of a run has come.

use std::collections::HashMap;
use std::sync::Arc;

use crate::protocol::DurableId;
use crate::store::Producer;

/// Most producers a run remembers, as in Redis; the one silent longest goes
/// first. What such a one repeats is then a new event, and what it goes on with
/// counts the numbers before as lost.
pub(super) const PRODUCERS_MAX: usize = 64;

/// Numbers stay below it, as in Redis, where Lua's are exact.
const NUMBER_MAX: u64 = 1 << 53;

/// What a producer remembered costs: its entry, its name.
pub(super) const PRODUCER_BYTES: u64 = 256;

/// One number of one producer's process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ProducerSeq {
    pub(super) name: Arc<str>,
    pub(super) epoch: u64,
    pub(super) seq: u64,
}

impl ProducerSeq {
    /// The first number of a batch.
    pub(super) fn first_of(producer: &Producer) -> Self {
        Self {
            name: Arc::from(producer.id.as_str()),
            epoch: producer.epoch,
            seq: producer.first_seq,
        }
    }

    /// The number `index` events later.
    pub(super) fn later(&self, index: usize) -> Self {
        Self {
            seq: self.seq.saturating_add(index as u64),
            ..self.clone()
        }
    }

    /// Whether it is a number of the same process.
    pub(super) fn is_of(&self, other: &Self) -> bool {
        self.epoch == other.epoch && self.name == other.name
    }
}

/// Whether a producer's name and numbers are such as may be.
pub(super) fn is_good(producer: &Producer) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=64).contains(&producer.id.len())
        && producer.id.bytes().all(is_word)
        && producer.epoch < NUMBER_MAX
        && (1..NUMBER_MAX).contains(&producer.first_seq)
}

/// What a number means to the run.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// A new event; so many numbers before it never came.
    New { lost: u64 },
    /// Accepted before: the newest of its producer, which has this id, or an
    /// older one.
    Retry(Option<DurableId>),
    /// A newer process of the same name has taken over.
    Fenced,
}

/// The producers of one run.
#[derive(Debug, Default)]
pub(super) struct Producers(HashMap<Arc<str>, Last>);

/// The newest event of a producer.
#[derive(Debug)]
struct Last {
    epoch: u64,
    seq: u64,
    id: DurableId,
}

impl Producers {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Says what an event numbered so would be.
    pub(super) fn standing(&self, by: &ProducerSeq) -> Standing {
        let lost_before = |seq: u64| by.seq.saturating_sub(seq.saturating_add(1));
        match self.0.get(&by.name) {
            Some(last) if last.epoch > by.epoch => Standing::Fenced,
            Some(last) if last.epoch == by.epoch => match by.seq.checked_sub(last.seq) {
                None => Standing::Retry(None),
                Some(0) => Standing::Retry(Some(last.id)),
                Some(_) => Standing::New {
                    lost: lost_before(last.seq),
                },
            },
            // A process counts from 1.
            Some(_) | None => Standing::New {
                lost: lost_before(0),
            },
        }
    }

    /// Notes the newest event of a producer.
    pub(super) fn note(&mut self, by: &ProducerSeq, id: DurableId) {
        if self.0.len() >= PRODUCERS_MAX && !self.0.contains_key(&by.name) {
            self.forget_one();
        }
        let (epoch, seq) = (by.epoch, by.seq);
        self.0.insert(Arc::clone(&by.name), Last { epoch, seq, id });
    }

    fn forget_one(&mut self) {
        let oldest = self.0.iter().min_by_key(|(_, last)| last.id);
        let oldest = oldest.map(|(name, _)| Arc::clone(name));
        if let Some(name) = oldest {
            self.0.remove(&name);
        }
    }
}
