//! How a run is closed, and sealed.

use std::time::Duration;

use super::*;
use crate::support::eventually;
use crate::support::wait::SOON;

fn settings(grace: Duration) -> BrokerSettings {
    let mut settings = BrokerSettings::default();
    settings.runs.end_grace = grace;
    settings
}

async fn until_sealed(store: &Arc<dyn RunStore>) {
    let sealed = async || head(store, "42").await.is_sealed();
    eventually("the grace is over", SOON, sealed).await;
}

pub(crate) async fn a_terminal_status_closes_the_run(backend: &impl Backend) {
    let store = backend.open(settings(Duration::from_millis(100)));
    let ids = append_ok(
        &store,
        "42",
        vec![output("a"), status(r#"{"status":"Failed"}"#)],
    )
    .await;
    let known = head(&store, "42").await;
    assert_eq!(known.status.as_deref(), Some("Failed"));
    let closed = known.closed.expect("closed");
    assert_eq!(
        (closed.status.as_str(), closed.at_us),
        ("failed", ids[1].us)
    );
    assert_eq!(closed.sealed_us, closed.at_us + 100_000);
    until_sealed(&store).await;
    let batch = AppendBatch {
        events: outputs(2),
        ..AppendBatch::default()
    };
    assert!(append(&store, "42", batch).await.iter().all(is_closed));
    let after = head(&store, "42").await;
    assert_eq!((after.last, after.counts), (ids[1], [1, 1, 0]));
}

/// The grace is that of the call that closed the run, also for others.
pub(crate) async fn late_output_is_taken_until_the_grace_is_over(backend: &impl Backend) {
    let store = backend.open(settings(Duration::from_secs(60)));
    let ids = append_ok(&store, "42", vec![status("completed"), output("late")]).await;
    let known = head(&store, "42").await;
    assert!(!known.is_sealed());
    assert_eq!((known.last, ids[1].seq), (ids[1], 2));
    let hasty = backend.open(settings(Duration::from_millis(1)));
    assert_eq!(
        append_ok(&hasty, "42", vec![output("later")]).await[0].seq,
        3
    );
    let sealed_us = |head: Head| head.closed.map(|closed| closed.sealed_us);
    assert_eq!(sealed_us(head(&hasty, "42").await), sealed_us(known));
}

pub(crate) async fn the_first_terminal_status_counts(backend: &impl Backend) {
    let store = backend.open(settings(Duration::from_secs(60)));
    let ids = append_ok(&store, "42", vec![status("failed"), status("completed")]).await;
    let known = head(&store, "42").await;
    let closed = known.closed.expect("closed");
    assert_eq!(
        (closed.status.as_str(), closed.at_us),
        ("failed", ids[0].us)
    );
    assert_eq!(known.status.as_deref(), Some("completed"));
}

pub(crate) async fn a_restart_opens_a_closed_run(backend: &impl Backend) {
    let store = backend.open(settings(Duration::from_millis(1)));
    let old = append_ok(&store, "42", vec![status("completed")]).await[0];
    until_sealed(&store).await;
    let new = restart(&store, "42").await;
    assert!(new.epoch > old.epoch);
    let known = head(&store, "42").await;
    assert_eq!((known.closed.clone(), known.last), (None, new));
    assert_eq!((known.status, known.counts), (None, [1, 0, 0]));
    assert_eq!(append_ok(&store, "42", outputs(1)).await[0].seq, 2);
}
