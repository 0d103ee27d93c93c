//! [`Input`]: the events to publish, from arguments or stdin.

use std::ffi::OsString;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStringExt as _;
use std::thread;

use bytes::Bytes;
use runcast_actors::broker::NewEvent;
use runcast_actors::protocol::EventKind;
use tokio::sync::mpsc;

use super::args::PublishArgs;
use crate::http::{read_event, read_source};
use crate::producer::LineSplitter;
use crate::settings::Settings;

/// Bytes read from stdin at once.
const READ_BYTES: usize = 64 * 1024;
/// Reads ahead of what is sent; past it stdin waits.
const CHUNKS_MAX: usize = 2;

/// What becomes of a line.
#[derive(Debug, Clone)]
pub(super) enum Form {
    /// The data of an event of this kind and source.
    Data(EventKind, String),
    /// An event as JSON; the limit is that of its source.
    Event(usize),
}

impl Form {
    /// # Errors
    /// A sentence that says what is wrong with the source.
    pub(super) fn new(args: &PublishArgs, settings: &Settings) -> Result<Self, String> {
        let source_bytes = settings.limits.max_source_bytes;
        if args.json {
            return Ok(Self::Event(source_bytes));
        }
        let source = read_source(args.kind, args.source.as_deref(), source_bytes)?;
        Ok(Self::Data(args.kind, source))
    }

    /// Makes an event of a line; `None` of an empty one that stands for
    /// nothing.
    pub(super) fn event(&self, line: Bytes) -> Option<Result<NewEvent, String>> {
        match self {
            Self::Data(kind, source) => Some(Ok(NewEvent {
                kind: *kind,
                source: source.clone(),
                payload: line,
            })),
            Self::Event(_) if line.trim_ascii().is_empty() => None,
            Self::Event(source_bytes) => Some(read_event(&line, *source_bytes)),
        }
    }

    /// Most bytes of a line that is kept whole.
    fn line_bytes_max(&self, settings: &Settings) -> usize {
        let event = settings.limits.max_event_bytes.as_u64() as usize;
        match self {
            Self::Data(..) => event,
            // Base64 and escapes make it longer; what is too large after all
            // the store refuses.
            Self::Event(source_bytes) => 6 * (event + source_bytes) + 1024,
        }
    }
}

/// Lines, some at a time; an error of stdin comes last.
pub(super) type Input = mpsc::Receiver<io::Result<Vec<Bytes>>>;

/// Begins to read: the arguments if there are any, else stdin.
pub(super) fn open(args: &PublishArgs, form: &Form, settings: &Settings) -> io::Result<Input> {
    let (give, input) = mpsc::channel(CHUNKS_MAX);
    if !args.data.is_empty() {
        let lines = args.data.iter().cloned().map(OsString::into_vec);
        give.try_send(Ok(lines.map(Bytes::from).collect()))
            .expect("the queue is empty");
        return Ok(input);
    }
    let splitter = LineSplitter::new(form.line_bytes_max(settings));
    // A thread: reading a pipe waits, and sending goes on meanwhile.
    thread::Builder::new()
        .name("stdin".to_owned())
        .spawn(move || read_stdin(splitter, &give))?;
    Ok(input)
}

/// Ends early when nobody wants more.
fn read_stdin(mut splitter: LineSplitter, give: &mpsc::Sender<io::Result<Vec<Bytes>>>) {
    let mut stdin = io::stdin().lock();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let mut lines = Vec::new();
        let read = stdin.read(&mut buffer);
        match read {
            Ok(0) => splitter.finish(&mut lines),
            Ok(length) => splitter.feed(&buffer[..length], &mut lines),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                let _ = give.blocking_send(Err(error));
                return;
            }
        }
        let is_end = matches!(read, Ok(0));
        if !lines.is_empty() && give.blocking_send(Ok(lines)).is_err() || is_end {
            return;
        }
    }
}
