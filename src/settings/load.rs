//! [`load`]: defaults, file, environment and flags become one [`Settings`].
//!
//! The `config` crate reads the file and the environment. The last layer that
//! has a key wins; each value is then read by itself, strictly by its key's
//! type, so that all errors are told at once and each with its origin:
//! `config`'s own conversion stops at the first one, and takes `true` for a
//! number.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use config::{ConfigError, Environment, File, FileFormat, Map, Source, Value, ValueKind};
use runcast_actors::settings::RedisUrl;
use serde::Deserialize as _;
use serde_json::Value as Json;

use super::Settings;
use super::check::check;
use super::error::{Origin, SettingsError};
use super::shape::Shape;

/// The file read from the working directory if it is there.
const DEFAULT_FILE: &str = "settings.toml";
/// What every environment variable of a setting begins with.
const ENV_PREFIX: &str = "RUNCAST__";
/// Keys whose value may hold a password.
pub(super) const SECRETS: [&str; 7] = [
    "redis.url",
    "archive.url",
    "archive.endpoint",
    "kubectl.extra_args",
    "auth.secret",
    "auth.jwks_url",
    "telemetry.otlp_endpoint",
];
/// What `runcast dev` sets over the file, so that it runs on a fresh machine
/// beside any `settings.toml`.
const DEV: [(&str, &str); 3] = [
    ("streaming.default_backend", "embedded"),
    ("server.bind", "127.0.0.1:8000"),
    ("log.format", "pretty"),
];

/// What [`load`] reads, as `main` got it from the process.
#[derive(Debug, Clone, Default)]
pub(crate) struct Inputs {
    /// A file that must exist; without it, `settings.toml` if there is one.
    pub(crate) file: Option<PathBuf>,
    /// Whether it is `runcast dev`.
    pub(crate) dev: bool,
    /// The process's environment.
    pub(crate) environment: Vec<(OsString, OsString)>,
    /// Flags, the last one of a key wins.
    pub(crate) flags: Vec<Flag>,
}

/// One flag that sets a setting.
#[derive(Debug, Clone)]
pub(crate) struct Flag {
    /// As it was typed: `--bind`.
    pub(crate) name: &'static str,
    /// Section and key, dotted.
    pub(crate) key: String,
    /// Its text.
    pub(crate) value: String,
}

impl Inputs {
    /// Returns the file that is read, if there is one to be.
    pub(crate) fn file(&self) -> Option<&Path> {
        let default = Path::new(DEFAULT_FILE);
        let default = || default.exists().then_some(default);
        self.file.as_deref().or_else(default)
    }
}

/// Settings as they were read.
#[derive(Clone)]
pub(crate) struct Loaded {
    /// Every key's value, with passwords.
    pub(super) values: Json,
    /// The same, typed.
    pub(crate) settings: Settings,
}

/// Without the values: among them are passwords.
impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.settings.fmt(f)
    }
}

/// Returns the settings, checked as a whole.
///
/// # Errors
///
/// All that is wrong, never empty. Values are checked one by one first; how
/// they go together only when each is good by itself.
pub(crate) fn load(inputs: &Inputs) -> Result<Loaded, Vec<SettingsError>> {
    let defaults =
        serde_json::to_value(Settings::default()).expect("the defaults are plain values");
    let mut errors = Vec::new();
    let mut given = Given::new();
    read_file(inputs.file(), &mut given, &mut errors);
    if inputs.dev {
        given.extend(DEV.map(|(key, text)| (key.to_owned(), (Value::from(text), Origin::Dev))));
    }
    read_environment(&inputs.environment, &mut given, &mut errors);
    for flag in &inputs.flags {
        let origin = Origin::Flag(flag.name.to_owned());
        given.insert(flag.key.clone(), (Value::from(flag.value.as_str()), origin));
    }
    let values = build(&defaults, &given, &mut errors);
    if !errors.is_empty() {
        return Err(errors);
    }
    let settings = typed(&values);
    let errors: Vec<_> = check(&settings)
        .into_iter()
        .map(|(key, reason)| match given.get(key) {
            Some((value, origin)) => bad_value(key, shown(key, value), origin, reason),
            None => {
                let default = find(&defaults, key).map(|(_, _, default)| default.to_string());
                bad_value(key, default.unwrap_or_default(), &Origin::Default, reason)
            }
        })
        .collect();
    if errors.is_empty() {
        Ok(Loaded { values, settings })
    } else {
        Err(errors)
    }
}

/// What was set, by dotted key.
type Given = BTreeMap<String, (Value, Origin)>;

fn read_file(path: Option<&Path>, given: &mut Given, errors: &mut Vec<SettingsError>) {
    let Some(path) = path else {
        return;
    };
    let name = path.display().to_string();
    let table = std::fs::read_to_string(path)
        .map_err(|error| format!("cannot be read: {error}"))
        .and_then(|text| {
            File::from_str(&text, FileFormat::Toml)
                .collect()
                .map_err(|error| syntax_error(&error))
        });
    match table {
        Ok(table) => {
            let origin = Origin::File(name);
            flatten("", table, &mut |key, value| {
                given.insert(key, (value, origin.clone()));
            });
        }
        Err(reason) => errors.push(SettingsError::File { path: name, reason }),
    }
}

/// Returns the error of a TOML parser in one line, without the excerpt of the
/// file that it draws: that may show a password.
fn syntax_error(error: &ConfigError) -> String {
    let text = match error {
        ConfigError::FileParse { cause, .. } => cause.to_string(),
        other => other.to_string(),
    };
    let is_excerpt = |line: &&str| {
        let line = line.trim_start_matches(|c: char| c == ' ' || c.is_ascii_digit());
        line.starts_with('|')
    };
    let lines: Vec<_> = text
        .lines()
        .filter(|line| !is_excerpt(line))
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    lines.join(": ")
}

fn flatten(prefix: &str, table: Map<String, Value>, put: &mut impl FnMut(String, Value)) {
    for (name, value) in table {
        let key = format!("{prefix}{name}");
        match value.kind {
            // A section, even an empty one, must be a known one; a table where
            // a value belongs shows as unknown keys below that key.
            ValueKind::Table(table) if !table.is_empty() => {
                flatten(&format!("{key}."), table, put);
            }
            _ => put(key, value),
        }
    }
}

fn read_environment(
    variables: &[(OsString, OsString)],
    given: &mut Given,
    errors: &mut Vec<SettingsError>,
) {
    let mut texts = Map::new();
    for (name, value) in variables {
        let Some(name) = name.to_str().filter(|name| name.starts_with(ENV_PREFIX)) else {
            continue;
        };
        match value.to_str() {
            Some(value) => {
                texts.insert(name.to_owned(), value.to_owned());
            }
            None => errors.push(SettingsError::NotUnicode {
                name: name.to_owned(),
            }),
        }
    }
    let source = Environment::with_prefix("RUNCAST")
        .prefix_separator("__")
        .separator("__")
        .source(Some(texts));
    let table = source
        .collect()
        .expect("only values that are not Unicode fail, and these are strings");
    for (key, value) in table {
        let name = format!("{ENV_PREFIX}{}", key.replace('.', "__").to_uppercase());
        given.insert(key, (value, Origin::Environment(name)));
    }
}

/// Returns the defaults with all that is given and good put over them.
fn build(defaults: &Json, given: &Given, errors: &mut Vec<SettingsError>) -> Json {
    let mut merged = defaults.clone();
    for (key, (value, origin)) in given {
        let Some((section, name, default)) = find(defaults, key) else {
            // `[redis]` with nothing in it says nothing, and is not wrong.
            let is_empty = matches!(&value.kind, ValueKind::Table(table) if table.is_empty());
            if !(is_empty && defaults.get(key).is_some()) {
                errors.push(unknown_key(defaults, key, origin));
            }
            continue;
        };
        let read = Shape::of(default)
            .read(value, origin.is_untyped())
            .and_then(|json| {
                // Its own type has the last word: enums, addresses, URLs.
                let alone = serde_json::json!({ section: { name: &json } });
                serde_json::from_value::<Settings>(alone)
                    .map(|_| json)
                    .map_err(|error| error.to_string())
            });
        match read {
            Ok(json) => merged[section][name] = json,
            Err(reason) => errors.push(bad_value(key, shown(key, value), origin, reason)),
        }
    }
    merged
}

/// Returns values that are good, each by itself, as settings.
pub(super) fn typed(values: &Json) -> Settings {
    Settings::deserialize(values).expect("every value was deserialized by itself before")
}

/// Returns section, name and default of a key, if there is such a key.
fn find<'a>(defaults: &'a Json, key: &'a str) -> Option<(&'a str, &'a str, &'a Json)> {
    let (section, name) = key.split_once('.')?;
    Some((section, name, defaults.get(section)?.get(name)?))
}

fn unknown_key(defaults: &Json, key: &str, origin: &Origin) -> SettingsError {
    let section = key.split('.').next().unwrap_or(key);
    let names = |table: &Json| {
        let names = table.as_object().into_iter().flatten();
        names
            .map(|(name, _)| name.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    };
    let allowed = match defaults.get(section) {
        Some(table) => format!("[{section}] is a section with the keys {}", names(table)),
        None => format!("the sections are {}", names(defaults)),
    };
    SettingsError::UnknownKey {
        key: key.escape_debug().to_string(),
        origin: origin.clone(),
        allowed,
    }
}

fn bad_value(key: &str, value: String, origin: &Origin, reason: String) -> SettingsError {
    SettingsError::BadValue {
        key: key.to_owned(),
        value,
        origin: origin.clone(),
        reason,
    }
}

/// Returns a value for an error: one line, not too long, without a password.
fn shown(key: &str, value: &Value) -> String {
    const LONGEST: usize = 200;
    let text = match &value.kind {
        ValueKind::String(text) if key == "redis.url" => {
            format!("{:?}", RedisUrl::redact(text))
        }
        _ if SECRETS.contains(&key) => "(hidden)".to_owned(),
        ValueKind::String(text) => format!("{text:?}"),
        ValueKind::Array(items) => {
            let items: Vec<_> = items.iter().map(|item| shown("", item)).collect();
            format!("[{}]", items.join(", "))
        }
        ValueKind::Table(_) => "a table".to_owned(),
        other => other.to_string(),
    };
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
