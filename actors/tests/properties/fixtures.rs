//! The encoder against the cases that the browser package's parser is tested
//! with: one file for both, so that neither can drift from the other.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use runcast_actors::protocol::{
    BackendKind, EventId, EventKind, Gap, GapReason, Payload, Problem, RunId, Timestamp,
};
use runcast_actors::sse::{
    EventFrame, cursor_frame, end_frame, gap_frame, goodbye_frame, heartbeat_frame, hello_frame,
    problem_frame, retry_block, write_event,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixtures {
    encoder: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    input: Input,
    text: String,
}

/// What a frame is made of.
#[derive(Deserialize)]
#[serde(tag = "frame", rename_all = "lowercase", deny_unknown_fields)]
enum Input {
    Event {
        run_id: String,
        kind: EventKind,
        source: String,
        ts_micros: i64,
        backend: BackendKind,
        payload: Option<String>,
        payload_base64: Option<String>,
        id: String,
    },
    Retry {
        retry_ms: u64,
    },
    Hello {
        run_id: String,
        backend: BackendKind,
        resume: String,
        cursor: Option<String>,
        heartbeat_seconds: u64,
    },
    Cursor {
        id: String,
    },
    Heartbeat {
        now_micros: i64,
        last_event_ms: Option<u64>,
    },
    Gap {
        after: Option<String>,
        before: Option<String>,
        missed: Option<u64>,
        reason: String,
    },
    Problem {
        status: u16,
        slug: String,
        title: String,
        detail: String,
        retryable: bool,
    },
    Goodbye {
        reason: String,
        retry_ms: u64,
    },
    End {
        status: String,
        events: Option<u64>,
        last_id: String,
    },
}

impl Input {
    /// Writes the frame as a broker does.
    fn encode(&self) -> Vec<u8> {
        let mut text = String::new();
        match self {
            Self::Event { .. } => return self.encode_event(),
            Self::Retry { retry_ms } => return retry_block(*retry_ms).to_vec(),
            Self::Hello {
                run_id,
                backend,
                resume,
                cursor,
                heartbeat_seconds,
            } => {
                let run_id = RunId::parse(run_id).expect("a run id");
                let cursor = cursor.as_deref();
                hello_frame(
                    &mut text,
                    &run_id,
                    *backend,
                    resume,
                    cursor,
                    *heartbeat_seconds,
                );
            }
            Self::Cursor { id } => cursor_frame(&mut text, id),
            Self::Heartbeat {
                now_micros,
                last_event_ms,
            } => {
                let now = Timestamp::from_micros(*now_micros);
                return heartbeat_frame(now, *last_event_ms).to_vec();
            }
            Self::Gap {
                after,
                before,
                missed,
                reason,
            } => {
                let known = GapReason::ALL.iter().find(|each| each.as_str() == reason);
                text = gap_frame(&Gap {
                    after: after.clone(),
                    before: before.clone(),
                    missed: *missed,
                    reason: *known.expect("a reason"),
                });
            }
            Self::Problem {
                status,
                slug,
                title,
                detail,
                retryable,
            } => {
                // Its words are literals in the program.
                let (slug, title) = (slug.clone().leak(), title.clone().leak());
                let problem = Problem::new(*status, slug, title, detail.clone());
                text = problem_frame(&problem.retryable(*retryable));
            }
            Self::Goodbye { reason, retry_ms } => text = goodbye_frame(reason, *retry_ms),
            Self::End {
                status,
                events,
                last_id,
            } => text = end_frame(status, *events, last_id),
        }
        text.into_bytes()
    }

    fn encode_event(&self) -> Vec<u8> {
        let Self::Event {
            run_id,
            kind,
            source,
            ts_micros,
            backend,
            payload,
            payload_base64,
            id,
        } = self
        else {
            unreachable!("only called for an event");
        };
        let bytes = match (payload, payload_base64) {
            (Some(text), None) => text.clone().into_bytes(),
            (None, Some(base64)) => STANDARD.decode(base64).expect("base64"),
            _ => panic!("a payload is text or base64"),
        };
        let mut out = Vec::new();
        let frame = EventFrame {
            run_id: &RunId::parse(run_id).expect("a run id"),
            kind: *kind,
            source,
            ts: &Timestamp::from_micros(*ts_micros).to_string(),
            backend: *backend,
            payload: Payload::classify(&bytes),
        };
        let id: EventId = id.parse().expect("an id");
        write_event(&mut out, &frame, &id);
        out
    }
}

#[test]
fn the_encoder_writes_what_the_browser_package_is_tested_with() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../frontend/packages/client/test/fixtures/event-stream.json");
    let text = std::fs::read_to_string(&path).expect("the fixtures are in the repository");
    let fixtures: Fixtures = serde_json::from_str(&text).expect("well-formed fixtures");
    assert!(fixtures.encoder.len() >= 20, "the file was emptied");
    for case in fixtures.encoder {
        let written = String::from_utf8(case.input.encode()).expect("UTF-8");
        assert_eq!(written, case.text, "{}", case.name);
    }
}
