//! The engine `api`: every question, every log and every watch is a request of
//! this process to the Kubernetes API. The crate `kube` knows where that is,
//! how to be trusted by it and how requests are written; what is answered is
//! read here, in bounded memory.

mod client;
mod config;
mod failure;
mod log;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Limited};
use kube::core::Request;
use kube::core::params::{GetParams, ListParams, WatchParams};
use kube::core::subresource::LogParams;

use super::counters::WatchPlace;
use super::engine::{ANSWER_BYTES_MAX, Ask, LogAsk, LogName, LogStream};
use super::failure::Failure;
use crate::settings::KubectlSettings;
use client::Client;

pub(crate) use log::ApiLog;
pub(crate) use watch::Watch;

/// After how long the API ends a watch, at least; it is varied, so that those
/// of many runs do not begin anew together. A watch that is dead and does not
/// show it is found out by that.
const WATCH_LIFE: Duration = Duration::from_secs(240);

/// The Kubernetes API. Clones share their connections.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    settings: Arc<KubectlSettings>,
    client: Client,
}

impl Api {
    /// Connects to nothing yet.
    pub(crate) fn new(settings: &Arc<KubectlSettings>) -> Option<Self> {
        Some(Self {
            settings: Arc::clone(settings),
            client: Client::new(settings),
        })
    }

    /// Asks once.
    ///
    /// # Errors
    /// As the API says, or how it cannot be reached.
    pub(crate) async fn ask(&self, ask: &Ask<'_>) -> Result<Vec<u8>, Failure> {
        let get = GetParams::default();
        let request = match ask {
            Ask::Pods { selector } => self.pods().list(&ListParams::default().labels(selector)),
            Ask::Pod { name } => self.pods().get(name, &get),
            Ask::Job { name } => self.resource("apis/batch/v1", "jobs").get(name, &get),
            Ask::LastLine(log) => self.pods().logs(&log.pod, &log_params(log, Some(1))),
        };
        let answer = self
            .client
            .send(request.map_err(failure::of_request)?)
            .await?;
        match Limited::new(answer, ANSWER_BYTES_MAX).collect().await {
            Ok(whole) => Ok(whole.to_bytes().into()),
            Err(error) => Err(failure::of_answer(&*error)),
        }
    }

    /// Begins to read a log.
    pub(crate) fn open_log(&self, ask: &LogAsk<'_>) -> LogStream {
        let params = LogParams {
            follow: !ask.previous,
            previous: ask.previous,
            since_time: ask.since,
            ..log_params(ask.name, None)
        };
        let request = self.pods().logs(&ask.name.pod, &params);
        let client = self.client.clone();
        let opening = async move { client.send(request.map_err(failure::of_request)?).await };
        LogStream::Api(ApiLog::new(opening))
    }

    /// Watches the pods of `selector` from `version` on.
    ///
    /// # Errors
    /// As [`Api::ask`].
    pub(crate) async fn watch(
        &self,
        selector: &str,
        version: &str,
        place: WatchPlace,
    ) -> Result<Watch, Failure> {
        let life = WATCH_LIFE + Duration::from_secs(fastrand::u64(0..50));
        let params = WatchParams {
            label_selector: Some(selector.to_owned()),
            timeout: u32::try_from(life.as_secs()).ok(),
            ..WatchParams::default()
        };
        let request = self.pods().watch(&params, version);
        let answer = self
            .client
            .send(request.map_err(failure::of_request)?)
            .await?;
        Ok(Watch::new(answer, life + self.settings.timeout, place))
    }

    fn pods(&self) -> Request {
        self.resource("api/v1", "pods")
    }

    fn resource(&self, group: &str, name: &str) -> Request {
        let namespace = &self.settings.namespace;
        Request::new(format!("/{group}/namespaces/{namespace}/{name}"))
    }
}

fn log_params(log: &LogName, tail_lines: Option<i64>) -> LogParams {
    LogParams {
        container: Some(log.container.clone()),
        tail_lines,
        timestamps: true,
        ..LogParams::default()
    }
}
