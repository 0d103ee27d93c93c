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

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, MessageBody};
use actix_web::dev::Service;
use actix_web::rt::net::TcpStream;
use actix_web::web::Bytes;
use runcast_actors::session::StreamBody;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::stream_writer::{Framing, StreamWriter};

/// The I/O object that actix reads and writes: the socket, until it is taken.
#[derive(Debug)]
pub(super) struct Connection {
    socket: Option<TcpStream>,
    handle: ConnectionHandle,
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
}

impl Connection {
    pub(super) fn new(socket: TcpStream) -> Self {
        Self {
            socket: Some(socket),
            handle: ConnectionHandle::default(),
        }
    }

    pub(super) fn handle(&self) -> ConnectionHandle {
        self.handle.clone()
    }

    /// Takes the socket out if a stream waits for it.
    fn hand_over(&mut self) {
        let Some((body, framing)) = self.handle.0.offered.take() else {
            return;
        };
        if let Some(socket) = self.socket.take() {
            let writer = StreamWriter::new(socket, body, framing);
            self.handle.0.taken.replace(Some(Box::new(writer)));
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.get_mut().socket {
            Some(socket) => Pin::new(socket).poll_read(cx, buffer),
            // The end: there is nothing left to read here.
            None => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().socket {
            Some(socket) => Pin::new(socket).poll_write(cx, bytes),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    /// Called when all that was to be written has been: what is offered now,
    /// was offered before its head was written.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.hand_over();
        match &mut this.socket {
            Some(socket) => Pin::new(socket).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
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
pub(super) fn serve<S>(
    http: &S,
    socket: TcpStream,
) -> impl Future<Output = Result<(), S::Error>> + use<S>
where
    S: Service<(Connection, Option<SocketAddr>), Response = ()>,
    S::Future: 'static,
{
    let peer = socket.peer_addr().ok();
    let connection = Connection::new(socket);
    let handle = connection.handle();
    // Boxed, so that its memory goes when it ends, while the stream lasts.
    let requests = Box::pin(http.call((connection, peer)));
    async move {
        if let Some(stream) = until_taken(requests, handle).await? {
            stream.await;
        }
        Ok(())
    }
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
