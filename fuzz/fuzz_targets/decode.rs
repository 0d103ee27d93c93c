//! Whatever arrives from Redis: a channel and a message on it, parted by the
//! first byte 0xff, which no channel of ours holds.
#![no_main]

#[path = "../../actors/tests/properties/oracle.rs"]
#[allow(dead_code, reason = "each target uses the checks it needs")]
mod oracle;

use libfuzzer_sys::fuzz_target;
use runcast_actors::protocol::{
    Channel, Cursor, FramedEvent, Payload, RunId, log_level_of, terminal_status,
};

fuzz_target!(|input: &[u8]| {
    let mut parts = input.splitn(2, |byte| *byte == 0xff);
    let channel = parts.next().unwrap_or_default();
    let message = parts.next().unwrap_or_default();
    match Channel::parse("run:", channel) {
        Ok(Channel::Plain { run_id, .. }) => {
            RunId::parse(run_id).expect("a channel's run id is valid");
            check(message);
        }
        Ok(Channel::Framed { run_id }) => {
            RunId::parse(run_id).expect("a channel's run id is valid");
            let event = FramedEvent::parse(message);
            assert_eq!(event.ok(), oracle::framed_event(message));
            if let Ok(event) = event {
                check(event.payload);
            }
        }
        Err(_) => check(message),
    }
});

fn check(payload: &[u8]) {
    oracle::check_payload_field(payload);
    let classified = Payload::classify(payload);
    log_level_of(classified);
    terminal_status(classified, &["failed".to_owned()]);
    if let Ok(text) = std::str::from_utf8(payload)
        && let Ok(cursor) = text.parse::<Cursor>()
    {
        assert_eq!(cursor.to_string(), text);
    }
}
