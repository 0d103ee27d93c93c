//! Where a request ends: whatever two readers may see differently is refused,
//! and nothing behind it is served.

use super::{BAD, Expected, Table};

/// What somebody wants to have served as a request of another client.
const HIDDEN: &str = "GET /api/v1/config HTTP/1.1\r\nHost: x\r\n\r\n";

pub(super) fn add(table: &mut Table) {
    two_lengths(table);
    transfer_encodings(table);
    lengths(table);
    chunks(table);
}

fn two_lengths(table: &mut Table) {
    let hidden = format!("0\r\n\r\n{HIDDEN}");
    for lines in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Transfer-Encoding: chunked\r\nContent-Length: 0",
        "Content-Length: 5\r\ntransfer-encoding: CHUNKED",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 6\r\nContent-Length: 5",
        "Content-Length: 5, 6",
    ] {
        table.post(lines, &hidden, BAD);
    }
}

/// `chunked` as some read it and others do not.
fn transfer_encodings(table: &mut Table) {
    let hidden = format!("0\r\n\r\n{HIDDEN}");
    for coding in [
        "xchunked",
        "chunked, identity",
        "identity, chunked",
        "gzip, chunked",
        "chunked, gzip",
        "chunked, chunked",
        "chunked;q=1",
        "\"chunked\"",
        "'chunked'",
        "chunke",
        "chunked-false",
        ", chunked",
        "chunked,",
        "identity",
        "gzip",
        "\u{b}chunked",
        "chunked\u{b}",
        "\u{c}chunked",
        "ｃhunked",
        "",
    ] {
        table.post(&format!("Transfer-Encoding: {coding}"), &hidden, BAD);
    }
    for line in [
        "Transfer-Encoding : chunked",
        " Transfer-Encoding: chunked",
        "Transfer-Encoding:\r\n chunked",
        "Transfer-Encoding: x\r\n chunked",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Foo: bar\rTransfer-Encoding: chunked",
    ] {
        table.post(line, &hidden, BAD);
    }
    let bearer = table.bearer.clone();
    table.raw(
        "chunked of HTTP/1.0",
        format!(
            "POST /api/v1/runs/open-2/events HTTP/1.0\r\nHost: x\r\n{bearer}\
             Content-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n{hidden}"
        ),
        BAD,
    );
}

fn lengths(table: &mut Table) {
    for length in [
        "+1",
        "-1",
        "1x",
        "0x1",
        "1.0",
        "1e0",
        "1 1",
        "1,",
        "\"1\"",
        "1\u{b}",
        "99999999999999999999999",
        "１",
        "one",
        "",
        " ",
    ] {
        table.post(
            &format!("Content-Length: {length}"),
            &format!("x{HIDDEN}"),
            BAD,
        );
    }
    table.post("Content-Length : 1", &format!("x{HIDDEN}"), BAD);
    for length in ["18446744073709551615", "4294967296", "5000000000"] {
        table.post(&format!("Content-Length: {length}"), HIDDEN, &[413]);
    }
}

fn chunks(table: &mut Table) {
    let long = format!("1;{}\r\nx\r\n0\r\n\r\n", "x".repeat(100_000));
    for (body, expected) in [
        ("1\r\nx\r\n0\r\n\r\n", &[202][..]),
        ("FFFFFFFFFFFFFFFFF\r\nx\r\n0\r\n\r\n", BAD),
        ("FFFFFFFFFFFFFFFF\r\nx\r\n0\r\n\r\n", &[400, 408, 413]),
        ("-1\r\nx\r\n0\r\n\r\n", BAD),
        ("+1\r\nx\r\n0\r\n\r\n", BAD),
        ("0x1\r\nx\r\n0\r\n\r\n", BAD),
        (" 1\r\nx\r\n0\r\n\r\n", BAD),
        ("g\r\nx\r\n0\r\n\r\n", BAD),
        ("\r\nx\r\n0\r\n\r\n", BAD),
        ("1\nx\n0\n\n", BAD),
        ("1\r\nxx\r\n0\r\n\r\n", BAD),
        ("1\r\nx0\r\n\r\n", BAD),
        ("1\r\nx\r0\r\n\r\n", BAD),
        ("1\0\r\nx\r\n0\r\n\r\n", BAD),
        ("1;a\nb\r\nx\r\n0\r\n\r\n", BAD),
        ("1;a\rb\r\nx\r\n0\r\n\r\n", BAD),
        ("１\r\nx\r\n0\r\n\r\n", BAD),
        (long.as_str(), &[202, 400, 413]),
        // Trailers are read, and count for nothing.
        ("1\r\nx\r\n0\r\nX-Evil: 1\r\n\r\n", &[202]),
        ("1\r\nx\r\n0\r\nContent-Length: 9\r\n\r\n", &[202]),
        ("1\r\nx\r\n0\r\nAuthorization: Bearer x\r\n\r\n", &[202]),
    ] {
        let expected: Expected = expected;
        table.post("Transfer-Encoding: chunked", body, expected);
    }
}
