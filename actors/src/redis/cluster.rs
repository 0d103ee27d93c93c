//! [`Slots`]: which node of a Cluster serves which keys.

use redis::{ErrorKind, RedisResult, Value};

use crate::protocol::RunId;

/// Number of slots of any Cluster.
const SLOT_COUNT: u16 = 16384;

const CRC: crc::Crc<u16> = crc::Crc::<u16>::new(&crc::CRC_16_XMODEM);

/// Returns the slot of a run's keys: all of them have the run id as their hash
/// tag.
pub(super) fn slot_of(run_id: &RunId) -> u16 {
    slot_of_tag(run_id.as_str())
}

/// Returns the slot of keys with this hash tag.
pub(super) fn slot_of_tag(tag: &str) -> u16 {
    CRC.checksum(tag.as_bytes()) % SLOT_COUNT
}

/// A Cluster as one of its nodes sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Slots {
    ranges: Vec<Range>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Range {
    first: u16,
    last: u16,
    /// The master, then its replicas, as `host:port`.
    nodes: Vec<String>,
}

impl Slots {
    /// Reads the answer to `CLUSTER SLOTS` of the node at `answering`, which
    /// stands in where it names a port but no host.
    ///
    /// # Errors
    /// When it is no such answer, or no slot is served.
    pub(super) fn read(answer: &Value, answering: &str) -> RedisResult<Self> {
        let host = answering
            .rsplit_once(':')
            .map_or(answering, |(host, _)| host);
        let mut ranges = Vec::new();
        for range in array(answer) {
            let [Value::Int(first), Value::Int(last), nodes @ ..] = array(range) else {
                continue;
            };
            let nodes: Vec<String> = nodes
                .iter()
                .filter_map(|node| address(node, host))
                .collect();
            if let (Ok(first), Ok(last), false) = (
                u16::try_from(*first),
                u16::try_from(*last),
                nodes.is_empty(),
            ) {
                ranges.push(Range { first, last, nodes });
            }
        }
        match ranges.is_empty() {
            true => Err((ErrorKind::Client, "a node of the cluster knows no slots").into()),
            false => Ok(Self { ranges }),
        }
    }

    /// Returns the master that serves a slot.
    pub(super) fn master_of(&self, slot: u16) -> Option<&str> {
        let of_slot = |range: &&Range| (range.first..=range.last).contains(&slot);
        let range = self.ranges.iter().find(of_slot)?;
        range.nodes.first().map(String::as_str)
    }

    /// Returns every master once.
    pub(super) fn masters(&self) -> Vec<&str> {
        let firsts = self.ranges.iter().filter_map(|range| range.nodes.first());
        unique(firsts)
    }

    /// Returns every node once.
    pub(super) fn nodes(&self) -> Vec<&str> {
        unique(self.ranges.iter().flat_map(|range| &range.nodes))
    }
}

fn unique<'a>(nodes: impl Iterator<Item = &'a String>) -> Vec<&'a str> {
    let mut nodes: Vec<&str> = nodes.map(String::as_str).collect();
    nodes.sort_unstable();
    nodes.dedup();
    nodes
}

fn array(value: &Value) -> &[Value] {
    match value {
        Value::Array(items) => items,
        _ => &[],
    }
}

/// `[host, port, id, …]`; the host is empty, null or `?` where it is not known.
fn address(node: &Value, answering_host: &str) -> Option<String> {
    let [host, Value::Int(port), ..] = array(node) else {
        return None;
    };
    let host = match host {
        Value::BulkString(host) => std::str::from_utf8(host).ok()?,
        Value::SimpleString(host) => host,
        _ => "",
    };
    match host {
        "?" => None,
        "" => Some(format!("{answering_host}:{port}")),
        host => Some(format!("{host}:{port}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn node(host: Value, port: i64) -> Value {
        Value::Array(vec![host, Value::Int(port), text("id")])
    }

    fn range(first: i64, last: i64, nodes: Vec<Value>) -> Value {
        let mut range = vec![Value::Int(first), Value::Int(last)];
        range.extend(nodes);
        Value::Array(range)
    }

    #[test]
    fn a_run_has_the_slot_that_redis_says() {
        // CLUSTER KEYSLOT run:{42}:stream, and so on.
        for (run_id, slot) in [("42", 8000), ("123456789", 12739), ("a.b_c-d", 7417)] {
            let run_id = RunId::parse(run_id).expect("a run id");
            assert_eq!(slot_of(&run_id), slot, "{run_id}");
        }
    }

    #[test]
    fn slots_are_found_and_unknown_hosts_are_the_answering_one() {
        let answer = Value::Array(vec![
            range(
                0,
                99,
                vec![node(text("10.0.0.1"), 1), node(text("10.0.0.2"), 2)],
            ),
            range(100, 100, vec![node(Value::Nil, 3), node(text("?"), 4)]),
            range(200, 16383, vec![node(text(""), 3)]),
        ]);
        let slots = Slots::read(&answer, "seed:7").expect("slots");
        assert_eq!(slots.master_of(99), Some("10.0.0.1:1"));
        assert_eq!(slots.master_of(100), Some("seed:3"));
        assert_eq!(slots.master_of(101), None);
        assert_eq!(slots.master_of(16383), Some("seed:3"));
        assert_eq!(slots.masters(), ["10.0.0.1:1", "seed:3"]);
        assert_eq!(slots.nodes(), ["10.0.0.1:1", "10.0.0.2:2", "seed:3"]);
    }

    #[test]
    fn what_is_no_answer_of_a_serving_cluster_is_refused() {
        for answer in [Value::Nil, Value::Array(vec![]), text("x")] {
            assert!(Slots::read(&answer, "a:1").is_err());
        }
    }
}
