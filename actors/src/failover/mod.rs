//! Which lines of a pod's log and which events of Redis are the same: pure.
//!
//! A stream that goes on from another backend must neither repeat nor lose what
//! both have. [`Content`] says whether two carry the same data, [`Pool`] holds
//! what was shown and not met on the other side, and [`Matcher`] matches one to
//! one, by content and time. No I/O, no actors, no clock.

mod content;
mod matcher;
mod pool;

pub use content::Content;
pub use matcher::{Line, Matcher, Met, Origin, RedisEvent};
pub use pool::{Entry, Pool};
