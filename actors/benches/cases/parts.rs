//! Parts of the way that actors and workers go, each by itself.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;

use actix_rt::SystemRunner;
use runcast_actors::bench::{LivePath, PushedTurn, Router};
use runcast_actors::sse::Segment;
use runcast_actors::worker::{AttachId, Inbox, RunMessage, WorkerMessage};

use super::encode::Writer;
use super::input::{JSON, Published, TOKEN, run_id, settings};
use super::path::{Pipe, Readers};
use super::{BATCH, Case};

/// A system, and the path in it.
fn start() -> (SystemRunner, Rc<LivePath>) {
    let system = actix_rt::System::new();
    let path = system.block_on(async { Rc::new(LivePath::new(settings())) });
    (system, path)
}

/// Bytes of Redis to what the subscriber takes in a turn.
struct Read {
    system: SystemRunner,
    path: Rc<LivePath>,
    pipe: Pipe,
    bytes: Vec<u8>,
}

pub(crate) fn read() -> Box<dyn Case> {
    let (system, path) = start();
    let pipe = system.block_on(Pipe::new(&path));
    let mut bytes = Vec::new();
    for _ in 0..BATCH {
        Published::plain(42, JSON).write(&mut bytes);
    }
    Box::new(Read {
        system,
        path,
        pipe,
        bytes,
    })
}

impl Case for Read {
    fn run(&mut self) {
        self.system.block_on(async {
            self.pipe.write(&self.bytes).await;
            let mut left = BATCH as usize;
            while left > 0 {
                tokio::task::yield_now().await;
                let turn = self.path.take_turn();
                left -= turn.map_or(0, |turn| turn.messages());
            }
        });
    }
}

/// A turn to the mailboxes of its runs' hubs.
struct Route {
    system: SystemRunner,
    path: Rc<LivePath>,
    router: Router,
    runs: u64,
    inboxes: Vec<Arc<Inbox>>,
    turn: Option<PushedTurn>,
}

pub(crate) fn route(runs: u64) -> Box<dyn Case> {
    let (system, path) = start();
    let (router, inboxes) = system.block_on(async {
        let inboxes = (0..runs).map(|n| path.attach(&run_id(n))).collect();
        (path.router(), inboxes)
    });
    Box::new(Route {
        system,
        path,
        router,
        runs,
        inboxes,
        turn: None,
    })
}

impl Case for Route {
    fn prepare(&mut self) {
        let payload = if self.runs > 1 { TOKEN } else { JSON };
        let messages = (0..BATCH).map(|n| Published::plain(n % self.runs, payload));
        self.turn = Some(turn(&self.path, messages));
        // The hubs handle what was routed before.
        self.system.block_on(async {
            for inbox in &self.inboxes {
                poll_fn(|cx| inbox.poll_drain(cx)).await;
            }
        });
    }

    fn run(&mut self) {
        self.router.route(self.turn.take().expect("prepared"));
    }
}

/// Pushes `messages`, and takes them as one turn.
fn turn(path: &LivePath, messages: impl Iterator<Item = Published>) -> PushedTurn {
    for message in messages {
        path.push(message.channel.into(), message.payload.into());
    }
    path.take_turn().expect("pushed")
}

/// What is in a hub's mailbox to a worker's inbox.
struct Handle {
    system: SystemRunner,
    path: Rc<LivePath>,
    router: Router,
    inbox: Arc<Inbox>,
    is_durable: bool,
    published: u64,
}

pub(crate) fn handle(is_durable: bool) -> Box<dyn Case> {
    let (system, path) = start();
    let (router, inbox) = system.block_on(async {
        let inbox = path.attach(&run_id(0));
        // The log so far.
        poll_fn(|cx| inbox.poll_drain(cx)).await;
        (path.router(), inbox)
    });
    Box::new(Handle {
        system,
        path,
        router,
        inbox,
        is_durable,
        published: 0,
    })
}

impl Case for Handle {
    fn prepare(&mut self) {
        let first = self.published + 1;
        let message = |seq| match self.is_durable {
            true => Published::durable(0, seq, JSON),
            false => Published::plain(0, JSON),
        };
        let turn = turn(&self.path, (first..first + BATCH).map(message));
        self.published += BATCH;
        self.router.route(turn);
    }

    fn run(&mut self) {
        let messages = self
            .system
            .block_on(poll_fn(|cx| self.inbox.poll_drain(cx)));
        assert_eq!(events(&messages), BATCH, "one turn, one batch");
    }
}

/// Events in what an inbox held.
fn events(messages: &VecDeque<WorkerMessage>) -> u64 {
    let events = |message: &WorkerMessage| match message {
        WorkerMessage::Run(_, RunMessage::Segments(segments, _)) => {
            segments.iter().map(|segment| segment.frames().len()).sum()
        }
        _ => 0,
    };
    messages.iter().map(events).sum::<usize>() as u64
}

/// Segments in a worker's inbox to the chunks its bodies give.
struct Deliver {
    system: SystemRunner,
    readers: Readers,
    inbox: Arc<Inbox>,
    attach_id: AttachId,
    writer: Writer,
    events: u64,
    clients: u64,
    segments: Vec<Segment>,
}

pub(crate) fn deliver(events: u64, clients: u64) -> Box<dyn Case> {
    let (system, path) = start();
    let (readers, (inbox, attach_id)) = system.block_on(async {
        let readers = Readers::open(&path, 1, clients).await;
        (readers, path.inbox_of(&run_id(0)))
    });
    Box::new(Deliver {
        system,
        readers,
        inbox,
        attach_id,
        writer: Writer::new(JSON),
        events,
        clients,
        segments: Vec::new(),
    })
}

impl Case for Deliver {
    fn prepare(&mut self) {
        for _ in 0..self.events {
            self.writer.push();
        }
        self.segments = self.writer.take();
    }

    fn run(&mut self) {
        let segments = std::mem::take(&mut self.segments);
        self.system.block_on(async {
            assert!(
                self.inbox
                    .push_segments(self.attach_id, segments, Vec::new())
            );
            self.readers.delivered(self.events * self.clients).await;
        });
    }
}

impl Drop for Read {
    fn drop(&mut self) {
        assert!(self.path.take_turn().is_none(), "all was taken");
    }
}

impl Drop for Route {
    fn drop(&mut self) {
        let refused = self.path.shared().metrics.mailbox_refusals.get();
        assert_eq!(refused, 0, "the hubs took all");
    }
}
