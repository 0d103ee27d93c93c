//! [`PushTap`]: takes what was published off the subscription's connection.
//!
//! redis-rs makes the connection, logs in and subscribes, but it builds a tree
//! of values for each message: some 6,000 instructions and five allocations,
//! half of what a message costs a broker. So it reads through this tap, which
//! puts each message into the [`PushQueue`], as slices of what was read, and
//! gives on all else: answers, and confirmations of subscriptions.

use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use memchr::memchr;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

use super::push_queue::{Push, PushQueue};

/// How a message on a pattern begins, in RESP3:
/// `>4 pmessage <pattern> <channel> <payload>`.
const MESSAGE: &[u8] = b">4\r\n$8\r\npmessage\r\n";

/// Least room to read into. Messages that wait share what they were read into.
const READ_BYTES: usize = 16 * 1024;

/// Deepest nesting of an answer; those that come here have three levels.
const DEPTH_MAX: u32 = 32;

/// A connection whose messages go to a [`PushQueue`].
pub(super) struct PushTap<S> {
    stream: S,
    queue: Arc<PushQueue>,
    /// Read, and neither queued nor given on: a value that is not whole yet, or
    /// one that is given on.
    read: BytesMut,
    /// So many bytes at its start are given on.
    others: usize,
}

/// The next value.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Message {
        channel: Range<usize>,
        payload: Range<usize>,
    },
    /// Anything else, of so many bytes.
    Other(usize),
}

impl<S> PushTap<S> {
    pub(super) fn new(stream: S, queue: Arc<PushQueue>) -> Self {
        Self {
            stream,
            queue,
            read: BytesMut::new(),
            others: 0,
        }
    }

    /// Queues the messages that come next, up to a value that is another's.
    fn sort(&mut self) -> io::Result<()> {
        let Self {
            queue,
            read,
            others,
            ..
        } = self;
        let mut broken = None;
        queue.extend(std::iter::from_fn(|| match next(read) {
            Ok(Some(Next::Message { channel, payload })) => {
                let bytes = read.split_to(payload.end + 2).freeze();
                Some(Push::Message {
                    channel: bytes.slice(channel),
                    payload: bytes.slice(payload),
                })
            }
            Ok(Some(Next::Other(bytes))) => {
                *others = bytes;
                None
            }
            Ok(None) => None,
            Err(error) => {
                broken = Some(error);
                None
            }
        }));
        broken.map_or(Ok(()), Err)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PushTap<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.others == 0 {
            if this.read.capacity() - this.read.len() < READ_BYTES / 4 {
                // A large message grows what there is by as much again.
                this.read.reserve(READ_BYTES.max(this.read.len()));
            }
            let length = ready!(poll_read_buf(
                Pin::new(&mut this.stream),
                cx,
                &mut this.read
            ))?;
            if length == 0 {
                // The end; of a value that is not whole nobody has any use.
                return Poll::Ready(Ok(()));
            }
            this.sort()?;
        }
        let length = this.others.min(buffer.remaining());
        buffer.put_slice(&this.read[..length]);
        this.read.advance(length);
        this.others -= length;
        if this.others == 0 {
            this.sort()?;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PushTap<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// Finds the value at the start of `bytes`; `None` when it is not whole yet.
fn next(bytes: &[u8]) -> io::Result<Option<Next>> {
    if bytes.len() < MESSAGE.len() && MESSAGE.starts_with(bytes) {
        return Ok(None);
    }
    if !bytes.starts_with(MESSAGE) {
        return Ok(value_end(bytes, 0, 0)?.map(Next::Other));
    }
    let Some(pattern) = bulk(bytes, MESSAGE.len())? else {
        return Ok(None);
    };
    let Some(channel) = bulk(bytes, pattern.end + 2)? else {
        return Ok(None);
    };
    let payload = bulk(bytes, channel.end + 2)?;
    Ok(payload.map(|payload| Next::Message { channel, payload }))
}

/// Finds the bytes of the bulk string at `at`; two more follow them.
pub(super) fn bulk(bytes: &[u8], at: usize) -> io::Result<Option<Range<usize>>> {
    let Some((b'$', length, start)) = head(bytes, at)? else {
        return match bytes.get(at) {
            Some(b'$') | None => Ok(None),
            Some(_) => Err(broken("a message holds bulk strings")),
        };
    };
    let length = usize::try_from(length).map_err(|_| broken("a message holds no null"))?;
    let end = start.saturating_add(length);
    Ok((bytes.len() >= end.saturating_add(2)).then_some(start..end))
}

/// Finds the end of the value at `at`, whatever it is
/// (<https://redis.io/docs/latest/develop/reference/protocol-spec/>).
pub(super) fn value_end(bytes: &[u8], at: usize, depth: u32) -> io::Result<Option<usize>> {
    if depth > DEPTH_MAX {
        return Err(broken("an answer is nested too deeply"));
    }
    let Some(kind) = bytes.get(at) else {
        return Ok(None);
    };
    if matches!(kind, b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(') {
        return Ok(line_end(bytes, at));
    }
    let Some((kind, count, mut end)) = head(bytes, at)? else {
        return Ok(None);
    };
    let values = match (kind, u64::try_from(count)) {
        // Nothing: `$-1`, `*-1`.
        (_, Err(_)) => 0,
        (b'$' | b'=' | b'!', Ok(length)) => {
            let end = end.saturating_add(length as usize).saturating_add(2);
            return Ok((end <= bytes.len()).then_some(end));
        }
        (b'*' | b'~' | b'>', Ok(count)) => count,
        (b'%', Ok(count)) => count.saturating_mul(2),
        _ => return Err(broken("a value is of an unknown kind")),
    };
    for _ in 0..values {
        match value_end(bytes, end, depth + 1)? {
            Some(next) => end = next,
            None => return Ok(None),
        }
    }
    Ok(Some(end))
}

/// Reads `<kind><number>\r\n` at `at`; returns both, and where the line ends.
fn head(bytes: &[u8], at: usize) -> io::Result<Option<(u8, i64, usize)>> {
    let Some(end) = line_end(bytes, at) else {
        return Ok(None);
    };
    let number = std::str::from_utf8(&bytes[at + 1..end - 2]).ok();
    let number = number.and_then(|number| number.parse().ok());
    let number = number.ok_or_else(|| broken("a length is no number"))?;
    Ok(Some((bytes[at], number, end)))
}

/// Returns where the line at `at` ends, its line feed included.
fn line_end(bytes: &[u8], at: usize) -> Option<usize> {
    let line = bytes.get(at..)?;
    let end = at + memchr(b'\n', line)? + 1;
    (end >= at + 3).then_some(end)
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not RESP3: {what}"))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::{FutureExt as _, StreamExt as _, stream};
    use tokio::io::AsyncReadExt as _;
    use tokio_util::io::StreamReader;

    use super::*;

    const HELLO: &str = "%2\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nmodules\r\n*0\r\n";
    const CONFIRMED: &str = ">3\r\n$10\r\npsubscribe\r\n$5\r\nrun:*\r\n:1\r\n";
    const NULLS: &str =
        "$-1\r\n*-1\r\n_\r\n#t\r\n,1.5\r\n(12\r\n=5\r\ntxt:a\r\n!3\r\nERR\r\n~1\r\n+OK\r\n";

    fn message(channel: &str, payload: &str) -> String {
        let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len());
        let parts = ["pmessage", "run:*", channel, payload].map(bulk);
        format!(">4\r\n{}", parts.concat())
    }

    /// Reads `bytes` in pieces of `size`; returns what came of it: what was
    /// given on, and the queued messages.
    fn tapped(bytes: &str, size: usize) -> io::Result<(String, Vec<String>)> {
        let queue = PushQueue::new(1000, 1_000_000);
        let pieces = bytes.as_bytes().chunks(size).map(Bytes::copy_from_slice);
        let reader = StreamReader::new(stream::iter(pieces.map(io::Result::Ok)));
        let mut tap = PushTap::new(reader, Arc::clone(&queue));
        let mut others = String::new();
        let read = tap.read_to_string(&mut others).now_or_never();
        read.expect("all of it is there")?;
        let turn = Box::pin(queue.turns()).next().now_or_never();
        let pushes = turn.flatten().map_or_else(Vec::new, |turn| turn.pushes);
        let shown = pushes.into_iter().map(|push| match push {
            Push::Message { channel, payload } => {
                let text = |bytes: Bytes| String::from_utf8_lossy(&bytes).into_owned();
                format!("{} {}", text(channel), text(payload))
            }
            other => format!("{other:?}"),
        });
        Ok((others, shown.collect()))
    }

    #[test]
    fn messages_are_queued_and_all_else_is_given_on_wherever_reads_end() {
        let like_a_message = ">4\r\n$8\r\npmessagf\r\n$0\r\n\r\n$0\r\n\r\n$0\r\n\r\n";
        let line_breaks = message("run:1:status", "$5\r\n>4\r\n$8\r\npmessage\r\n");
        let bytes = [
            HELLO,
            CONFIRMED,
            &message("run:1:output:a", "{\"a\":1}"),
            &message("run:2:output:b", ""),
            NULLS,
            &line_breaks,
            ":7\r\n",
            like_a_message,
            &message("run:_probe:1", ""),
        ];
        let others = [HELLO, CONFIRMED, NULLS, ":7\r\n", like_a_message].concat();
        let queued = [
            "run:1:output:a {\"a\":1}",
            "run:2:output:b ",
            "run:1:status $5\r\n>4\r\n$8\r\npmessage\r\n",
            "run:_probe:1 ",
        ];
        let bytes = bytes.concat();
        for size in 1..=bytes.len() {
            let (given_on, messages) = tapped(&bytes, size).expect("it is RESP3");
            assert_eq!(given_on, others, "in pieces of {size}");
            assert_eq!(messages, queued, "in pieces of {size}");
        }
    }

    #[test]
    fn what_comes_before_the_end_is_queued_and_half_a_message_is_not() {
        let whole = message("run:1:status", "done");
        let half = &message("run:1:status", "more")[..30];
        let (_, messages) = tapped(&format!("{whole}{half}"), 7).expect("it is RESP3");
        assert_eq!(messages, ["run:1:status done"]);
    }

    #[test]
    fn what_is_not_resp3_breaks_the_connection() {
        for bytes in [
            "GET / HTTP/1.1\r\n",
            "$x\r\n",
            "*1\r\n|1\r\n+a\r\n+b\r\n+c\r\n",
            ">4\r\n$8\r\npmessage\r\n:1\r\n",
            ">4\r\n$8\r\npmessage\r\n$-1\r\n",
            &"*1\r\n".repeat(40),
        ] {
            let error = tapped(bytes, 5).expect_err("it is not RESP3");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{bytes}");
        }
    }

    #[test]
    fn a_large_message_is_read_whole() {
        let payload = "x".repeat(300_000);
        let (_, messages) = tapped(&message("run:1:status", &payload), 4096).expect("RESP3");
        assert_eq!(messages, [format!("run:1:status {payload}")]);
    }
}
