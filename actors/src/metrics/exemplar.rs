//! [`Exemplar`]: one observation, and the trace it was made in.

use std::time::SystemTime;

use crate::protocol::TraceContext;

/// An observation that leads from a histogram to a trace.
#[derive(Debug, Clone)]
pub struct Exemplar {
    /// What was measured, in the histogram's unit.
    pub value: f64,
    /// When.
    pub at: SystemTime,
    /// In which span.
    pub trace: TraceContext,
}
