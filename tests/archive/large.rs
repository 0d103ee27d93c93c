//! A long run: a page reads a part of its object.

use std::fmt::Write as _;

use serde_json::json;

use super::{Archive, wait_written};
use crate::support::Broker;
use crate::support::http::Request;

const EVENTS: usize = 10_000;

/// Lines that do not compress well.
fn body() -> String {
    let mut random = fastrand::Rng::with_seed(7);
    let mut body = String::new();
    for n in 0..EVENTS - 1 {
        let words: [u128; 6] = std::array::from_fn(|_| random.u128(..));
        let text: String = words.iter().map(|word| format!("{word:x}")).collect();
        let event = json!({"kind": "output", "data": {"n": n, "text": text}});
        writeln!(body, "{event}").expect("a String takes all");
    }
    body
}

async fn read_bytes(broker: &Broker) -> f64 {
    broker.metric("runcast_archive_read_bytes_total", &[]).await
}

#[tokio::test]
async fn a_page_of_a_long_run_reads_a_part_of_its_object() {
    let archive = Archive::start().await;
    let settings = archive.settings();
    let broker = settings.start_ready().await;
    let path = "/api/v1/runs/42/events";
    let posted = Request::post(path, "application/x-ndjson", body());
    let ids = crate::support::broker::accepted_ids(&posted.send(broker.addr).await);
    broker.publish_status("42", json!("completed")).await;
    wait_written(&broker, 1).await;
    let before = settings.start_ready().await;
    let pages = [
        format!("{path}?limit=50&after={}", ids[5000]),
        format!("{path}?limit=50&before={}", ids[5000]),
        format!("{path}?limit=50"),
    ];
    let mut expected = Vec::new();
    for page in &pages {
        expected.push(before.get(page).await.text());
    }
    let stream = before.get("/api/v1/runs/42/stream").await.body;
    archive.flush().await;

    let size = std::fs::metadata(&archive.objects()[0])
        .expect("it is there")
        .len() as f64;
    let broker = settings.start_ready().await;
    for (page, expected) in pages.iter().zip(expected) {
        let (read, reads) = (
            read_bytes(&broker).await,
            broker.metric("runcast_archive_reads_total", &[]).await,
        );
        assert_eq!(broker.get(page).await.text(), expected);
        let bytes = read_bytes(&broker).await - read;
        assert!(bytes < size / 8.0, "{bytes} of {size} for {page}");
        let reads = broker.metric("runcast_archive_reads_total", &[]).await - reads;
        assert!(reads <= 2.0, "{reads} reads for {page}");
    }
    // All of it is read once, though a stream takes many pages.
    let read = read_bytes(&broker).await;
    let found = broker.get("/api/v1/runs/42/stream").await.body;
    let rest = |body: &[u8]| body[memchr::memmem::find(body, b"\n\n").expect("a block")..].to_vec();
    assert!(rest(&found) == rest(&stream), "another stream");
    assert!(read_bytes(&broker).await - read < size * 1.1);
}
