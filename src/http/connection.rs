//! [`Connection`]: a client's socket, until a stream takes it over.
//!
//! actix serves every request: it reads the head, routes it, and writes the head
//! of the answer. When that answer is a stream, its socket leaves actix: nothing
//! is left to do then but to write events, and [`StreamWriter`] does that
//! without a copy, and without the two buffers of 8 KiB and the request's state
//! that actix keeps for as long as a connection is open.
//!
//! How: the dispatcher of HTTP/1.1 takes any I/O object. The handler leaves the
//! stream with the connection ([`ConnectionHandle`]); the flush that ends the
//! head finds it there and takes the socket out. Then the dispatcher is dropped
//! with all that it has read ahead.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use actix_web::body::{BodySize, MessageBody};
use actix_web::dev::Service;
use actix_web::rt::net::TcpStream;
use actix_web::web::{Bytes, Data};
use runcast_actors::metrics::Limit;
use runcast_actors::session::StreamBody;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use super::HttpState;
use super::door::Door;
use super::problem::ApiError;
use super::request_head::{HeadVerdict, HeadWatch, RequestStage, Requests};
use super::stream_writer::{Framing, SAID_BYTES_MAX, StreamEnd, StreamWriter};

/// A client's socket, under TLS or not.
pub(super) type ClientSocket = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// The I/O object that actix reads and writes: the socket, until it is taken.
pub(super) struct Connection {
    socket: Option<ClientSocket>,
    handle: ConnectionHandle,
    head: HeadWatch,
    /// The client takes nothing for now.
    is_blocked: bool,
    /// What the client of a stream has said since its request.
    said_bytes: usize,
    state: Data<HttpState>,
}

/// What a handler leaves with the connection that its answer goes to.
#[derive(Debug, Clone, Default)]
pub(super) struct ConnectionHandle(Rc<Handover>);

#[derive(Debug, Default)]
struct Handover {
    /// Waits for the head of its answer to be written.
    offered: RefCell<Option<(StreamBody, Framing)>>,
    /// Has a socket of its own.
    taken: RefCell<Option<Box<StreamWriter>>>,
    requests: Requests,
    /// Not under TLS.
    is_plain: Cell<bool>,
}

impl ConnectionHandle {
    /// Whether a stream can take the socket over. One under TLS stays with
    /// actix: its bytes are made for one client, whoever writes them.
    pub(super) fn takes_streams(&self) -> bool {
        self.0.is_plain.get()
    }

    /// Where the connection is among its requests.
    pub(super) fn requests(&self) -> &Requests {
        &self.0.requests
    }
}

impl Connection {
    pub(super) fn new(socket: ClientSocket, state: Data<HttpState>) -> Self {
        let handle = ConnectionHandle::default();
        handle.0.is_plain.set(matches!(socket, Either::Left(_)));
        Self {
            socket: Some(socket),
            handle,
            head: HeadWatch::new(&state.broker.live().limits),
            is_blocked: false,
            said_bytes: 0,
            state,
        }
    }

    pub(super) fn handle(&self) -> ConnectionHandle {
        self.handle.clone()
    }

    /// Whether actix says by itself that the first head is not here in time. Of
    /// a connection that has said nothing it says so, too: it is only idle.
    fn is_late_first(&self, answer: &[u8]) -> bool {
        self.handle.0.requests.stage() == RequestStage::First
            && self.head.has_begun_first()
            && answer.starts_with(b"HTTP/1.1 408 ")
    }

    /// Takes the socket out if a stream waits for it.
    fn hand_over(&mut self) {
        let Some((body, framing)) = self.handle.0.offered.take() else {
            return;
        };
        if let Some(Either::Left(socket)) = self.socket.take() {
            let writer = StreamWriter::new(socket, body, framing);
            self.handle.0.taken.replace(Some(Box::new(writer)));
        }
    }

    /// Answers a head that nobody reads to its end. What the socket does not
    /// take at once is lost: there is nobody to wait for such a client.
    fn refuse_head(&mut self, cx: &mut Context<'_>) {
        let broker = &self.state.broker;
        broker.refused(Limit::HeaderBytes);
        let limit = broker.live().limits.max_header_bytes.as_u64();
        let answer = ApiError::head_too_large(limit).to_wire();
        if let Some(mut socket) = self.socket.take() {
            let _ = Pin::new(&mut socket).poll_write(cx, &answer);
            let _ = Pin::new(&mut socket).poll_shutdown(cx);
        }
    }

    /// Reads what the client of a stream says, for nothing; the end when it is
    /// gone, or says too much.
    fn discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(socket) = &mut self.socket else {
            return Poll::Ready(Ok(()));
        };
        let mut buffer = [MaybeUninit::uninit(); 256];
        while self.said_bytes <= SAID_BYTES_MAX {
            let mut buffer = ReadBuf::uninit(&mut buffer);
            ready!(Pin::new(&mut *socket).poll_read(cx, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            self.said_bytes += buffer.filled().len();
        }
        self.state.metrics.talkative_streams.inc();
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let Some(socket) = &mut this.socket else {
            // The end: there is nothing left to read here.
            return Poll::Ready(Ok(()));
        };
        let requests = &this.handle.0.requests;
        let stage = requests.stage();
        match this.head.verdict(requests, this.is_blocked, cx) {
            HeadVerdict::Read => {}
            HeadVerdict::Wait | HeadVerdict::Hold => return Poll::Pending,
            HeadVerdict::Discard => return this.discard(cx),
            HeadVerdict::TooLarge => {
                this.refuse_head(cx);
                return Poll::Ready(Ok(()));
            }
            HeadVerdict::Late => {
                this.state.broker.refused(Limit::HeaderTime);
                return Poll::Ready(Ok(()));
            }
            HeadVerdict::Over => return Poll::Ready(Ok(())),
        }
        let read_before = buffer.filled().len();
        let read = Pin::new(socket).poll_read(cx, buffer);
        this.head.read(&buffer.filled()[read_before..], stage);
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let Some(socket) = &mut this.socket else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        let written = Pin::new(socket).poll_write(cx, bytes);
        this.is_blocked = written.is_pending();
        if !this.is_blocked && this.is_late_first(bytes) {
            this.state.broker.refused(Limit::HeaderTime);
        }
        written
    }

    /// Called when all that was to be written has been: what is offered now,
    /// was offered before its head was written.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.hand_over();
        let Some(socket) = &mut this.socket else {
            return Poll::Ready(Ok(()));
        };
        let flushed = Pin::new(socket).poll_flush(cx);
        this.is_blocked = flushed.is_pending();
        if !this.is_blocked {
            this.head.written(&this.handle.0.requests, cx);
        }
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().socket {
            Some(socket) => Pin::new(socket).poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
        }
    }
}

/// The body of a stream's answer: leaves the stream with its connection when
/// it is first asked for bytes, that is when the head is encoded.
pub(super) struct HandedOver {
    stream: Option<(StreamBody, Framing)>,
    handle: ConnectionHandle,
}

impl HandedOver {
    pub(super) fn new(body: StreamBody, framing: Framing, handle: ConnectionHandle) -> Self {
        Self {
            stream: Some((body, framing)),
            handle,
        }
    }
}

impl MessageBody for HandedOver {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Infallible>>> {
        if let Some(stream) = self.stream.take() {
            self.handle.0.offered.replace(Some(stream));
        }
        // The flush that comes next ends it.
        Poll::Pending
    }
}

/// Serves a connection by `http`, and then the stream that took it over, as
/// one: it counts as one connection for as long as either lasts.
pub(super) async fn serve<S>(http: Rc<S>, socket: TcpStream, door: Door) -> Result<(), S::Error>
where
    S: Service<(Connection, Option<SocketAddr>), Response = ()>,
{
    let Some((connection, peer)) = door.let_in(socket).await else {
        return Ok(());
    };
    let handle = connection.handle();
    // Boxed, so that its memory goes when it ends, while the stream lasts.
    let requests = Box::pin(http.call((connection, peer)));
    if let Some(stream) = until_taken(requests, handle).await?
        && stream.await == StreamEnd::SaidTooMuch
    {
        door.state().metrics.talkative_streams.inc();
    }
    Ok(())
}

/// Serves requests until there are no more, or a stream has taken the socket:
/// then at once, since a dispatcher that has read ahead as much as it may looks
/// for room again and again and never sees the end of what it reads.
async fn until_taken<E>(
    mut requests: Pin<Box<impl Future<Output = Result<(), E>>>>,
    handle: ConnectionHandle,
) -> Result<Option<Box<StreamWriter>>, E> {
    poll_fn(|cx| {
        let ended = requests.as_mut().poll(cx);
        match handle.0.taken.take() {
            Some(stream) => Poll::Ready(Ok(Some(stream))),
            None => ended.map_ok(|()| None),
        }
    })
    .await
}
