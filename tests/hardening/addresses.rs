//! Whose stream it is: proxies that are believed, and clients that are not.

use super::Raw;
use crate::support::http::Request;
use crate::support::{Broker, SseClient};

const STREAM: &str = "/api/v1/runs/42/stream";

/// What became of a stream: `hello`, or the status of its `problem`.
async fn opened(broker: &Broker, request: &Request) -> (String, SseClient) {
    let mut client = SseClient::request(broker.addr, request).await;
    client.frame().await;
    let second = client.frame().await;
    let outcome = match second.event.as_str() {
        "problem" => second.json()["status"].to_string(),
        event => event.to_owned(),
    };
    (outcome, client)
}

/// Opens streams one after the other, and keeps them; checks what became of
/// each.
async fn check(broker: &Broker, cases: &[(Request, &str)]) {
    let mut open = Vec::new();
    for (request, expected) in cases {
        let (outcome, client) = opened(broker, request).await;
        assert_eq!(outcome, *expected, "{request:?}");
        open.push(client);
    }
}

#[tokio::test]
async fn a_trusted_proxy_tells_whose_stream_it_is() {
    let from = |name: &str, value: &str| Request::get(STREAM).header(name, value);
    let xff = |value| from("X-Forwarded-For", value);
    let broker = Broker::embedded()
        .set("limits.max_streams_per_ip", 1)
        .set("server.trusted_proxies", "127.0.0.0/8,10.0.0.1")
        .start_ready()
        .await;
    check(
        &broker,
        &[
            (xff("192.0.2.1"), "hello"),
            (xff("192.0.2.1"), "429"),
            (xff("192.0.2.2"), "hello"),
            // Words of the client's own before what the proxy saw.
            (xff("9.9.9.9, 192.0.2.2"), "429"),
            (xff("192.0.2.2, 10.0.0.1"), "429"),
            // One client has a whole /64.
            (xff("2001:db8:1:2::1"), "hello"),
            (xff("2001:db8:1:2:ffff::9"), "429"),
            (xff("2001:db8:1:3::1"), "hello"),
            // Nothing told: the proxy's own.
            (Request::get(STREAM), "hello"),
            (from("Forwarded", "for=192.0.2.77"), "429"),
        ],
    )
    .await;
    let broker = Broker::embedded()
        .set("limits.max_streams_per_ip", 1)
        .set("server.trusted_proxies", "127.0.0.1")
        .set("server.proxy_header", "forwarded")
        .start_ready()
        .await;
    check(
        &broker,
        &[
            (from("Forwarded", "for=192.0.2.1;proto=https"), "hello"),
            (
                from("Forwarded", "for=9.9.9.9, for=\"192.0.2.1:80\""),
                "429",
            ),
            (from("Forwarded", "for=192.0.2.2"), "hello"),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_client_cannot_say_who_it_is() {
    let broker = Broker::embedded()
        .set("limits.max_streams_per_ip", 1)
        .set("server.trusted_proxies", "10.0.0.0/8")
        .start_ready()
        .await;
    let xff = |value| Request::get(STREAM).header("X-Forwarded-For", value);
    check(
        &broker,
        &[(xff("192.0.2.1"), "hello"), (xff("192.0.2.2"), "429")],
    )
    .await;
}

/// Version 2: signature, version and command, family, length, addresses.
fn v2(command: u8, source: [u8; 4]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([0x20 | command, 0x11, 0, 12 + 7]);
    header.extend(source);
    header.extend([10, 0, 0, 1, 0x12, 0x34, 0, 80]);
    // A field that we do not know: type, length, value.
    header.extend([0xee, 0, 4, 1, 2, 3, 4]);
    header
}

#[tokio::test]
async fn the_proxy_protocol_tells_it_for_a_whole_connection() {
    let broker = Broker::embedded()
        .set("limits.max_streams_per_ip", 1)
        .set("limits.header_timeout", "1s")
        .set("server.trusted_proxies", "127.0.0.1")
        .set("server.proxy_header", "proxy-protocol")
        .start()
        .await;
    let after = |header: &[u8]| Request::get(STREAM).after(header);
    check(
        &broker,
        &[
            (after(b"PROXY TCP4 192.0.2.1 10.0.0.1 5000 80\r\n"), "hello"),
            (after(b"PROXY TCP4 192.0.2.1 10.0.0.1 5001 80\r\n"), "429"),
            (after(&v2(1, [192, 0, 2, 1])), "429"),
            (after(&v2(1, [192, 0, 2, 2])), "hello"),
            (after(b"PROXY TCP6 2001:db8::1 ::1 5000 80\r\n"), "hello"),
            (after(b"PROXY TCP6 2001:db8::2 ::1 5000 80\r\n"), "429"),
            // Not told: the proxy's own.
            (after(b"PROXY UNKNOWN\r\n"), "hello"),
            (after(&v2(0, [192, 0, 2, 9])), "429"),
            // Headers of requests are the client's.
            (
                after(b"PROXY TCP4 192.0.2.1 10.0.0.1 5001 80\r\n")
                    .header("X-Forwarded-For", "192.0.2.99"),
                "429",
            ),
        ],
    )
    .await;
    let request = "GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let long = format!("PROXY TCP4 {}\r\n", "1".repeat(200));
    let v2_long = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11"[..], &[0xff, 0xff]].concat();
    for start in [
        b"".as_slice(),
        b"PROXY TCP4 nonsense\r\n",
        b"PROXY TCP4 192.0.2.1 10.0.0.1 5000 99999\r\n",
        b"PROXY\r\n\r\n\r\n\r\n",
        long.as_bytes(),
        &v2_long,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ] {
        let mut client = Raw::connect(broker.addr).await;
        client.send([start, request.as_bytes()].concat()).await;
        assert_eq!(
            client.rest().await,
            "",
            "{:?}",
            String::from_utf8_lossy(start)
        );
    }
    // One that says nothing is not waited for.
    let mut silent = Raw::connect(broker.addr).await;
    silent.send("PROXY TC").await;
    assert_eq!(silent.rest().await, "");
    let good = Request::get("/health/live").after(b"PROXY UNKNOWN\r\n");
    assert_eq!(good.send(broker.addr).await.status(), 200);
}
