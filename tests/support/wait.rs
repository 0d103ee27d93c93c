//! Waiting for a condition instead of for a time.

use std::future::Future;
use std::time::{Duration, Instant};

/// How long a thing that should happen at once may take on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(10);

const POLL: Duration = Duration::from_millis(10);

/// Waits until `condition` holds; fails the test, saying `what`, when it does
/// not within `deadline`.
pub(crate) async fn eventually<F, C>(what: &str, deadline: Duration, mut condition: C)
where
    F: Future<Output = bool>,
    C: FnMut() -> F,
{
    let begin = Instant::now();
    while !condition().await {
        assert!(
            begin.elapsed() < deadline,
            "not within {deadline:?}: {what}"
        );
        tokio::time::sleep(POLL).await;
    }
}
