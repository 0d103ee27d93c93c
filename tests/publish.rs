//! `runcast publish`: lines become durable events, and the exit code says
//! whether all did.

use crate::support::cli::CliSettings;
use crate::support::history::{
    assert_lines, data_of, entries, function_calls, kill_connections_until, statuses, wait_entries,
};
use crate::support::{Broker, Cli, Redis, SseClient};

fn publish(redis: &Redis, arguments: &[&str]) -> CliSettings {
    Cli::with(redis)
        .arguments(&["publish"])
        .arguments(arguments)
}

#[tokio::test]
async fn lines_of_stdin_reach_who_follows_the_run() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis).start_ready().await;
    let mut client: SseClient = broker.follow("42/stream").await;
    let mut cli = publish(&redis, &["42", "--ids"]).start();
    cli.feed("text\r\n{\"step\": 1}\n");
    // They do not wait for the end of stdin.
    let (text, json) = (client.run_event().await, client.run_event().await);
    assert_eq!(
        (text.payload(), json.payload()),
        ("\"text\"".into(), "{\"step\": 1}".into())
    );
    cli.feed(b"\n\xff\n\nlast");
    let output = cli.end().await;
    assert_eq!((output.code, output.stderr()), (0, String::new()));
    let ids: Vec<_> = output.stdout().lines().map(str::to_owned).collect();
    assert_eq!(ids[..2], [text.id(), json.id()]);
    assert_eq!(ids.len(), 6);
    let entries = entries(&mut redis.publisher().await, "42").await;
    assert_eq!(data_of(&entries, "stdout")[5], b"last");
}

#[tokio::test]
async fn arguments_are_events_of_the_kind_and_source_given() {
    let redis = Redis::start().await;
    for arguments in [
        &[
            "42",
            "--kind",
            "log",
            "--source",
            "loader",
            "one",
            "two words",
        ][..],
        &["42", "--kind", "status", "completed"],
    ] {
        let output = publish(&redis, arguments).run().await;
        assert_eq!(
            (output.code, output.stdout, output.stderr),
            (0, vec![], vec![])
        );
    }
    let entries = entries(&mut redis.publisher().await, "42").await;
    assert_eq!(data_of(&entries, "loader"), [&b"one"[..], b"two words"]);
    assert!(entries[..2].iter().all(|entry| entry.kind == "log"));
    assert_eq!(statuses(&entries), ["completed"]);
}

#[tokio::test]
async fn whole_events_are_read_with_json_and_a_bad_one_is_told_and_counted() {
    let redis = Redis::start().await;
    let mut cli = publish(&redis, &["42", "--json", "--ids"]).start();
    cli.feed("{\"kind\":\"output\",\"source\":\"a\",\"data\":1.50}\n\nnonsense\n");
    cli.feed("{\"kind\":\"log\",\"source\":\"b\",\"data_base64\":\"/w==\"}\n");
    let output = cli.end().await;
    assert_eq!(output.code, 1);
    assert_eq!(
        output.stderr(),
        "runcast: line 3: column 2: expected ident\n\
         runcast: 1 of 3 events were not accepted\n"
    );
    let entries = entries(&mut redis.publisher().await, "42").await;
    assert_eq!(data_of(&entries, "a"), [b"1.50"]);
    assert_eq!(data_of(&entries, "b"), [b"\xff"]);
    assert_eq!(entries[1].lost, 1, "who follows the run learns it, too");
}

#[tokio::test]
async fn a_run_that_is_over_refuses_and_the_exit_code_says_so() {
    let redis = Redis::start().await;
    let close = publish(&redis, &["42", "--kind", "status", "failed"]);
    assert_eq!(close.set("runs.end_grace", "1ms").run().await.code, 0);
    let output = publish(&redis, &["42", "late", "later"]).run().await;
    assert_eq!(output.code, 1);
    assert!(
        output.stderr().contains("the run is over"),
        "{}",
        output.stderr()
    );
    assert!(output.stderr().contains("2 of 2 events were not accepted"));
    let anew = publish(&redis, &["42", "--restart", "first"]).run().await;
    assert_eq!(anew.code, 0, "{}", anew.stderr());
    let entries = entries(&mut redis.publisher().await, "42").await;
    assert_eq!(data_of(&entries, "stdout"), [b"first"]);
}

#[tokio::test]
async fn an_event_over_the_limit_is_refused_and_the_others_are_not() {
    let redis = Redis::start().await;
    let output = publish(&redis, &["42", "--json"])
        .arguments(&[
            r#"{"kind":"output","data":"0123456789"}"#,
            r#"{"kind":"output","data":1}"#,
        ])
        .set("limits.max_event_bytes", "9B")
        .run()
        .await;
    assert_eq!(output.code, 1);
    assert!(
        output
            .stderr()
            .contains("event 1: the event is larger than 9 bytes")
    );
    assert!(output.stderr().contains("1 of 2 events were not accepted"));
    let entries = entries(&mut redis.publisher().await, "42").await;
    assert_eq!((entries.len(), entries[0].lost), (1, 1));
}

#[tokio::test]
async fn without_redis_it_tries_for_as_long_as_it_is_told() {
    let mut redis = Redis::down();
    let impatient = publish(&redis, &["42", "--timeout", "10ms", "a"]);
    let output = impatient.set("redis.command_timeout", "100ms").run().await;
    assert_eq!(output.code, 1);
    assert!(
        output
            .stderr()
            .contains("stopped after 0 accepted events: ")
    );
    assert!(output.stderr().contains("1 of 1 events were not accepted"));

    let patient = publish(&redis, &["42", "b"]).start();
    redis.restart().await;
    assert_eq!(patient.end().await.code, 0);
    let shown = wait_entries(&mut redis.publisher().await, "42", 1).await;
    assert_eq!(data_of(&shown, "stdout"), [b"b"]);
}

#[tokio::test]
async fn wrong_usage_ends_with_64() {
    let redis = Redis::start().await;
    for arguments in [
        &[][..],
        &["4 2", "a"],
        &["42", "--kind", "news", "a"],
        &["42", "--kind", "status", "--source", "s", "a"],
        &["42", "--json", "--source", "s", "1"],
        &["42", "--timeout", "5", "a"],
    ] {
        let output = publish(&redis, arguments).run().await;
        assert_eq!(output.code, 64, "{arguments:?}: {}", output.stderr());
    }
}

/// As for `exec`: events are numbered, so one sent again is no second one.
#[tokio::test]
async fn a_lost_answer_makes_no_event_come_twice() {
    let redis = Redis::start().await;
    let mut publisher = redis.publisher().await;
    let mut cli = publish(&redis, &["42"])
        .set("redis.reconnect_max_delay", "20ms")
        .start();
    let lines: Vec<_> = (0..10_000).map(|n| format!("{n}")).collect();
    cli.feed(lines.join("\n"));
    cli.close_stdin();
    let kills = kill_connections_until(&mut publisher, "42", 10_000).await;
    let output = cli.end().await;
    assert_eq!((output.code, output.stderr()), (0, String::new()));
    let entries = entries(&mut publisher, "42").await;
    let expected: Vec<_> = lines.into_iter().map(String::into_bytes).collect();
    assert_lines(&data_of(&entries, "stdout"), &expected);
    let calls = function_calls(&mut publisher).await;
    assert!(calls > entries.len(), "{kills} kills lost no answer");
}
