//! The measures of scale and of disturbances, small: what they count must add
//! up, or their tables mean nothing.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

const TOOL: &str = env!("CARGO_BIN_EXE_runcast-loadtest");

/// Measures a part with some more arguments, as typed; returns its JSON and the
/// document it was written into.
fn scale(part: &str, typed: &str) -> (Value, String) {
    let dir = tempfile::tempdir().expect("a directory");
    let document = dir.path().join("scale.md");
    let begin = format!("<!-- {part}: begin, written by `make scale` -->");
    let text = format!("before\n{begin}\nold\n<!-- {part}: end -->\nafter\n");
    std::fs::write(&document, text).expect("written");
    let output = Command::new(TOOL)
        .args(["scale", "--parts", part, "--rounds", "1"])
        .args(typed.split_whitespace())
        // Built beside the tool, as by `cargo build --workspace`.
        .arg("--broker")
        .arg(Path::new(TOOL).with_file_name("runcast"))
        .arg("--json")
        .arg(dir.path())
        .arg("--document")
        .arg(&document)
        .output()
        .expect("the tool runs");
    assert!(output.status.success(), "{output:?}");
    let read = |path: &Path| std::fs::read_to_string(path).expect("written");
    let json = read(&dir.path().join(part).with_extension("json"));
    let document = read(&document);
    assert!(
        document.starts_with("before\n") && document.ends_with("after\n"),
        "{document}"
    );
    assert!(!document.contains("old"), "{document}");
    (serde_json::from_str(&json).expect("JSON"), document)
}

fn number(value: &Value, at: &str) -> f64 {
    let number = value.pointer(at).and_then(Value::as_f64);
    number.unwrap_or_else(|| panic!("{at}: {value}"))
}

#[test]
fn heartbeats_at_rest_are_counted_second_by_second() {
    // A beat a second, and each client is held for two at least.
    let typed = "--sizes 40 --hold 2500ms --duration 2s --set heartbeat.interval=1s";
    let (sizes, document) = scale("sizes", typed);
    let [at_once, over_time] = &sizes.as_array().expect("sizes")[..] else {
        panic!("each size, and the greatest once more: {sizes}");
    };
    for size in [at_once, over_time] {
        let seconds = size["report"]["rest"]["by_second"]
            .as_array()
            .expect("seconds");
        let counted: f64 = seconds
            .iter()
            .map(|second| number(second, "/heartbeats"))
            .sum();
        assert_eq!(number(size, "/report/rest/heartbeats"), counted, "{size}");
        assert!(counted >= 40.0, "{size}");
        assert!(
            number(size, "/last_ms") >= number(size, "/report/latency_ms/p50"),
            "{size}"
        );
        assert!(number(size, "/report/connects/connected") == 40.0, "{size}");
    }
    assert_eq!(document.matches("\n| 40 |").count(), 2, "{document}");
}

#[test]
fn an_event_comes_to_every_client_of_every_broker() {
    let typed = "--brokers 2 --streams-each 30 --hold 1s";
    let (fleet, document) = scale("fleet", typed);
    assert_eq!(number(&fleet, "/streams"), 60.0);
    let last = fleet["last_ms"].as_array().expect("a time for each event");
    assert_eq!(last.len(), 4, "{fleet}");
    assert!(
        last.iter().all(|ms| ms.as_f64().expect("a number") > 0.0),
        "{fleet}"
    );
    assert!(document.contains("60 on 2"), "{document}");
}

#[test]
fn each_curve_grows_in_one_thing_alone() {
    let (curves, document) = scale("curves", "--fewer 10 --duration 300ms");
    let loads: Vec<Vec<(f64, f64)>> = curves
        .as_array()
        .expect("curves")
        .iter()
        .map(|curve| {
            let points = curve["points"].as_array().expect("points");
            let load = |point: &Value| {
                let round = &point["rounds"][0];
                (number(round, "/subscribers"), number(round, "/runs"))
            };
            points.iter().map(load).collect()
        })
        .collect();
    let expected = [
        vec![(50.0, 5.0), (500.0, 5.0)],
        vec![(10.0, 10.0), (100.0, 100.0), (1000.0, 1000.0)],
        vec![(10.0, 1.0); 3],
    ];
    assert_eq!(loads, expected);
    assert_eq!(document.matches("\n| ").count(), 1 + 8, "{document}");
}

#[test]
fn every_disturbance_disturbs() {
    let (measures, document) = scale("head-of-line", "--duration 500ms");
    let measures = measures.as_array().expect("measures");
    assert_eq!(measures.len(), 1 + 4 * 3, "{document}");
    for measure in measures {
        assert!(number(measure, "/report/latency_ms/p99") > 0.0, "{measure}");
        if measure["disturbance"].is_null() {
            assert!(measure["done"].is_null(), "{measure}");
            continue;
        }
        let (name, counts) = (&measure["disturbance"][0], &measure["done"]["counts"]);
        let seconds = number(measure, "/done/seconds");
        match name.as_str().expect("a name") {
            "history" => {
                assert!(number(counts, "/stored") > 0.0, "{measure}");
                assert!(number(measure, "/done/read_bytes") > 1e6, "{measure}");
            }
            // Beyond the 100 messages a second of the quiet runs.
            "slow-clients" => assert!(number(counts, "/taken") > 150.0 * seconds, "{measure}"),
            "hot-run" => assert!(number(counts, "/taken") > 3_000.0 * seconds, "{measure}"),
            "kubectl" => assert!(number(counts, "/taken") > 1_000.0 * seconds, "{measure}"),
            other => panic!("{other} is no disturbance"),
        }
    }
    assert_eq!(document.matches("**here**").count(), 4, "{document}");
}
