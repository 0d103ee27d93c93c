//! Spans and metrics for an OpenTelemetry collector.

mod faults;
mod metrics;
mod traces;

use serde_json::json;

use crate::support::Broker;
use crate::support::broker::accepted_ids;
use crate::support::http::Request;

/// A span of somebody else's, recorded.
pub(crate) struct Remote {
    pub(crate) trace_id: String,
    pub(crate) span_id: String,
}

impl Remote {
    pub(crate) fn new() -> Self {
        Self {
            trace_id: format!("{:032x}", fastrand::u128(1..)),
            span_id: format!("{:016x}", fastrand::u64(1..)),
        }
    }

    pub(crate) fn traceparent(&self) -> String {
        format!("00-{}-{}-01", self.trace_id, self.span_id)
    }

    pub(crate) fn unrecorded(&self) -> String {
        format!("00-{}-{}-00", self.trace_id, self.span_id)
    }
}

/// Posts an event with these headers; returns its id.
pub(crate) async fn post(broker: &Broker, run_id: &str, headers: &[(&str, &str)]) -> String {
    let body = json!({"kind": "output", "data": 1}).to_string();
    let path = format!("/api/v1/runs/{run_id}/events");
    let mut request = Request::post(path, "application/json", body);
    for (name, value) in headers {
        request = request.header(name, *value);
    }
    let response = request.send(broker.addr).await;
    assert_eq!(response.status(), 202, "{}", response.text());
    accepted_ids(&response).remove(0)
}
