//! The hostile: each attack by a few tasks, again and again, with a pause.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::{World, metrics};
use crate::report;
use crate::support::broker::sum_samples;
use crate::support::redis::Publisher;
use crate::support::token::{claims_but, now, token};
use crate::support::{Broker, Redis};

/// Bounds the streams of one address: here of all the hostile ones.
pub(super) const STREAMS_PER_IP: u64 = 300;
/// Where most of them come from.
pub(super) const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 66);
/// Where those come from that reach the bound of streams.
pub(super) const CROWDED: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 67);

/// What hostile clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attack {
    /// Open a busy stream and read nothing.
    ReadNothing,
    /// Send a head byte by byte.
    SlowHead,
    /// Send a body byte by byte.
    SlowBody,
    /// Connect a hundred times and say nothing.
    Connections,
    /// Open more streams than one address may.
    Streams,
    /// Show tokens that are none.
    BadTokens,
    /// Read and write others' runs with a good token.
    OthersRuns,
    /// Ask hundreds of times at once and read no answer.
    Pipeline,
    /// Leave in the middle of a stream.
    Cut,
    /// Post what is far too large, or never ends.
    HugePosts,
    /// Send what is no HTTP.
    Garbage,
    /// Show one ticket many times at once.
    TicketReplays,
    /// Come back with cursors of their own making.
    Cursors,
    /// Ask for runs that are new each time.
    NewRuns,
    /// Post to new runs, end them and begin them anew.
    Posts,
    /// Publish on odd channels, and frames that the library did not write.
    Channels,
}

impl Attack {
    const ALL: [Self; 16] = [
        Self::ReadNothing,
        Self::SlowHead,
        Self::SlowBody,
        Self::Connections,
        Self::Streams,
        Self::BadTokens,
        Self::OthersRuns,
        Self::Pipeline,
        Self::Cut,
        Self::HugePosts,
        Self::Garbage,
        Self::TicketReplays,
        Self::Cursors,
        Self::NewRuns,
        Self::Posts,
        Self::Channels,
    ];

    /// How many do it at a time, and their longest pause.
    fn strength(self) -> (u64, Duration) {
        let ms = Duration::from_millis;
        match self {
            Self::ReadNothing => (20, ms(1000)),
            Self::SlowHead | Self::SlowBody => (10, ms(1000)),
            Self::Connections | Self::Streams | Self::HugePosts => (1, ms(4000)),
            Self::BadTokens | Self::OthersRuns | Self::Garbage => (2, ms(200)),
            Self::Cut | Self::Cursors | Self::Posts => (4, ms(400)),
            Self::Pipeline | Self::TicketReplays | Self::NewRuns | Self::Channels => (1, ms(1000)),
        }
    }
}

/// One who attacks.
pub(super) struct Foe {
    pub(super) world: Arc<World>,
    pub(super) publisher: Publisher,
    /// Good, for runs of their own: `foe-*`.
    pub(super) token: String,
    pub(super) rng: fastrand::Rng,
}

/// All of them.
pub(super) struct Foes {
    world: Arc<World>,
    rounds: Arc<Vec<AtomicU64>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Foes {
    pub(super) async fn start(world: &Arc<World>, redis: &Redis, mut rng: fastrand::Rng) -> Self {
        let rights = json!({"subscribe": ["foe-*"], "publish": ["foe-*"]});
        let who = json!({"sub": "foe", "exp": now() + 80_000});
        let token = token(&claims_but(rights, who));
        let publisher = redis.publisher().await;
        let rounds: Arc<Vec<_>> = Arc::new(Attack::ALL.iter().map(|_| AtomicU64::new(0)).collect());
        let feeding = feed_busy_run(Arc::clone(world), publisher.clone());
        let mut tasks = vec![tokio::spawn(feeding)];
        for attack in Attack::ALL {
            let (many, pause) = attack.strength();
            for _ in 0..many {
                let foe = Foe {
                    world: Arc::clone(world),
                    publisher: publisher.clone(),
                    token: token.clone(),
                    rng: rng.fork(),
                };
                tasks.push(tokio::spawn(attack_on(
                    foe,
                    attack,
                    pause,
                    Arc::clone(&rounds),
                )));
            }
        }
        Self {
            world: Arc::clone(world),
            rounds,
            tasks,
        }
    }

    /// Each attack must have been one.
    pub(super) async fn check_and_stop(self, broker: &Broker) {
        let text = metrics(broker).await;
        self.world.is_over.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.expect("no hostile client panics");
        }
        for (attack, rounds) in Attack::ALL.iter().zip(self.rounds.iter()) {
            let rounds = rounds.load(Ordering::Relaxed);
            report(&format!("{:<20} {rounds} rounds", format!("{attack:?}")));
            assert!(rounds > 0, "{attack:?} never came to its end");
        }
        let closed = [("reason", "write_timeout")];
        for (family, labels) in [
            ("runcast_sessions_closed_total", &closed[..]),
            (
                "runcast_limit_refusals_total",
                &[("limit", "limits.header_timeout")],
            ),
            (
                "runcast_limit_refusals_total",
                &[("limit", "limits.body_timeout")],
            ),
            (
                "runcast_limit_refusals_total",
                &[("limit", "limits.max_streams_per_ip")],
            ),
            ("runcast_auth_refusals_total", &[]),
            ("runcast_redis_rejected_total", &[]),
        ] {
            let sum = sum_samples(&text, family, labels);
            report(&format!("{family}{labels:?} {sum}"));
            assert!(sum > 0.0, "{family}{labels:?} never moved");
        }
    }
}

async fn attack_on(mut foe: Foe, attack: Attack, pause: Duration, rounds: Arc<Vec<AtomicU64>>) {
    let index = Attack::ALL.iter().position(|known| *known == attack);
    let rounds = &rounds[index.expect("all are there")];
    while foe.world.goes_on() {
        if let Err(what) = foe.attack(attack).await {
            foe.world.fail(format!("{attack:?}: {what}"));
        }
        rounds.fetch_add(1, Ordering::Relaxed);
        let longest = pause.as_millis() as u64;
        sleep(Duration::from_millis(foe.rng.u64(..longest))).await;
    }
}

/// The run that hostile clients watch is a busy one.
async fn feed_busy_run(world: Arc<World>, mut publisher: Publisher) {
    let large = vec![b'x'; 20_000];
    while world.goes_on() {
        publisher.publish("run:foe-hot:output:stdout", &large).await;
        sleep(Duration::from_millis(50)).await;
    }
}
