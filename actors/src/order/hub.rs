//! [`RunOrder`]: what a hub knows of its run's durable order.

use std::ops::Range;

use super::ids::{is_back, is_rewound, is_unproven};
use super::{KnownIds, PageIds, Safeguards};
use crate::protocol::{DurableId, GapReason, Place};
use crate::store::PageFrom;

/// How far back the last common event is looked for first after a rewind: a
/// failover forgets the last moments, not the whole ring.
const REWIND_LOOK: u64 = 64;

/// What happens to a hub.
#[derive(Debug, Clone, Copy)]
pub enum OrderInput<'a, P> {
    /// A durable event arrived live.
    Live(DurableId),
    /// The first worker attached: from now on events must not wait.
    Watched,
    /// The last worker went.
    Unwatched,
    /// Live events may have been missed.
    Doubt,
    /// The store's last id, at some moment after the last answer; `sure` if a
    /// difference cannot be an event still on its way.
    Position {
        /// The last id; `None` if the store does not know the run.
        last: Option<DurableId>,
        /// Whether a difference is to be believed at once.
        sure: bool,
    },
    /// The page asked for.
    Page(&'a P),
    /// Read again: the last read failed, and some time has passed.
    Retry,
}

/// What a hub has to do, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrderOutput {
    /// Write the live event.
    DeliverLive,
    /// The live event was written before.
    Duplicate,
    /// The live event is left to the store: it is read when somebody watches,
    /// or is in the page just asked for.
    Leave,
    /// Keep the live event until [`OrderOutput::Replay`], or drop it and give
    /// [`OrderInput::Doubt`] after that.
    Hold,
    /// Give the live events held again, in order.
    Replay,
    /// Write these events of the page.
    DeliverPage(Range<usize>),
    /// Events are missing: tell it, then go on in a new branch of the log,
    /// whose first event follows `base`.
    Gap {
        /// Why.
        reason: GapReason,
        /// The first event after the gap, if known.
        before: Option<DurableId>,
        /// How many are missing, if known.
        missed: Option<u64>,
        /// Where the log goes on.
        base: Place,
    },
    /// The log, which holds no durable event yet, begins here; `None`: the
    /// store holds none either.
    Base(Option<Place>),
    /// Read the store; answer with [`OrderInput::Page`].
    Read(PageFrom),
    /// Ask for the store's position again soon.
    CheckAgain,
    /// The position is known: workers may be sent the log.
    Ready,
}

/// The durable order of one run, as its hub knows it.
///
/// Live events that follow on are delivered without any I/O. All else is
/// settled by reading the stream after the last event delivered: the stream is
/// the truth. What arrives meanwhile is held, so that a read under load ends.
#[derive(Debug, Default)]
pub struct RunOrder {
    at: At,
    sync: Option<Sync>,
    is_watched: bool,
    /// Something was missed while nobody watched: read when somebody does.
    is_behind: bool,
    /// The store's position looked other than ours when it was asked.
    suspect: Option<Suspect>,
    /// Time of the last event of a history that was given up: a live event no
    /// younger may be one of it, still on its way.
    given_up_us: u64,
    /// The store lost the run when it was last read: what comes live can no
    /// more be shown to follow on.
    is_gone: bool,
    /// Which safeguards are on; all, but for tests that show what each is for.
    safeguards: Safeguards,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum At {
    /// No durable event came, and the store was not asked.
    #[default]
    Unknown,
    /// The store knew of none when it was asked.
    Nothing,
    /// After this event.
    Place(Place),
}

#[derive(Debug, Clone, Copy)]
struct Sync {
    kind: SyncKind,
    /// Something may have been missed that the read under way does not hold.
    is_dirty: bool,
}

#[derive(Debug, Clone, Copy)]
enum SyncKind {
    /// Where is the stream's end?
    Head,
    /// What lies after our place?
    After,
    /// Where did the stream leave what we know? Read from this seq on; the
    /// last common event so far.
    Rewound { from: u64, common: Option<Place> },
}

/// What looked wrong: what was the store's, and ours, at that time.
#[derive(Debug, Clone, Copy)]
struct Suspect {
    theirs: Option<DurableId>,
    ours: At,
}

impl RunOrder {
    /// An order with some safeguards switched off.
    pub fn with_safeguards(safeguards: Safeguards) -> Self {
        Self {
            safeguards,
            ..Self::default()
        }
    }

    /// The order of a second hub of the run, whose log begins as a copy of this
    /// one's. What is being read, or held, it reads by itself.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self {
            at: self.at,
            sync: None,
            is_watched: false,
            is_behind: self.at != At::Unknown && (self.is_behind || self.sync.is_some()),
            suspect: None,
            given_up_us: self.given_up_us,
            is_gone: self.is_gone,
            safeguards: self.safeguards,
        }
    }

    /// Goes on without knowing where the stream stands: all that it holds is
    /// delivered when it can be read.
    pub fn begin_unread(&mut self) {
        if self.at != At::Unknown {
            return;
        }
        self.at = At::Nothing;
        if let Some(sync) = &mut self.sync {
            sync.kind = SyncKind::After;
        }
    }

    /// The place after the last durable event delivered; `None` if there is
    /// none, or it is not known yet.
    pub fn place(&self) -> Option<Place> {
        match self.at {
            At::Place(place) => Some(place),
            At::Unknown | At::Nothing => None,
        }
    }

    /// Whether it is not known yet where the stream stands.
    pub fn is_unplaced(&self) -> bool {
        matches!(self.at, At::Unknown)
    }

    /// Whether a read is under way or wanted.
    pub fn is_syncing(&self) -> bool {
        self.sync.is_some()
    }

    /// Whether workers may be sent the log.
    pub fn is_ready(&self) -> bool {
        self.is_watched && self.sync.is_none()
    }

    /// Takes one input; what is to be done goes to `out`, in order.
    pub fn step<P: PageIds>(
        &mut self,
        input: OrderInput<'_, P>,
        known: &impl KnownIds,
        out: &mut Vec<OrderOutput>,
    ) {
        match input {
            OrderInput::Live(id) => self.live(id, known, out),
            OrderInput::Watched => self.watched(out),
            OrderInput::Unwatched => self.is_watched = false,
            OrderInput::Doubt => self.doubt(out),
            OrderInput::Position { last, sure } => self.position(last, sure, known, out),
            OrderInput::Page(page) => self.page(page, known, out),
            OrderInput::Retry => self.read(out),
        }
    }

    // ---- live --------------------------------------------------------------

    fn live(&mut self, id: DurableId, known: &impl KnownIds, out: &mut Vec<OrderOutput>) {
        if self.sync.is_some() {
            return out.push(OrderOutput::Hold);
        }
        if self.is_behind {
            return out.push(OrderOutput::Leave);
        }
        match self.at {
            At::Unknown => self.first_live(id, out),
            At::Nothing if id.seq == 1 => self.first_live(id, out),
            At::Place(last) if self.is_next(last, id) => {
                self.deliver_live(id, out);
            }
            At::Place(last) if is_old(last, id, known) => out.push(OrderOutput::Duplicate),
            At::Place(_) if !self.safeguards.sync_on_hole => self.deliver_live(id, out),
            At::Nothing | At::Place(_) => {
                out.push(OrderOutput::Leave);
                self.doubt(out);
            }
        }
    }

    /// Whether `id` comes right after `last`, for sure.
    fn is_next(&self, last: Place, id: DurableId) -> bool {
        !self.is_gone && id.us > self.given_up_us && follows(last, id)
    }

    /// The first event of the log. What came before is read when it is asked for.
    fn first_live(&mut self, id: DurableId, out: &mut Vec<OrderOutput>) {
        out.push(OrderOutput::Base(Some(Place::before(id))));
        self.deliver_live(id, out);
    }

    fn deliver_live(&mut self, id: DurableId, out: &mut Vec<OrderOutput>) {
        self.at = At::Place(id.into());
        out.push(OrderOutput::DeliverLive);
    }

    // ---- when to read ------------------------------------------------------

    fn watched(&mut self, out: &mut Vec<OrderOutput>) {
        self.is_watched = true;
        if self.sync.is_some() {
            return;
        }
        match self.at {
            At::Unknown => self.begin(SyncKind::Head, out),
            At::Nothing | At::Place(_) if self.is_behind => self.begin(SyncKind::After, out),
            At::Nothing | At::Place(_) => out.push(OrderOutput::Ready),
        }
    }

    fn doubt(&mut self, out: &mut Vec<OrderOutput>) {
        if let Some(sync) = &mut self.sync {
            sync.is_dirty = true;
        } else if !self.is_watched {
            self.is_behind = self.at != At::Unknown;
        } else {
            self.begin(SyncKind::After, out);
        }
    }

    fn position(
        &mut self,
        theirs: Option<DurableId>,
        sure: bool,
        known: &impl KnownIds,
        out: &mut Vec<OrderOutput>,
    ) {
        let before = self.suspect.take();
        if sure && let Some(sync) = &mut self.sync {
            // The page on its way may be older than what is known now.
            sync.is_dirty = true;
        }
        if self.sync.is_some() || !self.is_watched || !self.safeguards.position_check {
            return;
        }
        // A store that lost the run has nothing that we could miss.
        let Some(last) = theirs else { return };
        let at_same_seq = match self.at {
            At::Place(place) if place.epoch == last.epoch && place.seq == last.seq => place.us,
            At::Place(place) if place.epoch == last.epoch => known.us_of(last.epoch, last.seq),
            At::Place(_) | At::Unknown | At::Nothing => None,
        };
        let is_ours = at_same_seq == Some(last.us);
        if is_ours && matches!(self.at, At::Place(place) if place.seq == last.seq) {
            return;
        }
        let is_other = self.safeguards.us_check && at_same_seq.is_some_and(|us| us != last.us);
        // Twice in a row, with time between: neither an event nor an answer
        // can still be on its way.
        let still = before.is_some_and(|before| {
            let lacks = before.theirs.is_some_and(|theirs| !self.has(theirs));
            let shrank = matches!(before.ours, At::Place(ours)
                if ours.epoch == last.epoch && ours.seq > last.seq);
            lacks || shrank
        });
        if sure || is_other || still {
            return self.begin(SyncKind::After, out);
        }
        self.suspect = Some(Suspect {
            theirs,
            ours: self.at,
        });
        if before.is_none() {
            out.push(OrderOutput::CheckAgain);
        }
    }

    /// Whether our place is at or after `id`.
    fn has(&self, id: DurableId) -> bool {
        matches!(self.at, At::Place(place) if place.epoch == id.epoch && place.seq >= id.seq)
    }

    fn begin(&mut self, kind: SyncKind, out: &mut Vec<OrderOutput>) {
        self.sync = Some(Sync {
            kind,
            is_dirty: false,
        });
        self.suspect = None;
        self.is_behind = false;
        self.read(out);
    }

    fn read(&mut self, out: &mut Vec<OrderOutput>) {
        let Some(sync) = &mut self.sync else { return };
        let from = match (sync.kind, self.at) {
            (SyncKind::Head, _) => PageFrom::After(u64::MAX),
            (SyncKind::After, At::Place(place)) => PageFrom::After(place.seq),
            (SyncKind::After, At::Nothing | At::Unknown) => PageFrom::After(0),
            (SyncKind::Rewound { from, .. }, _) => PageFrom::After(from),
        };
        sync.is_dirty = false;
        out.push(OrderOutput::Read(from));
    }

    // ---- what was read -----------------------------------------------------

    fn page<P: PageIds>(&mut self, page: &P, known: &impl KnownIds, out: &mut Vec<OrderOutput>) {
        let Some(sync) = self.sync else { return };
        // What never was cannot be gone: a run may begin now.
        self.is_gone = page.last().is_none() && matches!(self.at, At::Place(_));
        let goes_on = match sync.kind {
            SyncKind::Head => self.head(page, out),
            SyncKind::After => self.after(page, known, out),
            SyncKind::Rewound { from, common } => self.rewound(page, from, common, known, out),
        };
        let is_dirty = self.sync.is_some_and(|sync| sync.is_dirty);
        if goes_on || is_dirty {
            return self.read(out);
        }
        self.sync = None;
        if self.is_watched {
            out.push(OrderOutput::Ready);
        }
        out.push(OrderOutput::Replay);
    }

    /// Goes on with another question.
    fn turn_to(&mut self, kind: SyncKind) {
        if let Some(sync) = &mut self.sync {
            sync.kind = kind;
        }
    }

    fn head<P: PageIds>(&mut self, page: &P, out: &mut Vec<OrderOutput>) -> bool {
        let place = page.last().map(Place::from);
        self.at = place.map_or(At::Nothing, At::Place);
        out.push(OrderOutput::Base(place));
        self.turn_to(SyncKind::After);
        false
    }

    /// Delivers what follows our place; returns whether there is more to read.
    fn after<P: PageIds>(
        &mut self,
        page: &P,
        known: &impl KnownIds,
        out: &mut Vec<OrderOutput>,
    ) -> bool {
        // A store that lost the run: what comes next has a new epoch.
        let Some(last) = page.last() else {
            return false;
        };
        let at = match self.at {
            At::Place(place) => place,
            At::Nothing | At::Unknown => {
                let begin = Place {
                    epoch: last.epoch,
                    seq: 0,
                    us: None,
                };
                out.push(OrderOutput::Base(Some(begin)));
                begin
            }
        };
        if at.epoch < last.epoch {
            self.new_epoch(page, last, out);
            return true;
        }
        if at.epoch > last.epoch {
            // A failover forgot that the run began anew. Of its old history
            // all that is no younger than what we had was delivered.
            self.at = At::Place(Place {
                epoch: last.epoch,
                seq: last.seq,
                us: at.us,
            });
            let from = 0;
            self.turn_to(SyncKind::Rewound { from, common: None });
            return true;
        }
        let is_other = is_rewound(at, page, last) || is_back(at, page);
        if last.seq < at.seq || self.safeguards.us_check && is_other {
            let from = known
                .oldest_seq()
                .unwrap_or(at.seq)
                .max(at.seq.saturating_sub(REWIND_LOOK))
                .saturating_sub(1);
            self.turn_to(SyncKind::Rewound { from, common: None });
            return true;
        }
        if is_unproven(at, page) {
            out.push(OrderOutput::Gap {
                reason: GapReason::Trimmed,
                before: Some(page.id(0)),
                missed: None,
                base: Place { us: None, ..at },
            });
        }
        self.at = At::Place(at);
        self.deliver(page, 0, last, out);
        page.more()
    }

    /// Delivers the page from event `start` on, and tells what is not in it.
    fn deliver<P: PageIds>(
        &mut self,
        page: &P,
        start: usize,
        last: DurableId,
        out: &mut Vec<OrderOutput>,
    ) {
        let At::Place(mut at) = self.at else { return };
        let mut from = start;
        for index in start..page.len() {
            let id = page.id(index);
            if id.seq != at.seq + 1 {
                push_range(from..index, out);
                from = index;
                out.push(trimmed(at, Place::before(id), Some(id)));
            }
            at = id.into();
        }
        push_range(from..page.len(), out);
        // All that is left of the stream may be gone.
        if page.is_empty()
            && page.first().is_none_or(|first| first.seq <= at.seq)
            && at.seq < last.seq
        {
            out.push(trimmed(at, last.into(), None));
            at = last.into();
        }
        self.at = At::Place(at);
    }

    /// The run began anew, or its history was lost: on from its first entry.
    fn new_epoch<P: PageIds>(&mut self, page: &P, last: DurableId, out: &mut Vec<OrderOutput>) {
        let base = match page.first() {
            Some(first) => Place::before(first),
            None => last.into(),
        };
        out.push(OrderOutput::Gap {
            reason: GapReason::Expired,
            before: page.first(),
            missed: None,
            base,
        });
        self.at = At::Place(base);
        self.turn_to(SyncKind::After);
    }

    // ---- after a failover that lost writes ---------------------------------

    /// Looks for the last common event, from old to new.
    fn rewound<P: PageIds>(
        &mut self,
        page: &P,
        from: u64,
        mut common: Option<Place>,
        known: &impl KnownIds,
        out: &mut Vec<OrderOutput>,
    ) -> bool {
        let (Some(last), At::Place(at)) = (page.last(), self.at) else {
            return false;
        };
        if last.epoch != at.epoch {
            self.turn_to(SyncKind::After);
            return true;
        }
        let seen = |id: DurableId| match known.us_of(id.epoch, id.seq) {
            Some(us) => us == id.us,
            // Not held any more: whatever is no younger than what we had.
            None => id.seq <= at.seq && at.us.is_none_or(|us| id.us <= us),
        };
        let mut index = 0;
        while index < page.len() && seen(page.id(index)) {
            common = Some(page.id(index).into());
            index += 1;
        }
        if common.is_none() {
            common = page.anchor().filter(|id| seen(*id)).map(Place::from);
        }
        let oldest = known.oldest_seq().unwrap_or(at.seq).max(1);
        if common.is_none() && from >= oldest {
            // Older than the first look.
            let from = oldest.saturating_sub(1);
            self.turn_to(SyncKind::Rewound { from, common });
            return true;
        }
        if index == page.len() && page.more() {
            let from = common.map_or(from, |place| place.seq);
            self.turn_to(SyncKind::Rewound { from, common });
            return true;
        }
        let before = (index < page.len()).then(|| page.id(index));
        let base = common
            .or(before.map(Place::before))
            .unwrap_or_else(|| last.into());
        self.given_up_us = self.given_up_us.max(at.us.unwrap_or(0));
        out.push(OrderOutput::Gap {
            reason: GapReason::Rewound,
            before,
            missed: None,
            base,
        });
        self.at = At::Place(base);
        self.turn_to(SyncKind::After);
        self.deliver(page, index, last, out);
        page.more()
    }
}

/// Whether `id` comes right after `last`.
fn follows(last: Place, id: DurableId) -> bool {
    id.epoch == last.epoch && id.seq == last.seq + 1 && last.us.is_none_or(|us| id.us >= us)
}

/// Whether `id` was delivered before, or is no younger than what was.
fn is_old(last: Place, id: DurableId, known: &impl KnownIds) -> bool {
    if id.epoch != last.epoch || id.seq > last.seq {
        return false;
    }
    match known.us_of(id.epoch, id.seq) {
        Some(us) => us == id.us,
        None => last.us.is_none_or(|us| id.us <= us),
    }
}

fn push_range(range: Range<usize>, out: &mut Vec<OrderOutput>) {
    if !range.is_empty() {
        out.push(OrderOutput::DeliverPage(range));
    }
}

/// The events after `at` up to `base` are not kept any more.
fn trimmed(at: Place, base: Place, before: Option<DurableId>) -> OrderOutput {
    OrderOutput::Gap {
        reason: GapReason::Trimmed,
        before,
        missed: Some(base.seq - at.seq),
        base,
    }
}
