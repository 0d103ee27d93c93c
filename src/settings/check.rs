//! [`check`]: whether the settings, each good by itself, go together.

use std::time::Duration;

use bytesize::ByteSize;
use runcast_actors::settings::{DefaultBackend, KubeconfigChoice, KubectlEngine, KubectlSettings};
use tracing_subscriber::EnvFilter;

use super::{AuthMode, Settings};

/// Redis cuts a subscriber that is sent 32 MiB at once, and a frame is larger
/// than its payload.
const EVENT_BYTES_MAX: ByteSize = ByteSize::mib(16);
/// A thread each; more than that is a typing error.
const WORKERS_MAX: usize = 1024;

/// A span takes about a kilobyte while it waits.
const QUEUE_SPANS_MAX: usize = 1_000_000;

/// Keys at fault and what is allowed there.
pub(super) type Faults = Vec<(&'static str, String)>;

/// Returns all that is wrong with `settings`; empty means it can be used.
pub(super) fn check(settings: &Settings) -> Faults {
    let mut faults = Faults::new();
    check_counts(settings, &mut faults);
    check_sizes(settings, &mut faults);
    check_times(settings, &mut faults);
    check_backends(settings, &mut faults);
    check_texts(settings, &mut faults);
    check_auth(settings, &mut faults);
    check_archive(settings, &mut faults);
    check_telemetry(settings, &mut faults);
    faults
}

fn check_archive(settings: &Settings, faults: &mut Faults) {
    let archive = &settings.archive;
    if archive.is_on()
        && let Err(bad) = runcast_actors::archive::check(archive)
    {
        faults.push((bad.key, bad.rule.to_owned()));
    }
    for (key, count) in [
        ("archive.max_writes", archive.max_writes),
        ("archive.max_reads", archive.max_reads),
        ("archive.queue", archive.queue),
    ] {
        require(faults, count >= 1, key, "must be 1 or more");
    }
    let times = [
        ("archive.timeout", archive.timeout),
        ("archive.sweep_interval", archive.sweep_interval),
        ("archive.retention_interval", archive.retention_interval),
    ];
    require_a_second(faults, &times);
}

fn require_a_second(faults: &mut Faults, times: &[(&'static str, Duration)]) {
    for (key, time) in times {
        let good = *time >= Duration::from_secs(1);
        require(faults, good, key, "must be 1s or more");
    }
}

fn require(faults: &mut Faults, good: bool, key: &'static str, rule: impl Into<String>) {
    if !good {
        faults.push((key, rule.into()));
    }
}

fn check_counts(settings: &Settings, faults: &mut Faults) {
    let Settings {
        server,
        redis,
        history,
        hub,
        limits,
        kubectl,
        auth,
        ..
    } = settings;
    for (key, count) in [
        ("server.backlog", u64::from(server.backlog)),
        ("redis.queue_messages", redis.queue_messages as u64),
        ("history.max_events", history.max_events),
        (
            "history.record_plain_messages",
            history.record_plain_messages as u64,
        ),
        ("hub.max_hubs", hub.max_hubs as u64),
        ("hub.mailbox", hub.mailbox as u64),
        ("hub.max_panics", hub.max_panics as u64),
        ("kubectl.max_follows", kubectl.max_follows as u64),
        (
            "auto.remembered_lines",
            settings.auto.remembered_lines as u64,
        ),
        ("limits.max_batch_events", limits.max_batch_events as u64),
        ("limits.max_source_bytes", limits.max_source_bytes as u64),
        ("limits.max_streams", limits.max_streams as u64),
        ("limits.history_reads", limits.history_reads as u64),
        ("limits.idempotency_keys", limits.idempotency_keys as u64),
        ("auth.max_tickets", auth.max_tickets as u64),
        (
            "auth.max_tickets_per_subject",
            auth.max_tickets_per_subject as u64,
        ),
        ("auth.max_revocations", auth.max_revocations as u64),
    ] {
        require(faults, count >= 1, key, "must be 1 or more");
    }
    require(
        faults,
        server.workers <= WORKERS_MAX,
        "server.workers",
        format!("must be 1 to {WORKERS_MAX}, or 0 for one per core"),
    );
    require(
        faults,
        server.max_connections > limits.max_streams,
        "server.max_connections",
        format!(
            "must be more than limits.max_streams ({}), so that health checks and publishers \
             get in beside a full house of streams",
            limits.max_streams
        ),
    );
}

fn check_sizes(settings: &Settings, faults: &mut Faults) {
    let Settings {
        redis,
        history,
        hub,
        limits,
        ..
    } = settings;
    let event = limits.max_event_bytes;
    require(
        faults,
        event >= ByteSize::b(1) && event <= EVENT_BYTES_MAX,
        "limits.max_event_bytes",
        "must be 1 byte to 16MiB: Redis cuts its subscribers off at 32MiB",
    );
    // More than 64KiB would meet the parser's own bound.
    require(
        faults,
        (ByteSize::kib(1)..=ByteSize::kib(64)).contains(&limits.max_header_bytes),
        "limits.max_header_bytes",
        "must be 1KiB to 64KiB",
    );
    for (key, size) in [
        ("hub.inbox_bytes", hub.inbox_bytes),
        ("history.max_bytes_per_run", history.max_bytes_per_run),
        ("redis.queue_bytes", redis.queue_bytes),
        ("limits.max_body_bytes", limits.max_body_bytes),
        ("exec.spool_memory_bytes", settings.exec.spool_memory_bytes),
    ] {
        require(
            faults,
            size >= event,
            key,
            format!("must hold one event: at least limits.max_event_bytes ({event})"),
        );
    }
    require(
        faults,
        limits.total_body_bytes >= limits.max_body_bytes,
        "limits.total_body_bytes",
        format!(
            "must hold one post: at least limits.max_body_bytes ({})",
            limits.max_body_bytes
        ),
    );
    require(
        faults,
        limits.body_bytes_per_client >= limits.max_body_bytes,
        "limits.body_bytes_per_client",
        format!(
            "must hold one post: at least limits.max_body_bytes ({})",
            limits.max_body_bytes
        ),
    );
    require(
        faults,
        history.embedded_total_bytes >= history.max_bytes_per_run,
        "history.embedded_total_bytes",
        format!(
            "must hold one run: at least history.max_bytes_per_run ({})",
            history.max_bytes_per_run
        ),
    );
    require(
        faults,
        history.record_plain_bytes.as_u64() / 2 >= event.as_u64(),
        "history.record_plain_bytes",
        format!("must hold two events: at least twice limits.max_event_bytes ({event})"),
    );
    require(
        faults,
        hub.ring_bytes <= hub.total_ring_bytes,
        "hub.ring_bytes",
        format!(
            "must be at most hub.total_ring_bytes ({})",
            hub.total_ring_bytes
        ),
    );
}

fn check_times(settings: &Settings, faults: &mut Faults) {
    let Settings {
        redis,
        history,
        hub,
        heartbeat,
        retry,
        kubectl,
        limits,
        ..
    } = settings;
    require(
        faults,
        heartbeat.interval >= Duration::from_secs(1) && heartbeat.interval.subsec_nanos() == 0,
        "heartbeat.interval",
        "must be whole seconds, 1s or more: the wheel of heartbeats ticks once a second",
    );
    require(
        faults,
        heartbeat.interval <= Duration::from_secs(3600),
        "heartbeat.interval",
        "must be at most 1h: proxies close a silent stream long before",
    );
    require(
        faults,
        retry.min <= retry.max,
        "retry.min",
        format!("must be at most retry.max ({:?})", retry.max),
    );
    for (key, time) in [
        ("redis.probe_interval", redis.probe_interval),
        ("redis.check_interval", redis.check_interval),
        ("redis.connect_timeout", redis.connect_timeout),
        ("redis.command_timeout", redis.command_timeout),
        ("redis.reconnect_max_delay", redis.reconnect_max_delay),
        ("retry.min", retry.min),
        ("auto.after", settings.auto.after),
        ("auto.window", settings.auto.window),
        ("auto.settle", settings.auto.settle),
        ("kubectl.timeout", kubectl.timeout),
        ("kubectl.max_backoff", kubectl.max_backoff),
        ("limits.write_timeout", limits.write_timeout),
        ("limits.header_timeout", limits.header_timeout),
        ("limits.body_timeout", limits.body_timeout),
        ("exec.partial_line_after", settings.exec.partial_line_after),
    ] {
        require(
            faults,
            time >= Duration::from_millis(10),
            key,
            "must be 10ms or more",
        );
    }
    require(
        faults,
        history.record_plain_max_age >= Duration::from_secs(10),
        "history.record_plain_max_age",
        "must be 10s or more: until another broker has taken over",
    );
    let times = [
        ("history.ttl", history.ttl),
        ("limits.idempotency_ttl", limits.idempotency_ttl),
    ];
    require_a_second(faults, &times);
    for (key, time) in [
        ("hub.max_flush_delay", hub.max_flush_delay),
        ("hub.flush_delay_per_client", hub.flush_delay_per_client),
    ] {
        require(
            faults,
            time <= Duration::from_secs(1),
            key,
            "must be at most 1s: every live event waits for it",
        );
    }
}

fn check_backends(settings: &Settings, faults: &mut Faults) {
    let kubectl = &settings.kubectl;
    require(
        faults,
        !settings.history.record_plain
            || settings.streaming.default_backend != DefaultBackend::Embedded,
        "history.record_plain",
        "needs Redis: with streaming.default_backend = \"embedded\" nobody publishes plainly",
    );
    require(
        faults,
        !settings.history.record_plain || !settings.redis.announces_to_shards(),
        "history.record_plain",
        "needs to hear all runs: not with redis.sharded_pubsub = \"on\"",
    );
    require(
        faults,
        settings.streaming.default_backend != DefaultBackend::Kubectl || kubectl.enabled,
        "streaming.default_backend",
        "needs kubectl.enabled = true",
    );
    require(
        faults,
        !kubectl.command.trim().is_empty(),
        "kubectl.command",
        "must be a program's name or path",
    );
    require(
        faults,
        is_dns_label(&kubectl.namespace),
        "kubectl.namespace",
        "must be a namespace: at most 63 of a-z, 0-9 and -, first and last no -",
    );
    require(
        faults,
        kubectl.selector.contains("{run_id}"),
        "kubectl.selector",
        "must contain {run_id}, like \"run-id={run_id}\": without it every run would see the same pods",
    );
    require(
        faults,
        kubectl.env_keep.iter().all(|name| is_variable_name(name)),
        "kubectl.env_keep",
        "must be names of environment variables",
    );
    check_engine(kubectl, faults);
}

/// What the engine `api` needs, and what it cannot honour.
fn check_engine(kubectl: &KubectlSettings, faults: &mut Faults) {
    require(
        faults,
        kubectl.engine.is_built(),
        "kubectl.engine",
        "must be \"command\": this program was built without the feature kubernetes-api",
    );
    if kubectl.engine == KubectlEngine::Command {
        return;
    }
    if let Err(error) = KubeconfigChoice::of(&kubectl.extra_args) {
        require(faults, false, "kubectl.extra_args", error.to_string());
    }
    require(
        faults,
        kubectl.env_keep.is_empty(),
        "kubectl.env_keep",
        "must be empty with kubectl.engine = \"api\": credential plugins are not run",
    );
}

fn check_texts(settings: &Settings, faults: &mut Faults) {
    let server = &settings.server;
    require(
        faults,
        server.tls_cert.is_empty() == server.tls_key.is_empty(),
        "server.tls_key",
        "must be set with server.tls_cert, and only then",
    );
    require(
        faults,
        server.hosts == ["*"] || server.hosts.iter().all(|host| is_host(host)),
        "server.hosts",
        "must be hosts' names without scheme and port, like runcast.example, or * alone",
    );
    let redis = &settings.redis;
    require(
        faults,
        redis.tls_cert.is_empty() == redis.tls_key.is_empty(),
        "redis.tls_key",
        "must be set with redis.tls_cert, and only then",
    );
    require(
        faults,
        settings.metrics.bind.is_none() || settings.metrics.enabled,
        "metrics.bind",
        "needs metrics.enabled = true",
    );
    require(
        faults,
        is_channel_prefix(&settings.redis.channel_prefix),
        "redis.channel_prefix",
        "must be 1 to 64 printable ASCII characters without space, { } or the glob characters * ? [ ] \\ ^",
    );
    let statuses = &settings.runs.terminal_statuses;
    require(
        faults,
        !statuses.is_empty() && statuses.iter().all(|status| !status.trim().is_empty()),
        "runs.terminal_statuses",
        "must name at least one status, and no empty one: without it no run would ever end",
    );
    let origins = &settings.cors.allowed_origins;
    let is_any = origins.len() == 1 && origins[0] == "*";
    require(
        faults,
        is_any || origins.iter().all(|origin| is_origin(origin)),
        "cors.allowed_origins",
        "must be origins scheme://host[:port] in lower case without a path, or * alone",
    );
    if let Some(rule) = level_fault(&settings.log.level) {
        faults.push(("log.level", rule));
    }
}

fn check_telemetry(settings: &Settings, faults: &mut Faults) {
    let telemetry = &settings.telemetry;
    let is_base = |text: &str| {
        url::Url::parse(text).is_ok_and(|url| {
            matches!(url.scheme(), "http" | "https")
                && url.has_host()
                && url.query().is_none()
                && url.fragment().is_none()
                && !url.path().trim_end_matches('/').ends_with("/v1/traces")
        })
    };
    require(
        faults,
        telemetry.otlp_endpoint.is_empty() || is_base(telemetry.otlp_endpoint.reveal()),
        "telemetry.otlp_endpoint",
        "must be an http:// or https:// URL, like http://127.0.0.1:4318, to which /v1/traces and /v1/metrics are added",
    );
    require(
        faults,
        (1..=QUEUE_SPANS_MAX).contains(&telemetry.queue_spans),
        "telemetry.queue_spans",
        format!("must be 1 to {QUEUE_SPANS_MAX}"),
    );
    let hour = Duration::from_secs(3600);
    for (key, time, least) in [
        (
            "telemetry.interval",
            telemetry.interval,
            Duration::from_millis(100),
        ),
        (
            "telemetry.timeout",
            telemetry.timeout,
            Duration::from_millis(100),
        ),
    ] {
        require(
            faults,
            (least..=hour).contains(&time),
            key,
            "must be 100ms to 1h",
        );
    }
}

fn check_auth(settings: &Settings, faults: &mut Faults) {
    let auth = &settings.auth;
    let has_url = !auth.jwks_url.is_empty();
    let has_keys = has_url
        || !auth.secret.is_empty()
        || !auth.secret_file.is_empty()
        || !auth.keys_file.is_empty();
    require(
        faults,
        has_keys == (auth.mode == AuthMode::Jwt),
        "auth.mode",
        "must be \"jwt\" exactly if there are keys: auth.secret, auth.secret_file, auth.keys_file or auth.jwks_url",
    );
    require(
        faults,
        !has_url || is_key_url(auth.jwks_url.reveal()),
        "auth.jwks_url",
        "must be an https:// URL, or http:// of this machine: keys that anybody on the way can exchange are none",
    );
    require(
        faults,
        !has_url || !auth.issuer.is_empty() && !auth.audience.is_empty(),
        "auth.jwks_url",
        "needs auth.issuer and auth.audience: its keys sign tokens for others, too",
    );
    require(
        faults,
        !auth.algorithms.is_empty(),
        "auth.algorithms",
        "must name at least one of HS256, HS384, HS512, RS256, PS256, ES256 and EdDSA",
    );
    require(
        faults,
        auth.audience.iter().all(|name| !name.is_empty()),
        "auth.audience",
        "must not be empty texts",
    );
    require(
        faults,
        auth.cookie.is_empty() || is_token(&auth.cookie),
        "auth.cookie",
        "must be a cookie's name, like __Host-runcast",
    );
    require(
        faults,
        auth.cookie.is_empty() || settings.cors.allowed_origins != ["*"],
        "auth.cookie",
        "needs pages named in cors.allowed_origins, not *: any page could read with its reader's cookie",
    );
    let seconds = Duration::from_secs;
    for (key, time, least, greatest) in [
        ("auth.leeway", auth.leeway, seconds(0), seconds(300)),
        ("auth.ticket_ttl", auth.ticket_ttl, seconds(1), seconds(300)),
        (
            "auth.jwks_refresh",
            auth.jwks_refresh,
            seconds(1),
            seconds(24 * 3600),
        ),
        (
            "auth.max_token_life",
            auth.max_token_life,
            seconds(1),
            seconds(3650 * 24 * 3600),
        ),
    ] {
        require(
            faults,
            (least..=greatest).contains(&time),
            key,
            format!("must be {least:?} to {greatest:?}"),
        );
    }
    require(
        faults,
        (ByteSize::b(256)..=ByteSize::kib(16)).contains(&auth.max_token_bytes),
        "auth.max_token_bytes",
        "must be 256B to 16KiB: it comes in a header",
    );
}

/// Whether keys from there can be trusted as far as the place itself.
fn is_key_url(text: &str) -> bool {
    let is_local = |url: &url::Url| match url.host() {
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    };
    url::Url::parse(text).is_ok_and(|url| match url.scheme() {
        "https" => url.has_host(),
        "http" => is_local(&url),
        _ => false,
    })
}

/// Returns whether `text` is a token of RFC 9110, as a cookie's name is.
fn is_token(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    (1..=128).contains(&text.len()) && text.bytes().all(is_inner)
}

fn is_dns_label(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(is_inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Whether `text` can be the host of a `Host` header.
fn is_host(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    (1..=253).contains(&text.len()) && text.bytes().all(is_inner) && !text.ends_with('.')
}

fn is_variable_name(text: &str) -> bool {
    !text.is_empty() && !text.contains(['=', '\0'])
}

/// The prefix stands literally in `PSUBSCRIBE <prefix>*` and before the braces
/// of a cluster's hash tag.
fn is_channel_prefix(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_graphic())
        && !text.contains(['*', '?', '[', ']', '\\', '^', '{', '}'])
}

/// Returns whether `text` is what a browser sends as `Origin`: anything else
/// would never match, in silence.
fn is_origin(text: &str) -> bool {
    url::Url::parse(text)
        .is_ok_and(|url| url.host().is_some() && url.origin().ascii_serialization() == text)
}

/// Returns what is wrong with a log filter. `EnvFilter` takes a lone word that
/// is no level for a module's name and then logs nothing else.
fn level_fault(filter: &str) -> Option<String> {
    const RULE: &str = "must be off, error, warn, info, debug or trace, and then target=level \
                        as often as needed, like \"info,runcast_actors=debug\"";
    let is_level = |word: &str| {
        ["off", "error", "warn", "info", "debug", "trace"]
            .iter()
            .any(|level| level.eq_ignore_ascii_case(word))
    };
    let is_good = filter
        .split(',')
        .map(str::trim)
        .all(|part| part.contains('=') || is_level(part));
    (!is_good || EnvFilter::try_new(filter).is_err()).then(|| RULE.to_owned())
}
