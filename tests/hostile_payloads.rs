//! Payloads made to break a frame: listed ones, and a seeded minute of random
//! ones. Each must arrive as exactly one event that restores to what was sent.

use std::time::{Duration, Instant};

use crate::support::redis::Publisher;
use crate::support::{Broker, Redis, SseClient};

async fn scene() -> (Redis, Broker, SseClient, Publisher) {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis).start_ready().await;
    let client = broker.follow("42/stream").await;
    let publisher = redis.publisher().await;
    (redis, broker, client, publisher)
}

async fn check(client: &mut SseClient, publisher: &mut Publisher, payload: &[u8]) {
    publisher.publish("run:42:output:stdout", payload).await;
    let frame = client.run_event().await;
    frame.envelope().restored().assert_same(payload);
}

#[tokio::test]
async fn listed_payloads_arrive_whole() {
    let (_redis, _broker, mut client, mut publisher) = scene().await;
    let deep_json = format!("{}1{}", "[".repeat(50_000), "]".repeat(50_000));
    let deep_open = "[".repeat(100_000);
    let long_line = "x".repeat(200_000);
    let payloads: [&[u8]; 32] = [
        b"",
        b"\0",
        b"\n",
        b"\r",
        b"\r\n\r\n",
        b"\n\n\n",
        b"a\rb\nc\r\nd",
        b"\nevent: end\ndata: {}\nid: 1-1-1-end\n\n",
        b"data: {}\n\nevent: gap\ndata: {}\n\n",
        b"id: \0\n\n",
        b"retry: 0\n\n",
        b": comment\n\n",
        b"\"\\n\\nevent: end\"",
        b"\"\\u2028\\u0000\\ud800\"",
        "\"\u{2028}\u{2029}\u{85}\"".as_bytes(),
        "\u{2028}\u{2029}\u{85}\u{b}\u{c}".as_bytes(),
        b"\xef\xbb\xbf{\"a\":1}",
        b"\xff\xfe\xfd",
        b"abc\xc3",
        b"\xed\xa0\x80",
        b"{\"a\":1}\n{\"b\":2}",
        b"{\"run_id\":\"other\",\"kind\":\"status\",\"data\":1}",
        b"{\r\n\t\"pretty\" :\r\n [ 1 ,\n 2 ]\r}\n",
        b"  \n 1 \n ",
        b"1e400",
        b"-0.00000000000000000000000000000000001",
        b"99999999999999999999999999999999999999999999",
        b"{\"a\":1,\"a\":2}",
        b"NaN",
        deep_json.as_bytes(),
        deep_open.as_bytes(),
        long_line.as_bytes(),
    ];
    for payload in payloads {
        check(&mut client, &mut publisher, payload).await;
    }
}

/// Every single byte, and every byte inside and behind a JSON document.
#[tokio::test]
async fn every_byte_arrives_whole() {
    let (_redis, _broker, mut client, mut publisher) = scene().await;
    let mut payloads = Vec::new();
    for byte in 0..=u8::MAX {
        payloads.push(vec![byte]);
        payloads.push([b"\"a", &[byte][..], b"b\""].concat());
        payloads.push([b"[1,", &[byte][..], b"2]"].concat());
        payloads.push([b"{}", &[byte][..]].concat());
    }
    publisher
        .publish_all("run:42:output:stdout", &payloads)
        .await;
    for payload in &payloads {
        let frame = client.run_event().await;
        frame.envelope().restored().assert_same(payload);
    }
}

/// Pieces that mean something to SSE, JSON, UTF-8 or the eye.
const PIECES: [&[u8]; 40] = [
    b"\r",
    b"\n",
    b"\r\n",
    b"\n\n",
    b"\0",
    b"\x1b[31m",
    b"data: ",
    b"event: end",
    b"id: 7",
    b"retry: 1",
    b": ",
    b":",
    b" ",
    b"\t",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b"\\",
    b"\\u0000",
    b"\\ud800",
    b",",
    b"1",
    b"-0",
    b"1e9999",
    b"null",
    b"true",
    b"\"k\":",
    b"\xff",
    b"\xc3",
    b"\xe2\x80\xa8",
    b"\xe2\x80\xa9",
    b"\xc2\x85",
    b"\xef\xbb\xbf",
    b"\xf0\x9f\x9a\x80",
    b"x",
    b"</script>",
    b"\x7f",
    b"\x08",
];

fn random_payload(random: &mut fastrand::Rng) -> Vec<u8> {
    match random.u8(..4) {
        0 => (0..random.usize(..200)).map(|_| random.u8(..)).collect(),
        1 => random_json(random, 0).into_bytes(),
        _ => {
            let count = random.usize(..30);
            let pieces = (0..count).map(|_| PIECES[random.usize(..PIECES.len())]);
            pieces.collect::<Vec<_>>().concat()
        }
    }
}

/// A JSON document with odd white space, spelled in odd ways.
fn random_json(random: &mut fastrand::Rng, depth: u32) -> String {
    let blank = ["", " ", "\n", "\r\n", "\t", "\r"][random.usize(..6)];
    let text = match random.u8(..if depth > 4 { 4 } else { 6 }) {
        0 => format!("{}e{}", random.i64(..), random.i16(..)),
        1 => ["null", "true", "false", "-0.0"][random.usize(..4)].to_owned(),
        2 | 3 => {
            let text: String = (0..random.usize(..20)).map(|_| random.char(..)).collect();
            serde_json::Value::String(text).to_string()
        }
        4 => {
            let items: Vec<String> = (0..random.usize(..4))
                .map(|_| random_json(random, depth + 1))
                .collect();
            format!("[{}]", items.join(","))
        }
        _ => {
            let items: Vec<String> = (0..random.usize(..4))
                .map(|n| format!("\"{n}\":{}", random_json(random, depth + 1)))
                .collect();
            format!("{{{}}}", items.join(","))
        }
    };
    format!("{blank}{text}{blank}")
}

/// A seed that fails once is a case for ever: set `RUNCAST_TEST_SEED`.
#[tokio::test]
async fn random_payloads_arrive_whole() {
    let seed = std::env::var("RUNCAST_TEST_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(20_261_123);
    let mut random = fastrand::Rng::with_seed(seed);
    let (_redis, _broker, mut client, mut publisher) = scene().await;
    let begin = Instant::now();
    let mut rounds = 0;
    while rounds < 40 && begin.elapsed() < Duration::from_secs(30) {
        let payloads: Vec<Vec<u8>> = (0..250).map(|_| random_payload(&mut random)).collect();
        publisher
            .publish_all("run:42:output:stdout", &payloads)
            .await;
        for (n, payload) in payloads.iter().enumerate() {
            let frame = client.run_event().await;
            let same = || frame.envelope().restored().assert_same(payload);
            let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(same));
            assert!(checked.is_ok(), "seed {seed}, round {rounds}, payload {n}");
        }
        rounds += 1;
    }
}
