//! [`Change`]: what of newly read settings holds at once.

use serde_json::Value as Json;

use super::check::check;
use super::load::{Loaded, SECRETS, typed};
use super::{Settings, SettingsError};

/// Keys that may change while the broker serves. Whoever adds one has to see
/// that the value is read where it is used, through what
/// [`reload`](crate::reload) hands over; a test compares the two.
pub(super) const LIVE: [&str; 33] = [
    "streaming.default_backend",
    "streaming.log_level",
    "streaming.max_age",
    "history.read_rate",
    "retry.min",
    "retry.max",
    "limits.max_header_bytes",
    "limits.body_timeout",
    "limits.max_event_bytes",
    "limits.max_body_bytes",
    "limits.total_body_bytes",
    "limits.body_bytes_per_client",
    "limits.max_batch_events",
    "limits.max_source_bytes",
    "limits.write_timeout",
    "limits.max_streams",
    "limits.max_streams_per_ip",
    "limits.max_streams_per_subject",
    "limits.max_streams_per_run",
    "limits.max_memory",
    "limits.accept_rate",
    "limits.publish_rate_per_ip",
    "limits.publish_rate_per_subject",
    "limits.history_reads",
    "auth.secret",
    "auth.secret_file",
    "auth.keys_file",
    "auth.algorithms",
    "auth.issuer",
    "auth.audience",
    "auth.max_token_bytes",
    "cors.allowed_origins",
    "log.level",
];

/// What newly read settings change of those that a broker runs with.
pub(crate) struct Change {
    /// What it is to run with now.
    pub(crate) running: Loaded,
    /// Keys that hold at once.
    pub(crate) changed: Vec<String>,
    /// Keys that hold after a restart.
    pub(crate) waiting: Vec<String>,
}

impl Change {
    /// Returns how `running` settings change to `wanted` ones, which are good.
    ///
    /// # Errors
    ///
    /// What may change at once does not go with what stays until a restart.
    pub(crate) fn between(running: &Loaded, wanted: &Loaded) -> Result<Self, Vec<SettingsError>> {
        let mut values = running.values.clone();
        let (mut changed, mut waiting) = (Vec::new(), Vec::new());
        for key in differing(running, wanted) {
            if !is_live(&key, &wanted.values, &running.values) {
                waiting.push(key);
                continue;
            }
            let (section, name) = key.split_once('.').expect("a key has a section");
            values[section][name] = wanted.values[section][name].clone();
            changed.push(key);
        }
        let settings = typed(&values);
        let faults = check(&settings);
        if !faults.is_empty() {
            let error = |(key, reason): (&str, String)| SettingsError::Waits {
                key: key.to_owned(),
                reason,
                waiting: waiting.join(", "),
            };
            return Err(faults.into_iter().map(error).collect());
        }
        Ok(Self {
            running: Loaded { values, settings },
            changed,
            waiting,
        })
    }
}

/// Returns the keys whose values mean something else, in order.
fn differing(one: &Loaded, other: &Loaded) -> Vec<String> {
    let written = |settings: &Settings| {
        // So that "30s" and "30000ms" are one.
        serde_json::to_value(settings).expect("settings are plain values")
    };
    let (one_written, other_written) = (written(&one.settings), written(&other.settings));
    let mut keys = Vec::new();
    for (section, table) in one.values.as_object().into_iter().flatten() {
        for name in table
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, _)| name)
        {
            let key = format!("{section}.{name}");
            // What is a secret is written as such only.
            let (one, other) = match SECRETS.contains(&key.as_str()) {
                true => (&one.values, &other.values),
                false => (&one_written, &other_written),
            };
            if one[section][name] != other[section][name] {
                keys.push(key);
            }
        }
    }
    keys
}

fn is_live(key: &str, wanted: &Json, running: &Json) -> bool {
    let is_embedded = |values: &Json| values["streaming"]["default_backend"] == "embedded";
    // It has another store.
    let is_other_store = is_embedded(wanted) != is_embedded(running);
    LIVE.contains(&key) && !(key == "streaming.default_backend" && is_other_store)
}
