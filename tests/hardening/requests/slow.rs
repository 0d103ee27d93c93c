//! Requests that stop, at each place where one can: they are answered 408, or
//! closed, and hold nothing.

use super::{CLOSED, Table};

pub(super) fn add(table: &mut Table) {
    for head in [
        "",
        "G",
        "GET ",
        "GET /health/live",
        "GET /health/live HTTP/1.1",
        "GET /health/live HTTP/1.1\r",
        "GET /health/live HTTP/1.1\r\n",
        "GET /health/live HTTP/1.1\r\nHost",
        "GET /health/live HTTP/1.1\r\nHost: x",
        "GET /health/live HTTP/1.1\r\nHost: x\r\n",
        "GET /health/live HTTP/1.1\r\nHost: x\r\n\r",
        "\r\n",
        "POST /api/v1/runs/open-2/events HTTP/1.1\r\nContent-Length: 1\r\n",
    ] {
        table.raw(format!("stops after {head:?}"), head, &[408, CLOSED]);
    }
    for (lines, body) in [
        ("Content-Length: 5", ""),
        ("Content-Length: 5", "xxxx"),
        ("Content-Length: 5\r\nExpect: 100-continue", ""),
        ("Transfer-Encoding: chunked", ""),
        ("Transfer-Encoding: chunked", "5"),
        ("Transfer-Encoding: chunked", "5\r"),
        ("Transfer-Encoding: chunked", "5\r\n"),
        ("Transfer-Encoding: chunked", "5\r\nxxx"),
        ("Transfer-Encoding: chunked", "5\r\nxxxxx"),
        ("Transfer-Encoding: chunked", "5\r\nxxxxx\r\n"),
        ("Transfer-Encoding: chunked", "5\r\nxxxxx\r\n0"),
        ("Transfer-Encoding: chunked", "5\r\nxxxxx\r\n0\r\n"),
        ("Transfer-Encoding: chunked", "5;"),
        ("Transfer-Encoding: chunked", "00000000000000000000"),
    ] {
        table.post(lines, body, &[408]);
    }
}
