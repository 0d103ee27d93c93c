//! The compose file, the systemd unit and the Dockerfile.

use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::{check_environment, path, read, succeed, yaml};
use crate::clients::python;

const COMPOSE: &str = "deploy/compose.yaml";

/// The strings of a list.
fn texts(list: &Value) -> Vec<&str> {
    let list = list.as_array().into_iter().flatten();
    list.map(|text| text.as_str().expect("a text")).collect()
}

#[test]
fn the_compose_file_fits_its_schema() {
    let mut command = Command::new(python());
    command.args([
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.compose-spec",
    ]);
    succeed(command.arg(path(COMPOSE)));
}

#[test]
fn what_compose_mounts_is_there_and_what_it_opens_is_ours_alone() {
    let file = yaml(COMPOSE);
    let services = file["services"].as_object().expect("services");
    for (name, service) in services {
        for mount in texts(&service["volumes"]) {
            let (from, _) = mount.split_once(':').expect("from and to");
            match from.strip_prefix("./") {
                Some(file) => assert!(path("deploy").join(file).is_file(), "{name}: {mount}"),
                None => assert!(file["volumes"].get(from).is_some(), "{name}: {mount}"),
            }
        }
        for port in texts(&service["ports"]) {
            assert!(port.starts_with("127.0.0.1:"), "{name}: {port}");
        }
    }
}

#[test]
fn a_broker_takes_the_settings_of_compose() {
    let file = yaml(COMPOSE);
    let broker = &file["services"]["runcast"];
    let environment = broker["environment"].as_object().expect("variables");
    let variables = environment.iter().map(|(name, value)| {
        let value = value.as_str().expect("a text").to_owned();
        (name.clone(), value)
    });
    // As the image has it.
    let bind = (
        "RUNCAST__SERVER__BIND".to_owned(),
        "0.0.0.0:8000".to_owned(),
    );
    check_environment(variables.chain([bind]));
    // More than server.shutdown_grace.
    assert_eq!(broker["stop_grace_period"], "30s");
    assert_eq!(broker["read_only"], true);
}

/// As they lie in the container.
#[test]
fn prometheus_takes_its_configuration() {
    let dir = TempDir::new().expect("a temporary directory");
    for (from, to) in [
        ("deploy/prometheus/prometheus.yml", "prometheus.yml"),
        ("deploy/helm/runcast/files/alerts.yaml", "alerts.yaml"),
    ] {
        std::fs::copy(path(from), dir.path().join(to)).expect("both are there");
    }
    let config = dir.path().join("prometheus.yml");
    succeed(
        Command::new("promtool")
            .args(["check", "config"])
            .arg(config),
    );
}

#[test]
fn systemd_takes_the_unit() {
    let dir = TempDir::new().expect("a temporary directory");
    let unit = read("deploy/systemd/runcast.service");
    let installed = "/usr/local/bin/runcast";
    assert!(unit.contains(installed));
    let file = dir.path().join("runcast.service");
    let here = unit.replace(installed, env!("CARGO_BIN_EXE_runcast"));
    std::fs::write(&file, here).expect("the directory is ours");
    let mut command = Command::new("systemd-analyze");
    let output = succeed(command.args(["verify", "--man=no"]).arg(file));
    // An unknown key is only a warning to it.
    assert!(output.stderr.is_empty(), "{}", super::printed(&output));
}

/// The image is built with the compiler that everything else is built with.
#[test]
fn the_image_is_built_with_our_rust() {
    let toolchain = read("rust-toolchain.toml");
    let version = toolchain
        .lines()
        .find_map(|line| line.strip_prefix("channel = \"")?.strip_suffix('"'))
        .expect("a channel");
    let dockerfile = read("Dockerfile");
    let base = format!("FROM docker.io/library/rust:{version}-bookworm AS build\n");
    assert!(dockerfile.contains(&base), "{base}");
}
