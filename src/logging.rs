//! Our own log: one line per event on stderr, JSON or pretty.
//!
//! A JSON line has `timestamp` (RFC 3339, UTC), `level`, `target`, `message`
//! and the event's fields at the top level. The words in use are `run_id
//! session_id event_id kind source backend status reason dropped payload
//! elapsed_ms error` for what happens to runs, and `addr signal method route
//! command stderr text version streams_left location backtrace` for the rest.
//! Payloads stand in `trace` lines only.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io;
use std::panic::{self, PanicHookInfo};

use runcast_actors::metrics::PANICS;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, reload};

use crate::settings::{LogFormat, LogSettings};

/// What actix says of connections of clients: an error for each request that is
/// no HTTP, so that anybody could fill the log. Such a client is answered 400.
const QUIET: &str = "actix_http::h1=off";

/// Changes what is logged, while it is.
pub(crate) struct LogLevels(Box<dyn Fn(EnvFilter) -> Result<(), reload::Error>>);

impl LogLevels {
    /// Logs by `log.level` of these settings from now on.
    ///
    /// # Errors
    ///
    /// When the filter cannot be read, which the settings rule out.
    pub(crate) fn change(&self, settings: &LogSettings) -> anyhow::Result<()> {
        Ok((self.0)(filter(settings)?)?)
    }
}

/// Starts logging for the whole process, panics included: a panic ends one task
/// and not the process, so it must not break the log's form either.
///
/// # Errors
///
/// When the filter cannot be read, which the settings rule out, or when the
/// process logs already.
pub(crate) fn init(settings: &LogSettings) -> anyhow::Result<LogLevels> {
    let (subscriber, levels) = subscriber(settings, io::stderr)?;
    subscriber.try_init()?;
    panic::set_hook(Box::new(log_panic));
    Ok(levels)
}

fn log_panic(info: &PanicHookInfo<'_>) {
    PANICS.inc();
    let backtrace = Backtrace::capture();
    let backtrace =
        (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    tracing::error!(
        error = info.payload_as_str().unwrap_or("not a text"),
        location = info.location().map(tracing::field::display),
        backtrace,
        "a task panicked"
    );
}

type Subscriber = Box<dyn tracing::Subscriber + Send + Sync>;

fn subscriber<W>(settings: &LogSettings, writer: W) -> anyhow::Result<(Subscriber, LogLevels)>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(settings)?)
        .with_writer(writer);
    Ok(match settings.format {
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_filter_reloading();
            let handle = builder.reload_handle();
            let levels = LogLevels(Box::new(move |filter| handle.reload(filter)));
            (Box::new(builder.finish()), levels)
        }
        LogFormat::Pretty => {
            let builder = builder.with_ansi(is_terminal()).with_filter_reloading();
            let handle = builder.reload_handle();
            let levels = LogLevels(Box::new(move |filter| handle.reload(filter)));
            (Box::new(builder.finish()), levels)
        }
    })
}

fn filter(settings: &LogSettings) -> anyhow::Result<EnvFilter> {
    Ok(EnvFilter::try_new(format!("{QUIET},{}", settings.level))?)
}

/// Colours only for eyes: a pretty log in a file stays readable.
fn is_terminal() -> bool {
    io::IsTerminal::is_terminal(&io::stderr())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, PoisonError};

    use serde_json::Value as Json;
    use tracing::subscriber::with_default;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Returns what a log with these settings has written after `act`.
    fn log(format: LogFormat, level: &str, act: impl FnOnce()) -> String {
        let written = Written::default();
        let settings = LogSettings {
            format,
            level: level.to_owned(),
        };
        let writer = written.clone();
        let made = subscriber(&settings, move || writer.clone()).expect("a good filter");
        with_default(made.0, act);
        let bytes = written.0.lock().expect("nobody panicked").clone();
        String::from_utf8(bytes).expect("a log is UTF-8")
    }

    #[test]
    fn a_json_line_has_the_fields_at_its_top_and_its_time_in_utc() {
        let text = log(LogFormat::Json, "info", || {
            tracing::warn!(
                run_id = "42",
                reason = "slow",
                dropped = 7,
                "session\nclosed"
            );
        });
        assert_eq!(text.lines().count(), 1);
        let line: Json = serde_json::from_str(&text).expect("a line is JSON");
        for (name, value) in [
            ("level", Json::from("WARN")),
            ("message", Json::from("session\nclosed")),
            ("run_id", Json::from("42")),
            ("reason", Json::from("slow")),
            ("dropped", Json::from(7)),
            ("target", Json::from("runcast::logging::tests")),
        ] {
            assert_eq!(line[name], value, "{name} of {text}");
        }
        let time = line["timestamp"].as_str().expect("a text");
        assert!(time.ends_with('Z'), "{time}");
        time.parse::<jiff::Timestamp>().expect("RFC 3339");
    }

    #[test]
    fn the_filter_holds_per_target() {
        let text = log(LogFormat::Pretty, "warn,deep=debug", || {
            tracing::info!("hidden");
            tracing::debug!(target: "deep", "shown");
        });
        assert!(!text.contains("hidden") && text.contains("shown"), "{text}");
    }

    #[test]
    fn whoever_sends_no_http_fills_no_log() {
        let complaint = |level| {
            log(LogFormat::Pretty, level, || {
                tracing::error!(target: "actix_http::h1::dispatcher", "stream error");
            })
        };
        assert_eq!(complaint("trace"), "");
        assert!(complaint("info,actix_http::h1=error").contains("stream error"));
    }

    #[test]
    fn a_panic_is_one_line_of_the_log() {
        let text = log(LogFormat::Json, "info", || {
            let before = panic::take_hook();
            panic::set_hook(Box::new(log_panic));
            let result = panic::catch_unwind(|| panic!("two\nlines"));
            panic::set_hook(before);
            assert!(result.is_err());
        });
        let line: Json = serde_json::from_str(&text).expect("one line of JSON");
        assert_eq!(line["message"], "a task panicked");
        assert_eq!(line["error"], "two\nlines");
        assert!(
            line["location"]
                .as_str()
                .is_some_and(|at| at.starts_with("src/logging.rs:"))
        );
    }
}
