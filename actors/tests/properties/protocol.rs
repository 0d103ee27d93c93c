//! What is written is read back, what is forged does no harm.

use proptest::collection::vec;
use proptest::prelude::*;
use runcast_actors::protocol::{
    Channel, Cursor, EventKind, FramedEvent, LogLevel, Payload, RunId, Timestamp, log_level_of,
    terminal_status,
};

use crate::inputs::{cursor, durable_id, hostile_text, json, json_string, kind, payload, run_id};
use crate::oracle;

proptest! {
    #[test]
    fn a_channel_is_read_as_it_was_made(run in run_id(), kind in kind(), source in hostile_text()) {
        let (name, source) = match kind {
            EventKind::Output => (format!("run:{run}:output:{source}"), source.as_str()),
            EventKind::Log => (format!("run:{run}:logs:{source}"), source.as_str()),
            EventKind::Status => (format!("run:{run}:status"), ""),
        };
        let expected = Channel::Plain { run_id: &run, kind, source };
        prop_assert_eq!(Channel::parse("run:", name.as_bytes()), Ok(expected));
        let framed = format!("run:{{{run}}}:events");
        let expected = Channel::Framed { run_id: &run };
        prop_assert_eq!(Channel::parse("run:", framed.as_bytes()), Ok(expected));
    }

    #[test]
    fn no_channel_gives_a_run_that_is_none(
        prefix in prop::sample::select(vec!["run:", "", "run:{", "a:b:"]),
        name in prop_oneof![
            vec(any::<u8>(), 0..80),
            hostile_text().prop_map(String::into_bytes),
            (hostile_text(), prop::sample::select(vec!["status", "output:", "logs:x", "}:events"]))
                .prop_map(|(run, rest)| format!("run:{run}:{rest}").into_bytes()),
        ],
    ) {
        if let Ok(Channel::Plain { run_id, .. } | Channel::Framed { run_id }) =
            Channel::parse(prefix, &name)
        {
            prop_assert!(RunId::parse(run_id).is_ok());
        }
    }

    #[test]
    fn a_run_id_is_made_of_its_alphabet_only(text in prop_oneof![hostile_text(), "[a-c.-]{0,130}"]) {
        let alphabet = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let bytes = text.as_bytes();
        let expected = (1..=128).contains(&bytes.len())
            && bytes.iter().all(|byte| alphabet(*byte))
            && bytes[0].is_ascii_alphanumeric()
            && bytes[bytes.len() - 1].is_ascii_alphanumeric();
        prop_assert_eq!(RunId::parse(&text).is_ok(), expected);
    }

    #[test]
    fn a_cursor_is_read_as_it_is_written(cursor in cursor()) {
        let text = cursor.to_string();
        prop_assert_eq!(text.parse::<Cursor>(), Ok(cursor));
        prop_assert!(text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"'), "{}", text);
    }

    #[test]
    fn a_cursor_has_one_spelling(
        text in prop_oneof![hostile_text(), "[~k]?[0-9a-f+~.:-]{0,60}(-end)?"],
        cursor in cursor(),
        at in any::<prop::sample::Index>(),
        byte in any::<char>(),
    ) {
        let mut mutated: Vec<char> = cursor.to_string().chars().collect();
        let at = at.index(mutated.len());
        mutated[at] = byte;
        for text in [text, mutated.into_iter().collect()] {
            if let Ok(cursor) = text.parse::<Cursor>() {
                prop_assert_eq!(cursor.to_string(), text);
            }
        }
    }

    #[test]
    fn json_is_kept_to_the_letter(json in json()) {
        prop_assert_eq!(Payload::classify(json.as_bytes()), Payload::Json(&json));
        oracle::check_payload_field(json.as_bytes());
    }

    #[test]
    fn text_and_bytes_are_read_back_exactly(payload in payload()) {
        oracle::check_payload_field(&payload);
    }

    #[test]
    fn levels_and_statuses_are_found_in_any_payload_without_harm(payload in payload()) {
        let payload = Payload::classify(&payload);
        log_level_of(payload);
        let terminal = ["failed".to_owned()];
        if let Some(status) = terminal_status(payload, &terminal) {
            prop_assert_eq!(status, "failed");
        }
    }

    #[test]
    fn a_level_stands_wherever_its_field_does(
        before in json_string(), value in json(), level in prop::sample::select(vec!["warn", "WARNING"]),
    ) {
        prop_assume!(serde_json::from_str::<String>(&before).ok().as_deref() != Some("level"));
        let log = format!("{{{before}:{value},\"level\":\"{level}\"}}");
        prop_assert_eq!(log_level_of(Payload::classify(log.as_bytes())), LogLevel::Warn);
    }

    #[test]
    fn a_framed_event_is_read_as_it_was_written(
        id in durable_id(), lost in any::<u64>(), kind in kind(), terminal in any::<bool>(), recorded in any::<bool>(),
        source in hostile_text(), payload in payload(),
    ) {
        let mut message = format!(
            "1 {} {} {} {lost} {kind} {} {} {source}\n",
            id.epoch, id.seq, id.us, u8::from(terminal) + 2 * u8::from(recorded), source.len(),
        ).into_bytes();
        message.extend_from_slice(&payload);
        let expected = FramedEvent {
            id, lost, kind, terminal, recorded, source: &source, payload: &payload,
        };
        prop_assert_eq!(FramedEvent::parse(&message), Ok(expected));
    }

    #[test]
    fn a_forged_frame_is_refused_by_the_rules(
        message in prop_oneof![
            vec(any::<u8>(), 0..200),
            "1 [0-9+-]{1,21} [0-9]{1,21} [0-9]{1,21} [0-9]{1,3} (output|status|log|x) [01] [0-9]{1,20} .{0,9}\n.*"
                .prop_map(String::into_bytes),
            // A few words of it are odd.
            vec(prop_oneof![4 => "[+]?0{0,30}[0-9]", 1 => "[0-9]{18,22}", 1 => "[+-]{0,2}[0-9a ]{0,2}"], 5)
                .prop_map(|word| {
                    let [epoch, seq, us, lost, length] = &word[..] else { unreachable!() };
                    format!("1 {epoch} {seq} {us} {lost} output 3 {length} abc\nx\ny").into_bytes()
                }),
        ],
        at in any::<prop::sample::Index>(), byte in any::<Option<u8>>(),
    ) {
        let mut message = message;
        if let (Some(byte), false) = (byte, message.is_empty()) {
            let at = at.index(message.len());
            message[at] = byte;
        }
        prop_assert_eq!(FramedEvent::parse(&message).ok(), oracle::framed_event(&message));
    }

    #[test]
    fn any_time_is_written_without_harm(micros in any::<i64>()) {
        let text = Timestamp::from_micros(micros).to_string();
        prop_assert!(text.ends_with('Z') && text.len() <= 32, "{}", text);
        prop_assert!(
            text.bytes().all(|byte| byte.is_ascii_digit() || b"-:.TZ".contains(&byte)), "{}", text
        );
    }
}
