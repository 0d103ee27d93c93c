//! Tests of the settings: each error is a line of text, so the tests compare
//! text. The built program's exit code is tested in `tests/settings.rs`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use runcast_actors::settings::DefaultBackend;
use serde_json::Value as Json;

use super::live::LIVE;
use super::*;
use crate::reload::live_settings;

/// A settings file of one test, gone with it.
struct TempFile(PathBuf);

impl TempFile {
    fn new(text: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("runcast-settings-{}-{number}.toml", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::write(&path, text).expect("the temporary directory is writable");
        Self(path)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[derive(Default)]
struct Case {
    file: &'static str,
    dev: bool,
    env: Vec<(&'static str, &'static str)>,
    set: Vec<(&'static str, &'static str)>,
}

impl Case {
    /// Loads from a file of its own, whose path is written `FILE` in errors.
    fn load(&self) -> Result<Settings, Vec<String>> {
        let file = TempFile::new(self.file);
        let inputs = Inputs {
            file: Some(file.0.clone()),
            dev: self.dev,
            environment: self
                .env
                .iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
            flags: self
                .set
                .iter()
                .map(|(key, value)| Flag {
                    name: "--set",
                    key: (*key).to_owned(),
                    value: (*value).to_owned(),
                })
                .collect(),
        };
        let path = file.0.display().to_string();
        let line = |error: SettingsError| error.to_string().replace(&path, "FILE");
        load(&inputs)
            .map(|loaded| loaded.settings)
            .map_err(|errors| errors.into_iter().map(line).collect())
    }
}

fn from_file(file: &'static str) -> Result<Settings, Vec<String>> {
    Case {
        file,
        ..Case::default()
    }
    .load()
}

fn from_set(key: &'static str, value: &'static str) -> Result<Settings, Vec<String>> {
    Case {
        set: vec![(key, value)],
        ..Case::default()
    }
    .load()
}

/// Checks that setting `key` to `value` is refused in one line that names the
/// key and the value, of a list the first item, and says `rule`.
fn refused(key: &'static str, value: &'static str, rule: &str) {
    let errors = from_set(key, value).expect_err(key);
    let shown = value.split(',').next().unwrap_or(value);
    let is_told =
        |error: &String| error.starts_with(key) && error.contains(shown) && error.contains(rule);
    assert!(errors.iter().any(is_told), "{key}={value}: {errors:#?}");
    assert!(errors.iter().all(|error| error.lines().count() == 1));
}

fn leaves(settings: &Settings) -> BTreeMap<String, Json> {
    let Ok(Json::Object(sections)) = serde_json::to_value(settings) else {
        panic!("settings are a table");
    };
    let mut leaves = BTreeMap::new();
    for (section, table) in sections {
        let Json::Object(table) = table else {
            panic!("{section} is a table");
        };
        for (name, value) in table {
            leaves.insert(format!("{section}.{name}"), value);
        }
    }
    leaves
}

/// Returns each key of `settings.toml` with the text of its value, and checks
/// that a comment stands above it.
fn shown_in_settings_toml() -> BTreeMap<String, &'static str> {
    let mut shown = BTreeMap::new();
    let (mut section, mut previous) = ("", "");
    for line in include_str!("../../settings.toml").lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        } else if let Some((name, value)) = line.split_once(" = ")
            && !line.starts_with('#')
        {
            assert!(previous.starts_with("# "), "{line:?} has no comment");
            shown.insert(format!("{section}.{name}"), value);
        }
        previous = line;
    }
    shown
}

#[test]
fn settings_toml_shows_every_key_with_its_default_and_a_comment() {
    let defaults = leaves(&Settings::default());
    let shown = shown_in_settings_toml();
    assert_eq!(
        shown.keys().collect::<Vec<_>>(),
        defaults.keys().collect::<Vec<_>>()
    );
    let loaded = from_file(include_str!("../../settings.toml")).expect("the file is good");
    assert_eq!(leaves(&loaded), defaults);
}

#[test]
fn the_documentation_has_a_row_for_every_key_with_its_variable_default_and_whether_it_is_live() {
    let text = include_str!("../../docs/configuration.md");
    for (key, default) in shown_in_settings_toml() {
        let variable = format!("RUNCAST__{}", key.replace('.', "__").to_uppercase());
        let live = match LIVE.contains(&key.as_str()) {
            true => "yes ",
            false => "",
        };
        let row = format!("\n| `{key}`<br>`{variable}` | `{default}` | {live}| ");
        assert!(text.contains(&row), "there is no row {row}");
    }
    let rows = text.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(rows, leaves(&Settings::default()).len(), "rows of no key");
}

#[test]
fn the_last_layer_wins() {
    let case = Case {
        file: "[heartbeat]\ninterval = \"5s\"\n[retry]\nmin = \"2s\"\n[server]\nworkers = 3\n",
        env: vec![
            ("RUNCAST__HEARTBEAT__INTERVAL", "6s"),
            ("RUNCAST__RETRY__MIN", "1500ms"),
            ("RUNCAST_CONFIG", "of no concern here"),
            ("RUNCAST_PORT", "tcp://10.0.0.1:8000"),
        ],
        set: vec![("heartbeat.interval", "7s"), ("heartbeat.interval", "8s")],
        dev: false,
    };
    let settings = case.load().expect("good settings");
    assert_eq!(settings.heartbeat.interval, Duration::from_secs(8));
    assert_eq!(settings.retry.min, Duration::from_millis(1500));
    assert_eq!(settings.server.workers, 3);
    assert_eq!(settings.retry.max, Duration::from_secs(3));
}

#[test]
fn every_type_is_read_from_the_environment() {
    let case = Case {
        env: vec![
            ("RUNCAST__SERVER__BIND", "[::]:0"),
            ("RUNCAST__SERVER__WORKERS", "2"),
            ("RUNCAST__METRICS__ENABLED", "false"),
            ("RUNCAST__HUB__RING_BYTES", "2MiB"),
            ("RUNCAST__LIMITS__MAX_EVENT_BYTES", "1024"),
            ("RUNCAST__STREAMING__MAX_AGE", "1h 30m"),
            ("RUNCAST__STREAMING__DEFAULT_BACKEND", "auto"),
            ("RUNCAST__CORS__ALLOWED_ORIGINS", "http://a:1, https://b.c"),
            ("RUNCAST__KUBECTL__ENV_KEEP", ""),
            ("RUNCAST__REDIS__URL", "redis://u:p@h:1/2"),
            ("RUNCAST__LOG__FORMAT", "pretty"),
        ],
        ..Case::default()
    };
    let settings = case.load().expect("good settings");
    assert_eq!(settings.server.bind.to_string(), "[::]:0");
    assert_eq!(settings.server.worker_count(), 2);
    assert!(!settings.metrics.enabled);
    assert_eq!(settings.hub.ring_bytes.as_u64(), 2 << 20);
    assert_eq!(settings.limits.max_event_bytes.as_u64(), 1024);
    assert_eq!(settings.streaming.max_age, Duration::from_secs(5400));
    assert_eq!(settings.streaming.default_backend, DefaultBackend::Auto);
    assert_eq!(settings.cors.allowed_origins, ["http://a:1", "https://b.c"]);
    assert!(settings.kubectl.env_keep.is_empty());
    assert_eq!(settings.redis.url.as_str(), "redis://u:p@h:1/2");
    assert_eq!(settings.log.format, LogFormat::Pretty);
}

#[test]
fn dev_wins_over_the_file_and_yields_to_environment_and_flags() {
    let mut case = Case {
        file: include_str!("../../settings.toml"),
        dev: true,
        ..Case::default()
    };
    let settings = case.load().expect("good settings");
    assert_eq!(settings.streaming.default_backend, DefaultBackend::Embedded);
    assert_eq!(settings.log.format, LogFormat::Pretty);
    case.env = vec![("RUNCAST__STREAMING__DEFAULT_BACKEND", "redis")];
    case.set = vec![("server.bind", "127.0.0.1:9")];
    let settings = case.load().expect("good settings");
    assert_eq!(settings.streaming.default_backend, DefaultBackend::Redis);
    assert_eq!(settings.server.bind.port(), 9);
}

#[test]
fn all_errors_are_told_at_once_each_with_key_value_and_origin() {
    let case = Case {
        file: "[heartbeat]\ninterval = 30\n[hub]\nring_byte = \"1MiB\"\nretain_unwatched = 1\n\
               [nonsense]\n[retry]\n",
        env: vec![
            ("RUNCAST__RETRY__MIN", "30"),
            ("RUNCAST__REDIS__URLL", "redis://:s3cret@h"),
            ("RUNCAST__SERVER", "x"),
        ],
        set: vec![
            ("server.bind", "localhost"),
            ("streaming.default_backend", "kafka"),
        ],
        dev: false,
    };
    let errors = case.load().expect_err("bad settings");
    let time =
        "must be a time with its unit, like \"30s\" (us, ms, s, m, h or d; in quotes in a file)";
    let expected = [
        format!("heartbeat.interval = 30 (FILE): {time}"),
        "unknown key hub.ring_byte (FILE): [hub] is a section with the keys flush_delay_per_client, \
         held_bytes, idle_ttl, inbox_bytes, mailbox, max_flush_delay, max_hubs, max_panics, \
         max_past_runs, quarantine, \
         retain_unwatched, ring_bytes, total_ring_bytes"
            .to_owned(),
        "hub.retain_unwatched = 1 (FILE): must be true or false".to_owned(),
        "unknown key nonsense (FILE): the sections are archive, auth, auto, cors, exec, heartbeat, history, hub, \
         kubectl, limits, log, metrics, redis, retry, runs, server, streaming, telemetry"
            .to_owned(),
        format!("retry.min = \"30\" (environment RUNCAST__RETRY__MIN): {time}"),
        "unknown key redis.urll (environment RUNCAST__REDIS__URLL): [redis] is a section with the \
         keys channel_prefix, check_interval, command_timeout, connect_timeout, probe_interval, \
         queue_bytes, queue_messages, reconnect_max_delay, sharded_pubsub, tls_ca, \
         tls_cert, tls_key, url"
            .to_owned(),
        "unknown key server (environment RUNCAST__SERVER): [server] is a section with the keys \
         backlog, bind, drain_delay, drain_rate, hosts, max_connections, proxy_header, shutdown_grace, tls_cert, tls_key, trusted_proxies, workers"
            .to_owned(),
        "server.bind = \"localhost\" (flag --set): must be an IP address and a port, like \
         127.0.0.1:8000 or [::]:8000"
            .to_owned(),
        "streaming.default_backend = \"kafka\" (flag --set): unknown variant `kafka`, expected one \
         of `redis`, `kubectl`, `embedded`, `auto`"
            .to_owned(),
    ];
    for line in &expected {
        assert!(errors.contains(line), "{line}\nis not in {errors:#?}");
    }
    assert_eq!(errors.len(), expected.len(), "{errors:#?}");
}

#[test]
fn a_value_of_the_wrong_type_is_refused() {
    for (file, key) in [
        ("[server]\nworkers = true", "server.workers"),
        ("[server]\nworkers = 2.5", "server.workers"),
        ("[server]\nworkers = -1", "server.workers"),
        ("[server]\nworkers = \"2\"", "server.workers"),
        ("[server]\nbacklog = 5000000000", "server.backlog"),
        (
            "[hub]\nmailbox = 9223372036854775807",
            "hub.mailbox = 9223372036854775807",
        ),
        (
            "[hub]\ntotal_ring_bytes = \"17TiB\"",
            "hub.total_ring_bytes",
        ),
        ("[streaming]\nmax_age = \"0\"", "streaming.max_age"),
        ("[metrics]\nenabled = \"true\"", "metrics.enabled"),
        (
            "[cors]\nallowed_origins = \"http://a\"",
            "cors.allowed_origins",
        ),
        ("[cors]\nallowed_origins = [1]", "cors.allowed_origins"),
        (
            "[limits]\nmax_event_bytes = \"many\"",
            "limits.max_event_bytes",
        ),
        ("[limits]\nmax_event_bytes = -1", "limits.max_event_bytes"),
        ("[kubectl]\nnamespace = 7", "kubectl.namespace"),
        ("[history]\nttl = \"1000000000h\"", "history.ttl"),
        ("[history]\nttl = \"\"", "history.ttl"),
        ("[redis.url]\nhost = \"x\"", "unknown key redis.url.host"),
        ("redis = 5", "unknown key redis"),
        ("\"redis.url\" = 5", "redis.url"),
    ] {
        let errors = from_file(file).expect_err(file);
        assert_eq!(errors.len(), 1, "{file}: {errors:#?}");
        assert!(errors[0].starts_with(key), "{file}: {errors:#?}");
    }
}

#[test]
fn values_that_do_not_go_together_are_refused() {
    for (key, value, rule) in [
        ("heartbeat.interval", "1500ms", "whole seconds"),
        ("heartbeat.interval", "0s", "whole seconds"),
        ("heartbeat.interval", "2h", "at most 1h"),
        ("retry.min", "4s", "retry.max (3s)"),
        ("hub.ring_bytes", "513MiB", "hub.total_ring_bytes"),
        (
            "history.embedded_total_bytes",
            "15MiB",
            "history.max_bytes_per_run",
        ),
        ("hub.inbox_bytes", "255KiB", "limits.max_event_bytes"),
        ("limits.max_event_bytes", "17MiB", "16MiB"),
        ("limits.max_event_bytes", "0", "1 byte"),
        ("limits.max_streams", "0", "1 or more"),
        ("limits.total_body_bytes", "1KiB", "limits.max_body_bytes"),
        ("limits.history_reads", "0", "1 or more"),
        ("limits.max_header_bytes", "100", "1KiB to 64KiB"),
        ("limits.max_header_bytes", "65KiB", "1KiB to 64KiB"),
        ("limits.header_timeout", "0s", "10ms or more"),
        ("limits.body_timeout", "0s", "10ms or more"),
        ("server.tls_key", "/key.pem", "server.tls_cert"),
        ("limits.idempotency_keys", "0", "1 or more"),
        ("limits.idempotency_ttl", "0s", "1s or more"),
        ("server.max_connections", "100000", "limits.max_streams"),
        ("server.workers", "1025", "1 to 1024"),
        ("redis.channel_prefix", "", "1 to 64"),
        ("redis.channel_prefix", "run*:", "glob"),
        ("redis.channel_prefix", "{x}", "{ }"),
        ("redis.url", "http://h", "must be redis[s]://"),
        ("archive.max_writes", "0", "1 or more"),
        ("archive.timeout", "0s", "1s or more"),
        ("kubectl.selector", "app=agent", "{run_id}"),
        ("kubectl.namespace", "--all", "namespace"),
        ("kubectl.command", " ", "program"),
        ("kubectl.engine", "rest", "`command` or `api`"),
        ("runs.terminal_statuses", "", "at least one"),
        ("cors.allowed_origins", "localhost:3000", "scheme://host"),
        ("cors.allowed_origins", "http://a/", "without a path"),
        ("cors.allowed_origins", "http://A", "lower case"),
        ("cors.allowed_origins", "http://a, *", "* alone"),
        ("log.level", "inof", "must be off, error"),
        ("log.level", "info,runcast=loud", "must be off, error"),
    ] {
        refused(key, value, rule);
    }
    let errors =
        from_file("[kubectl]\nenabled = false\n[streaming]\ndefault_backend = \"kubectl\"");
    assert_eq!(
        errors.expect_err("kubectl is off"),
        ["streaming.default_backend = \"kubectl\" (FILE): needs kubectl.enabled = true"]
    );
}

/// Whoever writes credentials into them must not find them in a log.
#[test]
fn places_of_an_archive_are_not_shown() {
    for (set, key) in [
        (
            &[("archive.url", "s3://key:s3cret@runs")][..],
            "archive.url",
        ),
        (
            &[
                ("archive.url", "s3://runs"),
                ("archive.endpoint", "https://key:s3cret@host"),
            ],
            "archive.endpoint",
        ),
    ] {
        let case = Case {
            set: set.to_vec(),
            ..Case::default()
        };
        let errors = case.load().expect_err("a place that is none");
        assert_eq!(errors.len(), 1, "{errors:?}");
        let begins = format!("{key} = (hidden) (flag --set): must ");
        assert!(errors[0].starts_with(&begins), "{errors:?}");
        assert!(!errors[0].contains("s3cret"), "{errors:?}");
    }
}

#[test]
fn the_engine_api_needs_its_build_and_has_no_kubectl_to_tell() {
    if !cfg!(feature = "kubernetes-api") {
        return refused(
            "kubectl.engine",
            "api",
            "without the feature kubernetes-api",
        );
    }
    let good = "[kubectl]\nengine = \"api\"\nextra_args = [\"--context\", \"dev\"]";
    from_file(good).expect("kubectl is not needed for that");
    for (bad, rule) in [
        (
            "[kubectl]\nengine = \"api\"\nextra_args = [\"--token=s3cret\"]",
            "only --kubeconfig, --context",
        ),
        (
            "[kubectl]\nengine = \"api\"\nenv_keep = [\"AWS_PROFILE\"]",
            "must be empty with kubectl.engine",
        ),
    ] {
        let errors = from_file(bad).expect_err(rule);
        assert!(errors[0].contains(rule), "{errors:?}");
        assert!(!errors[0].contains("s3cret"), "{errors:?}");
    }
}

#[test]
fn a_fault_of_a_default_names_it_as_such() {
    let errors = from_set("limits.max_event_bytes", "5MiB").expect_err("the body is too small");
    assert_eq!(
        errors,
        [
            "limits.max_body_bytes = \"4.0 MiB\" (default): must hold one event: at least \
          limits.max_event_bytes (5.0 MiB)"
        ]
    );
}

#[test]
fn good_values_at_the_edge_are_taken() {
    for (key, value) in [
        ("heartbeat.interval", "1s"),
        ("retry.min", "3s"),
        ("hub.ring_bytes", "512MiB"),
        ("hub.max_flush_delay", "0s"),
        ("streaming.max_age", "0s"),
        ("cors.allowed_origins", "*"),
        ("cors.allowed_origins", ""),
        (
            "cors.allowed_origins",
            "https://a.example,http://[::1]:3000",
        ),
        ("log.level", "info,runcast_actors=debug"),
        ("log.level", "off"),
        ("redis.url", "unix:///run/redis.sock"),
        ("archive.url", "file:///var/lib/runcast"),
        ("archive.url", "s3://runs/a"),
        ("kubectl.enabled", "false"),
    ] {
        if let Err(errors) = from_set(key, value) {
            panic!("{key}={value}: {errors:#?}");
        }
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let inputs = Inputs {
        file: Some(PathBuf::from("/nowhere/settings.toml")),
        ..Inputs::default()
    };
    let errors = load(&inputs).expect_err("no such file");
    assert_eq!(
        errors[0].to_string(),
        "/nowhere/settings.toml: cannot be read: No such file or directory (os error 2)"
    );
}

#[test]
fn a_syntax_error_is_one_line_without_the_text_of_the_file() {
    let errors = from_file("[redis]\nurl = redis://:s3cret@h\n").expect_err("no TOML");
    assert_eq!(errors.len(), 1);
    assert!(errors[0].starts_with("FILE: TOML parse error at line 2, column 7: "));
    assert_eq!(errors[0].lines().count(), 1);
    assert!(!errors[0].contains("s3cret"), "{errors:?}");
}

#[test]
fn a_password_is_in_no_error_and_no_debug_output() {
    for url in [
        "http://:s3cret@h",
        "redis://u:s3cret@h:99999",
        "u:s3cret@h",
        "redis://h/?pass=s3cret&protocol=9",
    ] {
        let errors = from_set("redis.url", url).expect_err(url);
        assert!(!format!("{errors:?}").contains("s3cret"), "{errors:?}");
    }
    for file in [
        "[redis]\nurl = [\"redis://:s3cret@h\"]",
        "[kubectl]\nextra_args = \"--token=s3cret\"",
    ] {
        let errors = from_file(file).expect_err(file);
        assert!(!format!("{errors:?}").contains("s3cret"), "{errors:?}");
    }
    let settings = from_set("redis.url", "redis://u:s3cret@h").expect("good settings");
    assert!(!format!("{settings:?}").contains("s3cret"));
}

#[test]
fn a_variable_that_is_not_unicode_is_an_error_only_if_it_is_ours() {
    let broken = || OsString::from_vec(vec![0xff]);
    let mut inputs = Inputs {
        environment: vec![("OTHER".into(), broken()), (broken(), "x".into())],
        ..Inputs::default()
    };
    assert!(load(&inputs).is_ok());
    inputs
        .environment
        .push(("RUNCAST__LOG__LEVEL".into(), broken()));
    let errors = load(&inputs).expect_err("not Unicode");
    assert_eq!(
        errors[0].to_string(),
        "environment RUNCAST__LOG__LEVEL: is not valid UTF-8"
    );
}

#[test]
fn what_is_sent_to_a_collector_is_bounded_and_has_a_place() {
    for url in [
        "s3cret",
        "grpc://s3cret:4317",
        "http://h?s3cret",
        "http://s3cret/v1/traces",
    ] {
        let errors = from_set("telemetry.otlp_endpoint", url).expect_err(url);
        assert!(
            errors[0].contains("must be an http:// or https:// URL"),
            "{errors:?}"
        );
        assert!(!errors[0].contains("s3cret"), "{errors:?}");
    }
    for url in ["http://127.0.0.1:4318", "https://u:p@h/otlp/", ""] {
        from_set("telemetry.otlp_endpoint", url).expect(url);
    }
    for (key, value, rule) in [
        ("telemetry.sample_ratio", "1.5", "from 0 to 1"),
        ("telemetry.sample_ratio", "-0.1", "from 0 to 1"),
        ("telemetry.sample_ratio", "NaN", "from 0 to 1"),
        ("telemetry.sample_ratio", "half", "from 0 to 1"),
        ("telemetry.queue_spans", "0", "1 to"),
        ("telemetry.interval", "1ms", "100ms"),
        ("telemetry.timeout", "2h", "1h"),
    ] {
        refused(key, value, rule);
    }
    for (text, ratio) in [("0", 0.0), ("0.25", 0.25), ("1", 1.0)] {
        let settings = from_set("telemetry.sample_ratio", text).expect(text);
        assert_eq!(settings.telemetry.sample_ratio, ratio);
    }
    let settings = from_file("[telemetry]\nsample_ratio = 1").expect("a whole number is one, too");
    assert_eq!(settings.telemetry.sample_ratio, 1.0);
}

/// Checks that settings with a secret, and these, are refused for `key`.
fn auth_refused(set: &[(&'static str, &'static str)], key: &str, rule: &str) {
    let mut all = vec![
        ("auth.mode", "jwt"),
        ("auth.secret", "s3cret s3cret s3cret s3cret s3cret"),
    ];
    all.extend(set);
    let case = Case {
        set: all,
        ..Case::default()
    };
    let errors = case.load().expect_err(key);
    let is_told = |error: &String| error.starts_with(key) && error.contains(rule);
    assert!(errors.iter().any(is_told), "{set:?}: {errors:#?}");
    assert!(!format!("{errors:?}").contains("s3cret"), "{errors:?}");
}

#[test]
fn what_guards_the_broker_must_go_together() {
    for (set, key, rule) in [
        (
            &[("auth.mode", "none")][..],
            "auth.mode",
            "exactly if there are keys",
        ),
        (
            &[("auth.secret", "")],
            "auth.mode",
            "exactly if there are keys",
        ),
        (&[("auth.mode", "s3cret")], "auth.mode", "unknown variant"),
        (
            &[("auth.algorithms", "")],
            "auth.algorithms",
            "at least one",
        ),
        (
            &[("auth.algorithms", "none")],
            "auth.algorithms",
            "unknown variant",
        ),
        (
            &[("auth.algorithms", "RS384")],
            "auth.algorithms",
            "unknown variant",
        ),
        (&[("auth.leeway", "6m")], "auth.leeway", "300s"),
        (&[("auth.ticket_ttl", "500ms")], "auth.ticket_ttl", "1s"),
        (
            &[("auth.max_token_life", "0s")],
            "auth.max_token_life",
            "1s",
        ),
        (
            &[("auth.max_token_bytes", "1MiB")],
            "auth.max_token_bytes",
            "16KiB",
        ),
        (
            &[("auth.max_tickets", "0")],
            "auth.max_tickets",
            "1 or more",
        ),
        (&[("auth.cookie", "a b")], "auth.cookie", "a cookie's name"),
        (
            &[("auth.cookie", "s"), ("cors.allowed_origins", "*")],
            "auth.cookie",
            "not *",
        ),
        (
            &[("auth.jwks_url", "https://s3cret@h/k")],
            "auth.jwks_url",
            "auth.issuer",
        ),
        (
            &[("auth.jwks_url", "http://s3cret.example/k")],
            "auth.jwks_url",
            "https://",
        ),
        (
            &[("auth.jwks_url", "file:///s3cret")],
            "auth.jwks_url",
            "https://",
        ),
    ] {
        // A value that is none of the mode's is no secret of ours.
        match set {
            [("auth.mode", "s3cret")] => refused("auth.mode", "s3cret", rule),
            set => auth_refused(set, key, rule),
        }
    }
}

#[test]
fn a_secret_is_in_no_debug_output() {
    let case = Case {
        set: vec![
            ("auth.mode", "jwt"),
            ("auth.secret", "s3cret s3cret s3cret s3cret s3cret"),
            ("auth.jwks_url", "https://s3cret@issuer.example/keys"),
            ("auth.issuer", "https://issuer.example"),
            ("auth.audience", "runcast"),
        ],
        ..Case::default()
    };
    let settings = case.load().expect("good settings");
    assert!(!format!("{settings:?}").contains("s3cret"), "{settings:?}");
    let json = serde_json::to_string(&settings).expect("plain values");
    assert!(!json.contains("s3cret"), "{json}");
    assert!(settings.check_serving().is_empty());
}

#[test]
fn an_address_that_others_reach_needs_tokens_or_a_word() {
    for (bind, set, opens) in [
        ("127.0.0.1:0", None, true),
        ("127.8.9.10:0", None, true),
        ("[::1]:0", None, true),
        ("[::ffff:127.0.0.1]:0", None, true),
        ("0.0.0.0:0", None, false),
        ("[::]:0", None, false),
        ("10.0.0.1:0", None, false),
        ("[::ffff:10.0.0.1]:0", None, false),
        ("0.0.0.0:0", Some(("auth.allow_anonymous", "true")), true),
    ] {
        let mut all = vec![("server.bind", bind)];
        all.extend(set);
        let case = Case {
            set: all,
            ..Case::default()
        };
        let errors = case.load().expect("good settings").check_serving();
        assert_eq!(errors.is_empty(), opens, "{bind} {set:?}: {errors:?}");
    }
}

/// Another good value of a key than its default.
fn other(key: &str, default: &str) -> String {
    let text = match key {
        "streaming.default_backend" => "kubectl",
        "streaming.log_level" => "error",
        "server.bind" | "metrics.bind" => "127.0.0.1:1",
        "server.trusted_proxies" => "10.0.0.0/8",
        "server.proxy_header" => "forwarded",
        "redis.url" => "redis://other",
        "redis.sharded_pubsub" => "listen",
        "telemetry.sample_ratio" => "0.5",
        "auth.mode" => "jwt",
        "kubectl.engine" => "api",
        "auth.algorithms" => "HS256",
        "log.format" => "pretty",
        _ => "",
    };
    let times = |text: &str| text.trim_end_matches(char::is_alphabetic).len();
    match default {
        _ if !text.is_empty() => text.to_owned(),
        "true" => "false".to_owned(),
        "false" => "true".to_owned(),
        _ if default.parse::<u64>().is_ok() => "7".to_owned(),
        _ if default.starts_with(|c: char| c.is_ascii_digit()) => {
            format!("7{}", &default[times(default)..])
        }
        _ => "other".to_owned(),
    }
}

/// What a reload hands over, of one key: everything that could differ.
fn handed_over(settings: &Settings) -> String {
    let auth = &settings.auth;
    let live = live_settings(settings);
    let keys = (&auth.secret_file, &auth.keys_file, auth.secret.reveal());
    let rules = (&auth.algorithms, &auth.issuer, &auth.audience);
    let origins = &settings.cors.allowed_origins;
    let level = &settings.log.level;
    let longest = auth.max_token_bytes;
    format!("{live:?} {keys:?} {rules:?} {longest:?} {origins:?} {level:?}")
}

/// A key marked live changes what the parts are handed; any other is named,
/// and changes nothing.
#[test]
fn a_key_is_live_exactly_if_it_is_marked() {
    let written = shown_in_settings_toml();
    for (key, default) in &written {
        let default = default.trim_matches('"');
        let value = other(key, default);
        let defaults = load(&Inputs::default()).expect("the defaults are good");
        let mut wanted = defaults.clone();
        let (section, name) = key.split_once('.').expect("it is dotted");
        let value = match &defaults.values[section][name] {
            Json::Bool(_) => Json::Bool(value == "true"),
            // A size is one, too.
            Json::Number(_) if value.parse::<f64>().is_ok() => {
                serde_json::from_str(&value).expect("a number")
            }
            Json::Array(_) => serde_json::json!([value]),
            _ => Json::from(value),
        };
        wanted.values[section][name] = value;
        wanted.settings = load::typed(&wanted.values);
        let before = handed_over(&defaults.settings);
        let is_live = LIVE.contains(&key.as_str());
        if is_live {
            assert_ne!(handed_over(&wanted.settings), before, "{key}");
        }
        let change = Change::between(&defaults, &wanted);
        let change = match change {
            Ok(change) => change,
            // Alone it may not go with the others: then it was taken over.
            Err(errors) => {
                assert!(is_live, "{key}: {errors:?}");
                continue;
            }
        };
        let (changed, waiting) = match is_live {
            true => (vec![key.clone()], vec![]),
            false => (vec![], vec![key.clone()]),
        };
        assert_eq!((change.changed, change.waiting), (changed, waiting));
        assert_eq!(
            handed_over(&change.running.settings) != before,
            is_live,
            "{key}"
        );
    }
    for key in LIVE {
        assert!(written.contains_key(key), "{key} is no key");
    }
}

#[test]
fn the_same_value_in_other_words_is_no_change() {
    let load = |text: &'static str| {
        let file = TempFile::new(text);
        let inputs = Inputs {
            file: Some(file.0.clone()),
            ..Inputs::default()
        };
        super::load(&inputs).expect("good settings")
    };
    let one = load("[heartbeat]\ninterval = \"30s\"\n[hub]\nring_bytes = \"1MiB\"\n");
    let other = load("[heartbeat]\ninterval = \"30000ms\"\n[hub]\nring_bytes = 1048576\n");
    let change = Change::between(&one, &other).expect("nothing is wrong");
    assert!(change.changed.is_empty() && change.waiting.is_empty());
}
