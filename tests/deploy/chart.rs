//! The Helm chart, rendered by Helm's own engine (`chart.py`) and held against
//! the schemas of Kubernetes.

use std::io::Write as _;
use std::process::{Command, Output};
use std::sync::LazyLock;

use serde_json::{Value, json};
use tempfile::NamedTempFile;

use super::{alerts, check_environment, output, path, printed};
use crate::clients::python;
use crate::support::broker::BrokerSettings;

const CHART: &str = "deploy/helm/runcast";
const LEAST_VALUES: &str = "deploy/helm/runcast/ci/anonymous-values.yaml";
const FULL_VALUES: &str = "deploy/helm/runcast/ci/full-values.yaml";

/// The least that renders, and all that can be switched on.
static LEAST: LazyLock<Vec<Value>> = LazyLock::new(|| render(LEAST_VALUES, &json!({})));
static FULL: LazyLock<Vec<Value>> = LazyLock::new(|| render(FULL_VALUES, &json!({})));

/// Renders the chart with values files and then these.
fn try_render(files: &[&str], values: &Value) -> Output {
    let mut last = NamedTempFile::new().expect("a temporary file");
    last.write_all(values.to_string().as_bytes())
        .expect("it is ours");
    let mut command = Command::new(python());
    command.arg(path("tests/deploy/chart.py")).arg(path(CHART));
    command.args(files.iter().map(|name| path(name)));
    // JSON is YAML.
    output(command.arg(last.path()))
}

/// The objects that a good chart makes.
fn render(file: &str, values: &Value) -> Vec<Value> {
    let output = try_render(&[file], values);
    assert!(output.status.success(), "{}", printed(&output));
    serde_json::from_slice(&output.stdout).expect("a list of objects")
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects
        .iter()
        .filter(|object| object["kind"] == kind)
        .collect()
}

fn only<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    let found = of_kind(objects, kind);
    assert_eq!(found.len(), 1, "{kind}: {found:#?}");
    found[0]
}

fn pod(objects: &[Value]) -> &Value {
    &only(objects, "Deployment")["spec"]["template"]["spec"]
}

fn container(objects: &[Value]) -> &Value {
    &pod(objects)["containers"][0]
}

fn variables(objects: &[Value]) -> Vec<(String, String)> {
    let list = container(objects)["env"].as_array().expect("a list");
    let texts = list.iter().filter_map(|entry| {
        let value = entry["value"].as_str()?.to_owned();
        Some((entry["name"].as_str()?.to_owned(), value))
    });
    texts.collect()
}

fn variable(objects: &[Value], name: &str) -> String {
    let found = variables(objects)
        .into_iter()
        .find(|(known, _)| known == name);
    found.unwrap_or_else(|| panic!("no {name}")).1
}

#[test]
fn what_it_makes_fits_kubernetes() {
    assert_eq!(of_kind(&LEAST, "Service").len(), 2);
    for kind in [
        "Ingress",
        "HorizontalPodAutoscaler",
        "NetworkPolicy",
        "Role",
    ] {
        assert!(of_kind(&LEAST, kind).is_empty(), "{kind} is not asked for");
    }
    for kind in [
        "Deployment",
        "Ingress",
        "HorizontalPodAutoscaler",
        "PodDisruptionBudget",
        "NetworkPolicy",
        "ServiceAccount",
        "Role",
        "RoleBinding",
        "ServiceMonitor",
        "PrometheusRule",
    ] {
        only(&FULL, kind);
    }
}

#[test]
fn what_must_be_chosen_is_asked_for() {
    let check = |files: &[&str], values: Value, expected: &str| {
        let output = try_render(files, &values);
        let text = printed(&output);
        assert!(
            !output.status.success() && text.contains(expected),
            "{text}"
        );
    };
    check(&[], json!({}), "choose who may come in");
    check(
        &[],
        json!({"auth": {"allowAnonymous": true}}),
        "where Redis is",
    );
    check(
        &[LEAST_VALUES],
        json!({"auth": {"mode": "jwt"}}),
        "auth.jwksUrl",
    );
    let keys = json!({"auth": {"secret": {"existingSecret": "a"}}});
    check(&[LEAST_VALUES], keys, "auth.mode is not jwt");
    // A password belongs in a secret.
    let url = json!({"redis": {"url": "redis://user:secret@redis"}});
    check(&[LEAST_VALUES], url, "redis/url");
    check(&[LEAST_VALUES], json!({"replica": 3}), "replica");
}

#[test]
fn a_pod_has_the_time_to_drain() {
    for (objects, stop, grace) in [(&*LEAST, 5, 20), (&*FULL, 10, 60)] {
        let shutdown = variable(objects, "RUNCAST__SERVER__SHUTDOWN_GRACE");
        assert_eq!(shutdown, format!("{grace}s"));
        let sleep = &container(objects)["lifecycle"]["preStop"]["sleep"]["seconds"];
        assert_eq!(*sleep, stop);
        let whole = pod(objects)["terminationGracePeriodSeconds"].as_u64();
        assert!(whole.expect("a number") > stop + grace);
    }
}

#[test]
fn no_probe_asks_redis() {
    for (probe, path) in [
        ("startupProbe", "/health/live"),
        ("livenessProbe", "/health/live"),
        ("readinessProbe", "/health/ready"),
    ] {
        // `?strict=true` would.
        let get = &container(&FULL)[probe]["httpGet"];
        assert_eq!(get["path"], path, "{probe}");
        assert_eq!(get["scheme"], "HTTPS", "{probe}");
    }
}

#[test]
fn a_pod_can_do_nothing_it_need_not() {
    assert_eq!(pod(&LEAST)["automountServiceAccountToken"], false);
    assert_eq!(pod(&LEAST)["securityContext"]["runAsNonRoot"], true);
    let expected = json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"]},
    });
    assert_eq!(container(&LEAST)["securityContext"], expected);

    assert_eq!(pod(&FULL)["automountServiceAccountToken"], true);
    let role = only(&FULL, "Role");
    assert_eq!(role["metadata"]["namespace"], "agents");
    let expected = json!([
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]},
        {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
        {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["get"]},
    ]);
    assert_eq!(role["rules"], expected);
    // Over the API pods are watched.
    let by_api = render(LEAST_VALUES, &json!({"kubectl": {"enabled": true}}));
    let verbs = &only(&by_api, "Role")["rules"][0]["verbs"];
    assert_eq!(*verbs, json!(["get", "list", "watch"]));
    assert_eq!(variable(&by_api, "RUNCAST__KUBECTL__ENGINE"), "api");
    let account = &only(&FULL, "ServiceAccount")["metadata"]["name"];
    let subject = &only(&FULL, "RoleBinding")["subjects"][0];
    assert_eq!(subject["name"], *account);
    assert_eq!(subject["namespace"], "apps");
}

#[test]
fn secrets_are_only_named() {
    let list = container(&FULL)["env"].as_array().expect("a list");
    let redis = list
        .iter()
        .find(|entry| entry["name"] == "RUNCAST__REDIS__URL")
        .expect("Redis has a place");
    let expected = json!({"secretKeyRef": {"name": "runcast-redis", "key": "url"}});
    assert_eq!(redis["valueFrom"], expected);
    let secret = variable(&FULL, "RUNCAST__AUTH__SECRET_FILE");
    let mounts = container(&FULL)["volumeMounts"].as_array();
    let mount = mounts
        .expect("a list")
        .iter()
        .find(|mount| mount["name"] == "auth-secret")
        .expect("the secret is mounted");
    assert!(secret.starts_with(mount["mountPath"].as_str().expect("a path")));
    assert!(of_kind(&FULL, "Secret").is_empty());
}

#[test]
fn a_broker_takes_the_settings_of_the_chart() {
    for objects in [&*LEAST, &*FULL] {
        // What is mounted there.
        let mut secret = NamedTempFile::new().expect("a temporary file");
        secret.write_all(&[b'x'; 64]).expect("it is ours");
        let mounted = secret.path().display().to_string();
        let variables = variables(objects).into_iter();
        check_environment(variables.filter_map(|(name, value)| match name.as_str() {
            "RUNCAST__AUTH__SECRET_FILE" => Some((name, mounted.clone())),
            "RUNCAST__AUTH__KEYS_FILE" => None,
            _ => Some((name, value)),
        }));
    }
}

/// They are a file of their own, whose change rolls no pod.
#[test]
fn a_broker_takes_the_live_settings_of_the_chart() {
    let maps = of_kind(&FULL, "ConfigMap");
    let files = maps.iter().map(|map| &map["data"]["settings.toml"]);
    let file = files.into_iter().find(|it| it.is_string()).expect("one");
    let mount = "/etc/runcast/live/settings.toml";
    assert_eq!(
        container(&FULL)["args"],
        json!(["serve", "--config", mount])
    );
    assert_eq!(container(&LEAST)["args"], json!(["serve"]));
    let output = BrokerSettings::default()
        .file(file.as_str().expect("a text"))
        .set("streaming.default_backend", "embedded")
        .set("kubectl.enabled", "false")
        .arguments(&["check"])
        .output();
    assert_eq!(printed(&output), "settings: ok\n");
    let change = json!({"liveSettings": {"limits": {"max_streams_per_run": 7}}});
    let template = |objects: &[Value]| only(objects, "Deployment")["spec"]["template"].clone();
    let changed = render(FULL_VALUES, &change);
    assert_eq!(template(&changed), template(&FULL));
    assert_ne!(changed, *FULL);
}

#[test]
fn memory_is_shed_before_the_limit_kills() {
    let check = |values: Value, expected: Option<&str>| {
        let objects = render(LEAST_VALUES, &values);
        let found = variables(&objects).into_iter();
        let found: Vec<_> = found
            .filter(|(name, _)| name == "RUNCAST__LIMITS__MAX_MEMORY")
            .map(|(_, value)| value)
            .collect();
        assert_eq!(found.first().map(String::as_str), expected, "{values}");
    };
    let of_limit = |limit: Value| json!({"resources": {"limits": {"memory": limit}}});
    check(of_limit(json!("1Gi")), Some("966367642"));
    check(of_limit(json!("500M")), Some("450000000"));
    check(of_limit(json!("1000000000")), Some("900000000"));
    check(of_limit(json!(null)), None);
    let mut with_kubectl = of_limit(json!("1G"));
    with_kubectl["kubectl"] = json!({"enabled": true, "maxFollows": 1000});
    check(with_kubectl.clone(), Some("900000000"));
    with_kubectl["kubectl"] = json!({"enabled": true, "engine": "command", "maxFollows": 10});
    check(with_kubectl.clone(), Some("360000000"));
    with_kubectl["kubectl"]["maxFollows"] = json!(15);
    let output = try_render(&[LEAST_VALUES], &with_kubectl);
    assert!(printed(&output).contains("kubectl.maxFollows (15)"));
}

#[test]
fn each_ingress_lets_events_pass_at_once() {
    let check = |controller: &str, expected: &[(&str, &str)]| {
        let values = json!({"ingress": {"enabled": true, "controller": controller}});
        let objects = render(LEAST_VALUES, &values);
        let annotations = &only(&objects, "Ingress")["metadata"]["annotations"];
        for (name, value) in expected {
            assert_eq!(annotations[name], *value, "{annotations}");
        }
        assert_eq!(annotations.is_null(), expected.is_empty(), "{annotations}");
    };
    let nginx = "nginx.ingress.kubernetes.io";
    check(
        "nginx",
        &[
            (&format!("{nginx}/proxy-buffering"), "off"),
            (&format!("{nginx}/proxy-http-version"), "1.1"),
            (&format!("{nginx}/proxy-read-timeout"), "90"),
        ],
    );
    let no_delay = "option http-no-delay";
    check(
        "haproxy",
        &[("haproxy.org/backend-config-snippet", no_delay)],
    );
    let other = "haproxy-ingress.github.io/config-backend";
    check("haproxy-ingress", &[(other, no_delay)]);
    let attributes = "alb.ingress.kubernetes.io/load-balancer-attributes";
    check("alb", &[(attributes, "idle_timeout.timeout_seconds=90")]);
    check("traefik", &[]);

    // What a user sets wins.
    let annotations = &only(&FULL, "Ingress")["metadata"]["annotations"];
    assert_eq!(annotations[format!("{nginx}/proxy-read-timeout")], "120");
}

/// Prometheus finds the brokers under the job that alerts and dashboard know.
#[test]
fn the_monitor_finds_the_brokers() {
    let monitor = &only(&FULL, "ServiceMonitor")["spec"];
    let wanted = monitor["selector"]["matchLabels"].as_object();
    let wanted = wanted.expect("labels");
    let found: Vec<_> = of_kind(&FULL, "Service")
        .into_iter()
        .filter(|service| {
            let labels = &service["metadata"]["labels"];
            wanted.iter().all(|(name, value)| labels[name] == *value)
        })
        .collect();
    assert_eq!(found.len(), 1, "{found:#?}");
    let port = &found[0]["spec"]["ports"][0];
    assert_eq!(port["name"], monitor["endpoints"][0]["port"]);
    let ports = container(&FULL)["ports"].as_array().expect("a list");
    assert!(
        ports
            .iter()
            .any(|known| known["name"] == port["targetPort"])
    );
    let label = monitor["jobLabel"].as_str().expect("a label");
    assert_eq!(found[0]["metadata"]["labels"][label], "runcast");

    let rules = &only(&FULL, "PrometheusRule")["spec"]["groups"][0]["rules"];
    assert_eq!(*rules, Value::Array(alerts()), "as they are, untouched");
    let maps = of_kind(&FULL, "ConfigMap");
    let dashboards = maps.iter().map(|map| &map["data"]["runcast.json"]);
    let dashboard = dashboards
        .into_iter()
        .find(|it| it.is_string())
        .expect("one");
    let dashboard = dashboard.as_str().expect("a text");
    serde_json::from_str::<Value>(dashboard).expect("JSON");
}
