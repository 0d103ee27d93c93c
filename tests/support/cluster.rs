//! [`RedisCluster`]: three masters with a replica each.

use super::authority::Authority;
use super::port::free_port;
use super::wait::{SOON, eventually};
use super::{Broker, Redis, broker::BrokerSettings};

const MASTERS: usize = 3;

/// The first slot of each master, and the end.
const BOUNDS: [u32; MASTERS + 1] = [0, 5461, 10923, 16384];

/// A Redis Cluster on loopback. Node `n + 3` is the replica of node `n`.
pub(crate) struct RedisCluster {
    pub(crate) nodes: Vec<Redis>,
    scheme: &'static str,
}

impl RedisCluster {
    /// Starts it and waits until every node finds it whole.
    pub(crate) async fn start() -> Self {
        Self::start_with_tls(None).await
    }

    /// The same, of Valkeys.
    pub(crate) async fn start_valkeys() -> Self {
        Self::start_of(None, true).await
    }

    /// The same, its nodes speaking TLS with each other and with brokers.
    pub(crate) async fn start_with_tls(authority: Option<&Authority>) -> Self {
        Self::start_of(authority, false).await
    }

    async fn start_of(authority: Option<&Authority>, is_valkey: bool) -> Self {
        let mut nodes = Vec::new();
        let mut bus_ports = Vec::new();
        for _ in 0..2 * MASTERS {
            // Left to itself it is the port plus 10,000, which may be anyone's.
            let bus_port = free_port().to_string();
            let tls = ["--tls-cluster", "yes", "--tls-replication", "yes"];
            let tls = if authority.is_some() { &tls[..] } else { &[] };
            let arguments = [
                "--cluster-enabled",
                "yes",
                "--cluster-node-timeout",
                "1000",
                "--repl-diskless-sync-delay",
                "0",
                "--cluster-port",
                &bus_port,
            ];
            let arguments = [&arguments, tls].concat();
            nodes.push(match is_valkey {
                true => Redis::start_valkey(&arguments).await,
                false => Redis::start_with_tls(&arguments, authority).await,
            });
            bus_ports.push(bus_port);
        }
        let first_port = nodes[0].best_port().to_string();
        for (index, node) in nodes.iter().enumerate() {
            let mut publisher = node.publisher().await;
            let epoch = (index + 1).to_string();
            let _: () = publisher
                .command(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch])
                .await;
            if index < MASTERS {
                let (from, to) = (
                    BOUNDS[index].to_string(),
                    (BOUNDS[index + 1] - 1).to_string(),
                );
                let _: () = publisher
                    .command(&["CLUSTER", "ADDSLOTSRANGE", &from, &to])
                    .await;
            }
            if index > 0 {
                let _: () = publisher
                    .command(&["CLUSTER", "MEET", "127.0.0.1", &first_port, &bus_ports[0]])
                    .await;
            }
        }
        for node in &nodes {
            node.wait_info("cluster", &format!("cluster_known_nodes:{}", nodes.len()))
                .await;
        }
        for index in MASTERS..nodes.len() {
            let mut master = nodes[index - MASTERS].publisher().await;
            let id: String = master.command(&["CLUSTER", "MYID"]).await;
            let mut replica = nodes[index].publisher().await;
            let _: () = replica.command(&["CLUSTER", "REPLICATE", &id]).await;
        }
        let scheme = if authority.is_some() {
            "rediss"
        } else {
            "redis"
        };
        let cluster = Self { nodes, scheme };
        for node in &cluster.nodes[MASTERS..] {
            node.wait_info("replication", "master_link_status:up").await;
        }
        for node in &cluster.nodes {
            eventually("a node knows all masters and replicas", SOON, async || {
                let mut publisher = node.publisher().await;
                let nodes: String = publisher.command(&["CLUSTER", "NODES"]).await;
                let info: String = publisher.command(&["CLUSTER", "INFO"]).await;
                nodes.matches(" slave ").count() + nodes.matches(",slave ").count() == MASTERS
                    && info.contains("cluster_state:ok")
            })
            .await;
        }
        cluster
    }

    /// Returns the index of the master that serves a run at the start.
    pub(crate) async fn master_of(&self, run_id: &str) -> usize {
        let mut publisher = self.nodes[0].publisher().await;
        let key = format!("run:{{{run_id}}}:stream");
        let slot: u32 = publisher.command(&["CLUSTER", "KEYSLOT", &key]).await;
        let above = |bound: &&u32| slot >= **bound;
        BOUNDS.iter().filter(above).count() - 1
    }

    /// Moves a run's slot from the master that serves it to another, step by
    /// step, as `redis-cli --cluster reshard` does; `halfway` runs when its keys
    /// have moved and the slot has not.
    pub(crate) async fn move_run(&self, run_id: &str, to: usize, halfway: impl AsyncFnOnce()) {
        let from = self.master_of(run_id).await;
        let mut nodes = Vec::new();
        for node in &self.nodes[..MASTERS] {
            nodes.push(node.publisher().await);
        }
        let key = format!("run:{{{run_id}}}:stream");
        let slot: u32 = nodes[0].command(&["CLUSTER", "KEYSLOT", &key]).await;
        let slot = slot.to_string();
        let source: String = nodes[from].command(&["CLUSTER", "MYID"]).await;
        let target: String = nodes[to].command(&["CLUSTER", "MYID"]).await;
        let set = ["CLUSTER", "SETSLOT", &slot];
        let importing = [&set[..], &["IMPORTING", &source]].concat();
        let _: () = nodes[to].command(&importing).await;
        let migrating = [&set[..], &["MIGRATING", &target]].concat();
        let _: () = nodes[from].command(&migrating).await;
        let port = self.nodes[to].port().to_string();
        let in_slot = ["CLUSTER", "GETKEYSINSLOT", &slot, "100"];
        loop {
            let keys: Vec<String> = nodes[from].command(&in_slot).await;
            if keys.is_empty() {
                break;
            }
            let mut migrate = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            migrate.extend(keys.iter().map(String::as_str));
            let _: String = nodes[from].command(&migrate).await;
        }
        halfway().await;
        let done = [&set[..], &["NODE", &target]].concat();
        for index in [to, from] {
            let _: () = nodes[index].command(&done).await;
        }
    }

    /// Returns how many subscribe to a run at its node.
    pub(crate) async fn shard_subscribers(&self, node: usize, run_id: &str) -> usize {
        let channel = format!("run:{{{run_id}}}:events");
        let mut node = self.nodes[node].publisher().await;
        let counts: (String, usize) = node.command(&["PUBSUB", "SHARDNUMSUB", &channel]).await;
        counts.1
    }

    /// Returns a run id for each of the masters.
    pub(crate) async fn run_of_each_master(&self) -> Vec<String> {
        let mut runs = vec![None; MASTERS];
        for n in 0.. {
            let run_id = format!("run-{n}");
            let master = self.master_of(&run_id).await;
            runs[master].get_or_insert(run_id);
            if runs.iter().all(Option::is_some) {
                break;
            }
        }
        runs.into_iter().flatten().collect()
    }

    pub(crate) fn url(&self) -> String {
        let seeds = self.nodes[..MASTERS].iter();
        let hosts: Vec<String> = seeds
            .map(|node| format!("127.0.0.1:{}", node.best_port()))
            .collect();
        format!("{}+cluster://{}", self.scheme, hosts.join(","))
    }

    /// Settings of a broker on it, without kubectl.
    pub(crate) fn broker(&self) -> BrokerSettings {
        Broker::redis(&self.nodes[0]).set("redis.url", self.url())
    }
}
