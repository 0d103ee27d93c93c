//! [`StreamWriter`]: writes a stream's events to its socket.
//!
//! Bytes go from the run's log to the kernel by reference: one call for all that
//! a client has not been sent yet, in chunks (RFC 9112, section 7.1) that are
//! encoded once for all clients.
//! A client that has all keeps nothing here.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::io::{self, IoSlice, Write as _};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use actix_web::rt::net::TcpStream;
use actix_web::web::Bytes;
use arrayvec::ArrayVec;
use bytes::Buf as _;
use runcast_actors::session::StreamBody;
use runcast_actors::sse::Piece;
use socket2::SockRef;
use tokio::io::Interest;
use tokio::task::coop::has_budget_remaining;

/// Pieces written by one call; the kernel takes up to 1,024.
const PIECES_MAX: usize = 16;

/// Each with what stands before and after it, and the end of the body.
const SLICES_MAX: usize = 3 * PIECES_MAX + 1;

/// Bytes after which no further piece goes into one call. What finds no room is
/// kept alive by the client that is stalled: this much, or one frame.
const WRITE_BYTES: usize = 64 * 1024;

/// A chunk's size in hexadecimal, and its line feed.
const HEAD_BYTES_MAX: usize = 18;

/// Read at once of what a client says after its request, which is nothing.
const READ_BYTES: usize = 256;

/// Bytes that a client may say all the same. One that goes on has its
/// connection closed: reading for nothing would cost whatever it likes.
pub(super) const SAID_BYTES_MAX: usize = 64 * 1024;

/// How the end of a body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// By the end of the connection: all that HTTP/1.0 knows.
    UntilClose,
}

/// Why a stream's connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StreamEnd {
    /// All was sent, or the client is gone.
    Over,
    /// The client went on sending.
    SaidTooMuch,
}

/// A stream on a socket of its own. Ends when the stream has ended and was
/// sent, or when the client is gone.
pub(super) struct StreamWriter {
    socket: TcpStream,
    body: StreamBody,
    framing: Framing,
    /// Nothing follows.
    has_ended: bool,
    /// This task is woken when the client says something, or goes.
    is_watching: bool,
    /// What the client has said since its request.
    said_bytes: u32,
    /// What the kernel had no room for.
    unsent: Option<Box<Unsent>>,
}

/// The rest of a write: references, but for the heads of chunks.
#[derive(Debug)]
struct Unsent {
    pieces: VecDeque<Bytes>,
}

/// What one write takes from the body.
type Pieces = ArrayVec<Piece, PIECES_MAX>;

/// The same as the kernel gets it.
type Slices<'a> = ArrayVec<&'a [u8], SLICES_MAX>;

/// What stands before a piece that is no chunk yet.
struct Head(ArrayVec<u8, HEAD_BYTES_MAX>);

impl StreamWriter {
    pub(super) fn new(socket: TcpStream, body: StreamBody, framing: Framing) -> Self {
        Self {
            socket,
            body,
            framing,
            has_ended: false,
            is_watching: false,
            said_bytes: 0,
            unsent: None,
        }
    }

    /// Ready when the client is gone, or says too much.
    ///
    /// What it sends is thrown away: it has no more to ask on this connection,
    /// whose answer says `Connection: close`. Between two events of the kernel
    /// this is one atomic load; to ask for the next one takes a lock.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<StreamEnd> {
        let mut buffer = [MaybeUninit::uninit(); READ_BYTES];
        while self.said_bytes as usize <= SAID_BYTES_MAX {
            let mut was_told = false;
            let socket = &self.socket;
            let read = socket.try_io(Interest::READABLE, || {
                was_told = true;
                SockRef::from(socket).recv(&mut buffer)
            });
            match read {
                Ok(0) => return Poll::Ready(StreamEnd::Over),
                Ok(bytes) => self.said_bytes += bytes as u32,
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                    return Poll::Ready(StreamEnd::Over);
                }
                // Nothing was told since we asked to be woken.
                Err(_) if self.is_watching && !was_told => return Poll::Pending,
                Err(_) => {
                    let told = self.socket.poll_read_ready(cx);
                    // Without budget it has not been noted who is to be woken.
                    self.is_watching = told.is_pending() && has_budget_remaining();
                    if ready!(told).is_err() {
                        return Poll::Ready(StreamEnd::Over);
                    }
                }
            }
        }
        tracing::debug!("a client of a stream sends without an end");
        Poll::Ready(StreamEnd::SaidTooMuch)
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
                self.write(&pieces)?;
            }
            if is_all && self.unsent.is_none() {
                return Poll::Pending;
            }
        }
    }

    /// Takes what the body has, up to what one write takes; `true` if that was
    /// all for now: the body wakes this task when there is more.
    fn next_pieces(&mut self, cx: &mut Context<'_>) -> (Pieces, bool) {
        let (mut pieces, mut bytes) = (Pieces::new(), 0);
        while !pieces.is_full() && bytes < WRITE_BYTES {
            match self.body.poll_piece(cx) {
                Poll::Ready(Some(piece)) => {
                    bytes += piece.bytes().len();
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

    /// Writes `pieces` as chunks, and the end of the body after the last one.
    /// What finds no room is kept.
    fn write(&mut self, pieces: &Pieces) -> io::Result<()> {
        let heads: ArrayVec<Head, PIECES_MAX> = pieces.iter().map(Head::of).collect();
        let slices = self.slices(pieces, &heads);
        let written = match try_write(&self.socket, &slices) {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        let all: usize = slices.iter().map(|slice| slice.len()).sum();
        if written < all {
            let unsent = Unsent::after(written, slices, pieces);
            self.body.is_stalled();
            self.unsent = Some(Box::new(unsent));
        }
        Ok(())
    }

    /// Returns what is to be written of `pieces`: one slice for each segment,
    /// whose chunk is encoded once for all clients.
    fn slices<'a>(&self, pieces: &'a Pieces, heads: &'a [Head]) -> Slices<'a> {
        let mut slices = Slices::new();
        for (piece, Head(head)) in pieces.iter().zip(heads) {
            match (self.framing, piece) {
                (Framing::UntilClose, piece) => slices.push(piece.bytes()),
                (Framing::Chunked, Piece::Segment(segment)) => slices.push(segment.chunk()),
                (Framing::Chunked, Piece::Part(bytes)) => {
                    slices.extend([&head[..], bytes, b"\r\n"]);
                }
            }
        }
        if self.has_ended && self.framing == Framing::Chunked {
            slices.push(b"0\r\n\r\n");
        }
        slices
    }

    /// Ready when nothing is left of earlier writes.
    fn poll_unsent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(unsent) = &mut self.unsent {
            ready!(self.socket.poll_write_ready(cx))?;
            let written = try_write(&self.socket, &unsent.slices());
            match written {
                Ok(written) => {
                    if unsent.advance(written) {
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

/// Writes `slices` by one system call.
fn try_write(socket: &TcpStream, slices: &[&[u8]]) -> io::Result<usize> {
    if let [slice] = slices {
        // What mostly is to be written: the kernel has less to do for it.
        return socket.try_write(slice);
    }
    let slices: ArrayVec<_, SLICES_MAX> = slices.iter().map(|slice| IoSlice::new(slice)).collect();
    socket.try_write_vectored(&slices)
}

impl Head {
    fn of(piece: &Piece) -> Self {
        let mut head = ArrayVec::new();
        if let Piece::Part(bytes) = piece {
            write!(head, "{:x}\r\n", bytes.len())
                .expect("the head of a chunk has room for any size");
        }
        Self(head)
    }
}

impl Unsent {
    /// Keeps `slices` from byte `written` on. What is of `pieces` is kept by
    /// reference.
    fn after(written: usize, slices: Slices<'_>, pieces: &Pieces) -> Self {
        let whole = |piece: &Piece| match piece {
            Piece::Segment(segment) => segment.chunk().clone(),
            Piece::Part(bytes) => bytes.clone(),
        };
        let owners: ArrayVec<Bytes, PIECES_MAX> = pieces.iter().map(whole).collect();
        let kept = |slice: &[u8]| {
            let lies_in = |owner: &&Bytes| {
                let (owner, slice) = (owner.as_ptr_range(), slice.as_ptr_range());
                owner.start <= slice.start && slice.end <= owner.end
            };
            match owners.iter().find(lies_in) {
                Some(owner) => owner.slice_ref(slice),
                None => Bytes::copy_from_slice(slice),
            }
        };
        let mut unsent = Self {
            pieces: slices.into_iter().map(kept).collect(),
        };
        unsent.advance(written);
        unsent
    }

    fn slices(&self) -> ArrayVec<&[u8], SLICES_MAX> {
        self.pieces.iter().map(|piece| &piece[..]).collect()
    }

    /// Forgets the first `written` bytes; `true` if nothing is left.
    fn advance(&mut self, mut written: usize) -> bool {
        while let Some(first) = self.pieces.front_mut() {
            if written < first.len() {
                first.advance(written);
                return false;
            }
            written -= first.len();
            self.pieces.pop_front();
        }
        true
    }
}

impl Future for StreamWriter {
    type Output = StreamEnd;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<StreamEnd> {
        let this = self.get_mut();
        if let Poll::Ready(end) = this.poll_gone(cx) {
            return Poll::Ready(end);
        }
        if let Err(error) = ready!(this.poll_write(cx)) {
            tracing::debug!(%error, "the connection of a stream broke");
        }
        Poll::Ready(StreamEnd::Over)
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
