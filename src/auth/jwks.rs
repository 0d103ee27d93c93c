//! [`RemoteKeys`]: a JSON Web Key Set behind a URL, kept up to date.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use prometheus::{IntCounter, IntGauge};
use reqwest::{Client, StatusCode, header};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout};
use url::Url;

use super::{KeyError, KeySet};
use crate::settings::AuthSettings;
use crate::web_client::{cause_of, web_client};

/// Least time between two fetches that tokens with an unknown key ask for:
/// anybody can make up such tokens.
const ROTATION_PAUSE: Duration = Duration::from_secs(5);

/// How long a token with an unknown key waits for newer keys.
const ROTATION_PATIENCE: Duration = Duration::from_secs(3);

/// Pause after a fetch that failed.
const RETRY_DELAY: Duration = Duration::from_secs(5);

/// How long one fetch may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest answer read.
const SET_BYTES_MAX: usize = 256 * 1024;

/// Why there are no new keys.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    /// No answer, or half of one.
    #[error("no answer: {0}")]
    Http(String),
    /// Another status than 200; redirects are not followed.
    #[error("answered {0}")]
    Status(StatusCode),
    /// Too long.
    #[error("the answer is longer than {SET_BYTES_MAX} bytes")]
    TooLong,
    /// No key set.
    #[error("the answer {0}")]
    Keys(#[from] KeyError),
}

/// Keys from a URL: fetched at start, every `auth.jwks_refresh`, and when a
/// token names a key that is not known. While it cannot be had, the last set
/// goes on counting.
#[derive(Debug)]
pub(crate) struct RemoteKeys {
    url: Url,
    client: Client,
    refresh: Duration,
    keys: RwLock<Arc<KeySet>>,
    /// Wakes the fetching task.
    wanted: Notify,
    /// When the last fetch ended; `None` before the first.
    fetched: watch::Sender<Option<Instant>>,
    /// Keys known now.
    pub(crate) count: IntGauge,
    /// Fetches that brought a set.
    pub(crate) fetches: IntCounter,
    /// Fetches that did not.
    pub(crate) failures: IntCounter,
}

impl RemoteKeys {
    /// Prepares to fetch `auth.jwks_url`; nothing is fetched yet.
    ///
    /// # Errors
    /// When the machine has no root certificates to check the server by.
    pub(crate) fn of(settings: &AuthSettings) -> anyhow::Result<Arc<Self>> {
        let url = Url::parse(settings.jwks_url.reveal())?;
        let client = web_client(FETCH_TIMEOUT)?;
        Ok(Arc::new(Self {
            url,
            client,
            refresh: settings.jwks_refresh,
            keys: RwLock::default(),
            wanted: Notify::new(),
            fetched: watch::Sender::new(None),
            count: IntGauge::new("runcast_auth_keys", "Keys of auth.jwks_url known now.")?,
            fetches: IntCounter::new(
                "runcast_auth_key_fetches_total",
                "Fetches of auth.jwks_url that brought a key set.",
            )?,
            failures: IntCounter::new(
                "runcast_auth_key_fetch_failures_total",
                "Fetches of auth.jwks_url that brought none.",
            )?,
        }))
    }

    /// Returns the keys known now; none before the first fetch.
    pub(crate) fn keys(&self) -> Arc<KeySet> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&keys)
    }

    /// Returns newer keys than `known`, if they are here already or can be had
    /// soon; else those.
    pub(super) async fn newer_than(&self, known: &Arc<KeySet>) -> Arc<KeySet> {
        let keys = self.keys();
        if !Arc::ptr_eq(&keys, known) {
            return keys;
        }
        let mut fetched = self.fetched.subscribe();
        let last = *fetched.borrow_and_update();
        if last.is_some_and(|last| last.elapsed() < ROTATION_PAUSE) {
            return keys;
        }
        self.wanted.notify_one();
        // Out of patience: then it is judged by what there is.
        let _ = timeout(ROTATION_PATIENCE, fetched.changed()).await;
        self.keys()
    }

    /// Keeps the keys up to date for as long as it is polled.
    pub(crate) async fn keep(self: Arc<Self>) {
        let mut is_told = false;
        loop {
            let fetched = self.fetch().await;
            let wait = match fetched {
                Ok(keys) => {
                    is_told = false;
                    self.fetches.inc();
                    self.take(keys);
                    self.refresh
                }
                Err(error) => {
                    self.failures.inc();
                    if !std::mem::replace(&mut is_told, true) {
                        tracing::warn!(%error, "keys of auth.jwks_url not fetched, those known go on counting");
                    }
                    RETRY_DELAY.min(self.refresh)
                }
            };
            let now = Instant::now();
            self.fetched.send_replace(Some(now));
            tokio::select! {
                () = sleep_until(now + wait) => {}
                () = self.wanted.notified() => sleep_until(now + ROTATION_PAUSE.min(wait)).await,
            }
        }
    }

    fn take(&self, keys: KeySet) {
        self.count.set(keys.len() as i64);
        let keys = Arc::new(keys);
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
    }

    /// Fetches the set once.
    ///
    /// # Errors
    /// [`FetchError`]; the URL, which may hold a password, is not in it.
    pub(crate) async fn fetch(&self) -> Result<KeySet, FetchError> {
        let http = |error: reqwest::Error| FetchError::Http(cause_of(&error.without_url()));
        let request = self.client.get(self.url.clone());
        let request = request.header(header::ACCEPT, "application/jwk-set+json, application/json");
        let mut response = request.send().await.map_err(http)?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status()));
        }
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(http)? {
            body.extend_from_slice(&piece);
            if body.len() > SET_BYTES_MAX {
                return Err(FetchError::TooLong);
            }
        }
        let text = std::str::from_utf8(&body).map_err(|_| KeyError::NoKeys)?;
        Ok(KeySet::from_jwks_text(text)?)
    }
}
