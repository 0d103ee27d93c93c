//! [`Response`]: the smallest reader of an HTTP/1.1 event stream.
//!
//! Pure: bytes in, events out. It checks nothing it does not need, so that a
//! delivery costs the tool less than the `read` that brought it.

use memchr::{memchr, memmem};

/// Most bytes of a response head: a server that sends more is broken, and the
/// tool must not grow with it.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Most bytes of one line, likewise.
const LINE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// An event, borrowed from the bytes read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Item<'a> {
    /// The response head is complete.
    Head {
        /// Its status code.
        status: u16,
    },
    /// A `data` line. Its event's name came before it, as Runcast writes it;
    /// without one this is `message`.
    Data {
        /// Name of the event.
        event: EventName,
        /// The line, without the field name.
        data: &'a [u8],
    },
}

/// The names the tool tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum EventName {
    /// `output`, `status`, `log`, or an event without a name.
    #[default]
    Message,
    /// `heartbeat`.
    Heartbeat,
    /// `gap`.
    Gap,
    /// `problem`.
    Problem,
    /// `goodbye` or `end`.
    Close,
    /// Any other.
    Other,
}

impl EventName {
    fn parse(name: &[u8]) -> Self {
        match name {
            b"output" | b"status" | b"log" | b"message" => Self::Message,
            b"heartbeat" => Self::Heartbeat,
            b"gap" => Self::Gap,
            b"problem" => Self::Problem,
            b"goodbye" | b"end" => Self::Close,
            _ => Self::Other,
        }
    }
}

/// The response cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadError {
    /// Not HTTP/1.1, or a head or line without end.
    Malformed,
    /// The body is complete: the server closed the stream in good order.
    Ended,
}

#[derive(Debug)]
enum Body {
    /// Reading the head.
    Head,
    /// Reading the line before a chunk; the CRLF of the chunk before it may
    /// still be ahead.
    ChunkSize { size: usize, digits: bool },
    /// So many bytes of the chunk are still to come.
    Chunk(usize),
    /// Until the server closes.
    UntilClose,
}

/// One response being read. Holds only what a piece of bytes left unfinished:
/// nothing for an idle connection.
#[derive(Debug)]
pub(crate) struct Response {
    body: Body,
    partial: Vec<u8>,
    event: EventName,
}

impl Response {
    /// Awaits the head.
    pub(crate) fn new() -> Self {
        Self {
            body: Body::Head,
            partial: Vec::new(),
            event: EventName::Message,
        }
    }

    /// Reads `bytes`, wherever they were cut, and hands each item to `on_item`.
    pub(crate) fn read(
        &mut self,
        mut bytes: &[u8],
        mut on_item: impl FnMut(Item<'_>),
    ) -> Result<(), ReadError> {
        while !bytes.is_empty() {
            bytes = match self.body {
                Body::Head => self.read_head(bytes, &mut on_item)?,
                Body::ChunkSize { size, digits } => self.read_chunk_size(bytes, size, digits)?,
                Body::Chunk(left) => {
                    let (chunk, rest) = bytes.split_at(left.min(bytes.len()));
                    self.body = match left - chunk.len() {
                        0 => NEXT_CHUNK,
                        left => Body::Chunk(left),
                    };
                    self.read_lines(chunk, &mut on_item)?;
                    rest
                }
                Body::UntilClose => {
                    self.read_lines(bytes, &mut on_item)?;
                    &[]
                }
            };
        }
        Ok(())
    }

    fn read_head<'a>(
        &mut self,
        bytes: &'a [u8],
        on_item: &mut impl FnMut(Item<'_>),
    ) -> Result<&'a [u8], ReadError> {
        const END: &[u8] = b"\r\n\r\n";
        let before = self.partial.len();
        self.partial.extend_from_slice(bytes);
        let Some(end) = memmem::find(&self.partial, END) else {
            return if self.partial.len() > HEAD_BYTES_MAX {
                Err(ReadError::Malformed)
            } else {
                Ok(&[])
            };
        };
        let head = std::mem::take(&mut self.partial);
        let head = String::from_utf8_lossy(&head[..end]).to_ascii_lowercase();
        let status = head
            .strip_prefix("http/1.1 ")
            .and_then(|rest| rest.get(..3)?.parse().ok())
            .ok_or(ReadError::Malformed)?;
        let chunked = head.contains("\r\ntransfer-encoding: chunked");
        self.body = if chunked {
            NEXT_CHUNK
        } else {
            Body::UntilClose
        };
        on_item(Item::Head { status });
        Ok(&bytes[end + END.len() - before..])
    }

    fn read_chunk_size<'a>(
        &mut self,
        bytes: &'a [u8],
        mut size: usize,
        mut digits: bool,
    ) -> Result<&'a [u8], ReadError> {
        for (at, byte) in bytes.iter().enumerate() {
            match byte {
                b'\r' => {}
                b'\n' if !digits => {}
                b'\n' if size == 0 => return Err(ReadError::Ended),
                b'\n' => {
                    self.body = Body::Chunk(size);
                    return Ok(&bytes[at + 1..]);
                }
                _ => {
                    let digit = char::from(*byte).to_digit(16).ok_or(ReadError::Malformed)?;
                    size = size
                        .checked_mul(16)
                        .map(|size| size + digit as usize)
                        .ok_or(ReadError::Malformed)?;
                    digits = true;
                }
            }
        }
        self.body = Body::ChunkSize { size, digits };
        Ok(&[])
    }

    fn read_lines(
        &mut self,
        mut bytes: &[u8],
        on_item: &mut impl FnMut(Item<'_>),
    ) -> Result<(), ReadError> {
        while let Some(end) = memchr(b'\n', bytes) {
            let line = &bytes[..end];
            bytes = &bytes[end + 1..];
            if self.partial.is_empty() {
                read_line(&mut self.event, line, on_item);
            } else {
                let mut whole = std::mem::take(&mut self.partial);
                whole.extend_from_slice(line);
                read_line(&mut self.event, &whole, on_item);
            }
        }
        if self.partial.len() + bytes.len() > LINE_BYTES_MAX {
            return Err(ReadError::Malformed);
        }
        self.partial.extend_from_slice(bytes);
        Ok(())
    }
}

const NEXT_CHUNK: Body = Body::ChunkSize {
    size: 0,
    digits: false,
};

fn read_line(event: &mut EventName, line: &[u8], on_item: &mut impl FnMut(Item<'_>)) {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if let Some(data) = line.strip_prefix(b"data:") {
        let event = *event;
        on_item(Item::Data { event, data });
    } else if let Some(name) = line.strip_prefix(b"event:") {
        *event = EventName::parse(name.strip_prefix(b" ").unwrap_or(name));
    } else if line.is_empty() {
        *event = EventName::Message;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n";
    const EVENTS: &str = "retry: 1000\n\nevent: output\ndata: {\"a\":1}\nid: 1\n\nevent: gap\ndata: {}\n\ndata: x\n\n";

    fn items(response: &[u8], piece: usize) -> (Vec<String>, Result<(), ReadError>) {
        let mut reader = Response::new();
        let mut items = Vec::new();
        for bytes in response.chunks(piece) {
            let result = reader.read(bytes, |item| {
                items.push(match item {
                    Item::Head { status } => format!("head {status}"),
                    Item::Data { event, data } => {
                        format!("{event:?}{}", String::from_utf8_lossy(data))
                    }
                });
            });
            if result.is_err() {
                return (items, result);
            }
        }
        (items, Ok(()))
    }

    #[test]
    fn reads_the_same_events_wherever_the_bytes_are_cut() {
        let plain = format!("{HEAD}\r\n{EVENTS}");
        let (first, second) = EVENTS.split_at(30);
        let chunked = format!(
            "{HEAD}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{first}\r\n{:X}\r\n{second}\r\n0\r\n\r\n",
            first.len(),
            second.len()
        );
        let expected = ["head 200", "Message {\"a\":1}", "Gap {}", "Message x"];
        for piece in 1..plain.len() + 1 {
            assert_eq!(items(plain.as_bytes(), piece).0, expected, "{piece}");
            let (items, result) = items(chunked.as_bytes(), piece);
            assert_eq!(items, expected, "{piece}");
            assert_eq!(result, Err(ReadError::Ended), "{piece}");
        }
    }

    #[test]
    fn refuses_what_is_not_http() {
        assert_eq!(
            items(b"SSH-2.0-x\r\n\r\n", 100).1,
            Err(ReadError::Malformed)
        );
        let endless = vec![b'x'; HEAD_BYTES_MAX + 1];
        assert_eq!(items(&endless, 1000).1, Err(ReadError::Malformed));
        let chunk = format!("{HEAD}transfer-encoding: chunked\r\n\r\nzz\r\n");
        assert_eq!(items(chunk.as_bytes(), 100).1, Err(ReadError::Malformed));
    }
}
