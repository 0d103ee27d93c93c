//! [`Agent`]: prints to a container's log and publishes what it prints, as
//! `runcast exec` does: at once, or in order when Redis is there again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ::redis::aio::MultiplexedConnection;
use ::redis::{Client, RedisResult, Value};

use super::kube_api::{KubeApi, T0};

/// How long Redis has to answer.
const ANSWER_PATIENCE: Duration = Duration::from_millis(500);

/// An agent in a pod of its own run.
pub(crate) struct Agent {
    api: Arc<KubeApi>,
    run: String,
    pod: String,
    url: String,
    connection: Option<MultiplexedConnection>,
    /// Printed and not published: number, kind, payload.
    spool: VecDeque<(u64, &'static str, String)>,
    seq: u64,
    epoch: u64,
}

impl Agent {
    /// Starts an agent in a pod of `run`, which publishes to `url`.
    pub(crate) fn start(api: &Arc<KubeApi>, run: &str, url: &str) -> Self {
        let pod = format!("pod-{run}");
        api.add_running_pod(run, &pod, &["main"]);
        Self {
            api: Arc::clone(api),
            run: run.to_owned(),
            pod,
            url: url.to_owned(),
            connection: None,
            spool: VecDeque::new(),
            seq: 0,
            epoch: u64::try_from(nanos() / 1_000_000).expect("now"),
        }
    }

    /// Prints a line, and only that.
    pub(crate) fn print(&self, text: &str) {
        let after_t0 = u64::try_from(nanos()).expect("now") - T0;
        self.api.log(&self.pod, "main", after_t0, text);
    }

    /// Publishes a line durably, now or with a later one; only that.
    pub(crate) async fn publish(&mut self, text: &str) {
        self.spool_event("output", text).await;
    }

    /// Publishes a status as `publish` does.
    pub(crate) async fn status(&mut self, status: &str) {
        self.spool_event("status", status).await;
    }

    async fn spool_event(&mut self, kind: &'static str, text: &str) {
        self.seq += 1;
        self.spool.push_back((self.seq, kind, text.to_owned()));
        self.ship().await;
    }

    /// Prints a line and publishes it.
    pub(crate) async fn say(&mut self, text: &str) {
        self.print(text);
        self.publish(text).await;
    }

    /// Publishes what waits, as far as Redis takes it.
    pub(crate) async fn ship(&mut self) {
        // An old connection may only now turn out to be dead.
        let mut failures = 0;
        while !self.spool.is_empty() {
            if self.connection.is_none() {
                self.connection = self.connect().await.ok();
            }
            let Some(connection) = &mut self.connection else {
                return;
            };
            let Some((seq, kind, payload)) = self.spool.front() else {
                return;
            };
            let key = format!("run:{{{}}}", self.run);
            let mut call = ::redis::cmd("FCALL");
            call.arg("runcast_publish").arg(2);
            call.arg(format!("{key}:stream")).arg(format!("{key}:meta"));
            call.arg(&self.run).arg(*kind).arg(match *kind {
                "status" => "",
                _ => "stdout",
            });
            call.arg(payload).arg("PRODUCER").arg("agent");
            call.arg(self.epoch).arg(*seq);
            let answer: RedisResult<Value> = call.query_async(connection).await;
            match answer {
                Ok(_) => drop(self.spool.pop_front()),
                Err(_) => {
                    // Repeated with its number: no second event.
                    self.connection = None;
                    failures += 1;
                    if failures > 1 {
                        return;
                    }
                }
            }
        }
    }

    /// Whether all was published.
    pub(crate) fn has_shipped(&self) -> bool {
        self.spool.is_empty()
    }

    async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        let config = ::redis::AsyncConnectionConfig::new()
            .set_connection_timeout(Some(ANSWER_PATIENCE))
            .set_response_timeout(Some(ANSWER_PATIENCE));
        let client = Client::open(self.url.as_str())?;
        client
            .get_multiplexed_async_connection_with_config(&config)
            .await
    }
}

fn nanos() -> u128 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("after 1970").as_nanos()
}
