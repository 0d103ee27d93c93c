//! What only the broker can see: Redis, kubectl, and how requests come to it.

use reqwest::Method;
use serde_json::Value as Json;

use super::client::Client;
use super::report::Report;

/// The way to Redis and back; more is felt in every event.
const LATENCY_MS_MAX: f64 = 20.0;
/// What Redis comes with: a subscriber may be as far behind.
const HARD_MIN: u64 = 32 << 20;
const SOFT_MIN: u64 = 8 << 20;

const WHY_REDIS: &str = "nothing that needs Redis works: its streams wait, posts are refused";
const WHY_BUFFER: &str = "Redis cuts the broker's one subscription when a burst is larger: every \
                          run waits for the reconnection, and plain events are lost (gap \
                          disconnected)";
const WHY_KUBECTL: &str = "streams of the kubectl backend begin with a problem and no line";
const WHY_HTTP_1_0: &str = "each answer ends its connection to the broker, and a proxy holds a \
                            stream of HTTP/1.0 back unless X-Accel-Buffering is honoured";

/// Asks the broker, if it answers such questions.
pub(super) async fn examine(client: &Client, backend: &str, report: &mut Report) {
    let probe = client
        .request(Method::GET, "/api/v1/diagnostics")
        .header("Last-Event-ID", "doctor");
    let answer = match client.answer(probe).await {
        Ok(answer) if answer.status.is_success() => answer,
        Ok(answer) if matches!(answer.status.as_u16(), 401 | 403) => {
            report.note("how Redis and kubectl are to the broker is told to an admin's token only");
            return health(client, backend, report).await;
        }
        Ok(answer) => {
            report.note(format!(
                "the broker says nothing of itself: {}",
                answer.told()
            ));
            return health(client, backend, report).await;
        }
        Err(error) => return report.note(format!("the broker says nothing of itself: {error}")),
    };
    request(&answer.json["request"], report);
    if answer.json["redis"].is_object() {
        redis(&answer.json["redis"], backend, report);
    }
    if answer.json["kubectl"].is_object() {
        kubectl(&answer.json["kubectl"], backend, report);
    }
}

fn request(request: &Json, report: &mut Report) {
    if request["http"] == "1.0" && !report.also("buffered", HTTP_1_1) {
        report.find(
            "http-1.0-upstream",
            "whoever stands in front speaks HTTP/1.0 to the broker",
            WHY_HTTP_1_0,
            &[HTTP_1_1],
        );
    }
    if request["last_event_id"].is_null() {
        super::stream::last_event_id_stripped(report);
    }
}

/// What everybody may know.
async fn health(client: &Client, backend: &str, report: &mut Report) {
    let Ok(answer) = client.get("/health").await else {
        return;
    };
    let redis = &answer.json["dependencies"]["redis"];
    if redis["status"] == "down" && backend != "kubectl" {
        let error = redis["error"].as_str().unwrap_or("no reason told");
        let seen = format!("the broker has no subscription to Redis: {error}");
        report.find("redis-unusable", seen, WHY_REDIS, &[CHECK]);
    }
}

const HTTP_1_1: &str = "nginx: proxy_http_version 1.1; proxy_set_header Connection \"\";";
const CHECK: &str = "where the broker runs: runcast check";

fn redis(redis: &Json, backend: &str, report: &mut Report) {
    if let Some(error) = redis["error"].as_str() {
        let is_denied = error.contains("NOPERM") || error.contains("permission");
        if backend == "kubectl" {
            return report.note(format!("Redis cannot be used: {error}"));
        }
        return match is_denied {
            true => report.find(
                "redis-acl",
                format!("Redis does not allow all that a broker does: {error}"),
                WHY_REDIS,
                &[
                    "Redis: the ACL SETUSER line of docs/configuration.md, section [redis]",
                    CHECK,
                ],
            ),
            false => {
                let seen = format!("Redis cannot be used: {error}");
                report.find("redis-unusable", seen, WHY_REDIS, &[CHECK]);
            }
        };
    }
    match redis["latency_ms"].as_f64() {
        Some(latency) if latency > LATENCY_MS_MAX => report.find(
            "redis-slow",
            format!("a PING of Redis takes {latency:.1} ms"),
            "every durable event waits for it, and the subscription is as late",
            &[
                "redis-cli --latency from the broker's network; SLOWLOG GET 10 at Redis",
                "place Redis and the broker in one zone",
            ],
        ),
        Some(latency) => report.fine(format!("Redis answers in {latency:.1} ms")),
        None => {}
    }
    let buffer = &redis["output_buffer"];
    let number = |key: &str| buffer[key].as_u64().unwrap_or_default();
    let (hard, soft) = (number("hard"), number("soft"));
    let is_low = |bytes: u64, min: u64| bytes != 0 && bytes < min;
    if is_low(hard, HARD_MIN) || is_low(soft, SOFT_MIN) {
        report.find(
            "redis-output-buffer",
            format!("client-output-buffer-limit pubsub is {hard} {soft} bytes"),
            WHY_BUFFER,
            &[
                "redis-cli: CONFIG SET client-output-buffer-limit \"pubsub 64mb 16mb 60\"",
                "redis.conf: client-output-buffer-limit pubsub 64mb 16mb 60",
            ],
        );
    } else if let Some(error) = redis["output_buffer_error"].as_str() {
        report.note(format!(
            "client-output-buffer-limit cannot be read, which is no harm ({error}); it should be \
             at least: pubsub 32mb 8mb 60"
        ));
    }
}

fn kubectl(kubectl: &Json, backend: &str, report: &mut Report) {
    let Some(error) = kubectl["error"].as_str() else {
        return report.fine("kubectl lists pods");
    };
    // Most brokers have kubectl on offer and use it never.
    if backend == "redis" || backend == "embedded" {
        return report.note(format!("kubectl cannot be used: {error}"));
    }
    let namespace = kubectl["namespace"].as_str().unwrap_or("default");
    if kubectl["problem"] != "kubernetes-forbidden" {
        let seen = format!("kubectl cannot be used: {error}");
        return report.find("kubectl-unusable", seen, WHY_KUBECTL, &[CHECK]);
    }
    let role = format!(
        "kubectl -n {namespace} create role runcast --verb=get,list,watch --resource=pods,pods/log"
    );
    let jobs =
        format!("kubectl -n {namespace} create role runcast-jobs --verb=get --resource=jobs.batch");
    let binding = format!(
        "kubectl -n {namespace} create rolebinding runcast --role=runcast \
         --serviceaccount=<its namespace>:<its account>; the same for runcast-jobs"
    );
    let seen = format!("Kubernetes forbids what the broker needs: {error}");
    report.find(
        "kubectl-forbidden",
        seen,
        WHY_KUBECTL,
        &[&role, &jobs, &binding],
    );
}
