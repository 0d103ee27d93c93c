//! `pods/NAME/log`: a chunked answer that follows what a container writes.

use std::collections::BTreeMap;

use actix_web::{HttpResponse, web};
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::watch;

use super::cluster::{Lasting, Shared, not_found, status};

/// One answer to a request for a log.
struct LogStream {
    shared: web::Data<Shared>,
    uid: String,
    pod: String,
    container: String,
    instance: usize,
    next: usize,
    since: u64,
    timestamps: bool,
    follow: bool,
    /// Bytes that may still be sent.
    left: usize,
    line_begins: bool,
    cuts: u64,
    ends: u64,
    changed: watch::Receiver<u64>,
    over: bool,
    _lasting: Lasting,
}

pub(super) fn log(
    shared: &web::Data<Shared>,
    pod_name: &str,
    query: &BTreeMap<String, String>,
    left: usize,
) -> HttpResponse {
    let mut cluster = shared.lock();
    let Some(pod) = cluster.pods.get(pod_name) else {
        return not_found("pods", pod_name);
    };
    let on = |key: &str| query.get(key).is_some_and(|value| value == "true");
    let wanted = query.get("container").map_or("", String::as_str);
    let Some((name, container)) = pod.containers.iter().find(|(name, _)| name == wanted) else {
        return status(
            400,
            "BadRequest",
            &format!("container {wanted} is not valid for pod {pod_name}"),
        );
    };
    let count = container.instances.len();
    let Some(instance) = count.checked_sub(if on("previous") { 2 } else { 1 }) else {
        let message = if on("previous") {
            format!("previous terminated container \"{name}\" in pod \"{pod_name}\" not found")
        } else {
            let reason = container.waiting.as_deref().unwrap_or("ContainerCreating");
            format!("container \"{name}\" in pod \"{pod_name}\" is waiting to start: {reason}")
        };
        return status(400, "BadRequest", &message);
    };
    let since = query
        .get("sinceTime")
        .and_then(|text| text.parse::<jiff::Timestamp>().ok());
    let tail = query
        .get("tailLines")
        .and_then(|text| text.parse::<usize>().ok());
    let lines = container.instances[instance].lines.len();
    let uid = pod.uid.clone();
    let container = name.clone();
    let stream = LogStream {
        shared: shared.clone(),
        uid,
        pod: pod_name.to_owned(),
        container,
        instance,
        next: lines.saturating_sub(tail.unwrap_or(lines)),
        since: since.map_or(0, |time| u64::try_from(time.as_nanosecond()).unwrap_or(0)),
        timestamps: on("timestamps"),
        follow: on("follow"),
        left,
        line_begins: true,
        cuts: cluster.cuts,
        ends: cluster.ends,
        changed: shared.changed.subscribe(),
        over: false,
        _lasting: Lasting::begin(shared, &mut cluster),
    };
    let body = stream::unfold(stream, |mut stream| async move {
        let item = stream.next_bytes().await?;
        Some((item, stream))
    });
    HttpResponse::Ok()
        .content_type("text/plain")
        .streaming(body)
}

impl LogStream {
    /// Returns the next bytes; an error cuts the connection.
    async fn next_bytes(&mut self) -> Option<Result<Bytes, std::io::Error>> {
        if self.over {
            return None;
        }
        loop {
            self.changed.borrow_and_update();
            let (mut bytes, ended) = self.collect();
            if bytes.len() > self.left {
                bytes.truncate(self.left);
                self.left = 0;
                self.cuts = u64::MAX;
                return Some(Ok(Bytes::from(bytes)));
            }
            if self.is_cut() {
                self.over = true;
                return Some(Err(std::io::Error::other("cut")));
            }
            self.left -= bytes.len();
            self.over = ended;
            if !bytes.is_empty() {
                return Some(Ok(Bytes::from(bytes)));
            }
            if ended || self.changed.changed().await.is_err() {
                return None;
            }
        }
    }

    fn is_cut(&self) -> bool {
        self.shared.lock().cuts != self.cuts
    }

    /// Returns what was written since, and whether nothing more will come.
    fn collect(&mut self) -> (Vec<u8>, bool) {
        let shared = self.shared.clone();
        let cluster = shared.lock();
        let mut bytes = Vec::new();
        let pod = cluster
            .pods
            .get(&self.pod)
            .filter(|pod| pod.uid == self.uid);
        let Some(pod) = pod else {
            return (bytes, true);
        };
        let (_, container) = pod
            .containers
            .iter()
            .find(|(name, _)| *name == self.container)
            .expect("containers stay");
        let instance = &container.instances[self.instance];
        for (ns, text, end) in &instance.lines[self.next..] {
            if *ns < self.since {
                continue;
            }
            if self.timestamps && self.line_begins {
                let stamp = jiff::Timestamp::from_nanosecond(i128::from(*ns)).expect("a time");
                bytes.extend_from_slice(format!("{stamp} ").as_bytes());
            }
            bytes.extend_from_slice(text);
            self.line_begins = *end;
            if *end {
                bytes.push(b'\n');
            }
        }
        self.next = instance.lines.len();
        let ended = !self.follow || instance.exit_code.is_some() || cluster.ends != self.ends;
        (bytes, ended)
    }
}
