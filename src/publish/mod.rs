//! `runcast publish`: lines become durable events of a run.
//!
//! Exit codes: 0 every event was accepted, 1 some were not (stderr says which
//! and why), 64 wrong usage.

mod args;
mod input;

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use runcast_actors::store::RunStore;

pub(crate) use args::PublishArgs;

use self::input::Form;
use crate::producer::{Numbered, Sender, Settled, Trouble};
use crate::settings::Settings;
use crate::{EXIT_USAGE, say};

/// Most refusals told one by one; the others are only counted.
const TOLD_MAX: u64 = 20;

/// Publishes what the arguments or stdin hold, and waits until Redis has it.
///
/// # Errors
/// Stdin cannot be read or stdout cannot be written.
pub(crate) async fn run(
    settings: &Settings,
    store: Rc<dyn RunStore>,
    args: &PublishArgs,
) -> anyhow::Result<ExitCode> {
    let form = match Form::new(args, settings) {
        Ok(form) => form,
        Err(fault) => {
            say(&fault);
            return Ok(ExitCode::from(EXIT_USAGE));
        }
    };
    let mut input = input::open(args, &form, settings)?;
    let mut publish = Publish {
        sender: Sender::new(store, args.run.clone(), args.restart),
        form,
        prints_ids: args.ids,
        timeout: args.timeout,
        longest_pause: settings.redis.reconnect_max_delay,
        tally: Tally::default(),
    };
    while let Some(lines) = input.recv().await {
        let lines = lines.context("cannot read stdin")?;
        publish.read(lines);
        if let Some(reason) = publish.send().await.context("cannot write to stdout")? {
            publish.tally.give_up(&reason);
            break;
        }
    }
    Ok(publish.tally.exit_code())
}

struct Publish {
    sender: Sender,
    form: Form,
    prints_ids: bool,
    timeout: Duration,
    longest_pause: Duration,
    tally: Tally,
}

impl Publish {
    /// Numbers the events of `lines`. One that is none has its number all the
    /// same: whoever follows the run learns that something is missing.
    fn read(&mut self, lines: Vec<Bytes>) {
        for line in lines {
            self.tally.lines += 1;
            let Some(event) = self.form.event(line) else {
                continue;
            };
            self.tally.events += 1;
            let seq = self.tally.events;
            match event {
                Ok(event) => self.sender.push([Numbered { seq, event }]),
                Err(fault) => {
                    let line = self.tally.lines;
                    self.tally.refuse(&format_args!("line {line}: {fault}"));
                }
            }
        }
    }

    /// Sends all that was read. Returns why that is not possible, if so.
    async fn send(&mut self) -> io::Result<Option<String>> {
        let mut answered = Instant::now();
        while self.sender.waiting() > 0 {
            let (settled, trouble) = self.sender.send().await;
            if !settled.is_empty() {
                answered = Instant::now();
            }
            for event in &settled {
                self.settle(event)?;
            }
            match trouble {
                None => {}
                Some(Trouble::Refused(error)) => return Ok(Some(error.to_string())),
                Some(Trouble::Unavailable(reason)) if answered.elapsed() >= self.timeout => {
                    return Ok(Some(reason));
                }
                Some(Trouble::Unavailable(_)) => self.sender.pause(self.longest_pause).await,
            }
        }
        Ok(None)
    }

    fn settle(&mut self, Settled { seq, result }: &Settled) -> io::Result<()> {
        match result {
            Ok(published) => {
                self.tally.accepted += 1;
                self.print_id(published.id.map(|id| id.to_string()))
            }
            Err(error) => {
                self.tally.refuse(&format_args!("event {seq}: {error}"));
                self.print_id(None)
            }
        }
    }

    fn print_id(&self, id: Option<String>) -> io::Result<()> {
        if !self.prints_ids {
            return Ok(());
        }
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{}", id.as_deref().unwrap_or("-"))
    }
}

/// What became of the events.
#[derive(Debug, Default)]
struct Tally {
    lines: u64,
    /// Events among the lines, malformed ones included.
    events: u64,
    accepted: u64,
    refused: u64,
    has_given_up: bool,
}

impl Tally {
    fn refuse(&mut self, what: &impl std::fmt::Display) {
        self.refused += 1;
        if self.refused <= TOLD_MAX {
            say(what);
        }
    }

    fn give_up(&mut self, reason: &str) {
        self.has_given_up = true;
        say(&format_args!(
            "stopped after {} accepted events: {reason}",
            self.accepted
        ));
    }

    fn exit_code(&self) -> ExitCode {
        if self.accepted == self.events && !self.has_given_up {
            return ExitCode::SUCCESS;
        }
        let Self {
            events, accepted, ..
        } = self;
        let more = if self.has_given_up {
            ", and no more were read"
        } else {
            ""
        };
        say(&format_args!(
            "{} of {events} events were not accepted{more}",
            events - accepted
        ));
        ExitCode::FAILURE
    }
}
