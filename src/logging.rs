//! Our own log: one line per event on stderr, JSON or pretty.
//!
//! A JSON line has `timestamp` (RFC 3339, UTC), `level`, `target`, `message`
//! and the event's fields at the top level; the words in use are `run_id
//! session_id channel event_id backend reason queue_len dropped elapsed_ms
//! error`. Fields of spans stand under `span` and `spans`.

use std::io;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt;

use crate::settings::{LogFormat, LogSettings};

/// Starts logging for the whole process.
///
/// # Errors
///
/// When the filter cannot be read, which the settings rule out, or when the
/// process logs already.
pub(crate) fn init(settings: &LogSettings) -> anyhow::Result<()> {
    subscriber(settings, io::stderr)?.try_init()?;
    Ok(())
}

type Subscriber = Box<dyn tracing::Subscriber + Send + Sync>;

fn subscriber<W>(settings: &LogSettings, writer: W) -> anyhow::Result<Subscriber>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_new(&settings.level)?)
        .with_writer(writer);
    Ok(match settings.format {
        LogFormat::Json => Box::new(builder.json().flatten_event(true).finish()),
        LogFormat::Pretty => Box::new(builder.with_ansi(is_terminal()).finish()),
    })
}

/// Colours only for eyes: a pretty log in a file stays readable.
fn is_terminal() -> bool {
    io::IsTerminal::is_terminal(&io::stderr())
}
