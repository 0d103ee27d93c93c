//! The helpers for agents (`clients/python`, `clients/node`): their own tests,
//! and what a broker shows of an agent that uses them.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::clients::python;
use crate::support::process::{Process, require};
use crate::support::wait::SOON;
use crate::support::{Broker, Redis};

fn helper(language: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("clients")
        .join(language)
}

/// Runs a test suite of the helper's own language, which must pass.
async fn passes(mut command: Command, language: &str) {
    command.current_dir(helper(language));
    let mut process = Process::spawn(command);
    let status = process.exit(Duration::from_secs(180)).await;
    assert!(status.success(), "{:#?}", process.whole_log());
}

#[tokio::test]
async fn the_python_helper_passes_its_tests() {
    let mut command = Command::new(python());
    command.args(["-B", "-m", "pytest", "-q"]);
    passes(command, "python").await;
}

#[tokio::test]
async fn the_python_helper_is_typed() {
    let mut command = Command::new(python());
    command.args(["-m", "mypy", "--cache-dir", "/dev/null", "src"]);
    passes(command, "python").await;
}

#[tokio::test]
async fn the_node_helper_passes_its_tests() {
    require(helper("node").join("node_modules"));
    let mut command = Command::new("npm");
    command.args(["run", "test"]);
    passes(command, "node").await;
}

#[tokio::test]
async fn the_node_helper_is_typed() {
    require(helper("node").join("node_modules"));
    let mut command = Command::new("npm");
    command.args(["run", "types"]);
    passes(command, "node").await;
}

/// An agent publishes, its connections cut between the events; a client of
/// the broker sees each event once, in order, and how the run ended.
async fn check(mut agent: Command) {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis)
        .set("runs.end_grace", "100ms")
        .start_ready()
        .await;
    let mut client = broker.follow("42/stream").await;
    agent
        .env("RUNCAST_RUN_ID", "42")
        .env("RUNCAST__REDIS__URL", redis.url());
    let mut process = Process::spawn(agent);
    let frames = client.rest(Duration::from_secs(30)).await;
    assert!(process.exit(SOON).await.success(), "{:#?}", process.log());
    let seen: Vec<(String, Value)> = frames
        .iter()
        .filter(|frame| frame.event != "heartbeat")
        .map(|frame| {
            let data = frame.json();
            let field = if frame.event == "end" {
                "status"
            } else {
                "data"
            };
            (frame.event.clone(), data[field].clone())
        })
        .collect();
    let mut expected = vec![(
        "status".to_owned(),
        json!({"status": "running", "model": "m1"}),
    )];
    expected.extend((0..50).map(|step| ("output".to_owned(), json!({"step": step}))));
    let log = json!({"level": "warn", "msg": "ünïcødé", "batch": 7});
    expected.push(("log".to_owned(), log));
    expected.push(("status".to_owned(), json!("completed")));
    expected.push(("end".to_owned(), json!("completed")));
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn a_python_agent_is_seen_by_the_clients_of_a_broker() {
    let mut agent = Command::new(python());
    agent.arg("-c").arg(
        r#"
import redis, runcast
killer = redis.Redis.from_url(runcast._core.redis_url(None))
with runcast.Run() as run:
    run.status("running", model="m1")
    for step in range(50):
        if step % 10 == 5:
            killer.client_kill_filter(_type="normal", skipme=True)
        run.output({"step": step})
    run.log("warn", "ünïcødé", batch=7)
"#,
    );
    check(agent).await;
}

#[tokio::test]
async fn a_node_agent_is_seen_by_the_clients_of_a_broker() {
    let node = helper("node");
    require(node.join("node_modules"));
    let mut agent = Command::new("node");
    agent
        .current_dir(&node)
        .args(["--input-type=module", "--eval"])
        .arg(
            r"
import { createClient } from 'redis'
import { Run } from 'runcast'
const killer = await createClient({ url: process.env.RUNCAST__REDIS__URL }).connect()
await Run.with(undefined, {}, async run => {
  await run.status('running', { model: 'm1' })
  for (let step = 0; step < 50; step += 1) {
    const sent = run.output({ step })
    if (step % 10 === 5) await killer.sendCommand(['CLIENT', 'KILL', 'TYPE', 'normal'])
    await sent
  }
  await run.log('warn', 'ünïcødé', { batch: 7 })
})
killer.destroy()
",
        );
    check(agent).await;
}
