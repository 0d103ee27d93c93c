//! [`Response`]: the smallest reader of an HTTP/1.1 event stream.
//!
//! Pure: bytes in, events out. It checks nothing it does not need, so that a
//! delivery costs the tool less than the `read` that brought it.

use memchr::{memchr, memmem};

use crate::stamp::{Stamp, number};

/// Most bytes of a response head: a server that sends more is broken, and the
/// tool must not grow with it.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Most bytes of one line, likewise.
const LINE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What the bytes bring.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// The response head is complete.
    Head {
        /// Its status code.
        status: u16,
    },
    /// An event is complete.
    Event(Event),
}

/// What the tool needs of an event.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Event {
    /// Its name.
    pub(crate) name: EventName,
    /// The stamp somewhere in its data.
    pub(crate) stamp: Option<Stamp>,
    /// Of a `gap`: how many messages it counts.
    pub(crate) lost: Option<u64>,
    has_data: bool,
}

/// The names the tool tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum EventName {
    /// `output`, `status`, `log`, or an event without a name.
    #[default]
    Message,
    /// `hello`: what is sent from now on shall come.
    Hello,
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
            b"hello" => Self::Hello,
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
    /// Not HTTP/1, or a head or line without end.
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
    event: Event,
    ids: Option<Box<Ids>>,
}

/// The ids of a stream, as `EventSource` keeps them: one counts once its event
/// is complete.
#[derive(Debug, Default)]
struct Ids {
    next: Vec<u8>,
    last: Vec<u8>,
}

impl Response {
    /// Awaits the head; with `keeps_ids`, the last event's is kept.
    pub(crate) fn new(keeps_ids: bool) -> Self {
        Self {
            body: Body::Head,
            partial: Vec::new(),
            event: Event::default(),
            ids: keeps_ids.then(Box::default),
        }
    }

    /// Awaits the head of the next stream of the same client.
    pub(crate) fn begin_anew(&mut self) {
        self.body = Body::Head;
        self.partial.clear();
        self.event = Event::default();
        if let Some(ids) = &mut self.ids {
            ids.next.clone_from(&ids.last);
        }
    }

    /// Returns the id to come back with, if ids are kept and one has come.
    pub(crate) fn last_id(&self) -> Option<&[u8]> {
        let last = self.ids.as_ref()?.last.as_slice();
        (!last.is_empty()).then_some(last)
    }

    /// Reads `bytes`, wherever they were cut, and hands each item to `on_item`.
    pub(crate) fn read(
        &mut self,
        mut bytes: &[u8],
        mut on_item: impl FnMut(Item),
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
        on_item: &mut impl FnMut(Item),
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
            .strip_prefix("http/1.")
            .and_then(|rest| rest.get(2..5)?.parse().ok())
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
        on_item: &mut impl FnMut(Item),
    ) -> Result<(), ReadError> {
        while let Some(end) = memchr(b'\n', bytes) {
            let line = &bytes[..end];
            bytes = &bytes[end + 1..];
            if self.partial.is_empty() {
                self.read_line(line, on_item);
            } else {
                let mut whole = std::mem::take(&mut self.partial);
                whole.extend_from_slice(line);
                self.read_line(&whole, on_item);
            }
        }
        if self.partial.len() + bytes.len() > LINE_BYTES_MAX {
            return Err(ReadError::Malformed);
        }
        self.partial.extend_from_slice(bytes);
        Ok(())
    }

    fn read_line(&mut self, line: &[u8], on_item: &mut impl FnMut(Item)) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if let Some(data) = line.strip_prefix(b"data:") {
            self.event.data(data);
        } else if let Some(name) = line.strip_prefix(b"event:") {
            self.event.name = EventName::parse(name.strip_prefix(b" ").unwrap_or(name));
        } else if let (Some(id), Some(ids)) = (line.strip_prefix(b"id:"), &mut self.ids) {
            ids.next.clear();
            let id = id.strip_prefix(b" ").unwrap_or(id);
            ids.next.extend_from_slice(id);
        } else if line.is_empty() {
            if let Some(ids) = &mut self.ids {
                ids.last.clone_from(&ids.next);
            }
            let event = std::mem::take(&mut self.event);
            if event.has_data {
                on_item(Item::Event(event));
            }
        }
    }
}

impl Event {
    fn data(&mut self, line: &[u8]) {
        self.has_data = true;
        if self.stamp.is_none() {
            self.stamp = Stamp::find(line);
        }
        if self.name == EventName::Gap {
            const MARK: &[u8] = b"\"lost\":";
            let at = memmem::find(line, MARK).map(|at| at + MARK.len());
            self.lost = at.and_then(|at| Some(number(&line[at..])?.0));
        }
    }
}

const NEXT_CHUNK: Body = Body::ChunkSize {
    size: 0,
    digits: false,
};

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n";
    const EVENTS: &str = "retry: 1000\n\n: a comment\n\nevent: output\n\
        data: {\"data\":{\"t\":5,\"r\":0,\"n\":7,\"x\":\"\"}}\nid: 1\n\n\
        event: gap\ndata: {\"reason\":\"trimmed\",\"lost\":3}\n\nid: 2\r\ndata: x\r\n\r\n\
        id: 3\ndata: cut";

    /// Reads `response` in pieces; returns what it brought, the id to come
    /// back with, and how it ended.
    fn items(response: &[u8], piece: usize) -> (Vec<String>, String, Result<(), ReadError>) {
        let mut reader = Response::new(true);
        let mut items = Vec::new();
        let mut result = Ok(());
        for bytes in response.chunks(piece) {
            result = reader.read(bytes, |item| {
                items.push(match item {
                    Item::Head { status } => format!("head {status}"),
                    Item::Event(event) => {
                        let seq = event.stamp.map(|stamp| stamp.seq);
                        format!("{:?} {seq:?} {:?}", event.name, event.lost)
                    }
                });
            });
            if result.is_err() {
                break;
            }
        }
        let last_id = reader.last_id().unwrap_or_default();
        (items, String::from_utf8_lossy(last_id).into_owned(), result)
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
        let expected = [
            "head 200",
            "Message Some(7) None",
            "Gap None Some(3)",
            "Message None None",
        ];
        for piece in 1..chunked.len() + 1 {
            // The last event is not complete: neither it nor its id counts.
            let (plain, last_id, _) = items(plain.as_bytes(), piece);
            assert_eq!(
                (&plain[..], &last_id[..]),
                (&expected.map(str::to_owned)[..], "2")
            );
            let (items, last_id, result) = items(chunked.as_bytes(), piece);
            assert_eq!((items, &last_id[..]), (plain, "2"), "{piece}");
            assert_eq!(result, Err(ReadError::Ended), "{piece}");
        }
    }

    #[test]
    fn a_stream_begun_anew_keeps_the_id_of_the_last_complete_event() {
        let mut reader = Response::new(true);
        for _ in 0..2 {
            let response = format!("{HEAD}\r\n{EVENTS}");
            reader.read(response.as_bytes(), |_| {}).expect("HTTP");
            reader.begin_anew();
            assert_eq!(reader.last_id(), Some(&b"2"[..]));
        }
        let old = format!("{}\r\n\n", HEAD.replace("1.1", "1.0"));
        reader.read(old.as_bytes(), |_| {}).expect("HTTP/1.0");
        assert_eq!(reader.last_id(), Some(&b"2"[..]));
    }

    #[test]
    fn refuses_what_is_not_http() {
        assert_eq!(
            items(b"SSH-2.0-x\r\n\r\n", 100).2,
            Err(ReadError::Malformed)
        );
        let endless = vec![b'x'; HEAD_BYTES_MAX + 1];
        assert_eq!(items(&endless, 1000).2, Err(ReadError::Malformed));
        let chunk = format!("{HEAD}transfer-encoding: chunked\r\n\r\nzz\r\n");
        assert_eq!(items(chunk.as_bytes(), 100).2, Err(ReadError::Malformed));
    }
}
