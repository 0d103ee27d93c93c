//! [`Hub`]: a broker's hub of the run: the core, its log, the subscription it
//! hears from, its reads under way, and one worker with a log of its own.

use std::collections::VecDeque;

use runcast_actors::order::{OrderInput, OrderOutput, RunOrder, Safeguards};
use runcast_actors::protocol::{DurableId, Place};
use runcast_actors::store::PageFrom;

use crate::log::{Entry, Gap, Log};
use crate::store::{Page, Store};

/// What a hub hears, in order.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Heard {
    /// A durable event.
    Durable(DurableId),
    /// A plain event.
    Plain,
    /// The subscription is there again.
    Reconnected,
}

/// A question to the store: asked, executed there, answered.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Call<Q, A> {
    /// On its way to the store.
    Asked(Q),
    /// Its answer is on its way back; `None`: it failed.
    Answered(Q, Option<A>),
}

/// A worker's log, which lags behind the hub's.
#[derive(Debug)]
pub(crate) struct Worker {
    /// What clients read; `None` until the hub is ready.
    pub(crate) log: Option<Log>,
    /// What the hub sent.
    inbox: VecDeque<Entry>,
}

/// One hub.
#[derive(Debug)]
pub(crate) struct Hub {
    order: RunOrder,
    log: Log,
    held: VecDeque<DurableId>,
    has_overflown: bool,
    read: Option<Call<PageFrom, Page>>,
    position: Option<Call<bool, Option<DurableId>>>,
    /// The position is to be asked for soon.
    pub(crate) is_check_wanted: bool,
    /// What was published and not yet heard.
    pub(crate) channel: VecDeque<Heard>,
    /// Whether its broker is subscribed.
    pub(crate) is_connected: bool,
    /// The log of its worker with clients.
    pub(crate) worker: Option<Worker>,
    plain: u64,
    out: Vec<OrderOutput>,
    /// Reads of the store.
    pub(crate) reads: u64,
    limits: Limits,
    safeguards: Safeguards,
}

/// Bounds of a hub.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Entries of its log, and of its worker's.
    pub(crate) log_max: usize,
    /// Live events held while it reads.
    pub(crate) held_max: usize,
}

impl Hub {
    /// A hub that nobody has heard of.
    pub(crate) fn new(limits: Limits, safeguards: Safeguards) -> Self {
        Self {
            order: RunOrder::with_safeguards(safeguards),
            log: Log::new(limits.log_max),
            held: VecDeque::new(),
            has_overflown: false,
            read: None,
            position: None,
            is_check_wanted: false,
            channel: VecDeque::new(),
            is_connected: true,
            worker: None,
            plain: 0,
            out: Vec::new(),
            reads: 0,
            limits,
            safeguards,
        }
    }

    /// The same hub after its broker was killed.
    pub(crate) fn reborn(&self) -> Self {
        Self::new(self.limits, self.safeguards)
    }

    /// Where it stands.
    pub(crate) fn place(&self) -> Option<Place> {
        self.order.place()
    }

    /// Number of its last plain event.
    pub(crate) fn plain(&self) -> u64 {
        self.plain
    }

    /// Whether it waits for the store, or has not heard all.
    pub(crate) fn is_busy(&self) -> bool {
        let lags = self
            .worker
            .as_ref()
            .is_some_and(|worker| !worker.inbox.is_empty());
        self.order.is_syncing()
            || self.read.is_some()
            || self.position.is_some()
            || self.worker.is_some() && self.is_check_wanted
            || !self.channel.is_empty()
            || lags
    }

    // ---- inputs ------------------------------------------------------------

    /// Hears the next message.
    pub(crate) fn hear(&mut self) {
        match self.channel.pop_front() {
            Some(Heard::Durable(id)) => self.live(id),
            Some(Heard::Plain) => {
                self.plain += 1;
                self.write(Entry::Loose(self.plain));
            }
            Some(Heard::Reconnected) => self.input(OrderInput::Doubt),
            None => {}
        }
    }

    /// A client wants its log.
    pub(crate) fn watch(&mut self) {
        if self.worker.is_none() {
            self.worker = Some(Worker {
                log: None,
                inbox: VecDeque::new(),
            });
            self.input(OrderInput::Watched);
        }
    }

    /// Its last client went.
    pub(crate) fn unwatch(&mut self) {
        self.worker = None;
        self.input(OrderInput::Unwatched);
    }

    /// Asks for the store's position, unless that is under way.
    pub(crate) fn check(&mut self, is_sure: bool) {
        if self.worker.is_some() && self.position.is_none() {
            self.position = Some(Call::Asked(is_sure));
            self.is_check_wanted = false;
        }
    }

    /// The store executes what it was asked.
    pub(crate) fn execute_read(&mut self, store: &Store, fails: bool) {
        if let Some(Call::Asked(from)) = self.read {
            self.reads += 1;
            let page = (!fails).then(|| store.read(from));
            self.read = Some(Call::Answered(from, page));
        }
    }

    /// The answer to the read comes back.
    pub(crate) fn take_page(&mut self) {
        if let Some(Call::Answered(_, page)) = self.read {
            self.read = None;
            match page {
                Some(page) => self.step(OrderInput::Page(&page), None, Some(&page)),
                None => self.input(OrderInput::Retry),
            }
        }
    }

    /// The store executes the question for its position.
    pub(crate) fn execute_check(&mut self, store: &Store, fails: bool) {
        if let Some(Call::Asked(is_sure)) = self.position {
            let last = (!fails).then(|| store.last());
            self.position = Some(Call::Answered(is_sure, last));
        }
    }

    /// The store's position comes back.
    pub(crate) fn take_position(&mut self) {
        if let Some(Call::Answered(sure, answer)) = self.position {
            self.position = None;
            if let Some(last) = answer {
                self.input(OrderInput::Position { last, sure });
            }
        }
    }

    /// The worker takes what the hub sent it, at most so many frames.
    pub(crate) fn pass_on(&mut self, frames_max: usize) {
        let Some(worker) = &mut self.worker else {
            return;
        };
        for _ in 0..frames_max {
            let Some(entry) = worker.inbox.pop_front() else {
                break;
            };
            if let Some(log) = &mut worker.log {
                log.push(entry);
            }
        }
    }

    // ---- the core ----------------------------------------------------------

    fn live(&mut self, id: DurableId) {
        self.step(OrderInput::Live(id), Some(id), None);
    }

    fn input(&mut self, input: OrderInput<'_, Page>) {
        self.step(input, None, None);
    }

    fn step(&mut self, input: OrderInput<'_, Page>, live: Option<DurableId>, page: Option<&Page>) {
        let mut out = std::mem::take(&mut self.out);
        self.order.step(input, &self.log, &mut out);
        let mut replays = false;
        for output in out.drain(..) {
            match output {
                OrderOutput::DeliverLive => self.write(Entry::Event(live.expect("a live event"))),
                OrderOutput::Duplicate | OrderOutput::Leave => {}
                OrderOutput::Hold => self.hold(live.expect("a live event")),
                OrderOutput::Replay => replays = true,
                OrderOutput::DeliverPage(range) => {
                    let page = page.expect("a page");
                    for index in range {
                        self.write(Entry::Event(runcast_actors::order::PageIds::id(
                            page, index,
                        )));
                    }
                }
                OrderOutput::Gap {
                    reason,
                    before,
                    missed,
                    base,
                } => self.write(Entry::Gap(Gap {
                    reason,
                    before,
                    missed,
                    base: Some(base),
                })),
                OrderOutput::Base(base) => self.write(Entry::Base(base)),
                OrderOutput::Read(from) => {
                    assert!(self.read.is_none(), "two reads at a time");
                    self.read = Some(Call::Asked(from));
                }
                OrderOutput::CheckAgain => self.is_check_wanted = true,
                OrderOutput::Ready => self.ready(),
            }
        }
        self.out = out;
        if replays {
            self.replay();
        }
    }

    fn hold(&mut self, id: DurableId) {
        if self.held.len() < self.limits.held_max {
            self.held.push_back(id);
        } else {
            self.has_overflown = true;
        }
    }

    fn replay(&mut self) {
        let held = std::mem::take(&mut self.held);
        for id in held {
            self.live(id);
        }
        if std::mem::take(&mut self.has_overflown) {
            self.input(OrderInput::Doubt);
        }
    }

    fn ready(&mut self) {
        if let Some(worker) = &mut self.worker
            && worker.log.is_none()
        {
            worker.log = Some(self.log.clone());
        }
    }

    fn write(&mut self, entry: Entry) {
        self.log.push(entry);
        if let Some(worker) = &mut self.worker
            && worker.log.is_some()
        {
            worker.inbox.push_back(entry);
        }
    }

    /// Where it is, for a trace.
    pub(crate) fn state(&self) -> String {
        let Self {
            order,
            log,
            read,
            position,
            channel,
            ..
        } = self;
        format!("{order:?} read {read:?} position {position:?} hears {channel:?} log {log:?}")
    }
}
