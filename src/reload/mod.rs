//! [`Reloader`]: settings that are read again while the broker serves, on
//! SIGHUP and when one of their files changes.
//!
//! They are read as at the start, all layers of them, and checked by the same
//! rules. What is wrong refuses them as a whole. What needs a restart is named
//! and stays as it was; all else holds at once (`settings::Change`).

mod metrics;
mod watched_files;

use std::future::pending;
use std::path::PathBuf;

use runcast_actors::broker::Broker;
use runcast_actors::settings::LiveSettings;
use tokio::signal::unix::Signal;

use metrics::ReloadMetrics;
use watched_files::WatchedFiles;

use crate::auth::KeySet;
use crate::http::HttpControls;
use crate::logging::LogLevels;
use crate::open_files;
use crate::settings::{Change, Inputs, Loaded, Settings, SettingsError};

/// The parts of a broker that settings may change while it serves.
pub(crate) struct Parts {
    /// The actors.
    pub(crate) broker: Broker,
    /// The HTTP server.
    pub(crate) http: HttpControls,
    /// The log.
    pub(crate) log: LogLevels,
}

/// Reads settings again, and hands them to the parts.
pub(crate) struct Reloader {
    inputs: Inputs,
    running: Loaded,
    parts: Parts,
    metrics: ReloadMetrics,
}

impl Reloader {
    /// # Errors
    /// A metric's name is taken; they are fixed.
    pub(crate) fn new(
        mut inputs: Inputs,
        running: Loaded,
        parts: Parts,
    ) -> Result<Self, prometheus::Error> {
        // One that was there must not go: defaults are not what was meant.
        inputs.file = inputs.file().map(PathBuf::from);
        let metrics = ReloadMetrics::new()?;
        for metric in metrics.all() {
            parts.http.register(metric)?;
        }
        Ok(Self {
            inputs,
            running,
            parts,
            metrics,
        })
    }

    /// Reads the settings whenever it is told to, for as long as it is polled.
    /// Signals that come while it reads are one.
    pub(crate) async fn keep(mut self, mut hang_up: Option<Signal>) {
        let mut files = WatchedFiles::new(self.files()).await;
        loop {
            let told = async {
                match &mut hang_up {
                    Some(signal) => signal.recv().await,
                    None => pending().await,
                }
            };
            let trigger = tokio::select! {
                _ = told => "SIGHUP",
                () = files.changed() => "file",
            };
            // Before they are read: what comes after is seen as a change.
            files.note().await;
            self.reload(trigger);
            files.watch(self.files()).await;
        }
    }

    /// What settings and keys are in.
    fn files(&self) -> Vec<PathBuf> {
        let auth = &self.running.settings.auth;
        let keys = [&auth.secret_file, &auth.keys_file];
        let keys = keys.into_iter().filter(|path| !path.is_empty());
        let settings = self.inputs.file().map(PathBuf::from);
        settings
            .into_iter()
            .chain(keys.map(PathBuf::from))
            .collect()
    }

    fn reload(&mut self, trigger: &'static str) {
        match self.read().and_then(|change| self.take(change)) {
            Ok(change) => {
                let changed = match change.changed.as_slice() {
                    [] => "no setting".to_owned(),
                    keys => keys.join(", "),
                };
                tracing::info!(trigger, changed, "settings reloaded");
                if !change.waiting.is_empty() {
                    let keys = change.waiting.join(", ");
                    tracing::warn!(
                        keys,
                        "settings changed that need a restart, they stay as they were"
                    );
                }
                self.metrics.taken(change.waiting.len());
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(trigger, error, "settings refused, all stay as they were");
                self.metrics.refused();
            }
        }
    }

    /// Reads and checks them; changes nothing.
    fn read(&self) -> anyhow::Result<Change> {
        let wanted = crate::settings::load(&self.inputs).map_err(|errors| told(&errors))?;
        check_serving(&wanted.settings)?;
        let change = Change::between(&self.running, &wanted).map_err(|errors| told(&errors))?;
        check_serving(&change.running.settings)?;
        Ok(change)
    }

    /// Hands them to the parts: first what may fail.
    fn take(&mut self, change: Change) -> anyhow::Result<Change> {
        let mut settings = change.running.settings.clone();
        // The start has said so.
        open_files::lower(&mut settings)?;
        let keys = read_keys(&settings)?;
        self.parts.log.change(&settings.log)?;
        self.parts.http.change(&settings, keys);
        let live = live_settings(&settings);
        self.parts.broker.settings().live.change(|now| *now = live);
        self.running = change.running.clone();
        Ok(change)
    }
}

/// Returns what the actors are handed of settings that may change.
pub(crate) fn live_settings(settings: &Settings) -> LiveSettings {
    LiveSettings {
        streaming: settings.streaming.clone(),
        retry: settings.retry,
        limits: settings.limits.clone(),
        read_rate: settings.history.read_rate,
    }
}

/// Reads the keys that the settings name themselves.
///
/// # Errors
/// The setting at fault, and why.
pub(crate) fn read_keys(settings: &Settings) -> anyhow::Result<KeySet> {
    let keys = settings.auth.keys();
    keys.map_err(|(key, reason)| anyhow::anyhow!("{key}: {reason}"))
}

fn check_serving(settings: &Settings) -> anyhow::Result<()> {
    let errors = settings.check_serving();
    match errors.is_empty() {
        true => Ok(()),
        false => Err(told(&errors)),
    }
}

/// All errors in one line of the log.
fn told(errors: &[SettingsError]) -> anyhow::Error {
    let lines: Vec<_> = errors.iter().map(SettingsError::to_string).collect();
    anyhow::anyhow!("{}", lines.join("; "))
}
