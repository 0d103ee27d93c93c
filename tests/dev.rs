//! `runcast dev`: what a fresh machine is shown with one command.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use crate::metrics::wait_sessions;
use crate::support::broker::BrokerSettings;
use crate::support::process::Process;
use crate::support::wait::SOON;
use crate::support::{Broker, eventually};

async fn dev() -> Broker {
    let arguments = ["dev", "--bind", "127.0.0.1:0"];
    BrokerSettings::default()
        .arguments(&arguments)
        .start()
        .await
}

/// Returns the printed commands, in order.
async fn printed_commands(broker: &Broker) -> Vec<String> {
    let commands = || -> Vec<String> {
        let lines = broker.process.log();
        let commands = lines.iter().filter(|line| line.contains("curl "));
        commands.map(|line| line.trim().to_owned()).collect()
    };
    eventually("all commands are printed", SOON, async || {
        commands().len() == 4
    })
    .await;
    commands()
}

/// A command of the welcome, as somebody would paste it.
fn shell(command: &str) -> Process {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("exec {command}"));
    Process::spawn(shell)
}

#[tokio::test]
async fn the_demo_run_shows_every_kind_and_rests_when_nobody_watches() {
    let broker = dev().await;
    let mut client = broker.follow("demo/stream").await;
    let mut kinds = BTreeSet::new();
    while kinds.len() < 3 {
        kinds.insert(client.run_event().await.event);
    }
    let kinds: Vec<&str> = kinds.iter().map(String::as_str).collect();
    assert_eq!(kinds, ["log", "output", "status"]);

    drop(client);
    wait_sessions(&broker, 0).await;
    let told = async || broker.json("/api/v1/runs/demo").await["events"].clone();
    // Longer than two paces of the demo: that nothing happens takes time.
    eventually("the demo rests", SOON, async || {
        let before = told().await;
        tokio::time::sleep(Duration::from_millis(1200)).await;
        told().await == before
    })
    .await;
    let before = told().await;
    let _client = broker.follow("demo/stream?from=now").await;
    eventually("it goes on when watched", SOON, async || {
        told().await != before
    })
    .await;
}

#[tokio::test]
async fn what_it_prints_can_be_opened_and_pasted() {
    let broker = dev().await;
    let commands = printed_commands(&broker).await;
    let log = broker.process.log().join("\n");
    for path in ["/?run=demo", "/health", "/metrics", "/api/v1/openapi.json"] {
        let url = format!("http://{}{path}", broker.addr);
        assert!(log.contains(&url), "{url} is missing in {log}");
        assert_eq!(broker.get(path).await.status(), 200, "{path}");
    }

    let demo = shell(&commands[0]);
    eventually("the demo is seen", SOON, async || {
        demo.log().iter().any(|line| line == "event: status")
    })
    .await;
    let own = shell(&commands[1]);
    eventually("the own run is followed", SOON, async || {
        own.log().iter().any(|line| line == "event: hello")
    })
    .await;
    for (command, data) in [
        (&commands[2], "\"data\":{\"step\":1}"),
        (&commands[3], "\"data\":\"hello from a shell\""),
    ] {
        let mut sh = Command::new("sh");
        sh.arg("-c").arg(command);
        let status = Process::spawn(sh).exit(SOON).await;
        assert!(status.success(), "{command}");
        eventually("what was published is seen", SOON, async || {
            own.log().iter().any(|line| line.contains(data))
        })
        .await;
    }
}
