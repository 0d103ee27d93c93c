//! Starting the parts of a serving process, and the signals that stop it.

use std::future::Future;
use std::sync::Arc;

use anyhow::Context as _;
use runcast_actors::broker::{Broker, BrokerSettings};
use runcast_actors::order::Safeguards;
use runcast_actors::redis::RedisStore;
use runcast_actors::spans::Spans;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use crate::auth::RemoteKeys;
use crate::demo;
use crate::http::{Gate, HttpServer, HttpSettings};
use crate::open_files;
use crate::settings::{AuthMode, Settings};
use crate::telemetry::Telemetry;

/// Serves until SIGTERM or SIGINT, then ends in order; a second signal ends it
/// at once. With `demo`, prints what to try and publishes a demo run.
///
/// # Errors
/// The broker cannot start, the address cannot be bound, the server ended by
/// itself, or the end was cut short by a second signal.
pub(crate) async fn serve(settings: &Settings, demo: bool) -> anyhow::Result<()> {
    let mut settings = settings.clone();
    open_files::fit(&mut settings)?;
    let settings = &settings;
    // Before the port is bound: a signal from then on finds its handler.
    let mut signals = Signals::listen().context("cannot listen for signals")?;
    let telemetry = Telemetry::of(&settings.telemetry)?;
    let spans = telemetry.as_ref().map(Telemetry::spans);
    let broker = Broker::start(broker_settings(settings, spans.unwrap_or_default()));
    let http = HttpSettings {
        allowed_origins: settings.cors.allowed_origins.clone(),
        metrics_enabled: settings.metrics.enabled,
        metrics_bind: settings.metrics.bind,
        trusted_proxies: settings.server.trusted_proxies.clone(),
        proxy_header: settings.server.proxy_header,
        hosts: settings.server.hosts.clone(),
    };
    let gate = gate(settings)?;
    let server = HttpServer::bind(&settings.server, http, gate, broker.clone())?;
    if demo {
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
    let keys = auth
        .keys()
        .map_err(|(key, reason)| anyhow::anyhow!("{key}: {reason}"))?;
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
        streaming,
        redis,
        history,
        archive,
        hub,
        heartbeat,
        retry,
        runs,
        kubectl,
        limits,
        auth,
        ..
    } = settings.clone();
    BrokerSettings {
        streaming,
        redis,
        history,
        archive,
        hub,
        heartbeat,
        retry,
        runs,
        kubectl,
        limits,
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
