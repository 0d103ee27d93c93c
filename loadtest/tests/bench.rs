//! The bench against every server that it knows: what it compares the broker
//! with must be served like the broker, or the comparison means nothing.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

const TOOL: &str = env!("CARGO_BIN_EXE_runcast-loadtest");

/// As `scripts/install-test-deps` makes it.
const PYTHON: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../target/bench-venv/bin/python"
);

/// Runs small loads on some servers and returns the results.
fn bench(parts: &str, systems: &str, duration: &str, more: &[&str]) -> Value {
    let dir = tempfile::tempdir().expect("a directory");
    let json = dir.path().join("bench.json");
    let output = Command::new(TOOL)
        .args(["bench", "--rounds", "1", "--fewer", "20"])
        .args(["--duration", duration, "--python", PYTHON])
        .args(["--parts", parts, "--systems", systems])
        // Built beside the tool, as by `cargo build --workspace`.
        .arg("--broker")
        .arg(Path::new(TOOL).with_file_name("runcast"))
        .arg("--json")
        .arg(&json)
        .args(more)
        .output()
        .expect("the tool runs");
    assert!(output.status.success(), "{output:?}");
    let text = std::fs::read_to_string(json).expect("the results");
    serde_json::from_str(&text).expect("JSON")
}

/// Every subscriber of each cell read each message of its run, once, in order.
fn assert_all_came(results: &Value, cells: usize) {
    let measured = results["cells"].as_array().expect("cells");
    assert_eq!(measured.len(), cells, "{results}");
    for cell in measured {
        let round = &cell["rounds"][0];
        let count = |at: &str| round.pointer(at).and_then(Value::as_u64).expect("a count");
        let expected = count("/published") * count("/subscribers") / count("/runs");
        assert!(expected > 0, "{cell}");
        assert_eq!(count("/deliveries/total"), expected, "{cell}");
        for fault in ["lost", "duplicated", "out_of_order", "misrouted"] {
            assert_eq!(count(&format!("/deliveries/{fault}")), 0, "{fault}: {cell}");
        }
        assert_eq!(round["failures"], serde_json::json!({}), "{cell}");
        let cost = round.pointer("/server/cpu_us_per_delivery");
        let cost = cost.and_then(Value::as_f64).expect("a cost");
        assert!(cost > 0.0, "{cell}");
    }
}

#[test]
fn every_peer_delivers_each_message_once() {
    let systems = "coalescing,nchan,nchan-redis,python,python-shared";
    assert_all_came(&bench("fan-out,tokens", systems, "400ms", &[]), 2 * 5);
    assert_all_came(&bench("flat-out", "nchan2,nchan-redis2", "400ms", &[]), 2);
}

#[test]
fn who_comes_back_to_nchan_misses_nothing() {
    // Long enough that each has a message, and with it an id, before it drops.
    let results = bench("drop-all", "nchan", "2s", &[]);
    assert_all_came(&results, 1);
    let returns = &results["cells"][0]["rounds"][0]["drop_all"];
    assert_eq!(returns["went"], 250, "{results}");
    assert_eq!(returns["served"], 250, "{results}");
}

/// The server's CPU for a delivery in the only round of a cell.
fn cost(results: &Value, cell: usize) -> f64 {
    let at = format!("/cells/{cell}/rounds/0/server/cpu_us_per_delivery");
    let cost = results.pointer(&at).and_then(Value::as_f64);
    cost.expect("a cost")
}

#[test]
fn the_coalescing_loop_writes_what_came_together_at_once() {
    let results = bench("flat-out", "bare-loop,coalescing", "400ms", &[]);
    assert_all_came(&results, 2);
    // A tenth, but for a busy machine.
    assert!(cost(&results, 1) < cost(&results, 0) / 2.0, "{results}");
}

#[test]
fn the_broker_is_judged_by_what_was_measured_beside_it() {
    let results = bench("fan-out", "bare-loop,runcast", "400ms", &[]);
    let ratio = cost(&results, 1) / cost(&results, 0);
    let verdict = &results["verdicts"][0];
    assert_eq!(verdict["figure"], "CPU per delivery", "{verdict}");
    let told = verdict["to_bare_loop"].as_f64().expect("a ratio");
    // The last digit of a number in JSON is not sure.
    assert!((told / ratio - 1.0).abs() < 1e-9, "{verdict}");
    assert_eq!(verdict["to_nchan"], Value::Null, "{verdict}");
    assert_eq!(verdict["is_met"], ratio <= 0.85, "{verdict}");
    // What was not measured is neither met nor missed.
    let verdicts = results["verdicts"].as_array().expect("verdicts");
    let flat_out = |verdict: &&Value| verdict["figure"] == "deliveries/s";
    let verdict = verdicts.iter().find(flat_out).expect("a verdict");
    assert_eq!(verdict["is_met"], Value::Null, "{verdict}");
}

#[test]
fn latency_and_cost_are_drawn_with_a_line_for_each_server() {
    let dir = tempfile::tempdir().expect("a directory");
    let plot = dir.path().to_str().expect("UTF-8");
    bench(
        "fan-out,sizes",
        "bare-loop,runcast",
        "400ms",
        &["--plot", plot],
    );
    for name in ["latency.svg", "clients-latency.svg", "clients-cpu.svg"] {
        let svg = std::fs::read_to_string(dir.path().join(name)).expect("a plot");
        for server in ["bare loop", "Runcast"] {
            assert!(svg.contains(server), "{name} lacks {server}: {svg}");
        }
        assert!(svg.matches("<circle").count() >= 2 * 2, "{name}: {svg}");
    }
}
