//! Bodies: of other kinds than they say, deep, cut, and with what would leave
//! its field.

use super::{Expected, Table};

const EVENTS: &str = "/api/v1/runs/open-2/events";

pub(super) fn add(table: &mut Table) {
    events(table);
    others(table);
}

fn post(table: &mut Table, path: &str, lines: &str, body: &[u8], expected: Expected) {
    let lines = format!("{lines}\r\nContent-Length: {}\r\n", body.len());
    let head = table.head("POST", path, &lines);
    let name = format!(
        "POST {path} {} {}",
        super::shown(&lines),
        body.escape_ascii()
    );
    let name = name.chars().take(200).collect::<String>();
    table.raw(name, [head.as_bytes(), body].concat(), expected);
}

fn events(table: &mut Table) {
    let json = "Content-Type: application/json";
    let deep = format!("{{\"kind\":\"output\",\"data\":{}", "[".repeat(100_000));
    let deep_key = format!("{{\"kind\":{}", "{\"a\":".repeat(50_000));
    let large = "x".repeat(300_000);
    let bad: [&[u8]; 24] = [
        b"",
        b"null",
        b"7",
        b"\"x\"",
        b"{}",
        b"{",
        b"{\"kind\":\"output\"",
        b"{\"kind\":\"admin\",\"data\":1}",
        b"{\"kind\":\"OUTPUT\",\"data\":1}",
        b"{\"kind\":\"output\\u0000\",\"data\":1}",
        b"{\"kind\":[\"output\"],\"data\":1}",
        b"{\"kind\":\"output\",\"kind\":\"status\",\"data\":1}",
        b"{\"kind\":\"output\",\"source\":7,\"data\":1}",
        b"{\"kind\":\"output\",\"source\":null,\"data\":NaN}",
        b"{\"kind\":\"output\",\"data\":01}",
        b"{\"kind\":\"output\",\"data\":\"\\ud800\"",
        b"{\"kind\":\"output\",\"data\":\"\xff\"}",
        b"{\"kind\":\"output\",\"data\":\"\n\"}",
        b"\xef\xbb\xbf{\"kind\":\"output\",\"data\":1}",
        b"\xff\xfe{\0}\0",
        b"{\"kind\":\"output\",\"data\":1}{\"kind\":\"output\",\"data\":1}",
        b"{\"__proto__\":{\"kind\":\"output\"}}",
        deep.as_bytes(),
        deep_key.as_bytes(),
    ];
    for body in bad {
        post(table, EVENTS, json, body, &[400, 409, 422]);
    }
    let text = format!("{{\"kind\":\"output\",\"data\":\"{large}\"}}");
    post(table, EVENTS, json, text.as_bytes(), &[413]);
    // These are data: they stay in their field.
    for body in [
        r#"{"kind":"output","source":"a\r\nevent: end\r\n\r\n","data":"\r\nX-Evil: 1"}"#,
        r#"{"kind":"output","source":"\u2028","data":"</script>"}"#,
        r#"{"kind":"output","run_id":"42","data":1}"#,
        r#"{"kind":"log","data":{"level":"\u0000","run_id":"42"}}"#,
    ] {
        post(table, EVENTS, json, body.as_bytes(), &[202, 400]);
    }
    for (kind, expected) in [
        ("application/x-www-form-urlencoded", &[415][..]),
        ("multipart/form-data; boundary=x", &[415]),
        ("text/html", &[415]),
        ("application/json\u{b}", &[400, 415]),
        ("application/xml", &[415]),
        ("*/*", &[415]),
        ("text/plain; charset=utf-7", &[202, 415]),
        ("text", &[415]),
        ("", &[202, 415]),
    ] {
        post(
            table,
            EVENTS,
            &format!("Content-Type: {kind}"),
            b"x",
            expected,
        );
    }
    for coding in ["gzip", "br", "deflate", "identity, gzip", "x"] {
        let lines = format!("{json}\r\nContent-Encoding: {coding}");
        post(
            table,
            EVENTS,
            &lines,
            b"\x1f\x8b\x08\0\0\0\0\0",
            &[400, 415],
        );
    }
    for key in ["", "a b", "\u{e9}", &"k".repeat(10_000), "a\tb"] {
        let lines = format!("Content-Type: text/plain\r\nIdempotency-Key: {key}");
        post(table, EVENTS, &lines, b"x", &[202, 400]);
    }
}

fn others(table: &mut Table) {
    let json = "Content-Type: application/json";
    for body in [
        r#"{"run_id":"42"}"#,
        r#"{"run_id":"*"}"#,
        r#"{"run_id":"open-*"}"#,
        r#"{"run_id":"open-1\r\nX-Evil: 1"}"#,
        r#"{"run_id":"open-1","run_id":"42"}"#,
        r#"{"run_id":["42"]}"#,
        r#"{"run_id":"\uff14\uff12"}"#,
        r#"{"run_id":"open-1","sub":"root"}"#,
    ] {
        post(table, "/api/v1/tickets", json, body.as_bytes(), &[400, 404]);
    }
    for body in [
        r#"{"sub":"alice"}"#,
        r#"{"jti":"*"}"#,
        r#"{"sub":"a\r\nX-Evil: 1"}"#,
        "x",
    ] {
        post(table, "/api/v1/revocations", json, body.as_bytes(), &[403]);
    }
}
