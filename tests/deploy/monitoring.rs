//! The alerts and the dashboard: they ask for metrics that there are, Prometheus
//! understands them, and each alert fires when it should.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{alerts, path, read, succeed};
use crate::support::broker::BrokerSettings;
use crate::support::http::Request;
use crate::support::{Broker, Redis};

const DASHBOARD: &str = "deploy/helm/runcast/files/dashboard.json";

/// A metric as an expression asks for it: its name and its matchers.
#[derive(Debug, PartialEq)]
struct Selector {
    metric: String,
    matchers: Vec<(String, String)>,
}

/// Finds what of ours an expression asks for.
fn selectors(expression: &str) -> Vec<Selector> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    let mut rest = expression;
    while let Some(begin) = rest.find(is_word) {
        rest = &rest[begin..];
        let (word, after) = rest.split_at(rest.find(|c| !is_word(c)).unwrap_or(rest.len()));
        rest = after;
        if !word.starts_with("runcast_") && !word.starts_with("process_") {
            continue;
        }
        let mut matchers = Vec::new();
        if let Some((inside, after)) = rest.strip_prefix('{').and_then(|it| it.split_once('}')) {
            matchers = inside.split(',').map(matcher).collect();
            rest = after;
        }
        let metric = word.to_owned();
        found.push(Selector { metric, matchers });
    }
    found
}

/// `reason=~"a|b"` is `reason` and `a|b`.
fn matcher(text: &str) -> (String, String) {
    let (name, value) = text.split_once('"').expect("a value in quotes");
    let name = name.trim_end_matches(['=', '~', '!']).to_owned();
    (name, value.trim_end_matches('"').to_owned())
}

#[test]
fn selectors_are_found() {
    let found = selectors(r#"sum (rate(runcast_a{b=~"c|d",e!="f"}[5m])) / runcast_g > 1"#);
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let expected = [
        Selector {
            metric: "runcast_a".to_owned(),
            matchers: vec![pair("b", "c|d"), pair("e", "f")],
        },
        Selector {
            metric: "runcast_g".to_owned(),
            matchers: Vec::new(),
        },
    ];
    assert_eq!(found, expected);
}

/// Whether a scrape has samples for it. Of a closed set of labels each value
/// must be there; Prometheus itself adds `job` and `instance`.
fn is_scraped(scrape: &str, selector: &Selector) -> bool {
    let samples: Vec<_> = scrape
        .lines()
        .filter_map(|line| line.strip_prefix(selector.metric.as_str()))
        .filter(|rest| rest.starts_with([' ', '{']))
        .collect();
    let has = |name: &str, value: &str| {
        // A pattern like 5..: some value.
        let wanted = match value.contains("..") {
            true => format!("{name}=\""),
            false => format!("{name}=\"{value}\""),
        };
        samples.iter().any(|sample| sample.contains(&wanted))
    };
    let of_target = |name: &String| ["job", "instance"].contains(&name.as_str());
    !samples.is_empty()
        && selector
            .matchers
            .iter()
            .filter(|(name, _)| !of_target(name))
            .all(|(name, values)| values.split('|').all(|value| has(name, value)))
}

fn dashboard() -> Value {
    serde_json::from_str(&read(DASHBOARD)).expect("JSON")
}

/// The expressions of the dashboard, as Grafana sends them.
fn dashboard_expressions() -> Vec<String> {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels
        .iter()
        .filter_map(|panel| panel["targets"].as_array());
    let expressions = targets.flatten().map(|target| {
        let expression = target["expr"].as_str().expect("an expression");
        expression
            .replace("$__rate_interval", "1m")
            .replace("$job", "runcast")
            .replace("$instance", ".*")
    });
    let expressions: Vec<_> = expressions.collect();
    assert!(expressions.len() > 40, "{}", expressions.len());
    expressions
}

/// A broker that has all there is: Redis, kubectl, tokens, a key set.
fn everything(redis: &Redis) -> BrokerSettings {
    Broker::redis(redis)
        .set("kubectl.enabled", "true")
        .set("auth.mode", "jwt")
        .set("auth.jwks_url", "http://127.0.0.1:1/jwks.json")
        .set("auth.issuer", "https://issuer.example")
        .set("auth.audience", "runcast")
        .set("metrics.bind", "127.0.0.1:0")
}

#[tokio::test]
async fn every_metric_asked_for_is_scraped() {
    let redis = Redis::start().await;
    let broker = everything(&redis).start().await;
    broker.get("/health").await;
    let scrape = Request::get("/metrics").send(broker.operator_addr()).await;
    let scrape = scrape.text();
    let alerts = alerts();
    let of_alerts = alerts.iter().map(|rule| {
        let expression = rule["expr"].as_str();
        expression.expect("an expression").to_owned()
    });
    for expression in of_alerts.chain(dashboard_expressions()) {
        let selectors = selectors(&expression);
        let is_known = !selectors.is_empty() || expression.contains("up{job=\"runcast\"}");
        assert!(is_known, "of no metric of ours: {expression}");
        for selector in selectors {
            assert!(
                is_scraped(&scrape, &selector),
                "{selector:?} of {expression}"
            );
        }
    }
}

#[test]
fn each_alert_fires_when_it_should() {
    let file = path("deploy/helm/runcast/files/alerts.yaml");
    succeed(Command::new("promtool").args(["check", "rules"]).arg(file));
    let tests = path("deploy/prometheus/alerts_test.yaml");
    succeed(Command::new("promtool").args(["test", "rules"]).arg(tests));
    let tests = read("deploy/prometheus/alerts_test.yaml");
    for rule in alerts() {
        let name = rule["alert"].as_str().expect("a name");
        let fires = format!("'{{alertname=\"{name}\"");
        assert!(tests.contains(&fires), "no test has {name} fire");
    }
}

#[test]
fn each_alert_has_a_runbook() {
    let guide = read("docs/operations.md");
    for rule in alerts() {
        let name = rule["alert"].as_str().expect("a name");
        assert!(guide.contains(&format!("\n### {name}\n")), "{name}");
        let severity = rule["labels"]["severity"].as_str();
        assert!(matches!(severity, Some("critical" | "warning")), "{name}");
    }
}

/// Each expression as a rule, for promtool to judge.
#[test]
fn prometheus_understands_the_dashboard() {
    let rules: Vec<_> = dashboard_expressions()
        .iter()
        .enumerate()
        .map(|(index, expression)| json!({"record": format!("panel:{index}"), "expr": expression}))
        .collect();
    let dir = TempDir::new().expect("a temporary directory");
    let file = dir.path().join("rules.yaml");
    // JSON is YAML.
    let text = json!({"groups": [{"name": "dashboard", "rules": rules}]});
    std::fs::write(&file, text.to_string()).expect("the directory is ours");
    succeed(Command::new("promtool").args(["check", "rules"]).arg(file));
}

#[test]
fn panels_have_a_place_and_a_source_of_their_own() {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().expect("panels");
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(ids.len(), panels.len());
    let mut taken = BTreeSet::new();
    for panel in panels {
        let place = &panel["gridPos"];
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| place[key].as_u64().expect("a number"));
        assert!(x + w <= 24, "{}", panel["title"]);
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(taken.insert(cell), "{} lies on another", panel["title"]);
        }
        if panel["type"] != "row" {
            assert_eq!(panel["datasource"]["uid"], "${datasource}");
        }
    }
}
