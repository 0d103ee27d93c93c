use super::*;

const AGE: Duration = Duration::from_secs(30);

struct Trial {
    buffer: Buffer,
    now: Instant,
}

fn trial(is_cluster: bool) -> Trial {
    let bounds = Bounds {
        messages: 4,
        bytes: 4096,
        age: AGE,
    };
    Trial {
        buffer: Buffer::new(bounds, is_cluster),
        now: Instant::now(),
    }
}

fn run() -> RunId {
    RunId::parse("42").expect("a run id")
}

fn message(payload: &str) -> PlainMessage {
    PlainMessage {
        run_id: run(),
        kind: EventKind::Output,
        channel: Bytes::from_static(b"run:42:output:s"),
        source_start: 14,
        payload: Bytes::copy_from_slice(payload.as_bytes()),
    }
}

impl Trial {
    fn push(&mut self, payload: &str) -> bool {
        self.buffer.push(message(payload), self.now)
    }

    fn strike(&mut self, payload: &str) -> bool {
        let frame = Bytes::from(format!("1 1 1 1 0 output 2 1 s\n{payload}"));
        let copy = FramedEvent::parse(&frame).expect("a frame");
        assert!(copy.recorded);
        self.buffer.strike("42", &copy, &frame, self.now)
    }

    /// Fences the run, whose last number was `seq`.
    fn fence(&mut self, seq: u64) {
        assert!(matches!(self.buffer.next_step(&run()), Step::Fence));
        self.buffer.fence_answered(&run(), seq);
        self.buffer.free(&run());
        assert!(matches!(self.buffer.next_step(&run()), Step::Nothing));
        self.buffer.fence_noticed(&run());
    }

    /// Returns the first number and the payloads of the next batch.
    fn batch(&mut self) -> Option<(u64, Vec<String>, Vec<u64>)> {
        let Step::Append(batch) = self.buffer.next_step(&run()) else {
            return None;
        };
        let text = |event: &NewEvent| String::from_utf8_lossy(&event.payload).into_owned();
        let texts = batch.events.iter().map(text).collect();
        Some((batch.first_seq, texts, batch.serials))
    }

    fn appended(&mut self, first_seq: u64, serials: &[u64], outcomes: &[Outcome]) -> u64 {
        let results = serials.iter().copied().zip(outcomes.iter().copied());
        let lost = self.buffer.appended(&run(), first_seq, results);
        self.buffer.free(&run());
        lost
    }
}

#[test]
fn what_others_recorded_before_the_fence_is_not_recorded_again() {
    let mut trial = trial(false);
    for payload in ["a", "a", "b"] {
        assert!(trial.push(payload));
    }
    assert!(matches!(trial.buffer.next_step(&run()), Step::Fence));
    // The dead recorder's last copy comes behind the answer, before the notice.
    trial.buffer.fence_answered(&run(), 0);
    trial.buffer.free(&run());
    assert!(trial.batch().is_none(), "not before the notice");
    assert!(trial.strike("a"));
    trial.buffer.fence_noticed(&run());
    let (first_seq, texts, _) = trial.batch().expect("a batch");
    assert_eq!(
        (first_seq, texts),
        (1, vec!["a".to_owned(), "b".to_owned()])
    );
}

#[test]
fn what_is_of_unknown_fate_is_sent_again_under_its_number() {
    use Outcome::{Recorded, Refused, Unknown};
    let mut trial = trial(false);
    for payload in ["a", "b", "c"] {
        trial.push(payload);
    }
    trial.fence(7);
    let (first_seq, _, serials) = trial.batch().expect("a batch");
    assert_eq!(first_seq, 8);
    assert!(trial.batch().is_none(), "one at a time");
    assert_eq!(
        trial.appended(8, &serials, &[Recorded, Unknown, Unknown]),
        0
    );
    let (first_seq, texts, serials) = trial.batch().expect("a batch");
    assert_eq!(
        (first_seq, texts),
        (9, vec!["b".to_owned(), "c".to_owned()])
    );
    // The number of what was refused is given again: no jump, no gap.
    assert_eq!(trial.appended(9, &serials, &[Refused, Refused]), 0);
    trial.push("d");
    let (first_seq, texts, serials) = trial.batch().expect("a batch");
    assert_eq!((first_seq, texts), (9, vec!["d".to_owned()]));
    trial.appended(9, &serials, &[Recorded]);
    // They stay until their copies come.
    assert_eq!(trial.buffer.messages(), 2);
    assert!(trial.strike("a") && trial.strike("d"));
    assert_eq!((trial.buffer.messages(), trial.buffer.bytes()), (0, 0));
}

#[test]
fn one_overtaken_by_the_next_is_lost_and_told_by_its_number() {
    use Outcome::{Recorded, Unknown};
    let mut trial = trial(false);
    for payload in ["a", "b"] {
        trial.push(payload);
    }
    trial.fence(0);
    let (_, _, serials) = trial.batch().expect("a batch");
    assert_eq!(trial.appended(1, &serials, &[Unknown, Recorded]), 1);
    trial.push("c");
    let (first_seq, texts, _) = trial.batch().expect("a batch");
    assert_eq!((first_seq, texts), (3, vec!["c".to_owned()]));
}

#[test]
fn bounds_are_kept_and_counted_back() {
    let mut trial = trial(false);
    for payload in ["a", "b", "c", "d"] {
        assert!(trial.push(payload));
    }
    assert!(!trial.push("e"), "four messages");
    assert!(trial.strike("a"));
    assert!(!trial.push(&"x".repeat(4096)), "bytes");
    assert!(trial.push("e"));
    trial.now += AGE + Duration::from_secs(1);
    assert_eq!(trial.buffer.expire(trial.now), 4);
    assert_eq!((trial.buffer.messages(), trial.buffer.bytes()), (0, 0));
    trial.now += AGE;
    trial.buffer.expire(trial.now);
    assert!(trial.buffer.runs.is_empty(), "idle runs are forgotten");
}

#[test]
fn only_in_a_cluster_a_copy_may_come_first() {
    for is_cluster in [false, true] {
        let mut trial = trial(is_cluster);
        trial.push("a");
        assert!(!trial.strike("b"));
        trial.push("b");
        assert_eq!(trial.buffer.messages(), if is_cluster { 1 } else { 2 });
        // And only there others may stand before what was recorded.
        trial.push("c");
        assert!(trial.strike("c"));
        assert_eq!(trial.buffer.messages(), if is_cluster { 1 } else { 0 });
    }
}

#[test]
fn an_early_copy_is_forgotten_soon() {
    let mut trial = trial(true);
    trial.push("a");
    assert!(!trial.strike("b"));
    trial.now += EARLY_MAX_AGE + Duration::from_millis(1);
    trial.push("b");
    assert_eq!(trial.buffer.messages(), 2);
}
