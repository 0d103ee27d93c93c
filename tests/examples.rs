//! The examples of `docs/protocol.md`, run as they stand there.

use std::path::PathBuf;
use std::process::Command;

use crate::clients::{node_clients, python};
use crate::support::process::{Process, require};
use crate::support::wait::SOON;
use crate::support::{Broker, Redis};

/// The first example in `language` that publishes durably.
fn example(language: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/protocol.md");
    let document = std::fs::read_to_string(path).expect("it is there");
    let fence = format!("```{language}\n");
    let mut blocks = document.split(&fence).skip(1);
    let block = blocks.find_map(|block| {
        let (code, _) = block.split_once("```")?;
        code.contains("runcast_publish").then(|| code.to_owned())
    });
    block.unwrap_or_else(|| panic!("an example in {language}"))
}

/// Puts the port of the test's Redis where the example relies on the default.
fn on_port(example: &str, connects: &str, port: &str) -> String {
    assert!(example.contains(connects), "{example}");
    example.replacen(connects, port, 1)
}

/// Runs `commands` one after another; a client of the run sees an event of
/// each, under ids that follow on.
async fn check(commands: impl FnOnce(&Redis) -> Vec<Command>) {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis).start_ready().await;
    let mut client = broker.follow("42/stream").await;
    for (index, command) in commands(&redis).into_iter().enumerate() {
        let mut process = Process::spawn(command);
        let status = process.exit(SOON).await;
        assert!(status.success(), "{status}: {:#?}", process.whole_log());
        let event = client.run_event().await;
        assert_eq!(event.event, "output");
        assert_eq!(event.payload(), r#"{"step":1}"#);
        let seq = (index + 1).to_string();
        assert_eq!(event.id().split('-').nth(1), Some(seq.as_str()));
    }
}

#[tokio::test]
async fn a_durable_publish_by_redis_cli_and_python() {
    check(|redis| {
        let port = redis.port();
        let connect = format!("redis-cli -p {port} -e FCALL");
        let mut shell = Command::new("sh");
        shell.arg("-c");
        shell.arg(on_port(&example("sh"), "redis-cli FCALL", &connect));
        require(python());
        let connect = format!("redis.Redis(port={port})");
        let mut script = Command::new(python());
        script.arg("-c");
        script.arg(on_port(&example("python"), "redis.Redis()", &connect));
        vec![shell, script]
    })
    .await;
}

#[tokio::test]
async fn a_durable_publish_by_node() {
    check(|redis| {
        require(node_clients().join("node_modules/redis"));
        let url = format!("createClient({{ url: \"{}\" }})", redis.url());
        let script = on_port(&example("js"), "createClient()", &url);
        let mut node = Command::new("node");
        node.current_dir(node_clients());
        node.args(["--input-type=module", "--eval"]);
        // The example leaves its connection open.
        node.arg(format!("{script}\nclient.destroy();"));
        vec![node]
    })
    .await;
}
