//! [`ShardLink`]: a connection to one master of a Cluster, for subscriptions to
//! its shard and nothing else.
//!
//! A node ends a subscription by itself when the slot moves, and says so by the
//! very push that answers `SUNSUBSCRIBE`; redis-rs takes it for the answer to
//! whatever was asked last. So this speaks for itself. Nothing waits for an
//! answer: what the node says names its channel, or is an error, after which
//! the slots are looked at.

use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use redis::ConnectionInfo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::super::push_queue::{Push, PushQueue};
use super::super::push_tap::{bulk, value_end};
use super::super::socket::{self, Socket};
use crate::settings::RedisSettings;

/// Batches of commands that wait to be written; a link with more is given up.
const COMMANDS_MAX: usize = 256;

const READ_BYTES: usize = 16 * 1024;

/// How what a node pushes begins, in RESP3: `>3 <word> <channel> …`.
const MESSAGE: &[u8] = b">3\r\n$8\r\nsmessage\r\n";
const SUBSCRIBED: &[u8] = b">3\r\n$10\r\nssubscribe\r\n";
const UNSUBSCRIBED: &[u8] = b">3\r\n$12\r\nsunsubscribe\r\n";

/// Ends when it is dropped.
pub(super) struct ShardLink {
    commands: mpsc::Sender<Vec<u8>>,
    _task: AbortOnDropHandle<()>,
}

impl ShardLink {
    /// Connects and logs in; what the node says goes to `queue`, and the
    /// connection's end, too.
    ///
    /// # Errors
    /// A sentence: it cannot be connected to, refuses us, or says nothing
    /// within `redis.connect_timeout`.
    pub(super) async fn connect(
        info: &ConnectionInfo,
        settings: &RedisSettings,
        queue: Arc<PushQueue>,
    ) -> Result<Self, String> {
        let connecting = async {
            let mut socket = socket::open(info, settings).await?;
            let read = log_in(&mut *socket, info).await?;
            Ok::<_, io::Error>((socket, read))
        };
        let (socket, read) = timeout(settings.connect_timeout, connecting)
            .await
            .map_err(|_| "no answer in time".to_owned())?
            .map_err(|error| error.to_string())?;
        let (commands, waiting) = mpsc::channel(COMMANDS_MAX);
        let task = tokio::spawn(async move {
            // However it ends, it has ended.
            let _ = drive(socket, read, waiting, &queue).await;
            queue.extend(std::iter::once(Push::Disconnected));
        });
        Ok(Self {
            commands,
            _task: AbortOnDropHandle::new(task),
        })
    }

    /// Sends commands; `false` if the link is of no more use.
    pub(super) fn send(&self, commands: Vec<u8>) -> bool {
        commands.is_empty() || self.commands.try_send(commands).is_ok()
    }
}

/// Appends a command to `out`.
pub(super) fn encode(out: &mut Vec<u8>, words: &[&str]) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
}

/// Changes to RESP3; returns what was read beyond the answer.
async fn log_in(socket: &mut dyn Socket, info: &ConnectionInfo) -> io::Result<BytesMut> {
    let redis = info.redis_settings();
    let mut words = vec!["HELLO", "3"];
    if let Some(password) = redis.password() {
        words.extend(["AUTH", redis.username().unwrap_or("default"), password]);
    }
    let mut command = Vec::new();
    encode(&mut command, &words);
    socket.write_all(&command).await?;
    socket.flush().await?;
    let mut read = BytesMut::new();
    loop {
        if socket.read_buf(&mut read).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let Some(end) = value_end(&read, 0, 0)? else {
            continue;
        };
        let answer = read.split_to(end);
        return match answer.first() {
            Some(b'%') => Ok(read),
            _ => Err(io::Error::other(
                String::from_utf8_lossy(&answer).trim_end().to_owned(),
            )),
        };
    }
}

/// Writes commands and queues what is said, until either side ends it.
async fn drive(
    mut socket: Box<dyn Socket>,
    mut read: BytesMut,
    mut commands: mpsc::Receiver<Vec<u8>>,
    queue: &PushQueue,
) -> io::Result<()> {
    loop {
        sort(&mut read, queue)?;
        if read.capacity() - read.len() < READ_BYTES / 4 {
            read.reserve(READ_BYTES.max(read.len()));
        }
        tokio::select! {
            command = commands.recv() => match command {
                Some(command) => {
                    socket.write_all(&command).await?;
                    socket.flush().await?;
                }
                None => return Ok(()),
            },
            length = socket.read_buf(&mut read) => {
                if length? == 0 {
                    return Ok(());
                }
            }
        }
    }
}

/// Queues what is whole.
fn sort(read: &mut BytesMut, queue: &PushQueue) -> io::Result<()> {
    let mut broken = None;
    queue.extend(std::iter::from_fn(|| {
        loop {
            match next(read) {
                Ok(Some(Some(push))) => return Some(push),
                Ok(Some(None)) => {}
                Ok(None) => return None,
                Err(error) => {
                    broken = Some(error);
                    return None;
                }
            }
        }
    }));
    broken.map_or(Ok(()), Err)
}

/// Takes the value at the start of `read`, once it is whole; `Some(None)` is one
/// that says nothing.
fn next(read: &mut BytesMut) -> io::Result<Option<Option<Push>>> {
    let Some(end) = value_end(read, 0, 0)? else {
        return Ok(None);
    };
    let bytes = read.split_to(end).freeze();
    // The bulk string at `at`: a value that is whole has it.
    let word = |at: usize| bulk(&bytes, at).map(Option::unwrap_or_default);
    let push = if bytes.starts_with(MESSAGE) {
        let channel = word(MESSAGE.len())?;
        let payload = word(channel.end + 2)?;
        Push::Message {
            channel: bytes.slice(channel),
            payload: bytes.slice(payload),
        }
    } else if bytes.starts_with(SUBSCRIBED) {
        Push::Subscribed(bytes.slice(word(SUBSCRIBED.len())?))
    } else if bytes.starts_with(UNSUBSCRIBED) {
        Push::Unsubscribed(bytes.slice(word(UNSUBSCRIBED.len())?))
    } else {
        match bytes.first() {
            Some(b'-') => Push::Refused(bytes.slice(1..bytes.len() - 2)),
            Some(b'+') => Push::Pong,
            _ => return Ok(Some(None)),
        }
    };
    Ok(Some(Some(push)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_says_is_told_apart_wherever_reads_end() {
        let said = ">3\r\n$10\r\nssubscribe\r\n$14\r\nrun:{1}:events\r\n:1\r\n\
                    >3\r\n$8\r\nsmessage\r\n$14\r\nrun:{1}:events\r\n$4\r\na\r\nb\r\n\
                    +PONG\r\n:7\r\n-MOVED 3 h:1\r\n\
                    >3\r\n$12\r\nsunsubscribe\r\n$14\r\nrun:{1}:events\r\n:0\r\n";
        for size in 1..=said.len() {
            let queue = PushQueue::new(100, 10_000);
            let mut read = BytesMut::new();
            for piece in said.as_bytes().chunks(size) {
                read.extend_from_slice(piece);
                sort(&mut read, &queue).expect("it is RESP3");
            }
            let turn = queue.take_turn().expect("something was said");
            let shown: Vec<String> = turn.pushes.iter().map(|push| format!("{push:?}")).collect();
            let expected = [
                "Subscribed(b\"run:{1}:events\")",
                "Message { channel: b\"run:{1}:events\", payload: b\"a\\r\\nb\" }",
                "Pong",
                "Refused(b\"MOVED 3 h:1\")",
                "Unsubscribed(b\"run:{1}:events\")",
            ];
            assert_eq!(shown, expected, "in pieces of {size}");
        }
    }
}
