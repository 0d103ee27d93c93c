//! Headers: what does not belong into their values, twice where once is due, too
//! many, too long, and said in another's name.

use super::{BAD, CLOSED, Expected, Table};

/// Headers that we, or what stands in front of us, go by.
const READ: [&str; 18] = [
    "Host",
    "Cookie",
    "Last-Event-ID",
    "Accept",
    "Accept-Encoding",
    "Origin",
    "Referer",
    "Content-Type",
    "Idempotency-Key",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "Forwarded",
    "User-Agent",
    "Sec-Fetch-Site",
    "Access-Control-Request-Method",
    "If-None-Match",
    "Range",
    "X-Request-Id",
];

/// What would end a header's value, or hide something behind it.
const ENDS: [(&str, Expected); 6] = [
    ("a\r b", BAD),
    ("a\0b", BAD),
    ("a\r\n X-Evil: 1", BAD),
    ("a\r\n\tX-Evil: 1", BAD),
    ("a\x7fb", BAD),
    ("a\rX-Evil: 1", BAD),
];

pub(super) fn add(table: &mut Table) {
    for header in READ {
        for (value, expected) in ENDS {
            table.with(&format!("{header}: {value}"), expected);
        }
    }
    names(table);
    twice(table);
    much(table);
    in_anothers_name(table);
}

fn names(table: &mut Table) {
    for line in [
        "X Evil: 1",
        "X-Evil : 1",
        " X-Evil: 1",
        "\tX-Evil: 1",
        "X-Evil",
        ": 1",
        "X\0Evil: 1",
        "X\r-Evil: 1",
        "X(Evil): 1",
        "X-Évil: 1",
        "Authorization\u{200b}: Bearer x",
    ] {
        table.with(line, BAD);
    }
}

fn twice(table: &mut Table) {
    let bearer = table.bearer.trim_end().to_owned();
    for (lines, expected) in [
        ("Host: y", &[200, 400][..]),
        ("Host: 42.evil.example", &[200, 400]),
        (bearer.as_str(), &[401]),
        ("Authorization: Basic YTpi", &[401]),
        ("authorization: Bearer x", &[401]),
        ("Content-Length: 0\r\nContent-Length: 0", BAD),
        ("Content-Length: 0\r\nContent-Length: 1", BAD),
        ("Content-Length: 0, 0", BAD),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            BAD,
        ),
        ("Last-Event-ID: a\r\nLast-Event-ID: b", &[200]),
    ] {
        table.with(lines, expected);
    }
    let both = "Content-Type: application/json\r\nContent-Length: 1";
    // The first one counts.
    table.post(both, "x", &[202]);
    let keys = "Idempotency-Key: a\r\nIdempotency-Key: b\r\nContent-Length: 1";
    table.post(keys, "x", &[202, 400]);
}

fn much(table: &mut Table) {
    for header in ["X-Much", "Cookie", "Last-Event-ID", "Host", "Authorization"] {
        table.with(&format!("{header}: {}", "x".repeat(100_000)), &[431]);
    }
    table.with(&format!("{}: 1", "X".repeat(100_000)), &[431]);
    table.with(&format!("X-Much: {}", ",".repeat(17_000)), &[431]);
    table.with("X-Much: 1\r\n".repeat(1000).trim_end(), &[400, 431]);
    table.with("A:\r\n".repeat(5000).trim_end(), &[400, 431]);
    table.with(&format!("Cookie: {}", "a=b;".repeat(4000)), &[200]);
    table.with(&format!("Accept: {}", "*/*;q=0.1,".repeat(1000)), &[200]);
    table.raw(
        "a head that has no end",
        format!("GET / HTTP/1.1\r\n{}", "X-Much: 1\r\n".repeat(20_000)),
        &[400, 431],
    );
}

/// Whoever says that he is another, or wants another method, path or answer.
fn in_anothers_name(table: &mut Table) {
    for line in [
        "X-HTTP-Method-Override: DELETE",
        "X-Original-URL: /api/v1/runs/42",
        "X-Rewrite-URL: /api/v1/runs/42",
        "X-Forwarded-Prefix: /api/v1/runs/42?",
        "X-Forwarded-User: root",
        "X-Real-IP: 127.0.0.1",
        "X-Forwarded-For: 127.0.0.1",
        "Forwarded: for=127.0.0.1;host=evil.example",
        "X-Auth-Request-User: root",
        "Cookie: runcast=eyJhbGciOiJub25lIn0.e30.",
        "Proxy-Authorization: Basic YTpi",
        "Range: bytes=0-1",
        "If-None-Match: *",
        "Accept-Encoding: gzip;q=1, *;q=0",
        "TE: trailers, deflate;q=0.5",
        "Trailer: Authorization",
        "Connection: close, Authorization",
        "Content-Length:",
        "Max-Forwards: 0",
    ] {
        let expected: Expected = match line {
            "Content-Length:" => BAD,
            _ => &[200],
        };
        table.with(line, expected);
    }
    // A browser's page of somebody else; the answer names no other origin.
    table.with("Origin: https://evil.example", &[200]);
    table.with("Origin: null", &[200]);
    let posted = "Origin: https://evil.example\r\nContent-Length: 1";
    table.post(posted, "x", &[403]);
    table.post(
        "Sec-Fetch-Site: cross-site\r\nOrigin: null\r\nContent-Length: 1",
        "x",
        &[403],
    );
    let hop = "Connection: Upgrade, Transfer-Encoding\r\nContent-Length: 1";
    table.post(hop, "x", &[202, 400, CLOSED]);
}
