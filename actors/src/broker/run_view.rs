//! What is known of one run: its hub's word and its store's, as one. Pure.

use super::{RunDetail, RunSummary};
use crate::protocol::{BackendKind, DurableId, EventId, RunId, Timestamp};
use crate::store::{Head, Page};

/// An event younger than this shows that a run is not quiet.
const FRESH_SECONDS: i64 = 10;

/// Adds what the store knows to what a hub does: the hub may have begun late,
/// the store holds no plain events, gaps and clients.
pub(super) fn merge(hub: Option<RunDetail>, page: &Page, mut blank: RunDetail) -> RunDetail {
    let Some(head) = &page.head else {
        return hub.unwrap_or(blank);
    };
    let Some(mut run) = hub else {
        apply_head(&mut blank, head, page.first);
        return blank;
    };
    if run.epoch.is_some_and(|epoch| epoch > head.last.epoch) {
        // Redis forgot that the run began anew, or the answer is older.
        return run;
    }
    let seen = run.summary.last_id.as_deref().and_then(durable_of);
    let is_behind = seen.is_none_or(|seen| seen < head.last);
    if run.epoch.is_some_and(|epoch| epoch < head.last.epoch) {
        run.plain_events = [0; 3];
    }
    let newest = (run.summary.last_id.take(), run.summary.last_event_ts);
    let hub_status = run.summary.status.take();
    apply_head(&mut run, head, page.first);
    if !is_behind {
        run.summary.last_id = newest.0.or(run.summary.last_id);
        run.summary.status = hub_status.or(run.summary.status);
    }
    run.summary.last_event_ts = run.summary.last_event_ts.max(newest.1);
    run
}

/// A run of which nothing is known.
pub(super) fn never_seen(run_id: &RunId, backend: BackendKind) -> RunDetail {
    RunDetail {
        summary: RunSummary {
            run_id: run_id.clone(),
            backend,
            status: None,
            ended: false,
            clients: 0,
            last_event_ts: None,
            last_id: None,
        },
        first_id: None,
        epoch: None,
        last_durable: None,
        events: [0; 3],
        plain_events: [0; 3],
        gaps: Vec::new(),
        quiet_because: String::new(),
    }
}

fn apply_head(run: &mut RunDetail, head: &Head, first: Option<DurableId>) {
    let has_events = head.last.seq > 0;
    run.summary.status = head.status.clone();
    run.summary.ended |= head.is_sealed();
    run.summary.last_id = has_events.then(|| head.last.to_string());
    run.summary.last_event_ts = has_events.then(|| Timestamp::from_micros(head.last.us as i64));
    run.first_id = first.map(|id| id.to_string()).or(run.first_id.take());
    run.epoch = Some(head.last.epoch);
    for (count, (durable, plain)) in run
        .events
        .iter_mut()
        .zip(head.counts.iter().zip(run.plain_events))
    {
        *count = durable + plain;
    }
}

/// Returns the durable event at or before an event's id.
fn durable_of(id: &str) -> Option<DurableId> {
    match id.parse().ok()? {
        EventId::Durable(id) => Some(id),
        EventId::Plain(id) => id.durable,
        EventId::Kubectl(_) => None,
    }
}

/// Why nothing comes of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Quiet {
    /// Nothing more is to be asked.
    Settled(String),
    /// Its publisher is quiet: how is it?
    Publisher(String),
}

/// Says why nothing comes; `trouble` is what is wrong with the store.
pub(super) fn why(run: &RunDetail, head: Option<&Head>, trouble: Option<String>) -> Quiet {
    let closed = head.and_then(|head| head.closed.as_ref());
    let status = run.summary.status.as_deref();
    if run.summary.ended {
        let status = closed.map(|closed| closed.status.as_str()).or(status);
        return Quiet::Settled(format!("the run ended: {}", status.unwrap_or("unknown")));
    }
    if let Some(closed) = closed {
        return Quiet::Settled(format!(
            "the run ended: {}; late output is still accepted for a moment",
            closed.status
        ));
    }
    if let Some(trouble) = trouble {
        return Quiet::Settled(trouble);
    }
    let Some(last) = run.summary.last_event_ts else {
        return Quiet::Publisher("nothing was ever published to this run".to_owned());
    };
    let seconds = (Timestamp::now().as_millis() - last.as_millis()).max(0) / 1000;
    if seconds < FRESH_SECONDS {
        return Quiet::Settled(format!("it is not: the last event came {seconds} s ago"));
    }
    Quiet::Publisher(format!("nothing was published for {seconds} s"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Closed;

    fn id(epoch: u64, seq: u64) -> DurableId {
        DurableId {
            epoch,
            seq,
            us: 1000 * seq,
        }
    }

    fn page(last: DurableId, closed: Option<u64>) -> Page {
        Page {
            head: Some(Head {
                last,
                counts: [8, 1, 0],
                status: Some("running".to_owned()),
                closed: closed.map(|sealed_us| Closed {
                    status: "failed".to_owned(),
                    at_us: 0,
                    sealed_us,
                }),
                now_us: 5000,
            }),
            first: Some(id(last.epoch, 3)),
            ..Page::default()
        }
    }

    fn blank() -> RunDetail {
        never_seen(&RunId::parse("42").expect("valid"), BackendKind::Redis)
    }

    /// A hub that saw `last_id`, three plain outputs, and no status.
    fn hub(epoch: Option<u64>, last_id: &str) -> RunDetail {
        let mut run = blank();
        run.summary.last_id = Some(last_id.to_owned());
        run.summary.clients = 2;
        run.epoch = epoch;
        run.first_id = Some("~00c0ffee0042-1".to_owned());
        run.events = [4, 0, 0];
        run.plain_events = [3, 0, 0];
        run
    }

    #[test]
    fn the_store_knows_what_a_hub_missed_and_a_hub_what_no_store_holds() {
        let known = merge(None, &page(id(7, 9), None), blank());
        assert_eq!(known.summary.last_id.as_deref(), Some("7-9-9000"));
        assert_eq!((known.epoch, known.events), (Some(7), [8, 1, 0]));
        assert_eq!(known.summary.status.as_deref(), Some("running"));

        let after = "~00c0ffee0042-4~7-9-9000";
        let merged = merge(Some(hub(Some(7), after)), &page(id(7, 9), None), blank());
        assert_eq!(merged.summary.last_id.as_deref(), Some(after));
        assert_eq!(merged.events, [11, 1, 0]);
        assert_eq!(merged.first_id.as_deref(), Some("7-3-3000"));
        assert_eq!(merged.summary.clients, 2);
        assert_eq!(merged.summary.status.as_deref(), Some("running"));

        let behind = merge(
            Some(hub(Some(7), "7-2-2000")),
            &page(id(7, 9), None),
            blank(),
        );
        assert_eq!(behind.summary.last_id.as_deref(), Some("7-9-9000"));

        let old = merge(Some(hub(Some(6), "6-20-1")), &page(id(7, 9), None), blank());
        assert_eq!((old.epoch, old.events), (Some(7), [8, 1, 0]));

        let unknown = merge(Some(hub(None, after)), &Page::default(), blank());
        assert_eq!(unknown.events, [4, 0, 0]);
    }

    #[test]
    fn quiet_is_explained() {
        let told = |run: &RunDetail, page: &Page, trouble: Option<&str>| {
            why(run, page.head.as_ref(), trouble.map(str::to_owned))
        };
        let settled = |text: &str| Quiet::Settled(text.to_owned());
        let sealed = page(id(7, 9), Some(4000));
        let run = merge(None, &sealed, blank());
        assert!(run.summary.ended);
        assert_eq!(
            told(&run, &sealed, Some("x")),
            settled("the run ended: failed")
        );
        let closing = page(id(7, 9), Some(6000));
        let run = merge(None, &closing, blank());
        assert!(!run.summary.ended);
        let expected = "the run ended: failed; late output is still accepted for a moment";
        assert_eq!(told(&run, &closing, None), settled(expected));
        let none = Page::default();
        assert_eq!(told(&blank(), &none, Some("down")), settled("down"));
        assert_eq!(
            told(&blank(), &none, None),
            Quiet::Publisher("nothing was ever published to this run".to_owned())
        );
        let mut run = blank();
        run.summary.last_event_ts = Some(Timestamp::now());
        assert_eq!(
            told(&run, &none, None),
            settled("it is not: the last event came 0 s ago")
        );
        let minute = Timestamp::now().as_micros() - 60_000_000;
        run.summary.last_event_ts = Some(Timestamp::from_micros(minute));
        assert!(matches!(told(&run, &none, None), Quiet::Publisher(text) if text.contains("60 s")));
    }
}
