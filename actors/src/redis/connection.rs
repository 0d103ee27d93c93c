//! [`Connection`]: how a store asks Redis, of whichever kind it is.
//!
//! What redis-rs has for Clusters and for lost connections repeats a command
//! whose fate is unknown. An event must not be appended twice, so a command is
//! repeated here only if Redis refused it, or if its caller says that a second
//! time does no harm.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::{join_all, select_ok};
use redis::{
    Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, FromRedisValue, Pipeline, RedisError,
    RedisResult, ServerErrorKind, Value,
};
use tokio::time::{Instant, sleep, timeout_at};

use super::cluster::{Slots, slot_of, slot_of_tag};
use super::node::{Live, Node, Target, backoff, no_answer};
use crate::protocol::RunId;
use crate::settings::{RedisPlace, RedisSettings, with_tls};

/// Longest pause before a refused command is sent again.
const REPEAT_MAX_DELAY: std::time::Duration = std::time::Duration::from_millis(200);

/// How many nodes are asked at once which slots there are.
const NODES_ASKED: usize = 4;

/// Whether a command may be sent again when nobody knows whether Redis ran it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// A second time does no harm: reads, and events of numbered producers.
    Allowed,
    /// Only what Redis refused is sent again.
    Refused,
}

/// Connections to Redis: made when they are first used, made anew when they
/// break. Clones share them; calls made together travel together.
#[derive(Clone)]
pub(super) struct Connection(Arc<Shared>);

struct Shared {
    settings: Arc<RedisSettings>,
    servers: Servers,
}

enum Servers {
    /// One server or one master.
    One(Arc<Node>),
    Cluster(Cluster),
}

struct Cluster {
    seeds: Vec<ConnectionInfo>,
    nodes: Mutex<HashMap<String, Arc<Node>>>,
    slots: Mutex<Arc<Slots>>,
    /// Held while slots are read, so that only one caller does.
    reading: tokio::sync::Mutex<()>,
}

/// A command on the keys of a slot.
struct Call {
    slot: u16,
    command: Cmd,
}

/// What became of commands sent together.
enum Outcome {
    /// They were not sent.
    Unsent(RedisError),
    /// They were sent, and nobody knows more.
    Unknown(RedisError),
    Answers(Vec<RedisResult<Value>>),
}

/// A server that takes writes.
pub(super) struct Master {
    node: Arc<Node>,
    deadline: Instant,
}

impl Master {
    /// Runs one command.
    ///
    /// # Errors
    /// Redis' own, that of the connection, or no answer before the deadline.
    pub(super) async fn query<T: FromRedisValue>(&self, command: Cmd) -> RedisResult<T> {
        let mut pipeline = Pipeline::with_capacity(1);
        pipeline.add_command(command);
        let answer = match send(&self.node, pipeline, self.deadline).await {
            Outcome::Unsent(error) | Outcome::Unknown(error) => Err(error),
            Outcome::Answers(answers) => answers.into_iter().next().unwrap_or(Ok(Value::Nil)),
        };
        Ok(redis::from_redis_value(answer?)?)
    }
}

impl Connection {
    /// Makes a connection that connects when it is first used.
    pub(super) fn new(settings: &RedisSettings) -> Self {
        let settings = Arc::new(settings.clone());
        let node = |target| Servers::One(Arc::new(Node::new(target, Arc::clone(&settings))));
        let servers = match settings.url.place() {
            RedisPlace::Standalone(info) => node(Target::Fixed(info)),
            RedisPlace::Sentinel(place) => node(Target::MasterOf(place)),
            RedisPlace::Cluster(seeds) => Servers::Cluster(Cluster {
                seeds,
                nodes: Mutex::default(),
                slots: Mutex::default(),
                reading: tokio::sync::Mutex::default(),
            }),
        };
        Self(Arc::new(Shared { settings, servers }))
    }

    /// Has the one server looked for anew before the next call. A Cluster tells
    /// by itself who serves what.
    pub(super) fn reconnect(&self) {
        if let Servers::One(node) = &self.0.servers {
            node.discard();
        }
    }

    /// When a call that begins now must have its answer
    /// (`redis.command_timeout`).
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.0.settings.command_timeout
    }

    /// Runs one command on keys of a run.
    ///
    /// # Errors
    /// Redis' own, that of the connection, or no answer before `deadline`.
    pub(super) async fn query(
        &self,
        run_id: &RunId,
        command: Cmd,
        repeat: Repeat,
        deadline: Instant,
    ) -> RedisResult<Value> {
        let answers = self.pipeline(run_id, vec![command], repeat, deadline).await;
        answers.into_iter().next().unwrap_or(Ok(Value::Nil))
    }

    /// Runs one command on keys with a hash tag, errors as with
    /// [`query`](Self::query).
    pub(super) async fn query_at(
        &self,
        tag: &str,
        command: Cmd,
        repeat: Repeat,
        deadline: Instant,
    ) -> RedisResult<Value> {
        let slot = slot_of_tag(tag);
        let answers = self.run(&[Call { slot, command }], repeat, deadline).await;
        answers.into_iter().next().unwrap_or(Ok(Value::Nil))
    }

    /// Runs commands on keys of one run, together and in order; one answer for
    /// each, errors as with [`query`](Self::query).
    pub(super) async fn pipeline(
        &self,
        run_id: &RunId,
        commands: Vec<Cmd>,
        repeat: Repeat,
        deadline: Instant,
    ) -> Vec<RedisResult<Value>> {
        let slot = slot_of(run_id);
        let calls = commands.into_iter().map(|command| Call { slot, command });
        self.run(&calls.collect::<Vec<_>>(), repeat, deadline).await
    }

    /// Reads from many runs: one answer for each, errors as with
    /// [`query`](Self::query).
    pub(super) async fn read_each<'a>(
        &self,
        commands: impl IntoIterator<Item = (&'a RunId, Cmd)>,
        deadline: Instant,
    ) -> Vec<RedisResult<Value>> {
        let calls = commands.into_iter().map(|(run_id, command)| Call {
            slot: slot_of(run_id),
            command,
        });
        let calls: Vec<Call> = calls.collect();
        self.run(&calls, Repeat::Allowed, deadline).await
    }

    /// Returns every server that takes writes; one, unless it is a Cluster.
    ///
    /// # Errors
    /// When no node of a Cluster tells before `deadline`.
    pub(super) async fn masters(&self, deadline: Instant) -> RedisResult<Vec<Master>> {
        let nodes = match &self.0.servers {
            Servers::One(node) => vec![Arc::clone(node)],
            Servers::Cluster(cluster) => {
                let slots = self.slots_now(cluster, deadline).await?;
                let masters = slots.masters().into_iter();
                masters.map(|address| self.node(cluster, address)).collect()
            }
        };
        let master = |node| Master { node, deadline };
        Ok(nodes.into_iter().map(master).collect())
    }

    /// Returns which node of a Cluster serves what, just read; nothing is known
    /// of a single server.
    ///
    /// # Errors
    /// When no node tells before `deadline`.
    pub(super) async fn slots(&self, deadline: Instant) -> RedisResult<Arc<Slots>> {
        match &self.0.servers {
            Servers::One(_) => Ok(Arc::default()),
            Servers::Cluster(cluster) => self.slots_now(cluster, deadline).await,
        }
    }

    async fn slots_now(&self, cluster: &Cluster, deadline: Instant) -> RedisResult<Arc<Slots>> {
        let known = cluster.slots();
        let reading = self.read_slots(cluster, &known, None);
        timeout_at(deadline, reading)
            .await
            .unwrap_or_else(|_| Err(no_answer()))?;
        Ok(cluster.slots())
    }

    // ---- the way of a call ---------------------------------------------------

    async fn run(
        &self,
        calls: &[Call],
        repeat: Repeat,
        deadline: Instant,
    ) -> Vec<RedisResult<Value>> {
        let mut round = Round {
            answers: calls.iter().map(|_| None).collect(),
            pending: (0..calls.len()).collect(),
            asked: HashMap::new(),
            moved_to: None,
            last_error: no_answer(),
        };
        let mut attempts = 0;
        loop {
            let slots = self.0.servers.slots();
            self.send_round(calls, &slots, repeat, deadline, &mut round)
                .await;
            let delay = match attempts {
                0 if round.moved_to.is_some() || !round.asked.is_empty() => Default::default(),
                _ => backoff(attempts, REPEAT_MAX_DELAY),
            };
            attempts += 1;
            if round.pending.is_empty() || Instant::now() + delay >= deadline {
                return round.finish();
            }
            sleep(delay).await;
            if let Servers::Cluster(cluster) = &self.0.servers {
                let reading = self.read_slots(cluster, &slots, round.moved_to.take());
                // Not read: the next round finds no better place, and waits.
                let _ = timeout_at(deadline, reading).await;
            }
        }
    }

    /// Sends what is pending, a pipeline to each node, and sorts the outcomes.
    async fn send_round(
        &self,
        calls: &[Call],
        slots: &Slots,
        repeat: Repeat,
        deadline: Instant,
        round: &mut Round,
    ) {
        let groups = self.groups(calls, slots, round);
        let sending = groups.into_iter().map(|group| async move {
            let mut pipeline = Pipeline::with_capacity(group.indices.len());
            for &index in &group.indices {
                if group.is_asking {
                    pipeline.cmd("ASKING").ignore();
                }
                pipeline.add_command(calls[index].command.clone());
            }
            let outcome = send(&group.node, pipeline, deadline).await;
            (group.indices, outcome)
        });
        for (indices, outcome) in join_all(sending).await {
            round.sort(indices, outcome, repeat);
        }
        round.pending.sort_unstable();
    }

    /// Puts what is pending to the nodes that serve it. What no node is known
    /// for stays pending.
    fn groups(&self, calls: &[Call], slots: &Slots, round: &mut Round) -> Vec<Group> {
        let pending = std::mem::take(&mut round.pending);
        let cluster = match &self.0.servers {
            Servers::One(node) => {
                return vec![Group {
                    node: Arc::clone(node),
                    is_asking: false,
                    indices: pending,
                }];
            }
            Servers::Cluster(cluster) => cluster,
        };
        let asked = std::mem::take(&mut round.asked);
        let mut groups: HashMap<(&str, bool), Vec<usize>> = HashMap::new();
        for index in pending {
            let asked = asked.get(&index).map(String::as_str);
            match asked.or_else(|| slots.master_of(calls[index].slot)) {
                Some(address) => groups
                    .entry((address, asked.is_some()))
                    .or_default()
                    .push(index),
                None => round.pending.push(index),
            }
        }
        let group = |((address, is_asking), indices)| Group {
            node: self.node(cluster, address),
            is_asking,
            indices,
        };
        groups.into_iter().map(group).collect()
    }

    // ---- nodes of a cluster --------------------------------------------------

    fn node(&self, cluster: &Cluster, address: &str) -> Arc<Node> {
        let mut nodes = lock(&cluster.nodes);
        if let Some(node) = nodes.get(address) {
            return Arc::clone(node);
        }
        let target = Target::Fixed(at(&cluster.seeds[0], address));
        let node = Arc::new(Node::new(target, Arc::clone(&self.0.settings)));
        nodes.insert(address.to_owned(), Arc::clone(&node));
        node
    }

    /// Reads the slots anew, unless somebody did since `known`: of the node
    /// that a slot moved to, or else of the first of some nodes to answer.
    async fn read_slots(
        &self,
        cluster: &Cluster,
        known: &Arc<Slots>,
        moved_to: Option<String>,
    ) -> RedisResult<()> {
        let _reading = cluster.reading.lock().await;
        if !Arc::ptr_eq(known, &cluster.slots()) {
            return Ok(());
        }
        let asked = match moved_to {
            Some(address) => vec![address],
            None => cluster.some_nodes(),
        };
        let asking = asked
            .into_iter()
            .map(|address| Box::pin(self.slots_of(cluster, address)));
        let (slots, _) = select_ok(asking).await?;
        // Connections to nodes that left are not kept.
        let keep = slots.nodes();
        lock(&cluster.nodes).retain(|address, _| keep.contains(&address.as_str()));
        *lock(&cluster.slots) = Arc::new(slots);
        Ok(())
    }

    async fn slots_of(&self, cluster: &Cluster, address: String) -> RedisResult<Slots> {
        let master = Master {
            node: self.node(cluster, &address),
            deadline: self.deadline(),
        };
        let mut command = redis::cmd("CLUSTER");
        command.arg("SLOTS");
        Slots::read(&master.query(command).await?, &address)
    }
}

impl Servers {
    fn slots(&self) -> Arc<Slots> {
        match self {
            Self::One(_) => Arc::default(),
            Self::Cluster(cluster) => cluster.slots(),
        }
    }
}

impl Cluster {
    fn slots(&self) -> Arc<Slots> {
        Arc::clone(&lock(&self.slots))
    }

    /// Some nodes, drawn at random from those known and those of the settings.
    fn some_nodes(&self) -> Vec<String> {
        let slots = self.slots();
        let mut nodes: Vec<String> = slots.nodes().into_iter().map(str::to_owned).collect();
        nodes.extend(self.seeds.iter().map(|seed| seed.addr().to_string()));
        nodes.sort_unstable();
        nodes.dedup();
        fastrand::shuffle(&mut nodes);
        nodes.truncate(NODES_ASKED);
        nodes
    }
}

/// Commands that travel to one node together.
struct Group {
    node: Arc<Node>,
    /// The node is about to take their slot over.
    is_asking: bool,
    indices: Vec<usize>,
}

/// Calls on their way, by their index.
struct Round {
    answers: Vec<Option<RedisResult<Value>>>,
    pending: Vec<usize>,
    /// Where Redis sent them once.
    asked: HashMap<usize, String>,
    /// Where a slot moved to.
    moved_to: Option<String>,
    last_error: RedisError,
}

impl Round {
    /// Takes the answers of a node; what may be sent again is pending.
    fn sort(&mut self, indices: Vec<usize>, outcome: Outcome, repeat: Repeat) {
        match outcome {
            Outcome::Unsent(error) => {
                self.last_error = error;
                self.pending.extend(indices);
            }
            Outcome::Unknown(error) if repeat == Repeat::Allowed => {
                self.last_error = error;
                self.pending.extend(indices);
            }
            Outcome::Unknown(error) => {
                for index in indices {
                    self.answers[index] = Some(Err(error.clone()));
                }
            }
            Outcome::Answers(answers) => self.sort_answers(indices, answers, repeat),
        }
    }

    fn sort_answers(
        &mut self,
        indices: Vec<usize>,
        answers: Vec<RedisResult<Value>>,
        repeat: Repeat,
    ) {
        let refused_from = answers.iter().position(is_refused).unwrap_or(answers.len());
        // Events behind the refused one that were taken would change places
        // with it.
        let in_order = answers[refused_from..].iter().all(is_refused);
        let may_repeat = repeat == Repeat::Allowed || in_order;
        for (index, answer) in indices.into_iter().zip(answers) {
            match answer {
                Err(error) if may_repeat && is_refusal(&error) => self.refused(index, error),
                answer => self.answers[index] = Some(answer),
            }
        }
    }

    fn refused(&mut self, index: usize, error: RedisError) {
        // Without a host it is the node that answered; the next look at the
        // slots tells as much.
        if let Some((address, _)) = error.redirect_node()
            && !address.starts_with(':')
        {
            let address = address.to_owned();
            match error.kind() {
                ErrorKind::Server(ServerErrorKind::Ask) => {
                    self.asked.insert(index, address);
                }
                _ => self.moved_to = Some(address),
            }
        }
        self.last_error = error;
        self.pending.push(index);
    }

    fn finish(self) -> Vec<RedisResult<Value>> {
        let Self {
            answers,
            last_error,
            ..
        } = self;
        answers
            .into_iter()
            .map(|answer| answer.unwrap_or_else(|| Err(last_error.clone())))
            .collect()
    }
}

/// Sends commands to a node. A connection that fails, or on which the node says
/// that it takes no writes, is given to nobody any more.
async fn send(node: &Node, mut pipeline: Pipeline, deadline: Instant) -> Outcome {
    let mut live: Live = match timeout_at(deadline, node.live()).await {
        Ok(Ok(live)) => live,
        Ok(Err(error)) => return Outcome::Unsent(error),
        Err(_) => return Outcome::Unsent(no_answer()),
    };
    // An error of one command is its own, not the pipeline's.
    pipeline.ignore_errors();
    let answering = pipeline.query_async(&mut live.connection);
    let answer: RedisResult<Vec<RedisResult<Value>>> = timeout_at(deadline, answering)
        .await
        .unwrap_or_else(|_| Err(no_answer()));
    match answer {
        Ok(answers) => {
            if answers.iter().any(is_demoted) {
                live.discard();
            }
            Outcome::Answers(answers)
        }
        Err(error) => {
            live.discard();
            Outcome::Unknown(error)
        }
    }
}

fn is_refused(answer: &RedisResult<Value>) -> bool {
    answer.as_ref().is_err_and(is_refusal)
}

/// Whether Redis ran nothing of the command, and may run it in a moment or at
/// another node.
fn is_refusal(error: &RedisError) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Server(
            ServerErrorKind::Moved
                | ServerErrorKind::Ask
                | ServerErrorKind::TryAgain
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::ReadOnly
                | ServerErrorKind::MasterDown
                | ServerErrorKind::BusyLoading
        )
    )
}

/// Whether the answer is that of a replica.
fn is_demoted(answer: &RedisResult<Value>) -> bool {
    answer.as_ref().is_err_and(|error| {
        matches!(
            error.kind(),
            ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown)
        )
    })
}

/// Returns how to reach another node: as `known`, at `address` (`host:port`).
pub(super) fn at(known: &ConnectionInfo, address: &str) -> ConnectionInfo {
    let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
    let port = port.parse().unwrap_or(6379);
    let address = ConnectionAddr::Tcp(host.to_owned(), port);
    match known.addr() {
        ConnectionAddr::TcpTls { .. } => with_tls(known.clone().set_addr(address)),
        _ => known.clone().set_addr(address),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
