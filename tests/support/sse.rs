//! [`SseClient`]: reads a stream byte by byte and believes nothing.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::frame::Frame;
use super::http::{Answer, Head, Request};
use super::wait::SOON;

/// A client of one stream.
pub(crate) struct SseClient {
    answer: Answer,
    body: Vec<u8>,
    parsed: usize,
}

/// What a wait for the next frame came to.
#[derive(Debug, PartialEq)]
pub(crate) enum Next {
    Frame(Frame),
    /// The stream ended properly, after a whole frame.
    End,
    /// The connection broke.
    Broken,
    /// Nothing within the time given.
    Silence,
}

impl SseClient {
    /// Opens a stream that must be answered 200 as a stream.
    pub(crate) async fn open(addr: SocketAddr, path: &str) -> Self {
        Self::request(addr, &Request::get(path)).await
    }

    /// As `open`, coming back with a cursor in the header.
    pub(crate) async fn resume(addr: SocketAddr, path: &str, last_event_id: &str) -> Self {
        let request = Request::get(path).header("Last-Event-ID", last_event_id);
        Self::request(addr, &request).await
    }

    pub(crate) async fn request(addr: SocketAddr, request: &Request) -> Self {
        let accepting = request.clone().header("Accept", "text/event-stream");
        Self::raw(addr, &accepting).await
    }

    /// As `request`, with no header of our own.
    pub(crate) async fn raw(addr: SocketAddr, request: &Request) -> Self {
        let opening = timeout_at(Instant::now() + SOON, request.open(addr));
        let answer = opening
            .await
            .unwrap_or_else(|_| panic!("no answer to {request:?}"))
            .unwrap_or_else(|error| panic!("{error} at {request:?}"));
        assert_eq!(answer.head.status, 200, "to {request:?}");
        let content_type = answer.head.header("content-type");
        assert_eq!(content_type.as_deref(), Some("text/event-stream"));
        Self::of(answer)
    }

    /// Reads the stream of an answer.
    pub(crate) fn of(answer: Answer) -> Self {
        Self {
            answer,
            body: Vec::new(),
            parsed: 0,
        }
    }

    pub(crate) fn head(&self) -> &Head {
        &self.answer.head
    }

    /// Returns every byte of the body read so far.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.body
    }

    /// Waits for the next frame, whatever it is.
    pub(crate) async fn next_within(&mut self, time: Duration) -> Next {
        let deadline = Instant::now() + time;
        loop {
            if let Some(frame) = self.take_frame() {
                return Next::Frame(frame);
            }
            match timeout_at(deadline, self.answer.next()).await {
                Err(_) => return Next::Silence,
                Ok(Err(_)) => return Next::Broken,
                Ok(Ok(Some(piece))) => self.body.extend_from_slice(&piece),
                Ok(Ok(None)) => {
                    assert_eq!(self.parsed, self.body.len(), "the stream ends in a frame");
                    return Next::End;
                }
            }
        }
    }

    fn take_frame(&mut self) -> Option<Frame> {
        let rest = &self.body[self.parsed..];
        let length = memchr::memmem::find(rest, b"\n\n")?;
        let frame = Frame::parse(&rest[..length]);
        self.parsed += length + 2;
        Some(frame)
    }

    /// Returns the next frame; fails when none comes soon.
    pub(crate) async fn frame(&mut self) -> Frame {
        match self.next_within(SOON).await {
            Next::Frame(frame) => frame,
            other => panic!(
                "{other:?} where a frame was due, after {:?}",
                String::from_utf8_lossy(&self.body[self.body.len().saturating_sub(600)..])
            ),
        }
    }

    /// Returns the next frame that is no heartbeat.
    pub(crate) async fn event(&mut self) -> Frame {
        loop {
            let frame = self.frame().await;
            if frame.event != "heartbeat" {
                return frame;
            }
        }
    }

    /// Returns the next frame, which must be an event of the run.
    pub(crate) async fn run_event(&mut self) -> Frame {
        let frame = self.event().await;
        assert!(frame.is_run_event(), "not an event of the run: {frame:?}");
        frame
    }

    /// Returns the next `n` frames, which must be events of the run.
    pub(crate) async fn run_events(&mut self, n: usize) -> Vec<Frame> {
        let mut frames = Vec::with_capacity(n);
        while frames.len() < n {
            frames.push(self.run_event().await);
        }
        frames
    }

    /// Returns the next frame, which must be a `gap` with the four keys, and
    /// its reason.
    pub(crate) async fn gap(&mut self) -> (String, serde_json::Value) {
        let frame = self.event().await;
        gap_of(&frame)
    }

    /// Reads the preamble: `retry:`, `hello` and the `cursor` that follows it
    /// exactly if the position is known.
    pub(crate) async fn preamble(&mut self) -> Preamble {
        let retry = self.frame().await;
        assert_eq!(retry.event, "", "the retry block comes first");
        let hello = self.frame().await;
        assert_eq!(hello.event, "hello", "{hello:?}");
        let hello = hello.json();
        let cursor = hello["cursor"].as_str().map(str::to_owned);
        if let Some(position) = &cursor {
            let frame = self.frame().await;
            assert_eq!(frame.event, "cursor", "a known position is told at once");
            assert_eq!(frame.data, "{}");
            assert_eq!(frame.id(), position, "hello and cursor disagree");
        } else {
            assert!(hello["cursor"].is_null(), "{hello}");
        }
        Preamble {
            retry: retry.retry.expect("a retry block"),
            hello,
            cursor,
        }
    }

    /// Reads to the proper end of the stream; returns the frames left.
    pub(crate) async fn rest(&mut self, time: Duration) -> Vec<Frame> {
        let deadline = Instant::now() + time;
        let mut frames = Vec::new();
        loop {
            match self.next_within(deadline - Instant::now()).await {
                Next::Frame(frame) => frames.push(frame),
                Next::End => return frames,
                other => panic!("{other:?} where the end was due, after {frames:?}"),
            }
        }
    }

    /// Vanishes with a reset instead of a proper close.
    pub(crate) fn reset(self) {
        self.answer.reset();
    }
}

/// Checks that `frame` is a `gap` of the contract; returns its reason and data.
pub(crate) fn gap_of(frame: &Frame) -> (String, serde_json::Value) {
    assert_eq!(frame.event, "gap", "{frame:?}");
    let gap = frame.json();
    let keys: Vec<&String> = gap.as_object().expect("an object").keys().collect();
    let mut sorted = keys.clone();
    sorted.sort();
    assert_eq!(sorted, ["after", "before", "missed", "reason"], "{gap}");
    (gap["reason"].as_str().expect("a reason").to_owned(), gap)
}

/// What opens a stream.
#[derive(Debug)]
pub(crate) struct Preamble {
    pub(crate) retry: u64,
    pub(crate) hello: serde_json::Value,
    pub(crate) cursor: Option<String>,
}
