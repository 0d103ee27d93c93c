//! [`Fault`]: what can go wrong, and what it may cost.

use std::fmt;

/// What the faults of a trial may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    /// Load alone: every broker has every event.
    Local,
    /// Redis keeps all it accepted: durable runs have no gap at all.
    Lossless,
    /// Redis forgets some of what it accepted.
    Lossy,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Local => "load only",
            Self::Lossless => "nothing lost in Redis",
            Self::Lossy => "Redis forgets",
        })
    }
}

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    Burst,
    KillSubscriptions,
    KillConnections,
    Pause,
    Freeze,
    TinyOutputBuffer,
    CutBroker,
    HalfOpen,
    RefuseBroker,
    RestartKept,
    HandOver,
    KillBroker,
    RestartBroker,
    RollBrokers,
    FreezeBroker,
    RestartRun,
    RestartEmpty,
    CrashToDump,
    FailOver,
    FlushAll,
    DeleteStream,
    DeleteMeta,
    DeleteRun,
    Expire,
    Trim,
}

impl Fault {
    const LOSSLESS: [Self; 15] = [
        Self::Burst,
        Self::KillSubscriptions,
        Self::KillConnections,
        Self::Pause,
        Self::Freeze,
        Self::TinyOutputBuffer,
        Self::CutBroker,
        Self::HalfOpen,
        Self::RefuseBroker,
        Self::RestartKept,
        Self::HandOver,
        Self::KillBroker,
        Self::RestartBroker,
        Self::RollBrokers,
        Self::FreezeBroker,
    ];
    const LOSSY: [Self; 10] = [
        Self::RestartRun,
        Self::RestartEmpty,
        Self::CrashToDump,
        Self::FailOver,
        Self::FlushAll,
        Self::DeleteStream,
        Self::DeleteMeta,
        Self::DeleteRun,
        Self::Expire,
        Self::Trim,
    ];

    /// Draws one that a trial of `class` may have.
    pub(crate) fn draw(class: Class, is_logged: bool, rng: &mut fastrand::Rng) -> Self {
        let fault = match class {
            Class::Local => Self::Burst,
            Class::Lossy if rng.u8(..5) < 3 => Self::LOSSY[rng.usize(..Self::LOSSY.len())],
            _ => Self::LOSSLESS[rng.usize(..Self::LOSSLESS.len())],
        };
        match fault {
            // A log of writes would bring back what a dump has not.
            Self::CrashToDump if is_logged => Self::FailOver,
            other => other,
        }
    }

    /// Says in a few words what it does.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Burst => "burst: hundreds of events at once",
            Self::KillSubscriptions => "`CLIENT KILL TYPE pubsub`",
            Self::KillConnections => "`CLIENT KILL TYPE normal`",
            Self::Pause => "`CLIENT PAUSE`",
            Self::Freeze => "`SIGSTOP` and `SIGCONT` of Redis",
            Self::TinyOutputBuffer => "output buffer limit of 1 KiB for subscribers, in a burst",
            Self::CutBroker => "the connections of a broker to Redis cut",
            Self::HalfOpen => "the connections of a broker to Redis carry nothing any more",
            Self::RefuseBroker => "a broker cannot reach Redis for a while",
            Self::RestartKept => {
                "restart of Redis with its data (`SHUTDOWN SAVE`, or `SIGKILL` with a log)"
            }
            Self::HandOver => "planned failover to the replica",
            Self::KillBroker => "`SIGKILL` of a broker",
            Self::RestartBroker => "`SIGTERM` of a broker",
            Self::RollBrokers => "rolling restart of all brokers",
            Self::FreezeBroker => "`SIGSTOP` and `SIGCONT` of a broker",
            Self::RestartRun => "a run begun anew by its publisher",
            Self::RestartEmpty => "restart of Redis without its data",
            Self::CrashToDump => "`SIGKILL` of Redis, back with an older dump",
            Self::FailOver => "failover to a replica that lost the last writes",
            Self::FlushAll => "`FLUSHALL`",
            Self::DeleteStream => "`DEL` of a run's stream",
            Self::DeleteMeta => "`DEL` of a run's meta",
            Self::DeleteRun => "`DEL` of both",
            Self::Expire => "a run's keys expire",
            Self::Trim => "a run's stream trimmed to a few events",
        }
    }
}
