//! The first line: methods, targets, versions; and what is no HTTP/1.1 at all.

use super::{BAD, CLOSED, Table};

pub(super) fn add(table: &mut Table) {
    methods(table);
    targets(table);
    versions(table);
    others(table);
}

fn methods(table: &mut Table) {
    let run = "/api/v1/runs/open-1";
    for method in [
        "PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "OPTIONS", "PROPFIND", "PURGE", "get", "Get",
        "PRI", "DEBUG", "M-SEARCH", "GETGET",
    ] {
        let head = table.head(method, run, "");
        table.raw(format!("method {method}"), head, &[405]);
    }
    for method in [
        "G\0T", "GE\tT", "G(T", "GÉT", "", "\"GET\"", "GET,POST", "GET:",
    ] {
        let head = table.head(method, run, "");
        table.raw(format!("method {}", method.escape_debug()), head, BAD);
    }
    let long = table.head(&"G".repeat(100_000), run, "");
    table.raw("a method of 100,000 letters", long, &[400, 431]);
    let space = format!(" {}", table.head("GET", run, ""));
    table.raw("a blank before the method", space, BAD);
    for path in ["*", "/", "/metrics", "/api/v1/tickets", "/health"] {
        for method in ["OPTIONS", "TRACE", "DELETE"] {
            let head = table.head(method, path, "");
            table.raw(format!("{method} {path}"), head, &[400, 403, 404, 405]);
        }
    }
}

fn targets(table: &mut Table) {
    for target in [
        "http://evil.example/api/v1/runs/42",
        "http://x/api/v1/runs/42",
        "https://root:root@x/api/v1/runs/42",
        "http:/api/v1/runs/42",
        "http:///api/v1/runs/42",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "x:80",
        "169.254.169.254:80",
        "//evil.example/api/v1/runs/42",
        "//api/v1/runs/42",
        "/api/v1//runs/42",
        "/api/v1/runs//42",
        "/./api/v1/runs/42",
        "/api/v1/x/../runs/42",
        "/api/v1/runs/open-1/../42",
        "/api/v1/runs/open-1/%2e%2e/42",
        "/api/v1/runs/open-1%2f..%2f42",
        "/api/v1/runs/open-1%5c..%5c42",
        "/api/v1/runs/open-1/..;/42",
        "/api%2fv1%2fruns%2f42",
        "/API/v1/runs/42",
        "/api/v1/runs/42/",
        "/api/v1/runs/42//stream",
        "/api/v1/runs/42/stream/",
        "/api/v1/runs/42;x=/stream",
        "/api/v1/runs/42.json",
        "/api/v1/runs/42/stream/../events",
        "/../../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/..%c0%af..%c0%afetc/passwd",
        "/%uff0e%uff0e/etc/passwd",
        "/.git/config",
        "/.env",
        "/assets/../../../etc/passwd",
        "/assets/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/%00",
        "/%",
        "/%zz",
        "/%f",
        "*",
        "?",
        "api/v1/runs/42",
        "\\api\\v1\\runs\\42",
    ] {
        // What is let in at all is no route, or a run that nobody has.
        table.get(target, &[400, 404]);
    }
    for target in [
        "/api/v1/runs/42\u{0}",
        "/api/v1/runs/\u{ff14}\u{ff12}",
        "/api/v1/runs/4\t2",
        "/api/v1/runs/4 2",
        "/ HTTP/1.1\r\nX-Evil: 1\r\n\r\nGET /api/v1/runs/42",
        "/\r/api/v1/runs/42",
        "/api/v1/runs/42\u{7f}",
        "",
    ] {
        table.get(target, &[400, 404, 405]);
    }
    table.get(&format!("/{}", "x".repeat(100_000)), &[431]);
    table.get(&format!("/api/v1/runs/{}", "x".repeat(10_000)), BAD);
    table.get(&format!("/api/v1/runs?{}", "x=1&".repeat(30_000)), &[431]);
    table.get(
        &format!("/api/v1/runs/open-1?{}", "kinds=&".repeat(2000)),
        &[200],
    );
    table.get("/api/v1/runs/open-1#/../42", &[200, 400, 404]);
}

fn versions(table: &mut Table) {
    let rest = format!("Host: x\r\n{}Connection: close\r\n\r\n", table.bearer);
    for version in [
        "HTTP/0.9",
        "HTTP/1.2",
        "HTTP/2.0",
        "HTTP/3",
        "HTTP/9.9",
        "HTTP/11",
        "HTTP/1.",
        "HTTP/.1",
        "HTTP/1.1.1",
        "HTTP/1.10",
        "http/1.1",
        "HTTPS/1.1",
        "ICAP/1.0",
        "RTSP/1.0",
        "HTTP/1.1 x",
        "HTTP/1.1\0",
        "HTTP/１.1",
    ] {
        let line = format!("GET /api/v1/runs/open-1 {version}\r\n{rest}");
        table.raw(format!("version {}", version.escape_debug()), line, BAD);
    }
    table.raw("HTTP/0.9", "GET /\r\n\r\n", BAD);
    table.raw("HTTP/0.9 of a run", "GET /api/v1/runs/42\r\n\r\n", BAD);
    table.raw(
        "a version and no target",
        format!("GET HTTP/1.1\r\n{rest}"),
        BAD,
    );
    table.raw(
        "only lines",
        "\r\n".repeat(10_000),
        &[400, 408, 431, CLOSED],
    );
}

/// Other protocols, and those who want to go over to one.
fn others(table: &mut Table) {
    let upgrades = [
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
        "Connection: Upgrade\r\nUpgrade: h2c",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Connection: Upgrade\r\nUpgrade: TLS/1.0",
        "Connection: Upgrade\r\nUpgrade: runcast",
        "Expect: 200-ok",
        "Expect: 100-continue",
    ];
    for lines in upgrades {
        // Nobody goes over: it is a request as any other.
        table.with(lines, &[200, 400, 417]);
    }
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x12\x04\0\0\0\0\0";
    let others: [(&str, &[u8]); 13] = [
        ("an HTTP/2 preface", preface),
        (
            "a TLS hello",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        ),
        ("SSLv2", b"\x80\x2e\x01\x00\x02\r\n\r\n"),
        ("SSH", b"SSH-2.0-OpenSSH_9.2\r\n\r\n"),
        ("SOCKS5", b"\x05\x01\x00\r\n\r\n"),
        ("Redis", b"*1\r\n$4\r\nPING\r\n\r\n"),
        ("Redis, in line", b"PING\r\n\r\n"),
        ("SMTP", b"EHLO x\r\n\r\n"),
        ("MQTT", b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\r\n\r\n"),
        (
            "PROXY, version 1",
            b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\nGET / HTTP/1.1\r\n\r\n",
        ),
        (
            "PROXY, version 2",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01\0\x01\0\x02",
        ),
        ("an answer", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        ("zeros", &[0; 20_000]),
    ];
    for (name, bytes) in others {
        table.raw(name, bytes, &[400, 408, 431, CLOSED]);
    }
}
