//! A cursor as a client sends it: what is taken for one is that one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use runcast_actors::protocol::{Cursor, RunId};

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    if let Ok(cursor) = text.parse::<Cursor>() {
        assert_eq!(cursor.to_string(), text);
        assert_eq!(text.parse(), Ok(cursor));
    }
    if let Ok(id) = RunId::parse(text) {
        assert_eq!(id.as_str(), text);
        let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        assert!(text.bytes().all(is_inner) && text.len() <= 128);
    }
});
