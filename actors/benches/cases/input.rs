//! What is published: payloads, channels, and both as Redis pushes them.

use runcast_actors::broker::BrokerSettings;
use runcast_actors::protocol::RunId;

/// An agent's step: a JSON object of 200 bytes.
pub(crate) const JSON: &str = r#"{"type":"tool_result","step":170,"tool":"search","ok":true,"elapsed_ms":418.25,"text":"3 files match: src/main.rs, src/lib.rs and tests/all.rs; the first has what was asked for","tags":["a","b",null]}"#;

/// One token of a model's answer: a JSON object of 60 bytes.
pub(crate) const TOKEN: &str = r#"{"type":"token","index":1204,"text":" the first","n":"abcd"}"#;

/// A line of a log with colours and quotes: text of 200 bytes.
pub(crate) const TEXT: &str = "\u{1b}[32mINFO\u{1b}[0m 2026-11-23T20:00:00.123Z worker 7: request \"GET /api/v1/runs/42\" \
     answered 200 in 12.4 ms, 3482 bytes, by pod agent-42-x7k2p; queue 0, open 118, retried 0, cache hit, all is well; it's ok";

const _: () = assert!(JSON.len() == 200 && TOKEN.len() == 60 && TEXT.len() == 200);

/// The first part of the ids of a durable run, and the µs of its first event:
/// of the present, for an id of the far future is refused.
pub(crate) const EPOCH: u64 = 1_790_000_000_000;

/// Settings without what would come in between by the clock.
pub(crate) fn settings() -> BrokerSettings {
    let mut settings = BrokerSettings::default();
    settings.hub.max_flush_delay = std::time::Duration::ZERO;
    settings
}

/// Run `n`.
pub(crate) fn run_id(n: u64) -> RunId {
    RunId::parse(&format!("run-{n:04}")).expect("a valid run id")
}

/// A message as Redis delivers it to a pattern's subscriber.
pub(crate) struct Published {
    pub(crate) channel: String,
    pub(crate) payload: Vec<u8>,
}

impl Published {
    /// A plain event of run `n`.
    pub(crate) fn plain(n: u64, payload: &str) -> Self {
        Self {
            channel: format!("run:{}:output:stdout", run_id(n)),
            payload: payload.as_bytes().to_vec(),
        }
    }

    /// Event `seq` of run `n`, from 1, as `runcast_publish` announces it.
    pub(crate) fn durable(n: u64, seq: u64, payload: &str) -> Self {
        let us = EPOCH * 1000 + seq;
        Self {
            channel: format!("run:{{{}}}:events", run_id(n)),
            payload: format!("1 {EPOCH} {seq} {us} 0 output 0 6 stdout\n{payload}").into_bytes(),
        }
    }

    /// Appends it as RESP3.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b">4\r\n");
        for part in [
            b"pmessage".as_slice(),
            b"run:*",
            self.channel.as_bytes(),
            &self.payload,
        ] {
            out.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
            out.extend_from_slice(part);
            out.extend_from_slice(b"\r\n");
        }
    }
}
