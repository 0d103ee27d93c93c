//! Properties of the protocol and its encoding that hold for every input, not only for the
//! examples of the unit tests. A failing case is shrunk, printed with its
//! seed and kept in `properties.proptest-regressions`.

mod oracle;

use std::time::Instant;

use proptest::collection::vec;
use proptest::prelude::*;
use runcast_actors::protocol::{
    BackendKind, Channel, Cursor, DurableId, EventId, EventKind, FramedEvent, Gap, GapReason,
    HubId, KubectlPosition, LogLevel, Payload, PlainId, Problem, RunId, Timestamp, log_level_of,
    terminal_status,
};
use runcast_actors::sse::{
    self, EventFrame, FrameClass, SEGMENT_BYTES_MAX, Segment, SegmentBuilder,
};

/// Text that has broken decoders before, and any other.
fn hostile_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "\\PC{0,8}",
        any::<char>().prop_map(String::from),
        prop::sample::select(vec![
            "\r",
            "\n",
            "\r\n",
            "\n\n",
            "\0",
            "\u{2028}",
            "\u{85}",
            "\u{feff}",
            ":",
            " ",
            "*",
            "?",
            "[",
            "\\",
            "\"",
            "{",
            "}",
            "data: x",
            "event: end",
            "id: 1",
            "retry: 1",
            "\u{1b}[31m",
        ])
        .prop_map(str::to_owned),
    ];
    vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

fn run_id() -> impl Strategy<Value = String> {
    "[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9])?"
}

fn kind() -> impl Strategy<Value = EventKind> {
    prop::sample::select(EventKind::ALL.to_vec())
}

fn blank() -> impl Strategy<Value = String> {
    "[ \t\r\n]{0,3}"
}

fn json_number() -> impl Strategy<Value = String> {
    "-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,4})?"
}

fn json_string() -> impl Strategy<Value = String> {
    prop_oneof![
        hostile_text().prop_map(|text| serde_json::to_string(&text).expect("text is JSON")),
        "\"(\\\\[\"/bfnrt]|\\\\u[0-9a-fA-F]{4}|[a-z\u{2028}\u{7f}])*\"",
    ]
}

/// JSON as people and programs write it: blanks and line breaks between the
/// tokens, numbers no float holds, escapes, lone surrogates, double keys.
fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        json_number(),
        json_string(),
    ];
    let value = leaf.prop_recursive(4, 32, 5, |inner| {
        let spaced = (blank(), inner, blank())
            .prop_map(|(a, value, b)| a + &value + &b)
            .boxed();
        let member = (blank(), json_string(), blank(), spaced.clone())
            .prop_map(|(a, key, b, value)| format!("{a}{key}{b}:{value}"));
        prop_oneof![
            vec(spaced, 0..5).prop_map(|items| format!("[{}]", items.join(","))),
            vec(member, 0..5).prop_map(|members| format!("{{{}}}", members.join(","))),
        ]
    });
    (blank(), value, blank()).prop_map(|(a, value, b)| a + &value + &b)
}

/// Payloads of every class.
fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        json().prop_map(String::into_bytes),
        hostile_text().prop_map(String::into_bytes),
        vec(any::<u8>(), 0..200),
    ]
}

fn durable_id() -> impl Strategy<Value = DurableId> {
    (any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(epoch, seq, us)| DurableId {
        epoch,
        seq,
        us,
    })
}

fn event_id() -> impl Strategy<Value = EventId> {
    let hub_id =
        "[0-9a-f]{12}".prop_map(|text: String| text.parse::<HubId>().expect("twelve hex digits"));
    let plain = (hub_id, any::<u64>(), prop::option::of(durable_id()))
        .prop_map(|(hub, n, durable)| PlainId { hub, n, durable });
    let kubectl = vec((any::<u64>(), any::<u64>(), any::<u32>()), 0..20).prop_map(|entries| {
        let mut position = KubectlPosition::default();
        for (key, ns, n) in entries {
            position.set(key, ns, n);
        }
        position
    });
    prop_oneof![
        durable_id().prop_map(EventId::Durable),
        plain.prop_map(EventId::Plain),
        kubectl.prop_map(EventId::Kubectl),
    ]
}

fn cursor() -> impl Strategy<Value = Cursor> {
    (event_id(), any::<bool>()).prop_map(|(id, end)| Cursor { id, end })
}

/// An event as a publisher sends it, and the id it is given.
#[derive(Debug, Clone)]
struct Published {
    kind: EventKind,
    source: String,
    payload: Vec<u8>,
    micros: i64,
    id: EventId,
}

fn published() -> impl Strategy<Value = Published> {
    let large = vec(any::<u8>(), 0..9_000);
    let payload = prop_oneof![8 => payload(), 1 => large];
    (kind(), hostile_text(), payload, any::<i64>(), event_id()).prop_map(
        |(kind, source, payload, micros, id)| Published {
            kind,
            source,
            payload,
            micros,
            id,
        },
    )
}

fn backend() -> impl Strategy<Value = BackendKind> {
    prop::sample::select(BackendKind::ALL.to_vec())
}

/// Cuts `bytes` at the places given.
fn cut<'a>(bytes: &'a [u8], places: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut at: Vec<usize> = places
        .iter()
        .map(|place| place.index(bytes.len() + 1))
        .collect();
    at.extend([0, bytes.len()]);
    at.sort_unstable();
    at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

/// Places to cut a stream at.
fn cuts() -> impl Strategy<Value = Vec<prop::sample::Index>> {
    vec(any::<prop::sample::Index>(), 0..6)
}

/// Encodes `events` as a hub does.
fn segments(run_id: &RunId, backend: BackendKind, events: &[Published]) -> Vec<Segment> {
    let (mut builder, now) = (SegmentBuilder::default(), Instant::now());
    for event in events {
        let ts = Timestamp::from_micros(event.micros);
        let payload = Payload::classify(&event.payload);
        let text = ts.to_string();
        let frame = EventFrame {
            run_id,
            kind: event.kind,
            source: &event.source,
            ts: &text,
            backend,
            payload,
        };
        let class = FrameClass::of(event.kind, log_level_of(payload));
        builder.push_event(&frame, &event.id, class, None, ts, now);
    }
    builder.take(now)
}

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
        id in durable_id(), lost in any::<u64>(), kind in kind(), terminal in any::<bool>(),
        source in hostile_text(), payload in payload(),
    ) {
        let mut message = format!(
            "1 {} {} {} {lost} {kind} {} {} {source}\n",
            id.epoch, id.seq, id.us, u8::from(terminal), source.len(),
        ).into_bytes();
        message.extend_from_slice(&payload);
        let expected = FramedEvent { id, lost, kind, terminal, source: &source, payload: &payload };
        prop_assert_eq!(FramedEvent::parse(&message), Ok(expected));
    }

    #[test]
    fn a_forged_frame_does_no_harm(
        message in prop_oneof![
            vec(any::<u8>(), 0..200),
            "1 [0-9+-]{1,21} [0-9]{1,21} [0-9]{1,21} [0-9]{1,3} (output|status|log|x) [01] [0-9]{1,20} .{0,9}\n.*"
                .prop_map(String::into_bytes),
        ],
    ) {
        if let Ok(event) = FramedEvent::parse(&message) {
            prop_assert!(event.payload.len() < message.len());
        }
    }

    #[test]
    fn any_time_is_written_without_harm(micros in any::<i64>()) {
        let text = Timestamp::from_micros(micros).to_string();
        prop_assert!(text.ends_with('Z') && text.len() <= 32, "{}", text);
        prop_assert!(
            text.bytes().all(|byte| byte.is_ascii_digit() || b"-:.TZ".contains(&byte)), "{}", text
        );
    }

    #[test]
    fn every_event_comes_out_as_it_went_in(
        run in run_id(), backend in backend(), events in vec(published(), 0..12), cuts in cuts(),
    ) {
        let run_id = RunId::parse(&run).expect("valid");
        let segments = segments(&run_id, backend, &events);
        let stream: Vec<u8> = segments.iter().flat_map(|segment| segment.bytes().to_vec()).collect();
        let decoded = oracle::decode(&cut(&stream, &cuts));
        prop_assert_eq!(decoded.len(), events.len());
        for (decoded, event) in decoded.iter().zip(&events) {
            let ts = Timestamp::from_micros(event.micros).to_string();
            let expected = oracle::Event {
                run_id: &run,
                kind: event.kind,
                source: &event.source,
                ts: &ts,
                backend,
                payload: &event.payload,
                id: &event.id.to_string(),
            };
            oracle::check_event(decoded, &expected);
        }
    }

    #[test]
    fn a_segment_knows_its_frames(
        run in run_id(), backend in backend(), events in vec(published(), 1..12),
    ) {
        let run_id = RunId::parse(&run).expect("valid");
        let mut expected = events.iter();
        for (no, segment) in segments(&run_id, backend, &events).iter().enumerate() {
            let frames = segment.frames().len();
            prop_assert_eq!(segment.no(), no as u64);
            prop_assert!(frames == 1 || segment.bytes().len() <= SEGMENT_BYTES_MAX);
            prop_assert_eq!(segment.events_through() - segment.events_before(), frames as u64);
            for index in 0..frames {
                let event = expected.next().expect("no more frames than events");
                let frame = segment.slice(index..index + 1);
                prop_assert_eq!(oracle::decode(&[&frame]).len(), 1);
                let id = event.id.to_string();
                prop_assert_eq!(segment.id_of(index), Some(id.as_str()));
                let source = [b"\"", segment.source_of(index), b"\""].concat();
                let source: String = serde_json::from_slice(&source).expect("a JSON string");
                prop_assert_eq!(&source, &event.source);
            }
        }
        prop_assert!(expected.next().is_none());
    }

    #[test]
    fn the_broker_s_own_events_are_one_event_each(
        run in run_id(), backend in backend(), cursor in cursor(), other in cursor(),
        number in any::<u64>(), micros in any::<i64>(), detail in hostile_text(), cuts in cuts(),
        reason in prop::sample::select(GapReason::ALL.to_vec()),
    ) {
        let run_id = RunId::parse(&run).expect("valid");
        let (cursor, other) = (cursor.to_string(), other.id.to_string());
        let mut stream = sse::retry_block(number).to_vec();
        let mut text = String::new();
        sse::hello_frame(&mut text, &run_id, backend, "replay", Some(&cursor), number);
        sse::cursor_frame(&mut text, &cursor);
        let gap = Gap { after: Some(cursor.clone()), before: None, missed: Some(number), reason };
        text += &sse::gap_frame(&gap);
        let problem = Problem::new(503, "slug", "Title", detail.clone()).retryable(true);
        text += &sse::problem_frame(&problem);
        stream.extend_from_slice(text.as_bytes());
        let now = Timestamp::from_micros(micros);
        stream.extend_from_slice(&sse::heartbeat_frame(now, Some(number)));
        stream.extend_from_slice(sse::end_frame("completed", None, &other).as_bytes());
        stream.extend_from_slice(sse::goodbye_frame("drain", number).as_bytes());

        let decoded = oracle::decode(&cut(&stream, &cuts));
        let end = format!("{other}-end");
        let expected = [
            ("hello", ""), ("cursor", cursor.as_str()), ("gap", &cursor), ("problem", &cursor),
            ("heartbeat", &cursor), ("end", &end), ("goodbye", &end),
        ];
        prop_assert_eq!(decoded.len(), expected.len());
        for (decoded, (event, last_id)) in decoded.iter().zip(expected) {
            prop_assert_eq!(&decoded.event, event);
            prop_assert_eq!(&decoded.last_id, last_id);
            let data: serde_json::Value = serde_json::from_str(&decoded.data).expect("JSON");
            if event == "problem" {
                prop_assert_eq!(&data["detail"], &detail);
            }
        }
    }
}
