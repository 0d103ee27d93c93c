//! [`Screen`]: where events are shown: stdout, with notes on stderr.

use std::fmt::Display;
use std::io::{self, Write as _};

use anstream::{AutoStream, ColorChoice};
use serde_json::value::RawValue;
use tokio::io::{AsyncWriteExt as _, Stdout};

use super::args::{Color, TailArgs};
use super::render::{self, Envelope};

/// As much is gathered before it is written, if more is at hand.
const BUFFER_BYTES: usize = 64 << 10;

/// Gathers what is shown and writes it. Waiting for a slow reader of stdout
/// stops the reading of the stream too: nothing piles up here.
pub(super) struct Screen {
    stdout: Stdout,
    buffer: Vec<u8>,
    json: bool,
    coloured: bool,
}

impl Screen {
    /// Makes the screen that the command line asks for.
    pub(super) fn new(args: &TailArgs) -> Self {
        let coloured = match args.color {
            _ if args.no_color => false,
            Color::Always => true,
            Color::Never => false,
            Color::Auto => AutoStream::choice(&io::stdout()) != ColorChoice::Never,
        };
        Self {
            stdout: tokio::io::stdout(),
            buffer: Vec::new(),
            json: args.json,
            coloured,
        }
    }

    /// Shows an event of the run.
    pub(super) fn event(
        &mut self,
        kind: &str,
        id: Option<&str>,
        data: &str,
        envelope: &Envelope<'_>,
    ) {
        if self.json {
            self.json_line(kind, id, data);
            return;
        }
        match kind {
            "output" => render::output(envelope, &mut self.buffer),
            "status" => render::status(envelope, self.coloured, &mut self.buffer),
            _ => render::log(envelope, self.coloured, &mut self.buffer),
        }
    }

    /// Shows that events are missing.
    pub(super) fn gap(&mut self, data: &str) {
        if self.json {
            self.json_line("gap", None, data);
        } else {
            render::gap(data, self.coloured, &mut self.buffer);
        }
    }

    /// Shows the end of the run; only as JSON, since its terminal status has
    /// been shown to people.
    pub(super) fn end(&mut self, id: Option<&str>, data: &str) {
        if self.json {
            self.json_line("end", id, data);
        }
    }

    fn json_line(&mut self, event: &str, id: Option<&str>, data: &str) {
        // What is no JSON becomes a string, so that each line can be read.
        let quoted;
        let data = match serde_json::from_str::<&RawValue>(data) {
            Ok(data) => data,
            Err(_) => {
                quoted = serde_json::value::to_raw_value(data).unwrap_or_default();
                &*quoted
            }
        };
        render::json(event, id, data, &mut self.buffer);
    }

    /// Whether so much is gathered that it should be written now.
    pub(super) fn is_full(&self) -> bool {
        self.buffer.len() >= BUFFER_BYTES
    }

    /// Writes what was gathered.
    ///
    /// # Errors
    ///
    /// When stdout cannot be written, for instance because its reader left.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        if !self.buffer.is_empty() {
            self.stdout.write_all(&self.buffer).await?;
            self.buffer.clear();
            self.buffer.shrink_to(4 * BUFFER_BYTES);
            self.stdout.flush().await?;
        }
        Ok(())
    }

    /// Tells something about the following itself, on stderr, after all that
    /// was shown before it.
    ///
    /// # Errors
    ///
    /// When stdout cannot be written.
    pub(super) async fn note(&mut self, text: impl Display) -> io::Result<()> {
        self.flush().await?;
        // If stderr is closed, nobody wants to know.
        let _ = writeln!(io::stderr(), "runcast tail: {text}");
        Ok(())
    }
}
