//! [`StreamWriter`]: writes a stream's events to its socket.
//!
//! Bytes go from the run's log to the kernel by reference: one `writev` for all
//! that a client has not been sent yet, as one chunk (RFC 9112, section 7.1).
//! A client that has all keeps nothing here.

use std::fmt;
use std::future::Future;
use std::io::{self, IoSlice, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use actix_web::body::MessageBody as _;
use actix_web::rt::net::TcpStream;
use actix_web::web::Bytes;
use arrayvec::ArrayVec;
use runcast_actors::session::StreamBody;

/// Pieces written by one call; the kernel takes up to 1,024.
const PIECES_MAX: usize = 16;

/// Bytes after which no further piece goes into one call. What finds no room is
/// kept alive by the client that is stalled: this much, or one frame.
const WRITE_BYTES: usize = 32 * 1024;

/// A chunk's size in hexadecimal, and its line feed.
const HEAD_BYTES_MAX: usize = 18;

/// Read at once of what a client says after its request, which is nothing.
const READ_BYTES: usize = 256;

/// Bytes that a client may say all the same. One that goes on has its
/// connection closed: reading for nothing would cost whatever it likes.
const READ_BYTES_MAX: u32 = 64 * 1024;

/// How the end of a body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// By the end of the connection: all that HTTP/1.0 knows.
    UntilClose,
}

/// A stream on a socket of its own. Ends when the stream has ended and was
/// sent, or when the client is gone.
pub(super) struct StreamWriter {
    socket: TcpStream,
    body: StreamBody,
    framing: Framing,
    /// Nothing follows.
    has_ended: bool,
    /// What the client has said since its request.
    read_bytes: u32,
    /// What the kernel had no room for.
    unsent: Option<Box<Unsent>>,
}

/// The rest of a write: references, but for the chunk's head.
#[derive(Debug)]
struct Unsent {
    pieces: ArrayVec<Bytes, { PIECES_MAX + 2 }>,
}

impl StreamWriter {
    pub(super) fn new(socket: TcpStream, body: StreamBody, framing: Framing) -> Self {
        Self {
            socket,
            body,
            framing,
            has_ended: false,
            read_bytes: 0,
            unsent: None,
        }
    }

    /// Ready when the client is gone, or says too much.
    ///
    /// What it sends is thrown away: it has no more to ask on this connection,
    /// whose answer says `Connection: close`.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut buffer = [0; READ_BYTES];
        loop {
            if self.read_bytes > READ_BYTES_MAX {
                tracing::debug!("a client of a stream sends without an end");
                return Poll::Ready(());
            }
            if ready!(self.socket.poll_read_ready(cx)).is_err() {
                return Poll::Ready(());
            }
            match self.socket.try_read(&mut buffer) {
                Ok(0) => return Poll::Ready(()),
                Ok(bytes) => self.read_bytes += bytes as u32,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Poll::Ready(()),
            }
        }
    }

    /// Writes what there is; pending when the client has it all, or takes no
    /// more for now.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_unsent(cx))?;
            if self.has_ended {
                return Poll::Ready(Ok(()));
            }
            let (pieces, is_all) = self.next_pieces(cx);
            if !pieces.is_empty() || self.has_ended {
                self.write(pieces)?;
            }
            if is_all && self.unsent.is_none() {
                return Poll::Pending;
            }
        }
    }

    /// Takes what the body has, up to what one write takes; `true` if that was
    /// all for now: the body wakes this task when there is more.
    fn next_pieces(&mut self, cx: &mut Context<'_>) -> (ArrayVec<Bytes, PIECES_MAX>, bool) {
        let (mut pieces, mut bytes) = (ArrayVec::new(), 0);
        while !pieces.is_full() && bytes < WRITE_BYTES {
            match Pin::new(&mut self.body).poll_next(cx) {
                Poll::Ready(Some(Ok(piece))) => {
                    bytes += piece.len();
                    pieces.push(piece);
                }
                Poll::Ready(None) => {
                    self.has_ended = true;
                    return (pieces, false);
                }
                Poll::Pending => return (pieces, true),
            }
        }
        (pieces, false)
    }

    /// Writes `pieces` as a chunk, and the end of the body after the last one.
    /// What finds no room is kept.
    fn write(&mut self, pieces: ArrayVec<Bytes, PIECES_MAX>) -> io::Result<()> {
        let bytes: usize = pieces.iter().map(Bytes::len).sum();
        let (head, tail) = self.frame(bytes);
        let mut slices = ArrayVec::<IoSlice<'_>, { PIECES_MAX + 2 }>::new();
        slices.push(IoSlice::new(&head));
        slices.extend(pieces.iter().map(|piece| IoSlice::new(piece)));
        slices.push(IoSlice::new(tail));
        let mut written = match self.socket.try_write_vectored(&slices) {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        drop(slices);
        if written == head.len() + bytes + tail.len() {
            return Ok(());
        }
        let mut unsent = Box::new(Unsent {
            pieces: ArrayVec::new(),
        });
        unsent.pieces.push(Bytes::copy_from_slice(&head));
        unsent.pieces.extend(pieces);
        unsent.pieces.push(Bytes::from_static(tail));
        unsent.advance(&mut written);
        self.body.is_stalled();
        self.unsent = Some(unsent);
        Ok(())
    }

    /// Returns what stands before and after `bytes` of the body.
    fn frame(&self, bytes: usize) -> (ArrayVec<u8, HEAD_BYTES_MAX>, &'static [u8]) {
        let mut head = ArrayVec::new();
        if self.framing == Framing::UntilClose {
            return (head, b"");
        }
        if bytes > 0 {
            write!(head, "{bytes:x}\r\n").expect("the head of a chunk has room for any size");
        }
        let tail: &[u8] = match (bytes > 0, self.has_ended) {
            (true, false) => b"\r\n",
            (true, true) => b"\r\n0\r\n\r\n",
            (false, _) => b"0\r\n\r\n",
        };
        (head, tail)
    }

    /// Ready when nothing is left of earlier writes.
    fn poll_unsent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(unsent) = &mut self.unsent {
            ready!(self.socket.poll_write_ready(cx))?;
            let slices: ArrayVec<_, { PIECES_MAX + 2 }> = unsent.slices().collect();
            match self.socket.try_write_vectored(&slices) {
                Ok(mut written) => {
                    drop(slices);
                    if unsent.advance(&mut written) {
                        self.unsent = None;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Unsent {
    fn slices(&self) -> impl Iterator<Item = IoSlice<'_>> {
        self.pieces.iter().map(|piece| IoSlice::new(piece))
    }

    /// Forgets the first `written` bytes; `true` if nothing is left.
    fn advance(&mut self, written: &mut usize) -> bool {
        let gone = self.pieces.iter().take_while(|piece| {
            let is_gone = piece.len() <= *written;
            *written -= if is_gone { piece.len() } else { 0 };
            is_gone
        });
        let gone = gone.count();
        self.pieces.drain(..gone);
        match self.pieces.first_mut() {
            Some(first) => drop(first.split_to(*written)),
            None => return true,
        }
        false
    }
}

impl Future for StreamWriter {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        if this.poll_gone(cx).is_ready() {
            return Poll::Ready(());
        }
        if let Err(error) = ready!(this.poll_write(cx)) {
            tracing::debug!(%error, "the connection of a stream broke");
        }
        Poll::Ready(())
    }
}

impl fmt::Debug for StreamWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamWriter")
            .field("body", &self.body)
            .field("framing", &self.framing)
            .finish_non_exhaustive()
    }
}
