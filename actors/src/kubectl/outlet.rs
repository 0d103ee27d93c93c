//! [`Outlet`]: the one way from all follows of a run to its hub.

use std::sync::Arc;

use actix::Recipient;
use bytes::Bytes;
use serde_json::json;
use tokio::sync::{Mutex, watch};

use super::counters::KubectlCounters;
use super::update::{KubectlLine, KubectlUpdate};
use crate::protocol::{EventKind, KubectlPosition, Timestamp};

/// The hub is gone, or the actor was told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Closed;

/// A container as its lines name it.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// `pod/container`.
    pub(crate) name: Arc<str>,
    /// Its key in a [`KubectlPosition`].
    pub(crate) key: u64,
}

/// A line not yet given its place among those of other containers.
#[derive(Debug)]
pub(crate) struct NewLine {
    pub(crate) ns: u64,
    pub(crate) n: u32,
    pub(crate) kind: EventKind,
    pub(crate) payload: Bytes,
}

/// Gives lines their place among those of all containers of the run and hands
/// them to the hub, one batch at a time: whoever has lines waits here, and so
/// in the end kubectl at its pipe.
#[derive(Debug)]
pub(crate) struct Outlet {
    hub: Recipient<KubectlUpdate>,
    stop: watch::Receiver<bool>,
    counters: Arc<KubectlCounters>,
    /// Held while a batch is on its way, so that positions reach the hub in
    /// the order they were given.
    position: Mutex<KubectlPosition>,
}

impl Outlet {
    pub(crate) fn new(
        hub: Recipient<KubectlUpdate>,
        stop: watch::Receiver<bool>,
        counters: Arc<KubectlCounters>,
    ) -> Self {
        Self {
            hub,
            stop,
            counters,
            position: Mutex::default(),
        }
    }

    /// Whether there is nobody to tell any more.
    pub(crate) fn is_closed(&self) -> bool {
        *self.stop.borrow() || !self.hub.connected()
    }

    /// Returns the last position delivered of container `key`.
    pub(crate) async fn delivered(&self, key: u64) -> Option<(u64, u32)> {
        self.position.lock().await.get(key)
    }

    /// Delivers `lines` of one container and waits for the hub to take them.
    ///
    /// # Errors
    /// [`Closed`].
    pub(crate) async fn lines(&self, source: &Source, lines: Vec<NewLine>) -> Result<(), Closed> {
        if lines.is_empty() {
            return Ok(());
        }
        let mut position = self.position.lock().await;
        let lines: Vec<_> = lines
            .into_iter()
            .map(|line| {
                position.set(source.key, line.ns, line.n);
                KubectlLine {
                    kind: line.kind,
                    source: Arc::clone(&source.name),
                    ts: timestamp(line.ns),
                    payload: line.payload,
                    position: position.clone(),
                }
            })
            .collect();
        self.counters.add_lines(lines.len());
        self.send(KubectlUpdate::Lines(lines)).await
    }

    /// Tells that the line at `(ns, n)` was too large and passes it.
    ///
    /// # Errors
    /// [`Closed`].
    pub(crate) async fn too_large(
        &self,
        source: &Source,
        (ns, n): (u64, u32),
        bytes: Option<u64>,
    ) -> Result<(), Closed> {
        let mut position = self.position.lock().await;
        position.set(source.key, ns, n);
        self.send(KubectlUpdate::TooLarge { bytes }).await
    }

    /// Tells that a container was restarted, as a `log` event that stands
    /// after the last line of the instance before, and returns its position.
    ///
    /// # Errors
    /// [`Closed`].
    pub(crate) async fn restarted(
        &self,
        source: &Source,
        restart: &Restart,
    ) -> Result<(u64, u32), Closed> {
        let last = self.delivered(source.key).await;
        let (ns, n) = match last {
            Some((ns, n)) => (ns, n.saturating_add(1)),
            None => (restart.started_ns.unwrap_or(0), 0),
        };
        let ts = restart.started_ns.unwrap_or(ns).max(ns);
        let line = NewLine {
            ns,
            n,
            kind: EventKind::Log,
            payload: Bytes::from(restart.payload(&source.name, ts)),
        };
        self.counters.add_restart();
        self.lines(source, vec![line]).await?;
        Ok((ns, n))
    }

    /// Tells the hub anything else.
    ///
    /// # Errors
    /// [`Closed`].
    pub(crate) async fn tell(&self, update: KubectlUpdate) -> Result<(), Closed> {
        let _in_order = self.position.lock().await;
        self.send(update).await
    }

    /// Must be called with the position locked.
    async fn send(&self, update: KubectlUpdate) -> Result<(), Closed> {
        let mut stop = self.stop.clone();
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => Err(Closed),
            sent = self.hub.send(update) => sent.map_err(|_| Closed),
        }
    }
}

/// A restart of a container as clients are told.
#[derive(Debug, Clone)]
pub(crate) struct Restart {
    /// How often it was restarted in all.
    pub(crate) restarts: u32,
    /// When the present instance began.
    pub(crate) started_ns: Option<u64>,
    /// How the instance before ended: exit code and reason.
    pub(crate) last_exit: Option<(i64, Option<String>)>,
}

impl Restart {
    fn payload(&self, source: &str, ns: u64) -> String {
        let (exit_code, reason) = self.last_exit.clone().unzip();
        json!({
            "level": "info",
            "message": "container restarted",
            "container": source,
            "restarts": self.restarts,
            "exit_code": exit_code,
            "reason": reason.flatten(),
            "started_at": timestamp(ns).to_string(),
        })
        .to_string()
    }
}

pub(crate) fn timestamp(ns: u64) -> Timestamp {
    Timestamp::from_micros((ns / 1000) as i64)
}
