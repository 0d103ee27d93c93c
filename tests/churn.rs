//! Two thousand connections opened and dropped at once: nothing of them stays.

use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};

use crate::metrics::wait_sessions;
use crate::support::wait::SOON;
use crate::support::{Broker, Redis, eventually};

const CONNECTIONS: usize = 2000;
const RUNS: usize = 50;

/// Both ends of every connection need a file descriptor; the broker inherits
/// the limit.
fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("up to the hard limit anybody may");
}

async fn round(broker: &Broker) {
    let opening = (0..CONNECTIONS).map(|n| {
        let path = format!("churn-{}/stream", n % RUNS);
        async move { broker.follow(&path).await }
    });
    let clients = futures_util::future::join_all(opening).await;
    wait_sessions(broker, CONNECTIONS).await;
    for (n, client) in clients.into_iter().enumerate() {
        match n % 2 {
            0 => drop(client),
            _ => client.reset(),
        }
    }
    wait_sessions(broker, 0).await;
    eventually("all hubs are gone", Duration::from_secs(20), async || {
        broker.metric("runcast_hubs", &[]).await == 0.0
    })
    .await;
}

#[tokio::test]
async fn two_thousand_connections_leave_nothing_behind() {
    raise_file_limit();
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis)
        .set("hub.idle_ttl", "1s")
        .start_ready()
        .await;
    let fds = broker.process.fd_count();
    // The first rounds grow what an allocator and a hash map keep.
    for _ in 0..3 {
        round(&broker).await;
    }
    let warm = broker.process.rss_bytes();
    for _ in 0..3 {
        round(&broker).await;
    }
    eventually("file descriptors are back", SOON, async || {
        broker.process.fd_count() <= fds + 2
    })
    .await;
    let grown = broker.process.rss_bytes().saturating_sub(warm);
    let bound = 3 * CONNECTIONS as u64 * 700;
    assert!(grown < bound, "{grown} bytes more after three more rounds");
}
