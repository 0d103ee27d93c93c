//! The demo run of `runcast dev`: something to look at on a fresh machine.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use runcast_actors::broker::{Broker, NewEvent};
use runcast_actors::protocol::{EventKind, RunId};
use runcast_actors::store::AppendBatch;
use serde_json::json;

/// The demo's run.
const RUN_ID: &str = "demo";

/// Time between two events while the run is watched.
const PACE: Duration = Duration::from_millis(500);

/// Tells on stdout what to open and what to try.
///
/// # Errors
/// Stdout is closed.
pub(crate) fn print_welcome(addresses: &[SocketAddr]) -> io::Result<()> {
    let Some(address) = addresses.first() else {
        return Ok(());
    };
    let base = base_url(*address);
    writeln!(
        io::stdout().lock(),
        "
Runcast is running with a demo run that moves while somebody watches it.

  Open in a browser
    {base}/?run={RUN_ID}

  Follow the demo run in a terminal
    curl -N {base}/api/v1/runs/{RUN_ID}/stream

  Follow a run of your own, then publish to it from another terminal
    curl -N {base}/api/v1/runs/42/stream
    curl {base}/api/v1/runs/42/events -d '{{\"kind\":\"output\",\"source\":\"stdout\",\"data\":{{\"step\":1}}}}' -H 'content-type: application/json'
    echo 'hello from a shell' | curl {base}/api/v1/runs/42/events --data-binary @- -H 'content-type: text/plain'

  Look around
    {base}/health   {base}/metrics   {base}/api/v1/openapi.json

Stop with Ctrl-C.
"
    )
}

/// An address that can be opened: not that of all interfaces.
fn base_url(address: SocketAddr) -> String {
    match address.ip().is_unspecified() {
        true => format!("http://localhost:{}", address.port()),
        false => format!("http://{address}"),
    }
}

/// Publishes to the demo run while it has clients; never returns.
pub(crate) async fn run(broker: Broker) {
    let run_id = RunId::parse(RUN_ID).expect("the demo's run id is valid");
    let mut ticks = tokio::time::interval(PACE);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut step = 0;
    loop {
        ticks.tick().await;
        if broker.clients(&run_id) == 0 || broker.is_draining() {
            continue;
        }
        let event = event_of(step);
        step += 1;
        let batch = AppendBatch {
            events: vec![event],
            ..AppendBatch::default()
        };
        match broker.publish(run_id.clone(), batch).await {
            Ok(results) => {
                for error in results.into_iter().filter_map(Result::err) {
                    tracing::warn!(%run_id, %error, "demo event was refused");
                }
            }
            Err(problem) => {
                tracing::warn!(%run_id, error = problem.detail, "demo event was refused");
            }
        }
    }
}

/// The demo's script: a small training run that begins again for ever. No
/// status in it is a terminal one, or the run would end.
fn event_of(step: u64) -> NewEvent {
    const EPOCH_STEPS: u64 = 20;
    let (epoch, at) = (step / EPOCH_STEPS + 1, step % EPOCH_STEPS);
    let loss = 2.5 / (1.0 + step as f64 * 0.05) + 0.02 * ((step * 7919) % 13) as f64;
    let loss = (loss * 10_000.0).round() / 10_000.0;
    let log = |level: &str, msg: String| json!({"level": level, "msg": msg});
    let (kind, source, data) = match at {
        0 => (
            EventKind::Status,
            "",
            json!({"status": "running", "epoch": epoch}),
        ),
        1 => (
            EventKind::Log,
            "trainer",
            log("info", format!("epoch {epoch} begins")),
        ),
        7 => (
            EventKind::Log,
            "trainer",
            log("debug", format!("learning rate {:.5}", 0.01 / epoch as f64)),
        ),
        11 => (
            EventKind::Log,
            "loader",
            log("warn", "a batch came late, 412 ms".to_owned()),
        ),
        13 => (
            EventKind::Output,
            "stderr",
            json!("\u{1b}[33mwarning:\u{1b}[0m gradient norm 7.1 was clipped"),
        ),
        16 => (
            EventKind::Log,
            "checkpoint",
            log("error", "upload failed, trying again".to_owned()),
        ),
        18 => (
            EventKind::Status,
            "",
            json!({"status": "checkpointing", "epoch": epoch}),
        ),
        _ => (
            EventKind::Output,
            "stdout",
            json!({"step": step, "epoch": epoch, "loss": loss}),
        ),
    };
    NewEvent {
        kind,
        source: source.to_owned(),
        payload: Bytes::from(data.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use runcast_actors::protocol::{Payload, terminal_status};
    use runcast_actors::settings::RunSettings;

    use super::*;

    #[test]
    fn the_demo_shows_every_kind_and_never_ends() {
        let events: Vec<NewEvent> = (0..200).map(event_of).collect();
        for kind in EventKind::ALL {
            assert!(events.iter().any(|event| event.kind == kind), "{kind}");
        }
        let terminal = RunSettings::default().terminal_statuses;
        for event in events {
            let payload = Payload::classify(&event.payload);
            assert!(payload.json().is_some());
            assert_eq!(terminal_status(payload, &terminal), None);
        }
    }
}
