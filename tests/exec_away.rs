//! `runcast exec` while Redis is away: nothing of the command changes, and
//! what it wrote is published later, in order and once.

use crate::exec::shell;
use crate::support::Redis;
use crate::support::history::{
    assert_lines, data_of, entries, function_calls, kill_connections_until, last_data, statuses,
    wait_entries,
};

/// The numbers from 1 to `last`, a line each, as `seq` prints them.
fn lines(last: u64) -> Vec<Vec<u8>> {
    (1..=last).map(|n| n.to_string().into_bytes()).collect()
}

fn text(lines: &[Vec<u8>]) -> Vec<u8> {
    let mut text = lines.join(&b'\n');
    text.push(b'\n');
    text
}

#[tokio::test]
async fn a_frozen_redis_changes_nothing_for_the_command() {
    let redis = Redis::start().await;
    redis.freeze();
    let output = shell(&redis, "head -c 50000000 /dev/zero; seq 100000; exit 5")
        .set("exec.flush_timeout", "10ms")
        .run()
        .await;
    assert_eq!(output.code, 5);
    let mut expected = vec![0; 50_000_000];
    expected.extend(text(&lines(100_000)));
    assert!(output.stdout == expected, "other bytes came out");
    // The zeroes are one line of 191 pieces, their last one with the first
    // number: 190 whole ones, and two statuses.
    let told = output.stderr();
    assert!(
        told.contains("not published: 100192 lines that Redis did not take, 0 dropped"),
        "{told}"
    );
}

#[tokio::test]
async fn what_came_while_redis_was_away_is_replayed_in_order_from_memory_and_disk() {
    const LAST: u64 = 30_000;
    let redis = Redis::start().await;
    redis.freeze();
    let cli = shell(&redis, "seq 30000")
        .set("limits.max_event_bytes", "1KiB")
        .set("exec.spool_memory_bytes", "10KiB")
        .set("exec.flush_timeout", "60s")
        .start();
    cli.wait_stdout(&text(&lines(LAST))).await;
    cli.wait_stderr("not published for now").await;
    redis.thaw();
    let output = cli.end().await;
    assert_eq!(output.code, 0);
    assert!(output.stderr().contains("Redis takes events again"));
    let entries = entries(&mut redis.publisher().await, "42").await;
    assert_lines(&data_of(&entries, "stdout"), &lines(LAST));
    assert!(entries.iter().all(|entry| entry.lost == 0));
    assert_eq!(statuses(&entries).len(), 2);
}

/// Exactly the lines missing are counted, in Redis where they are missing and
/// on stderr.
#[tokio::test]
async fn lines_that_no_spool_holds_are_a_counted_gap() {
    const LAST: u64 = 20_000;
    let redis = Redis::start().await;
    redis.freeze();
    let mut cli = shell(&redis, "seq 20000; cat")
        .set("limits.max_event_bytes", "1KiB")
        .set("exec.spool_memory_bytes", "10KiB")
        .set("exec.spool_disk_bytes", "20KiB")
        .set("exec.flush_timeout", "60s")
        .start();
    cli.wait_stdout(&text(&lines(LAST))).await;
    cli.wait_stderr("the newest lines are dropped, the spool takes no more: it is full")
        .await;
    redis.thaw();
    // Once there is room again lines are taken again.
    let mut publisher = redis.publisher().await;
    let mut more = 0;
    loop {
        cli.feed("after\n");
        more += 1;
        if last_data(&mut publisher, "42").await == b"after" {
            break;
        }
    }
    let output = cli.end().await;
    assert_eq!(output.code, 0);

    let entries = entries(&mut publisher, "42").await;
    let lost: u64 = entries.iter().map(|entry| entry.lost).sum();
    assert_eq!(entries.len() as u64 + lost, LAST + more + 2);
    assert!(lost > 10_000, "{lost} is no burst");
    let told = format!("not published: 0 lines that Redis did not take, {lost} dropped");
    assert!(output.stderr().contains(&told), "{}", output.stderr());
    assert_eq!(output.stderr().matches("the newest lines").count(), 1);

    // The oldest are kept, and the gap stands before what follows it.
    let data = data_of(&entries, "stdout");
    let kept = data.iter().position(|line| line == b"after");
    let kept = kept.expect("it was taken");
    assert_lines(&data[..kept], &lines(LAST)[..kept]);
    assert_eq!(entries[kept + 1].lost, lost);
}

#[tokio::test]
async fn redis_may_come_after_the_command_has_begun() {
    let mut redis = Redis::down();
    let mut cli = shell(&redis, "cat").start();
    cli.feed("early\n");
    cli.wait_stdout(b"early\n").await;
    redis.restart().await;
    let mut publisher = redis.publisher().await;
    let shown = wait_entries(&mut publisher, "42", 2).await;
    assert_eq!(data_of(&shown, "stdout"), [b"early"]);
    cli.feed("late\n");
    assert_eq!(cli.end().await.code, 0);
    let entries = entries(&mut publisher, "42").await;
    assert_eq!(data_of(&entries, "stdout"), [&b"early"[..], b"late"]);
}

#[tokio::test]
async fn a_redis_killed_midway_that_keeps_its_data_has_everything_once() {
    let mut redis = Redis::start().await;
    let mut cli = shell(&redis, "cat").start();
    let all = lines(3000);
    for (round, part) in all.chunks(1000).enumerate() {
        cli.feed(text(part));
        let expected = text(&all[..(round + 1) * 1000]);
        cli.wait_stdout(&expected).await;
        if round < 2 {
            let count = (round as i64 + 1) * 1000 + 1;
            let mut publisher = redis.publisher().await;
            wait_entries(&mut publisher, "42", count).await;
            let _: String = publisher.command(&["SAVE"]).await;
            redis.kill();
            cli.feed("");
            redis.restart().await;
        }
    }
    assert_eq!(cli.end().await.code, 0);
    let entries = entries(&mut redis.publisher().await, "42").await;
    assert_lines(&data_of(&entries, "stdout"), &all);
    assert!(entries.iter().all(|entry| entry.lost == 0));
}

/// Connections are killed while batches are on their way: some have been
/// carried out and their answers are lost. Redis counts that they were sent
/// again.
#[tokio::test]
async fn a_lost_answer_makes_no_line_come_twice() {
    let redis = Redis::start().await;
    let mut publisher = redis.publisher().await;
    let cli = shell(&redis, "seq 20000")
        .set("redis.reconnect_max_delay", "20ms")
        .set("exec.flush_timeout", "60s")
        .start();
    let kills = kill_connections_until(&mut publisher, "42", 20_002).await;
    let output = cli.end().await;
    assert_eq!(output.code, 0);
    let entries = entries(&mut publisher, "42").await;
    assert_lines(&data_of(&entries, "stdout"), &lines(20_000));
    assert!(entries.iter().all(|entry| entry.lost == 0));
    let calls = function_calls(&mut publisher).await;
    assert!(calls > entries.len(), "{kills} kills lost no answer");
}
