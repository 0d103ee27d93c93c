//! `make rolling`: a rolling deploy of three brokers behind HAProxy as
//! `docs/operations.md` has it, with thousands of clients that resume exactly.
//!
//! Each broker in turn is ended by SIGTERM and started anew at its port, while
//! every run is published to steadily. Every client must see every event of its
//! run once and in order, over whichever brokers; none may ever be answered
//! anything but a stream. Each second counts who serves how many streams and how
//! many came back: at most [`Size::ceiling`] in one, and no broker may hold more
//! than a third more than its share of the brokers that serve, but for the time
//! in which one that was just started fills up ([`Size::max_age`]). With
//! `RUNCAST_ROLLING_SPARE=1` the new broker is started before the old one goes,
//! and there is no such time.

mod crowd;
mod fleet;

use std::time::{Duration, Instant};

use tokio::time::sleep;

use self::crowd::Crowd;
use self::fleet::{BROKERS, Fleet};
use super::{number_from_env, raise_open_files, report};
use crate::support::Redis;

/// How much more than its share a broker may hold.
const SHARE_MAX: f64 = 4.0 / 3.0;

/// What the deploy is of.
#[derive(Clone, Copy)]
struct Size {
    clients: usize,
    runs: usize,
    /// `server.drain_rate`
    drain_rate: usize,
    /// `server.drain_delay`
    drain_delay: Duration,
    /// `streaming.max_age`
    max_age: Duration,
    /// How long is looked between two brokers.
    calm: Duration,
    /// Most clients that may come back in a second.
    ceiling: usize,
    /// Whether a new broker is started before an old one is told to go.
    has_spare: bool,
}

impl Size {
    fn of(clients: usize) -> Self {
        let seconds = |name, default| Duration::from_secs(number_from_env(name, default));
        // A small one is over sooner.
        let is_small = clients < 1000;
        let scale = if is_small { 2 } else { 1 };
        Self {
            clients,
            runs: (clients / 100).max(3),
            drain_rate: number_from_env("RUNCAST_ROLLING_DRAIN_RATE", clients / 10 * scale),
            drain_delay: seconds("RUNCAST_ROLLING_DRAIN_DELAY", 2),
            max_age: seconds("RUNCAST_ROLLING_MAX_AGE", if is_small { 8 } else { 30 }),
            calm: Duration::from_secs(if is_small { 1 } else { 2 }),
            ceiling: clients / 5 * scale * scale,
            has_spare: number_from_env("RUNCAST_ROLLING_SPARE", 0) > 0,
        }
    }
}

#[tokio::test]
async fn rolling() {
    let size = Size::of(number_from_env("RUNCAST_ROLLING_CLIENTS", 150));
    raise_open_files();
    let redis = Redis::start().await;
    let mut fleet = Fleet::start(&redis, size).await;
    let crowd = Crowd::start(&redis, fleet.proxy, size).await;
    crowd.until_all_follow().await;
    let begin = Instant::now();
    let mut deploy = Deploy {
        size,
        begin,
        worst_share: 0.0,
        share_while_filling: 0.0,
    };
    deploy.watch(&fleet, &crowd, size.calm).await;
    if size.has_spare {
        deploy.with_a_spare(&mut fleet, &crowd).await;
    } else {
        for index in 0..BROKERS {
            deploy.replace(&mut fleet, &crowd, index).await;
        }
    }
    deploy.watch(&fleet, &crowd, size.calm).await;
    let streams = fleet.streams().await;
    crowd.finish().await;
    report(&format!(
        "rolling: {} clients on {BROKERS} brokers in {:.0} s, at the end {streams:?}",
        size.clients,
        begin.elapsed().as_secs_f64()
    ));
    let most = crowd.most_in_a_second(begin);
    report(&format!(
        "came back            {} times, at most {most} in a second (ceiling {}); {} were sent on",
        crowd.came_back(),
        size.ceiling,
        crowd.sent_on(),
    ));
    report(&format!(
        "most of a share      {:.2}; {:.2} while a new broker filled up",
        deploy.worst_share, deploy.share_while_filling
    ));
    report(&format!("events, deliveries   {:?}", crowd.counts()));
    crowd.check();
    assert!(most <= size.ceiling, "{most} came back in a second");
    assert!(
        deploy.worst_share <= SHARE_MAX + 0.01,
        "{}",
        deploy.worst_share
    );
}

struct Deploy {
    size: Size,
    begin: Instant,
    worst_share: f64,
    share_while_filling: f64,
}

impl Deploy {
    /// Ends one broker and starts it anew; waits until it has its share.
    async fn replace(&mut self, fleet: &mut Fleet, crowd: &Crowd, index: usize) {
        let terminated = Instant::now();
        fleet.terminate(index);
        // In the delay it may take newcomers; nobody is told to go yet.
        while !fleet.has_ended(index) {
            self.watch_once(fleet, crowd, false).await;
        }
        let drained = terminated.elapsed();
        fleet.restart(index).await;
        let started = Instant::now();
        while self.watch_once(fleet, crowd, true).await > SHARE_MAX {
            assert!(
                started.elapsed() < 2 * self.size.max_age + Duration::from_secs(10),
                "it does not get its share"
            );
        }
        let filled = started.elapsed();
        self.watch(fleet, crowd, self.size.calm).await;
        report(&format!(
            "broker {index}: gone {:.1} s after SIGTERM, had its share {:.1} s after its start",
            drained.as_secs_f64(),
            filled.as_secs_f64()
        ));
    }

    /// Starts a fourth broker before the first one goes, then the first one
    /// anew, and so on, as Kubernetes does with `maxSurge: 1`.
    async fn with_a_spare(&mut self, fleet: &mut Fleet, crowd: &Crowd) {
        let mut spare = BROKERS;
        for index in 0..BROKERS {
            fleet.restart(spare).await;
            self.watch(fleet, crowd, self.size.calm).await;
            fleet.terminate(index);
            while !fleet.has_ended(index) {
                self.watch_once(fleet, crowd, false).await;
            }
            self.watch(fleet, crowd, 2 * self.size.calm).await;
            spare = index;
        }
    }

    /// Looks each second for a while.
    async fn watch(&mut self, fleet: &Fleet, crowd: &Crowd, time: Duration) {
        let begin = Instant::now();
        while begin.elapsed() < time {
            self.watch_once(fleet, crowd, false).await;
        }
    }

    /// Waits a second, and returns by how much a broker that serves holds more
    /// than its share.
    async fn watch_once(&mut self, fleet: &Fleet, crowd: &Crowd, is_filling: bool) -> f64 {
        sleep(Duration::from_secs(1)).await;
        crowd.check();
        let streams = fleet.streams().await;
        let serving = fleet.serving();
        let held = streams.iter().zip(serving).filter(|(_, serves)| **serves);
        let held: Vec<usize> = held.map(|(count, _)| *count).collect();
        let most = held.iter().max().copied().unwrap_or(0);
        // Of all clients: those on their way are somebody's in a moment.
        let share = (most * held.len()) as f64 / self.size.clients as f64;
        report(&format!(
            "{:>5.1} s  {streams:?}, most of a share {share:.2}",
            self.begin.elapsed().as_secs_f64()
        ));
        let worst = match is_filling {
            true => &mut self.share_while_filling,
            false => &mut self.worst_share,
        };
        *worst = worst.max(share);
        share
    }
}
