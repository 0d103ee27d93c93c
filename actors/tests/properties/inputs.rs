//! What comes from outside, made up: hostile rather than typical.

use proptest::collection::vec;
use proptest::prelude::*;
use runcast_actors::protocol::{
    BackendKind, Cursor, DurableId, EventId, EventKind, HubId, KubectlPosition, PlainId,
};

/// Text that has broken decoders before, and any other.
pub(crate) fn hostile_text() -> impl Strategy<Value = String> {
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

pub(crate) fn run_id() -> impl Strategy<Value = String> {
    "[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9])?"
}

pub(crate) fn kind() -> impl Strategy<Value = EventKind> {
    prop::sample::select(EventKind::ALL.to_vec())
}

pub(crate) fn blank() -> impl Strategy<Value = String> {
    "[ \t\r\n]{0,3}"
}

pub(crate) fn json_number() -> impl Strategy<Value = String> {
    "-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,4})?"
}

pub(crate) fn json_string() -> impl Strategy<Value = String> {
    prop_oneof![
        hostile_text().prop_map(|text| serde_json::to_string(&text).expect("text is JSON")),
        "\"(\\\\[\"/bfnrt]|\\\\u[0-9a-fA-F]{4}|[a-z\u{2028}\u{7f}])*\"",
    ]
}

/// JSON as people and programs write it: blanks and line breaks between the
/// tokens, numbers no float holds, escapes, lone surrogates, double keys.
pub(crate) fn json() -> impl Strategy<Value = String> {
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
pub(crate) fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        json().prop_map(String::into_bytes),
        hostile_text().prop_map(String::into_bytes),
        vec(any::<u8>(), 0..200),
    ]
}

pub(crate) fn durable_id() -> impl Strategy<Value = DurableId> {
    (any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(epoch, seq, us)| DurableId {
        epoch,
        seq,
        us,
    })
}

pub(crate) fn event_id() -> impl Strategy<Value = EventId> {
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

pub(crate) fn cursor() -> impl Strategy<Value = Cursor> {
    (event_id(), any::<bool>()).prop_map(|(id, end)| Cursor { id, end })
}

pub(crate) fn backend() -> impl Strategy<Value = BackendKind> {
    prop::sample::select(BackendKind::ALL.to_vec())
}
