//! `runcast check`: the settings are good; now, can the dependencies be used?

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use runcast_actors::reach;
use runcast_actors::settings::DefaultBackend;

use crate::auth::RemoteKeys;
use crate::settings::{AuthSettings, Settings};
use crate::telemetry::{Collector, TelemetrySettings};

/// What was found at one dependency.
#[derive(Debug)]
struct Finding {
    name: &'static str,
    place: String,
    /// Whether bare `/stream` does not work because of it.
    needed: bool,
    /// How long it took, or what is wrong.
    outcome: Result<Duration, String>,
}

/// Reaches every dependency and prints a line for each on stdout. The exit code
/// is 0 unless one that the default backend needs cannot be used.
///
/// # Errors
///
/// When stdout cannot be written.
pub(crate) async fn run(settings: &Settings) -> io::Result<ExitCode> {
    let findings = dependencies(settings).await;
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "settings: ok")?;
    for finding in &findings {
        let Finding { name, place, .. } = finding;
        match &finding.outcome {
            Ok(time) => writeln!(stdout, "{name}: ok ({place}, {time:.1?})")?,
            Err(error) if finding.needed => writeln!(stdout, "{name}: FAILED ({place}): {error}")?,
            Err(error) => writeln!(stdout, "{name}: not usable ({place}): {error}")?,
        }
    }
    let is_broken = |finding: &Finding| finding.needed && finding.outcome.is_err();
    Ok(if findings.iter().any(is_broken) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Looks at each dependency that the settings name.
async fn dependencies(settings: &Settings) -> Vec<Finding> {
    let backend = settings.streaming.default_backend;
    let mut findings = Vec::new();
    if backend != DefaultBackend::Embedded {
        findings.push(Finding {
            name: "redis",
            place: settings.redis.url.to_string(),
            needed: backend == DefaultBackend::Redis,
            outcome: reach::redis(&settings.redis, &settings.auth.access())
                .await
                .map_err(|error| one_line(&error)),
        });
    }
    if settings.kubectl.enabled {
        findings.push(Finding {
            name: "kubectl",
            place: format!(
                "engine {}, namespace {}",
                settings.kubectl.engine.name(),
                settings.kubectl.namespace
            ),
            needed: backend == DefaultBackend::Kubectl,
            outcome: reach::kubectl(&settings.kubectl)
                .await
                .map_err(|problem| one_line(&problem.detail)),
        });
    }
    // `auto` takes either.
    if backend == DefaultBackend::Auto && findings.iter().all(|found| found.outcome.is_err()) {
        findings.iter_mut().for_each(|found| found.needed = true);
    }
    let archive = &settings.archive;
    if archive.is_on() {
        findings.push(Finding {
            name: "archive",
            place: archive.url.clone(),
            needed: false,
            outcome: reach::archive(archive)
                .await
                .map_err(|error| one_line(&error)),
        });
    }
    if !settings.auth.jwks_url.is_empty() {
        findings.push(key_set(&settings.auth).await);
    }
    if !settings.telemetry.otlp_endpoint.is_empty() {
        findings.push(collector(&settings.telemetry).await);
    }
    findings
}

/// Fetches the keys that tokens are checked with. Its place is shown without
/// user and password.
async fn key_set(auth: &AuthSettings) -> Finding {
    let begin = Instant::now();
    let fetched = async {
        let keys = RemoteKeys::of(auth).map_err(|error| one_line(&error))?;
        keys.fetch().await.map_err(|error| one_line(&error))
    };
    let outcome = fetched.await.map(|_| begin.elapsed());
    let url = url::Url::parse(auth.jwks_url.reveal());
    Finding {
        name: "jwks",
        place: url.map_or_else(|_| String::new(), |url| url.origin().ascii_serialization()),
        needed: true,
        outcome,
    }
}

/// Looks whether the collector takes spans, by sending none. Nothing that is
/// served needs it.
async fn collector(telemetry: &TelemetrySettings) -> Finding {
    let begin = Instant::now();
    let (place, outcome) = match Collector::of(telemetry) {
        Ok(collector) => (collector.place(), collector.probe().await),
        Err(error) => {
            return Finding {
                name: "otlp",
                place: String::new(),
                needed: true,
                outcome: Err(one_line(&error)),
            };
        }
    };
    Finding {
        name: "otlp",
        place,
        needed: false,
        outcome: outcome
            .map(|()| begin.elapsed())
            .map_err(|error| one_line(&error)),
    }
}

/// Returns an error's text in one line: a parser's may draw its input.
fn one_line(error: &impl ToString) -> String {
    let text = error.to_string();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
