//! Starting the parts of a serving process, and the signals that stop it.

use std::future::Future;
use std::sync::Arc;

use anyhow::Context as _;
use runcast_actors::broker::{Broker, BrokerSettings};
use runcast_actors::order::Safeguards;
use runcast_actors::redis::RedisStore;
use runcast_actors::settings::Live;
use runcast_actors::spans::Spans;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use crate::auth::RemoteKeys;
use crate::demo;
use crate::http::{AllowedOrigins, Gate, HttpServer, HttpSettings};
use crate::logging::LogLevels;
use crate::open_files;
use crate::reload::{Parts, Reloader, live_settings, read_keys};
use crate::settings::{AuthMode, Inputs, Loaded, Settings};
use crate::telemetry::Telemetry;

/// What a process that serves was started with.
pub(crate) struct Start {
    /// Where its settings come from.
    pub(crate) inputs: Inputs,
    /// The settings.
    pub(crate) loaded: Loaded,
}

/// Serves until SIGTERM or SIGINT, then ends in order; a second signal ends it
/// at once. SIGHUP has it read its settings again. `runcast dev` prints what to
/// try and publishes a demo run.
///
/// # Errors
/// The broker cannot start, the address cannot be bound, the server ended by
/// itself, or the end was cut short by a second signal.
pub(crate) async fn serve(start: Start, log: LogLevels) -> anyhow::Result<()> {
    let Start { inputs, loaded } = start;
    let is_demo = inputs.dev;
    let mut settings = loaded.settings.clone();
    open_files::fit(&mut settings)?;
    let settings = &settings;
    // Before the port is bound: a signal from then on finds its handler.
    let mut signals = Signals::listen().context("cannot listen for signals")?;
    // The demo belongs to its terminal, and ends with it.
    let hang_up = (!is_demo).then(|| signal(SignalKind::hangup())).transpose();
    let hang_up = hang_up.context("cannot listen for signals")?;
    let telemetry = Telemetry::of(&settings.telemetry)?;
    let spans = telemetry.as_ref().map(Telemetry::spans);
    let broker = Broker::start(broker_settings(settings, spans.unwrap_or_default()));
    let http = HttpSettings {
        allowed_origins: AllowedOrigins::new(&settings.cors.allowed_origins),
        metrics_enabled: settings.metrics.enabled,
        metrics_bind: settings.metrics.bind,
        trusted_proxies: settings.server.trusted_proxies.clone(),
        proxy_header: settings.server.proxy_header,
        hosts: settings.server.hosts.clone(),
    };
    let gate = gate(settings)?;
    let server = HttpServer::bind(&settings.server, http, gate, broker.clone())?;
    let parts = Parts {
        broker: broker.clone(),
        http: server.controls(),
        log,
    };
    actix_rt::spawn(Reloader::new(inputs, loaded, parts)?.keep(hang_up));
    if is_demo {
        demo::print_welcome(server.addresses()).context("cannot write to stdout")?;
        actix_rt::spawn(demo::run(broker));
    }
    let (stop, stopped) = oneshot::channel();
    let telemetry = telemetry.map(|telemetry| telemetry.report(server.metrics()));
    let telemetry = telemetry.transpose()?;
    let serving = async {
        // The sender lives as long as we poll: an error cannot come first.
        let served = server.run(async { drop(stopped.await) }).await;
        if let Some(telemetry) = telemetry {
            telemetry.stop().await;
        }
        served
    };
    tokio::select! {
        result = serving => result,
        () = signals.twice(stop) => anyhow::bail!("stopped at once by a second signal"),
    }
}

/// Makes what asks for tokens, if anything does, and keeps its keys up to date.
fn gate(settings: &Settings) -> anyhow::Result<Option<Gate>> {
    let auth = &settings.auth;
    if auth.mode == AuthMode::None {
        return Ok(None);
    }
    let keys = read_keys(settings)?;
    let remote = match auth.jwks_url.is_empty() {
        true => None,
        false => Some(RemoteKeys::of(auth).context("cannot fetch auth.jwks_url")?),
    };
    if let Some(remote) = &remote {
        actix_rt::spawn(Arc::clone(remote).keep());
    }
    Ok(Some(Gate::new(auth, keys, remote)?))
}

/// Makes the store of whoever publishes without a broker.
pub(crate) fn redis_store(settings: &Settings) -> RedisStore {
    let settings = broker_settings(settings, Spans::default());
    RedisStore::new(Arc::new(settings), Arc::default())
}

fn broker_settings(settings: &Settings, spans: Spans) -> BrokerSettings {
    let Settings {
        redis,
        history,
        archive,
        hub,
        heartbeat,
        runs,
        kubectl,
        auto,
        auth,
        ..
    } = settings.clone();
    BrokerSettings {
        redis,
        history,
        archive,
        hub,
        heartbeat,
        runs,
        kubectl,
        auto,
        live: Live::new(live_settings(settings)),
        access: auth.access(),
        safeguards: Safeguards::of_environment(),
        spans,
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Tells `first` of the first signal and returns at the second.
    async fn twice(&mut self, first: oneshot::Sender<()>) {
        let name = self.next().await;
        tracing::info!(signal = name, "stopping");
        // Fails only if the server is gone already.
        let _ = first.send(());
        self.next().await;
    }

    fn next(&mut self) -> impl Future<Output = &'static str> {
        let Self {
            terminate,
            interrupt,
        } = self;
        async {
            tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            }
        }
    }
}
