//! [`Pressure`]: how short memory is, and what is shed then.
//!
//! In this order, each at a part of `limits.max_memory`: rings of runs that
//! nobody watches, `log` events of clients that fall behind, new streams. What
//! is shed first costs least: a ring is read again from the store, a client
//! that is told so can come back for its logs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::{Duration, Instant};

use actix_rt::task::spawn_blocking;
use tracing::{info, warn};

use super::BrokerShared;

/// How often the process's memory is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// How often what was freed is given back to the system. It takes the
/// allocator's locks, one after the other.
const TRIM_INTERVAL: Duration = Duration::from_secs(1);

/// What is shed; each with all before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Shed {
    /// Nothing.
    Nothing,
    /// Rings of runs that nobody watches.
    IdleRings,
    /// `log` events of clients that fall behind.
    SlowLogs,
    /// New streams.
    NewStreams,
}

impl Shed {
    const ALL: [Self; 4] = [
        Self::Nothing,
        Self::IdleRings,
        Self::SlowLogs,
        Self::NewStreams,
    ];

    /// From how many sixteenths of the limit on.
    fn sixteenths(self) -> u64 {
        match self {
            Self::Nothing => 0,
            Self::IdleRings => 13,
            Self::SlowLogs => 14,
            Self::NewStreams => 15,
        }
    }

    /// What is shed at `bytes` of `max`. What is shed `now` goes on until there
    /// is a sixteenth less: else it would come and go.
    fn at(bytes: u64, max: u64, now: Self) -> Self {
        let reached = |shed: &&Self| {
            let part = shed.sixteenths() - u64::from(**shed <= now && shed.sixteenths() > 0);
            bytes >= max / 16 * part
        };
        let highest = Self::ALL.iter().rev().find(reached);
        highest.copied().unwrap_or(Self::Nothing)
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::IdleRings => "idle rings",
            Self::SlowLogs => "log events of slow clients",
            Self::NewStreams => "new streams",
        }
    }
}

/// What is shed now, for all threads.
#[derive(Debug, Default)]
pub(crate) struct Pressure(AtomicU8);

impl Pressure {
    pub(crate) fn shed(&self) -> Shed {
        Shed::ALL[usize::from(self.0.load(Relaxed)) % Shed::ALL.len()]
    }

    fn set(&self, shed: Shed) {
        self.0.store(shed as u8, Relaxed);
    }
}

/// Watches the process's memory, for ever, while it has a limit.
pub(crate) async fn watch_memory(shared: Arc<BrokerShared>) {
    let mut trimmed_at = None::<Instant>;
    loop {
        let max = shared.settings.live.now().limits.max_memory.as_u64();
        if max == 0 {
            shared.pressure.set(Shed::Nothing);
            shared.metrics.memory_pressure.set(Shed::Nothing as u64);
            tokio::time::sleep(TRIM_INTERVAL).await;
            continue;
        }
        let Some(bytes) = resident_bytes() else {
            warn!("the process's memory cannot be read here: limits.max_memory is not kept");
            return;
        };
        let before = shared.pressure.shed();
        let now = Shed::at(bytes, max, before);
        shared.pressure.set(now);
        shared.metrics.memory_pressure.set(now as u64);
        if now > before {
            warn!(
                bytes,
                max_memory = max,
                sheds = now.as_str(),
                "memory is short"
            );
        } else if now < before {
            info!(
                bytes,
                max_memory = max,
                sheds = now.as_str(),
                "memory is less short"
            );
        }
        if now >= Shed::IdleRings {
            let wanted = max / 16 * (Shed::IdleRings.sixteenths() - 1);
            shared.registry.evict_idle(bytes.saturating_sub(wanted));
            if trimmed_at.is_none_or(|trimmed| trimmed.elapsed() >= TRIM_INTERVAL) {
                trimmed_at = Some(Instant::now());
                // Nobody waits for it, and nothing is to be told.
                let _ = spawn_blocking(trim).await;
            }
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Bytes of the process that are in memory; `None` where nobody tells.
fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// Gives freed memory back to the system: the allocator keeps most of it, and
/// then it would not show that any was freed.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(
    unsafe_code,
    reason = "glibc has no other way; the function has no preconditions and may be called from any thread (malloc_trim(3))"
)]
fn trim() {
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn trim() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shed_grows_with_memory_and_does_not_flutter() {
        use Shed::{IdleRings, NewStreams, Nothing, SlowLogs};
        for (bytes, now, expected) in [
            (0, Nothing, Nothing),
            (1299, Nothing, Nothing),
            (1300, Nothing, IdleRings),
            (1400, Nothing, SlowLogs),
            (1500, IdleRings, NewStreams),
            (9000, Nothing, NewStreams),
            // A sixteenth less ends it.
            (1400, NewStreams, NewStreams),
            (1399, NewStreams, SlowLogs),
            (1299, SlowLogs, IdleRings),
            (1199, IdleRings, Nothing),
            (0, NewStreams, Nothing),
        ] {
            assert_eq!(Shed::at(bytes, 1600, now), expected, "{bytes} {now:?}");
        }
    }

    #[test]
    fn the_memory_of_a_process_can_be_read() {
        let bytes = resident_bytes().expect("this is Linux");
        assert!((100_000..100_000_000_000).contains(&bytes), "{bytes}");
    }
}
