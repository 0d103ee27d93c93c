//! A stream of a run of the doctor's own: how it comes, and when its events do.

use std::time::{Duration, Instant};

use reqwest::Method;
use runcast_actors::protocol::Timestamp;
use serde_json::{Value as Json, json};
use tokio::time::sleep;

use super::client::Client;
use super::listener::{Heard, Listener};
use super::report::Report;

/// Events of one round, and the time between two.
const EVENTS: usize = 8;
const INTERVAL: Duration = Duration::from_millis(200);
/// An event later than this came with those after it.
const HELD: Duration = Duration::from_millis(400);
/// Half of the events later than this is more than a way takes.
const LATE: Duration = Duration::from_millis(100);
/// Rounds, while they only look late: a busy machine is not in each.
const ROUNDS: usize = 3;
/// How long a head or a first event may take; the broker's own bounds are a
/// second.
const PATIENCE: Duration = Duration::from_secs(4);
/// How far apart clocks may be.
const CLOCK_MAX: Duration = Duration::from_secs(2);

const WHY_HELD: &str = "events come in bunches or when the stream ends: the page shows nothing \
                        while the run goes on, and takes the stream for dead";
const WHY_LATE: &str = "what is gathered before it is sent makes each event as late";
const WHY_COMPRESSED: &str = "a compressor gathers before it sends, and costs a page and a proxy \
                              more than it saves on lines as short";
const WHY_CHANGED: &str = "a cache or another proxy on the way may keep the stream, compress it \
                           or hold it back";
const WHY_RESUME: &str = "a client that comes back after a cut begins at the wrong place: events \
                          of the pause are missing, without a gap";
const WHY_CLOCK: &str = "tokens count too early or too late, and ages on the page are wrong";
const WHY_REFUSED: &str = "every client of this backend is told the same and tries again";
const WHY_PUBLISH: &str = "agents that post events get the same answer";
const WHY_TOKEN: &str = "the broker lets nobody in without a token; more is not to be seen";
const WHY_IDLE: &str = "a quiet run's stream is cut and opened again and again; each time a \
                        moment of it may be shown late";

const NO_BUFFERING: [&str; 3] = [
    "nginx: proxy_buffering off; and no proxy_ignore_headers X-Accel-Buffering",
    "nginx ingress: nginx.ingress.kubernetes.io/proxy-buffering: \"off\"",
    "others: have text/event-stream passed on as it comes",
];

/// Follows a run of its own, publishes to it if it may, and judges what comes.
pub(super) async fn examine(client: &Client, backend: &str, report: &mut Report) {
    let probe = Probe {
        client,
        run_id: format!("doctor-{:012x}", fastrand::u64(..1 << 48)),
        backend: match backend {
            "kubectl" => "kubectl",
            _ => "redis",
        },
    };
    let mut listener = probe.listen("gzip, deflate, br", None, "");
    listener.wait(PATIENCE, |heard| heard.head.is_some()).await;
    if let Some(coding) = listener.heard(|heard| heard.header("content-encoding")) {
        compressed(&coding, report);
        listener = probe.listen("identity", None, "");
        listener.wait(PATIENCE, |heard| heard.head.is_some()).await;
    }
    if probe.judge_head(&listener, report) {
        return;
    }
    listener.wait(PATIENCE, has_begun).await;
    if let Some(problem) = listener.heard(problem_of) {
        let seen = format!(
            "a stream of {} begins with a problem: {problem}",
            probe.backend
        );
        return report.find("stream-refused", seen, WHY_REFUSED, &["see what it says"]);
    }
    if probe.backend == "kubectl" {
        match listener.heard(|heard| heard.event("hello").is_some()) {
            true => report.fine("a stream of kubectl begins at once"),
            false => report.find(
                "buffered",
                "a stream does not begin",
                WHY_HELD,
                &NO_BUFFERING,
            ),
        }
        return idle(client, &listener, report).await;
    }
    let ids = probe.examine_events(&listener, report).await;
    if !report.has("buffered") {
        probe.examine_resume(&ids, report).await;
        idle(client, &listener, report).await;
    }
    if !ids.is_empty() {
        // Its run is over; what it kept goes with history.ttl.
        let event = json!({"kind": "status", "data": "completed"});
        let _ = probe.post(&event).await;
    }
}

struct Probe<'a> {
    client: &'a Client,
    run_id: String,
    backend: &'static str,
}

impl Probe<'_> {
    fn listen(&self, codings: &str, cursor: Option<&str>, query: &str) -> Listener {
        let (run_id, backend) = (&self.run_id, self.backend);
        let path = format!("/api/v1/runs/{run_id}/stream/{backend}{query}");
        let mut request = self.client.request(Method::GET, &path);
        request = request.header("Accept-Encoding", codings);
        if let Some(cursor) = cursor {
            request = request.header("Last-Event-ID", cursor);
        }
        Listener::start(self.client, request)
    }

    /// Whether there is nothing more to be seen.
    fn judge_head(&self, listener: &Listener, report: &mut Report) -> bool {
        let (status, ended) = listener.heard(|heard| {
            let status = heard.head.as_ref().map(|(status, _)| *status);
            (status, heard.ended.clone())
        });
        let Some(status) = status else {
            // It may come with the first events; a failure would be here.
            let Some(error) = ended else { return false };
            report.find("stream-refused", error, WHY_REFUSED, &["see what it says"]);
            return true;
        };
        if status.as_u16() == 401 {
            let told = ended.unwrap_or_else(|| status.to_string());
            let mend = ["give one that counts: --token, or RUNCAST_TOKEN"];
            report.find("token-refused", told, WHY_TOKEN, &mend);
            return true;
        }
        if status.as_u16() == 403 || status.as_u16() == 404 {
            let told = ended.unwrap_or_else(|| status.to_string());
            report.note(format!(
                "a stream was not opened, its token may not read {}: {told}",
                self.run_id
            ));
            return true;
        }
        if !status.is_success() {
            let told = ended.unwrap_or_else(|| status.to_string());
            report.find("stream-refused", told, WHY_REFUSED, &["see what it says"]);
            return true;
        }
        let kind = listener.heard(|heard| heard.header("content-type"));
        if !kind
            .as_deref()
            .is_some_and(|it| it.starts_with("text/event-stream"))
        {
            let seen = format!("a stream comes as {}", kind.unwrap_or_default());
            let why = "a browser's EventSource gives up for ever on another type";
            report.find(
                "not-a-stream",
                seen,
                why,
                &["proxy: leave Content-Type as it is"],
            );
            return true;
        }
        let cache = listener.heard(|heard| heard.header("cache-control"));
        let cache = cache.unwrap_or_default();
        if !["no-store", "no-transform"]
            .iter()
            .all(|it| cache.contains(it))
        {
            let seen = format!("Cache-Control of a stream comes as \"{cache}\"");
            let mend = ["proxy: leave Cache-Control as it is (nginx: no expires, no add_header)"];
            report.find("cache-control", seen, WHY_CHANGED, &mend);
        }
        false
    }

    async fn post(&self, event: &Json) -> Result<String, Option<String>> {
        let path = format!("/api/v1/runs/{}/events", self.run_id);
        let request = self.client.request(Method::POST, &path);
        let request = request
            .header("Content-Type", "application/json")
            .body(event.to_string());
        let answer = self.client.answer(request).await.map_err(Some)?;
        let id = answer.json["ids"][0].as_str().map(str::to_owned);
        match answer.status.as_u16() {
            401 | 403 | 404 => Err(None),
            _ => id.ok_or_else(|| Some(answer.told())),
        }
    }

    /// Publishes and sees when it comes; returns the ids of the last round.
    async fn examine_events(&self, listener: &Listener, report: &mut Report) -> Vec<String> {
        let mut ids = Vec::new();
        for round in 1..=ROUNDS {
            let begin = Instant::now();
            let mut answered = Vec::new();
            ids.clear();
            for number in 0..EVENTS {
                sleep((INTERVAL * number as u32).saturating_sub(begin.elapsed())).await;
                let event = json!({"kind": "output", "source": "doctor", "data": number});
                match self.post(&event).await {
                    Ok(id) => {
                        answered.push((Instant::now(), Timestamp::now()));
                        ids.push(id);
                    }
                    Err(None) => {
                        report.note(
                            "events were not posted, the token may not: judged by how a stream \
                             begins",
                        );
                        let begins = listener.heard(|heard| heard.event("hello").is_some());
                        if !begins {
                            let seen = "a stream does not begin";
                            report.find("buffered", seen, WHY_HELD, &NO_BUFFERING);
                        }
                        return Vec::new();
                    }
                    Err(Some(told)) => {
                        let seen = format!("an event that was posted is refused: {told}");
                        report.find("publish-refused", seen, WHY_PUBLISH, &["see what it says"]);
                        return Vec::new();
                    }
                }
            }
            let all_came = |heard: &Heard| ids.iter().all(|id| heard.with_id(id).is_some());
            listener.wait(PATIENCE, all_came).await;
            let lateness: Vec<_> = listener.heard(|heard| {
                let of = |(id, (at, _)): (&String, &(Instant, Timestamp))| {
                    Some(heard.with_id(id)?.at.saturating_duration_since(*at))
                };
                ids.iter().zip(&answered).map(of).collect()
            });
            clock(listener, &ids, &answered, report);
            match Arrival::of(&lateness) {
                Arrival::AtOnce(median) => {
                    report.fine(format!("events come at once (median {median:.0?})"));
                    return ids;
                }
                Arrival::Held(count) => {
                    let seen = format!(
                        "of {EVENTS} events, posted {INTERVAL:?} apart, {count} came late and \
                         together, or not at all"
                    );
                    report.find("buffered", seen, WHY_HELD, &NO_BUFFERING);
                    return ids;
                }
                Arrival::Late(median) if round == ROUNDS => {
                    let seen = format!("events come {median:.0?} after they were posted");
                    let mend = [
                        "HAProxy: option http-no-delay",
                        "others: TCP_NODELAY (nginx: tcp_nodelay on)",
                    ];
                    report.find("delayed", seen, WHY_LATE, &mend);
                }
                Arrival::Late(_) => {}
            }
        }
        ids
    }

    async fn examine_resume(&self, ids: &[String], report: &mut Report) {
        let Some(cursor) = ids.len().checked_sub(2).map(|index| &ids[index]) else {
            return;
        };
        // Without the header it would begin with what is yet to come.
        let listener = self.listen("identity", Some(cursor), "?from=now");
        if !listener
            .wait(PATIENCE, |heard| heard.event("hello").is_some())
            .await
        {
            return report.note("a stream that comes back did not begin in time");
        }
        let resume = listener.heard(|heard| {
            let hello = heard.event("hello").map(|hello| &hello.data["resume"]);
            hello.and_then(Json::as_str).map(str::to_owned)
        });
        match resume.as_deref() {
            Some("live") => last_event_id_stripped(report),
            _ => report.fine("a client that comes back goes on where it was (Last-Event-ID)"),
        }
    }
}

/// Says that the header does not reach the broker.
pub(super) fn last_event_id_stripped(report: &mut Report) {
    report.find(
        "last-event-id-stripped",
        "the header Last-Event-ID does not reach the broker",
        WHY_RESUME,
        &[
            "nginx: proxy_pass_request_headers on; and no proxy_set_header Last-Event-ID",
            "others: pass the header on (allow lists of gateways, CDNs)",
        ],
    );
}

fn compressed(coding: &str, report: &mut Report) {
    let seen = format!("a stream comes compressed ({coding})");
    let mend = [
        "nginx: take text/event-stream out of gzip_types (and brotli_types)",
        "HAProxy: no compression type text/event-stream",
        "others: honour Cache-Control: no-transform",
    ];
    report.find("compressed", seen, WHY_COMPRESSED, &mend);
}

fn has_begun(heard: &Heard) -> bool {
    heard.event("hello").is_some() || heard.event("problem").is_some()
}

fn problem_of(heard: &Heard) -> Option<String> {
    let detail = &heard.event("problem")?.data["detail"];
    Some(
        detail
            .as_str()
            .unwrap_or("of which it says nothing")
            .to_owned(),
    )
}

/// Compares the clocks by the time that an event was given.
fn clock(
    listener: &Listener,
    ids: &[String],
    answered: &[(Instant, Timestamp)],
    report: &mut Report,
) {
    let given = listener.heard(|heard| {
        let event = heard.with_id(ids.first()?)?;
        event.data["ts"].as_str()?.parse::<jiff::Timestamp>().ok()
    });
    let (Some(given), Some((_, here))) = (given, answered.first()) else {
        return;
    };
    let apart = (given.as_millisecond() - here.as_millis()).unsigned_abs();
    if Duration::from_millis(apart) > CLOCK_MAX {
        let seen = format!("the clocks there and here are {apart} ms apart");
        report.find(
            "clock",
            seen,
            WHY_CLOCK,
            &["both machines: timedatectl set-ntp true"],
        );
    }
}

/// Watches the stream while nothing is published.
async fn idle(client: &Client, listener: &Listener, report: &mut Report) {
    let Some(time) = client.args().idle else {
        return;
    };
    let begin = Instant::now();
    listener.wait(time, |heard| heard.ended.is_some()).await;
    match listener.heard(|heard| heard.ended.clone()) {
        None => report.fine(format!("an idle stream stays for {time:?}")),
        Some(ended) => {
            let seen = format!(
                "an idle stream ended after {:.0?}: {ended}",
                begin.elapsed()
            );
            let mend = [
                "nginx: proxy_read_timeout 1h; (longer than heartbeat.interval)",
                "HAProxy: timeout server 1h, timeout client 1h, timeout tunnel 1h",
            ];
            report.find("idle-cut", seen, WHY_IDLE, &mend);
        }
    }
}

/// How events came.
#[derive(Debug, PartialEq)]
enum Arrival {
    /// As they should; how late the median is.
    AtOnce(Duration),
    /// One by one, and late.
    Late(Duration),
    /// So many with others after them, or not at all.
    Held(usize),
}

impl Arrival {
    /// Judges by how much later than its post each event came.
    fn of(lateness: &[Option<Duration>]) -> Self {
        let is_held = |late: &&Option<Duration>| late.is_none_or(|late| late >= HELD);
        let held = lateness.iter().filter(is_held).count();
        if held * 2 >= lateness.len() {
            return Self::Held(held);
        }
        let mut times: Vec<_> = lateness.iter().flatten().copied().collect();
        times.sort_unstable();
        let median = times[times.len() / 2];
        match median >= LATE {
            true => Self::Late(median),
            false => Self::AtOnce(median),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_judged_by_when_they_came() {
        let check = |millis: &[u64], expected: Arrival| {
            // 0 is one that never came.
            let times = millis
                .iter()
                .map(|&it| (it > 0).then(|| Duration::from_millis(it)));
            assert_eq!(Arrival::of(&times.collect::<Vec<_>>()), expected);
        };
        let millis = Duration::from_millis;
        check(&[1, 2, 1, 900, 1], Arrival::AtOnce(millis(1)));
        check(&[204, 1, 203, 205, 201], Arrival::Late(millis(203)));
        check(&[1400, 1200, 1000, 800, 600, 400, 200, 1], Arrival::Held(6));
        check(&[0, 0, 0, 0], Arrival::Held(4));
        check(&[], Arrival::Held(0));
    }
}
