//! [`Entry`]: what Redis holds of a run, read with plain `XRANGE`.

use std::time::Instant;

use super::redis::Publisher;
use super::wait::{SOON, eventually};

/// An entry of a run's stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) seq: u64,
    pub(crate) kind: String,
    pub(crate) source: String,
    pub(crate) data: Vec<u8>,
    /// Events its producer numbered before it that never came.
    pub(crate) lost: u64,
}

type RawEntry = (String, Vec<(String, Vec<u8>)>);

/// Returns all entries of a run, oldest first.
pub(crate) async fn entries(redis: &mut Publisher, run_id: &str) -> Vec<Entry> {
    let stream = format!("run:{{{run_id}}}:stream");
    let entries: Vec<RawEntry> = redis.command(&["XRANGE", &stream, "-", "+"]).await;
    entries.into_iter().map(entry).collect()
}

fn entry((id, fields): RawEntry) -> Entry {
    let field = |name: &str| {
        let found = fields.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    };
    let text = |name| String::from_utf8(field(name)).expect("a text");
    Entry {
        seq: id
            .split('-')
            .next()
            .and_then(|seq| seq.parse().ok())
            .expect("an entry begins with its seq"),
        kind: text("k"),
        source: text("s"),
        data: field("d"),
        lost: text("l").parse().unwrap_or(0),
    }
}

/// Waits until a run has `count` entries, and returns them.
pub(crate) async fn wait_entries(redis: &mut Publisher, run_id: &str, count: i64) -> Vec<Entry> {
    let stream = format!("run:{{{run_id}}}:stream");
    eventually(&format!("{stream} has {count} entries"), SOON, async || {
        redis.clone().command::<i64>(&["XLEN", &stream]).await >= count
    })
    .await;
    let found = entries(redis, run_id).await;
    assert_eq!(found.len() as i64, count, "{found:?}");
    found
}

/// Returns the data of a run's newest entry.
pub(crate) async fn last_data(redis: &mut Publisher, run_id: &str) -> Vec<u8> {
    let stream = format!("run:{{{run_id}}}:stream");
    let last = ["XREVRANGE", &stream, "+", "-", "COUNT", "1"];
    let mut last: Vec<RawEntry> = redis.command(&last).await;
    last.pop().map(|last| entry(last).data).unwrap_or_default()
}

/// Returns the data of the entries of one source, in order.
pub(crate) fn data_of(entries: &[Entry], source: &str) -> Vec<Vec<u8>> {
    let of_source = entries.iter().filter(|entry| entry.source == source);
    of_source.map(|entry| entry.data.clone()).collect()
}

/// Returns the data of the run's statuses, as text.
pub(crate) fn statuses(entries: &[Entry]) -> Vec<String> {
    let statuses = entries.iter().filter(|entry| entry.kind == "status");
    statuses
        .map(|entry| String::from_utf8_lossy(&entry.data).into_owned())
        .collect()
}

/// Kills every other connection each time a run has grown by some entries,
/// while batches are on their way, until it has `count`. Returns how many
/// kills there were.
pub(crate) async fn kill_connections_until(
    redis: &mut Publisher,
    run_id: &str,
    count: i64,
) -> usize {
    const STEP: i64 = 300;
    let stream = format!("run:{{{run_id}}}:stream");
    let begin = Instant::now();
    let (mut kills, mut next) = (0, STEP);
    loop {
        let length: i64 = redis.command(&["XLEN", &stream]).await;
        if length >= count {
            return kills;
        }
        assert!(begin.elapsed() < 6 * SOON, "stuck at {length} of {count}");
        if length >= next {
            let killed: i64 = redis.command(&["CLIENT", "KILL", "TYPE", "normal"]).await;
            kills += usize::from(killed > 0);
            next = length + STEP;
        }
    }
}

/// Returns how often functions were called.
pub(crate) async fn function_calls(redis: &mut Publisher) -> usize {
    let stats: String = redis.command(&["INFO", "commandstats"]).await;
    let mut calls = stats
        .lines()
        .filter_map(|line| line.strip_prefix("cmdstat_fcall:calls="));
    let calls = calls.next().and_then(|rest| rest.split(',').next());
    calls.map_or(0, |calls| calls.parse().expect("a number"))
}

/// Compares many lines; of those that differ only the first is shown.
pub(crate) fn assert_lines(found: &[Vec<u8>], expected: &[Vec<u8>]) {
    let text = |line: &Vec<u8>| String::from_utf8_lossy(line).into_owned();
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert_eq!(text(found), text(expected), "line {at}");
    }
    assert_eq!(found.len(), expected.len(), "how many lines");
}
