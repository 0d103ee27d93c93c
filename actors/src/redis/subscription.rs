//! [`Subscription`]: where the one subscription is made, and whether that is
//! still the right place.

use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use redis::{RedisResult, Value};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::cluster::Slots;
use super::connection::at;
use super::node::{Tapped, Target, connect_tapped};
use super::push_queue::PushQueue;
use super::sentinel::{is_word, master};
use crate::settings::{RedisPlace, RedisSettings, SentinelPlace};

/// Goes through the places where a subscription may be made.
pub(super) struct Finder {
    place: RedisPlace,
    /// The nodes of a Cluster, as one of them told.
    nodes: Vec<String>,
    /// Which of them is next; wraps.
    next: usize,
}

/// A place to try.
pub(super) struct Candidate {
    target: Target,
    kind: Kind,
}

enum Kind {
    Standalone,
    Sentinel(SentinelPlace),
    Cluster {
        /// Whether a node that thinks its Cluster is down will do.
        may_be_down: bool,
    },
}

impl Finder {
    pub(super) fn new(place: RedisPlace) -> Self {
        let nodes = match &place {
            RedisPlace::Cluster(seeds) => {
                seeds.iter().map(|seed| seed.addr().to_string()).collect()
            }
            _ => Vec::new(),
        };
        Self {
            place,
            nodes,
            // So that brokers spread over the nodes.
            next: fastrand::usize(..usize::MAX / 2),
        }
    }

    /// Returns the next place, after so many failures in a row.
    pub(super) fn next(&mut self, failures: usize) -> Candidate {
        match &self.place {
            RedisPlace::Standalone(info) => Candidate {
                target: Target::Fixed(info.clone()),
                kind: Kind::Standalone,
            },
            RedisPlace::Sentinel(place) => Candidate {
                target: Target::MasterOf(place.clone()),
                kind: Kind::Sentinel(place.clone()),
            },
            RedisPlace::Cluster(seeds) => {
                self.next += 1;
                let address = &self.nodes[self.next % self.nodes.len()];
                Candidate {
                    target: Target::Fixed(at(&seeds[0], address)),
                    kind: Kind::Cluster {
                        may_be_down: failures >= self.nodes.len(),
                    },
                }
            }
        }
    }

    /// Notes which nodes there are; those of the settings are kept.
    pub(super) fn learn(&mut self, nodes: &[String]) {
        if let RedisPlace::Cluster(seeds) = &self.place {
            let seeds = seeds.iter().map(|seed| seed.addr().to_string());
            self.nodes = nodes.iter().cloned().chain(seeds).collect();
            self.nodes.sort_unstable();
            self.nodes.dedup();
        }
    }
}

/// A subscription that Redis has confirmed.
pub(super) struct Subscription {
    pub(super) connection: MultiplexedConnection,
    /// Drives the connection; dropped, it ends.
    pub(super) driver: AbortOnDropHandle<()>,
    /// The server's address, without credentials.
    pub(super) address: String,
    /// The nodes of its Cluster.
    pub(super) nodes: Vec<String>,
    pub(super) watch: Watch,
}

/// What may show that a subscription's server, though alive, is the wrong one.
#[derive(Clone)]
pub(super) enum Watch {
    /// Nothing.
    None,
    /// It is the master that Sentinels name, and says so itself.
    Master {
        place: SentinelPlace,
        address: String,
    },
    /// Its Cluster is up, as it sees it: cut off from the others it would say
    /// the contrary.
    ClusterUp,
}

impl Candidate {
    /// Connects, and subscribes to all runs.
    ///
    /// # Errors
    /// A sentence: what the client says, no answer within
    /// `redis.connect_timeout`, or a node that is cut off from its Cluster.
    pub(super) async fn subscribe(
        self,
        settings: &RedisSettings,
        queue: Arc<PushQueue>,
    ) -> Result<Subscription, String> {
        let Tapped {
            info,
            mut connection,
            driver,
        } = connect_tapped(&self.target, settings, queue)
            .await
            .map_err(|error| error.to_string())?;
        let address = info.addr().to_string();
        let subscribing = async {
            let (watch, nodes) = self.kind.watch(&mut connection, &address).await?;
            // Answered by Redis' own confirmation.
            let pattern = format!("{}*", settings.channel_prefix);
            let confirmed = connection.psubscribe(pattern).await;
            confirmed.map_err(|error| error.to_string())?;
            Ok((watch, nodes))
        };
        let (watch, nodes) = timeout(settings.connect_timeout, subscribing)
            .await
            .unwrap_or_else(|_| Err("no answer in time".to_owned()))?;
        Ok(Subscription {
            connection,
            driver,
            address,
            nodes,
            watch,
        })
    }
}

impl Kind {
    async fn watch(
        self,
        connection: &mut MultiplexedConnection,
        address: &str,
    ) -> Result<(Watch, Vec<String>), String> {
        match self {
            Self::Standalone => Ok((Watch::None, Vec::new())),
            Self::Sentinel(place) => {
                let address = address.to_owned();
                Ok((Watch::Master { place, address }, Vec::new()))
            }
            Self::Cluster { may_be_down } => {
                let is_up = cluster_is_up(connection).await;
                let is_up = is_up.map_err(|error| error.to_string())?;
                if !is_up && !may_be_down {
                    return Err(CLUSTER_DOWN.to_owned());
                }
                let watch = if is_up { Watch::ClusterUp } else { Watch::None };
                let mut command = redis::cmd("CLUSTER");
                command.arg("SLOTS");
                let slots: RedisResult<Value> = command.query_async(connection).await;
                let slots = slots.and_then(|answer| Slots::read(&answer, address));
                let nodes = slots.unwrap_or_default();
                let nodes = nodes.nodes().into_iter().map(str::to_owned).collect();
                Ok((watch, nodes))
            }
        }
    }
}

const CLUSTER_DOWN: &str = "the node says that its cluster is down";

impl Watch {
    /// Returns why the server is the wrong one by now. No answer is no reason: a
    /// dead link shows otherwise.
    pub(super) async fn objection(
        &self,
        mut connection: MultiplexedConnection,
        settings: &RedisSettings,
    ) -> Option<String> {
        match self {
            Self::None => None,
            Self::Master { place, address } => {
                let role: RedisResult<Vec<Value>> =
                    redis::cmd("ROLE").query_async(&mut connection).await;
                if role.is_ok_and(|role| !is_word(role.first(), "master")) {
                    return Some("the server is no master any more".to_owned());
                }
                let now = master(place, settings).await.ok()?.addr().to_string();
                (now != *address).then(|| format!("Sentinel names another master, {now}"))
            }
            Self::ClusterUp => match cluster_is_up(&mut connection).await {
                Ok(false) => Some(CLUSTER_DOWN.to_owned()),
                _ => None,
            },
        }
    }
}

async fn cluster_is_up(connection: &mut MultiplexedConnection) -> RedisResult<bool> {
    let mut command = redis::cmd("CLUSTER");
    command.arg("INFO");
    let info: String = command.query_async(connection).await?;
    Ok(info.lines().any(|line| line == "cluster_state:ok"))
}
