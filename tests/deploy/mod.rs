//! What is in `deploy/`, and the commands that containers call: rendered,
//! validated and tried with the tools that will read it.

mod chart;
mod monitoring;
mod program;
mod units;

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

use crate::clients::python;
use crate::support::broker::BrokerSettings;
use crate::support::process::require;

/// A file of the repository.
fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    let path = path(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Runs a command to its end.
fn output(command: &mut Command) -> Output {
    require(command.get_program());
    command.output().expect("it starts")
}

fn printed(output: &Output) -> String {
    let both = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8_lossy(&both).into_owned()
}

/// Runs a command that must succeed.
fn succeed(command: &mut Command) -> Output {
    let output = output(command);
    assert!(output.status.success(), "{command:?}: {}", printed(&output));
    output
}

/// Reads a YAML file.
fn yaml(name: &str) -> Value {
    let program =
        "import json, sys, yaml; json.dump(yaml.safe_load(open(sys.argv[1])), sys.stdout)";
    let mut command = Command::new(python());
    command.args(["-c", program]).arg(path(name));
    serde_json::from_slice(&succeed(&mut command).stdout).expect("JSON")
}

/// The rules of the alerts, one an object.
fn alerts() -> Vec<Value> {
    let file = yaml("deploy/helm/runcast/files/alerts.yaml");
    let groups = file["groups"].as_array().expect("groups").iter();
    groups
        .flat_map(|group| group["rules"].as_array().expect("rules").clone())
        .collect()
}

/// A broker as a container's environment makes it must start: its settings are
/// good and say who may come. Files that are mounted there are `mounted` here.
fn check_environment(variables: impl IntoIterator<Item = (String, String)>) {
    // Neither is reached from here; it must not matter to the settings.
    let mut settings = BrokerSettings::default().arguments(&["check"]);
    for (name, value) in variables {
        settings = match name.as_str() {
            "RUNCAST__REDIS__URL" | "RUNCAST__AUTH__JWKS_URL" => settings,
            _ => settings.variable(&name, &value),
        };
    }
    let output = settings
        .set("redis.url", "redis://127.0.0.1:1")
        .set("kubectl.command", "false")
        .output();
    let text = printed(&output);
    assert!(text.starts_with("settings: ok\n"), "{text}");
}
