//! The whole way of an event on one thread: bytes of Redis, the client
//! library, the queue, routing, the hub, segments, the worker's log, and the
//! chunks that bodies give. What it leaves out is the kernel's, and actix'
//! writing of chunks.

use std::cell::Cell;
use std::future::poll_fn;
use std::hint::black_box;
use std::rc::Rc;
use std::task::Poll;

use actix_rt::SystemRunner;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ProtocolVersion, RedisConnectionInfo};
use runcast_actors::bench::LivePath;
use runcast_actors::broker::{StreamAnswer, StreamFilter, StreamRequest, StreamStart};
use runcast_actors::protocol::{BackendKind, LogLevel};
use runcast_actors::session::StreamBody;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::Notify;

use super::input::{JSON, Published, TOKEN, run_id, settings};
use super::{BATCH, Case};

/// Most that lies in the pipe: all that one `run` writes.
const PIPE_BYTES: usize = 1024 * 1024;

/// Redis' end of a connection that is subscribed.
pub(crate) struct Pipe {
    redis: DuplexStream,
    /// Kept open.
    _connection: MultiplexedConnection,
}

impl Pipe {
    /// Connects the client library, which hands what comes to `path`.
    pub(crate) async fn new(path: &LivePath) -> Self {
        let (client, mut redis) = tokio::io::duplex(PIPE_BYTES);
        let client = path.tap(client);
        let config = AsyncConnectionConfig::new();
        let info = RedisConnectionInfo::default()
            .set_protocol(ProtocolVersion::RESP3)
            .set_skip_set_lib_name();
        let connecting = MultiplexedConnection::new_with_config(&info, client, config);
        let greeting = async {
            // `HELLO 3` is all that it asks.
            let mut asked = [0; 256];
            let length = redis.read(&mut asked).await.expect("asked");
            assert!(asked[..length].starts_with(b"*2\r\n$5\r\nHELLO\r\n"));
            redis.write_all(b"%1\r\n+proto\r\n:3\r\n").await
        };
        let (connected, greeted) = futures_util::future::join(connecting, greeting).await;
        greeted.expect("greeted");
        let (connection, driver) = connected.expect("connected");
        actix_rt::spawn(driver);
        Self {
            redis,
            _connection: connection,
        }
    }

    /// Writes what Redis would.
    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        self.redis.write_all(bytes).await.expect("it is open");
    }
}

/// Clients that read all there is, each in a task of its own as connections
/// do.
pub(crate) struct Readers {
    path: Rc<LivePath>,
    all_read: Rc<Notify>,
    /// How many deliveries are all.
    target: Rc<Cell<u64>>,
}

impl Readers {
    /// Opens streams on `runs` runs, so many on each, and has them read up to
    /// where they are live.
    pub(crate) async fn open(path: &Rc<LivePath>, runs: u64, clients: u64) -> Self {
        let readers = Self {
            path: Rc::clone(path),
            all_read: Rc::default(),
            target: Rc::default(),
        };
        let broker = path.broker();
        let filter = StreamFilter {
            kinds: Vec::new(),
            sources: Vec::new(),
            log_level: LogLevel::Info,
        };
        for n in 0..runs {
            for _ in 0..clients {
                let request = StreamRequest {
                    bearer: None,
                    ticket: None,
                    run_id: run_id(n),
                    backend: BackendKind::Redis,
                    filter: filter.clone(),
                    start: StreamStart::Now,
                    peer: None,
                };
                match broker.open_stream(request).await {
                    StreamAnswer::Stream(body) => readers.read(body).await,
                    other => panic!("the stream does not begin: {other:?}"),
                }
            }
        }
        readers
    }

    /// Reads a stream up to its `hello`, and what follows in a task.
    async fn read(&self, mut body: StreamBody) {
        let mut opened = Vec::new();
        while !opened.windows(6).any(|window| window == b"hello\n") {
            let piece = poll_fn(|cx| body.poll_piece(cx)).await;
            opened.extend_from_slice(piece.expect("it is open").bytes());
        }
        actix_rt::spawn(read_all(
            body,
            Rc::clone(&self.path),
            Rc::clone(&self.all_read),
            Rc::clone(&self.target),
        ));
    }

    /// Waits until `count` more were delivered since the last call.
    pub(crate) async fn delivered(&self, count: u64) {
        self.target.set(self.target.get() + count);
        while self.path.deliveries() < self.target.get() {
            self.all_read.notified().await;
        }
    }
}

async fn read_all(
    mut body: StreamBody,
    path: Rc<LivePath>,
    all_read: Rc<Notify>,
    target: Rc<Cell<u64>>,
) {
    poll_fn(|cx| {
        loop {
            match body.poll_piece(cx) {
                Poll::Ready(Some(piece)) => drop(black_box(piece)),
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        if path.deliveries() >= target.get() {
            all_read.notify_one();
        }
        Poll::Pending
    })
    .await;
}

/// The path, its clients, and messages on their way.
struct Path {
    system: SystemRunner,
    path: Rc<LivePath>,
    pipe: Pipe,
    readers: Readers,
    deliveries: u64,
    /// The messages of the next run, from how many there were before.
    messages: Box<dyn Fn(u64) -> Vec<Published>>,
    published: u64,
    bytes: Vec<u8>,
}

impl Path {
    fn boxed(
        runs: u64,
        clients: u64,
        messages: impl Fn(u64) -> Vec<Published> + 'static,
    ) -> Box<dyn Case> {
        let system = actix_rt::System::new();
        let (path, pipe, readers) = system.block_on(async {
            let path = Rc::new(LivePath::new(settings()));
            let pipe = Pipe::new(&path).await;
            let readers = Readers::open(&path, runs, clients).await;
            actix::Actor::start(path.router());
            (path, pipe, readers)
        });
        Box::new(Self {
            deliveries: messages(0).len() as u64 * clients,
            system,
            path,
            pipe,
            readers,
            messages: Box::new(messages),
            published: 0,
            bytes: Vec::new(),
        })
    }
}

impl Case for Path {
    fn prepare(&mut self) {
        let messages = (self.messages)(self.published);
        self.published += messages.len() as u64;
        self.bytes.clear();
        for message in messages {
            message.write(&mut self.bytes);
        }
    }

    fn run(&mut self) {
        self.system.block_on(async {
            self.pipe.write(&self.bytes).await;
            self.readers.delivered(self.deliveries).await;
        });
    }
}

impl Drop for Path {
    /// What was measured was the live way.
    fn drop(&mut self) {
        let metrics = &self.path.shared().metrics;
        let read = metrics.store.read_events.get();
        let (full, refused) = (metrics.mailbox_refusals.get(), metrics.inbox_refusals.get());
        assert_eq!((read, full, refused), (0, 0, 0), "all came live");
    }
}

/// Plain messages, each run's in turn, to so many clients of each run.
pub(crate) fn plain(messages: u64, runs: u64, clients: u64) -> Box<dyn Case> {
    // Many runs are token streams.
    let payload = if runs > 1 { TOKEN } else { JSON };
    let each = move |n| Published::plain(n % runs, payload);
    Path::boxed(runs, clients, move |_| (0..messages).map(each).collect())
}

/// Durable events of one run.
pub(crate) fn durable() -> Box<dyn Case> {
    Path::boxed(1, 1, |published| {
        let seqs = published + 1..=published + BATCH;
        seqs.map(|seq| Published::durable(0, seq, JSON)).collect()
    })
}
