//! [`Client`]: requests to the API server, with credentials that are renewed.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::{Body, ConfigExt as _};
use tower::util::{BoxCloneSyncService, ServiceExt as _};
use tower::{BoxError, ServiceBuilder};

use super::{config, failure};
use crate::kubectl::failure::{Failure, FailureReason};
use crate::settings::KubectlSettings;

/// Most bytes of an answer that a connection holds for us: what a follow costs
/// at most while its lines are not taken.
const CONNECTION_BYTES_MAX: usize = 64 * 1024;

/// A connection that says nothing for so long is probed by TCP, and given up
/// after as many probes as often as this: a follow may be silent for days.
const KEEPALIVE: Duration = Duration::from_secs(15);
const KEEPALIVE_PROBES: u32 = 3;

/// How long a connection that nobody uses stays open, and how many do.
const IDLE: Duration = Duration::from_secs(30);
const IDLE_MAX: usize = 8;

type Service = BoxCloneSyncService<Request<Body>, Response<Incoming>, BoxError>;

/// Sends requests. Clones share their connections.
///
/// `kube` reads the file of a token anew each minute. A refusal of the
/// credentials (401), or no answer at all, makes the next request read anew where
/// the cluster is and who we are: the kubeconfig, its certificates, the token.
#[derive(Clone)]
pub(super) struct Client {
    settings: Arc<KubectlSettings>,
    service: Arc<Mutex<Option<Service>>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Client {
    pub(super) fn new(settings: &Arc<KubectlSettings>) -> Self {
        Self {
            settings: Arc::clone(settings),
            service: Arc::default(),
        }
    }

    /// Sends `request`, and returns the body of its answer as it comes.
    ///
    /// # Errors
    /// No answer, or one that is no success.
    pub(super) async fn send(&self, request: Request<Vec<u8>>) -> Result<Incoming, Failure> {
        let service = self.service().await?;
        let answer = service.oneshot(request.map(Body::from)).await;
        let answer = answer.map_err(|error| {
            self.keep(None);
            failure::of_sending(&*error)
        })?;
        if answer.status().is_success() {
            return Ok(answer.into_body());
        }
        let failure = failure::of_status(answer).await;
        if failure.reason == FailureReason::Unauthorized {
            self.keep(None);
        }
        Err(failure)
    }

    async fn service(&self) -> Result<Service, Failure> {
        let made = self.lock().clone();
        if let Some(service) = made {
            return Ok(service);
        }
        let config = config::load(&self.settings).await?;
        let service = connect(&config).map_err(|error| failure::of_config(&error))?;
        self.keep(Some(service.clone()));
        Ok(service)
    }

    fn keep(&self, service: Option<Service>) {
        *self.lock() = service;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Service>> {
        self.service.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts together what `kube` has for a connection. Its own client tries again
/// by itself, logs each failure and bounds neither buffers nor silence.
fn connect(config: &kube::Config) -> Result<Service, kube::Error> {
    // TLS comes from the process's one provider.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(KEEPALIVE));
    tcp.set_keepalive_interval(Some(KEEPALIVE));
    tcp.set_keepalive_retries(Some(KEEPALIVE_PROBES));
    let https = config.rustls_https_connector_with_connector(tcp)?;
    let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(IDLE_MAX)
        .http1_max_buf_size(CONNECTION_BYTES_MAX)
        .build(https);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(http);
    Ok(BoxCloneSyncService::new(service))
}
