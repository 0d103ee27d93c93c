//! Run ids and queries: a token for `open-*` reaches no other run, however it is
//! spelt, and what a value holds stays in it.

use super::Table;

/// Spellings of the secret run, and of patterns, where a run id is due.
const SECRET: [&str; 34] = [
    "42",
    "%34%32",
    "4%32",
    "%2534%2532",
    "042",
    "42.",
    "42%00",
    "42%0a",
    "42%0d%0aX-Evil:%201",
    "%0a42",
    "42%20",
    "+42",
    "42%09",
    "42%2f",
    "42%3fx",
    "42%23",
    "42;open-1",
    "42,open-1",
    "open-1,42",
    "open-1%2c42",
    "open-1%0042",
    "%EF%BC%94%EF%BC%92",
    "4%E2%80%8B2",
    "42%E2%80%AE",
    "42%CC%81",
    "%D9%A4%D9%A2",
    "%F0%9D%9F%92%F0%9D%9F%90",
    "*",
    "%2A",
    "open-*",
    "open-%2A",
    "[4]2",
    "%3F2",
    "{42}",
];

/// Look-alikes of what the token is for.
const LOOKALIKES: [&str; 9] = [
    "OPEN-1",
    "Open-1",
    "%D0%BEpen-1",
    "open%E2%80%901",
    "open%EF%BC%8D1",
    "open-%D1%96",
    "ope%E2%80%8Bn-1",
    "%EF%BD%8Fpen-1",
    "open",
];

/// Keys of queries, on routes that read them.
const KEYS: [(&str, &[&str]); 3] = [
    (
        "/stream",
        &[
            "kinds",
            "sources",
            "log_level",
            "from",
            "last_event_id",
            "lastEventId",
            "backend",
        ],
    ),
    ("/events", &["after", "before", "limit", "kinds", "ticket"]),
    ("", &["x", "run_id"]),
];

/// What would end a value, or the head it is echoed in.
const VALUES: [&str; 6] = [
    "%0d%0aX-Evil:%201%0d%0a%0d%0a",
    "%0aX-Evil:%201",
    "%00",
    "%ff%fe",
    "%E2%80%A8event:%20end",
    "*",
];

pub(super) fn add(table: &mut Table) {
    for id in SECRET.into_iter().chain(LOOKALIKES) {
        for rest in ["", "/events", "/stream", "/stream/redis?backend=auto"] {
            table.get(&format!("/api/v1/runs/{id}{rest}"), &[400, 404]);
        }
        let path = format!("/api/v1/runs/{id}/events");
        let lines = "Content-Type: text/plain\r\nContent-Length: 1\r\n";
        let head = table.head("POST", &path, lines);
        table.raw(format!("POST {path}"), head + "x", &[400, 403, 404]);
    }
    for (rest, keys) in KEYS {
        for key in keys {
            for value in VALUES {
                let path = format!("/api/v1/runs/open-1{rest}?{key}={value}");
                table.get(&path, &[200, 400]);
            }
        }
    }
    for query in [
        "ticket=*",
        "ticket=..%2f..%2f_revoked",
        "token=x",
        "access_token=x",
        "Token=x",
        "%74oken=x",
        "jwt=x",
        "x=eyJh.eyJi.c",
    ] {
        let path = format!("/api/v1/runs/42/stream?{query}");
        table.get(&path, &[400, 404]);
        let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        table.raw(format!("without a token, {query}"), head, &[400, 401]);
    }
}
