//! A long history, and readers that have no end of it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use anyhow::{Context as _, Result, ensure};
use redis::Value;

use super::slow;
use crate::durable::{DurableRun, check_accepted};
use crate::http;
use crate::servers::Redis;

const RUN_ID: &str = "long-history";

/// Events, and bytes of each: 10 MB in all.
const EVENTS: usize = 5_000;
const PAYLOAD_BYTES: usize = 2_000;

/// Events published in one go.
const PIPELINE: usize = 500;

/// Publishes it.
pub(super) fn publish(redis: &Redis) -> Result<()> {
    let run = DurableRun::new(RUN_ID);
    let payload = vec![b'x'; PAYLOAD_BYTES];
    let mut connection = redis.connect()?;
    for _ in 0..EVENTS / PIPELINE {
        let mut pipe = redis::pipe();
        for _ in 0..PIPELINE {
            run.publish(&mut pipe, &payload);
        }
        let answers: Vec<Value> = pipe.query(&mut connection)?;
        check_accepted(&answers)?;
    }
    Ok(())
}

/// Reads it from the beginning, page after page, again and again.
pub(super) fn read_pages(addr: SocketAddr, stop: &AtomicBool, read: &AtomicU64) -> Result<()> {
    let path = format!("/api/v1/runs/{RUN_ID}/events?limit=1000");
    let mut next: Option<String> = None;
    while !stop.load(Relaxed) {
        let after = next.map(|cursor| format!("&after={cursor}"));
        let answer = http::get(addr, &format!("{path}{}", after.unwrap_or_default()))?;
        ensure!(answer.status == 200, "a page came with {}", answer.status);
        read.fetch_add(answer.body.len() as u64, Relaxed);
        next = next_cursor(&answer.body)?;
    }
    Ok(())
}

/// Returns what a page ends with: `…],"next":"CURSOR","previous":…`.
fn next_cursor(page: &str) -> Result<Option<String>> {
    let (_, rest) = page.rsplit_once("\"next\":").context("no page of events")?;
    let cursor = rest
        .strip_prefix('"')
        .and_then(|rest| rest.split('"').next());
    Ok(cursor.map(str::to_owned))
}

/// Follows the run from the beginning until all of it has come, again and
/// again.
pub(super) fn read_streams(addr: SocketAddr, stop: &AtomicBool, read: &AtomicU64) -> Result<()> {
    let path = format!("/api/v1/runs/{RUN_ID}/stream/redis");
    while !stop.load(Relaxed) {
        slow::read_some(addr, &path, EVENTS * PAYLOAD_BYTES, stop, read)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::next_cursor;

    #[test]
    fn the_next_page_is_named_behind_the_events() {
        let page =
            r#"{"events":[{"data":{"next":"no"}}],"next":"1-2-3","previous":null,"gap":null}"#;
        assert_eq!(next_cursor(page).expect("a page"), Some("1-2-3".to_owned()));
        let last = r#"{"events":[],"next":null,"previous":null,"gap":null}"#;
        assert_eq!(next_cursor(last).expect("a page"), None);
        assert!(next_cursor("oops").is_err());
    }
}
