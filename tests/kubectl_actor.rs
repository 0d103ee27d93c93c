//! The kubectl backend alone: `KubectlLogActor` with the real kubectl as a
//! child, and over the API by itself, against the stand-in API server.

use runcast_actors::kubectl::KubectlUpdate;
use runcast_actors::protocol::{EventKind, KubectlPosition};
use runcast_actors::settings::KubectlEngine;

use crate::support::engines::for_both_engines;
use crate::support::followed::{Setup, text, until};
use crate::support::kube_api::{Ask, Fault, KubeApi};

for_both_engines!(
    actix::test:
    a_running_pod_is_followed_from_its_start_to_its_end,
    two_pods_and_init_containers_are_followed_apart,
    a_stream_waits_for_its_pod_and_says_what_for,
    a_log_cut_again_and_again_comes_whole_and_once,
    half_a_line_is_delivered_only_when_it_is_the_last,
    a_restarted_container_is_followed_on_and_told,
    another_reader_of_a_restarted_container_gives_the_same_positions,
    a_job_that_tries_again_is_not_over,
    a_finished_run_is_read_and_ended,
    bytes_pass_as_they_are,
);

async fn a_running_pod_is_followed_from_its_start_to_its_end(engine: KubectlEngine) {
    let api = KubeApi::start();
    api.add_running_pod("42", "pod-1", &["main"]);
    api.log("pod-1", "main", 1, "first");
    let mut run = Setup::of(&api, engine).follow("42");
    run.ready().await;
    let line = run.line().await;
    assert_eq!(text(&line), "first");
    assert_eq!(&*line.source, "pod-1/main");
    assert_eq!(line.kind, EventKind::Output);
    assert_eq!(line.ts.to_string(), "2026-11-23T20:00:00.000Z");
    let key = KubectlPosition::container_key("pod-1", "main");
    assert_eq!(line.position.get(key), Some((1_795_464_000_000_000_001, 0)));

    api.log(
        "pod-1",
        "main",
        1,
        r#"{"type":"status","status":"running"}"#,
    );
    api.log(
        "pod-1",
        "main",
        2_000_000_000,
        r#"{"kind":"log","level":"warn"}"#,
    );
    api.log("pod-1", "main", 2_000_000_001, "\x1b[1mred\r");
    let (status, log, output) = (run.line().await, run.line().await, run.line().await);
    assert_eq!(status.kind, EventKind::Status);
    assert_eq!(
        status.position.get(key),
        Some((1_795_464_000_000_000_001, 1))
    );
    assert_eq!(log.kind, EventKind::Log);
    assert_eq!(text(&output), "\x1b[1mred\r");

    api.finish("pod-1", 0);
    assert_eq!(run.ended().await, "succeeded");
    run.gone().await;
    assert_eq!(run.counters.lines(), 4);
    assert_eq!(run.counters.follows(), 0);
    let asked = api.requests();
    let list = asked
        .iter()
        .find(|it| it.contains("/pods?"))
        .expect("a list");
    assert!(list.contains("labelSelector=run-id%3D42"), "{list}");
    assert!(list.contains("/namespaces/default/"), "{list}");
    let log = &api.log_requests()[0];
    for part in ["container=main", "follow=true", "timestamps=true"] {
        assert!(log.contains(part), "{log}");
    }
    assert!(
        !log.contains("tailLines=10") && !log.contains("sinceTime"),
        "{log}"
    );
}

async fn two_pods_and_init_containers_are_followed_apart(engine: KubectlEngine) {
    let api = KubeApi::start();
    api.add_running_pod("7", "a", &["init-db", "main", "side"]);
    api.add_running_pod("7", "b", &["main"]);
    api.add_running_pod("70", "foreign", &["main"]);
    api.log("foreign", "main", 1, "not ours");
    api.log("a", "init-db", 1, "prepared");
    api.exit("a", "init-db", 0);
    api.log("a", "main", 5, "from a");
    api.log("a", "side", 3, "from side");
    api.log("b", "main", 4, "from b");
    let mut run = Setup::of(&api, engine).follow("7");
    run.ready().await;
    let mut got = Vec::new();
    let mut last = KubectlPosition::default();
    for _ in 0..4 {
        let line = run.line().await;
        got.push(format!("{} {}", line.source, text(&line)));
        last = line.position;
    }
    got.sort();
    assert_eq!(
        got,
        [
            "a/init-db prepared",
            "a/main from a",
            "a/side from side",
            "b/main from b"
        ]
    );
    for (pod, container) in [
        ("a", "init-db"),
        ("a", "main"),
        ("a", "side"),
        ("b", "main"),
    ] {
        let key = KubectlPosition::container_key(pod, container);
        assert!(last.get(key).is_some(), "{pod}/{container}");
    }
    api.finish("a", 0);
    api.finish("b", 1);
    assert_eq!(run.ended().await, "failed");
}

async fn a_stream_waits_for_its_pod_and_says_what_for(engine: KubectlEngine) {
    let api = KubeApi::start();
    let mut run = Setup::of(&api, engine).follow("42");
    run.ready().await;
    let problem = run.problem().await;
    assert_eq!(
        (problem.slug, problem.retryable),
        ("pod-not-found", Some(true))
    );
    api.add_pod("42", "pod-1", &["main"]);
    let problem = run.problem().await;
    assert_eq!(problem.slug, "pod-not-started");
    assert!(
        problem.detail.contains("pod-1: ContainerCreating"),
        "{}",
        problem.detail
    );
    api.set_waiting("pod-1", "main", "ImagePullBackOff");
    let problem = run.problem().await;
    assert!(
        problem.detail.contains("ImagePullBackOff"),
        "{}",
        problem.detail
    );
    api.start_container("pod-1", "main");
    api.set_phase("pod-1", "Running");
    let update = run.next().await;
    assert!(matches!(update, KubectlUpdate::Resolved), "{update:?}");
    api.log("pod-1", "main", 1, "here");
    run.texts(&["here"]).await;
}

async fn a_log_cut_again_and_again_comes_whole_and_once(engine: KubectlEngine) {
    let api = KubeApi::start();
    api.add_running_pod("42", "pod-1", &["main"]);
    // Three lines share each time, ten times a second: what is repeated after
    // `sinceTime` cannot be told apart by the time alone.
    for n in 0..60_u64 {
        api.log("pod-1", "main", n / 3 * 100_000_000, format!("line {n}"));
    }
    // Each cut is in the middle of a line or of a timestamp.
    for after in [10, 45, 400, 777] {
        api.fail(Ask::Log, Fault::CutAfter(after), 1);
    }
    let mut run = Setup::of(&api, engine).follow("42");
    run.ready().await;
    for n in 0..60 {
        assert_eq!(text(&run.line().await), format!("line {n}"));
    }
    for n in 60..63 {
        api.cut_logs();
        api.log("pod-1", "main", 7_000_000_000, format!("line {n}"));
        assert_eq!(text(&run.line().await), format!("line {n}"));
    }
    // A dead kubelet ends the log well, which proves nothing.
    api.end_logs();
    api.log("pod-1", "main", 8_000_000_000, "line 63");
    run.texts(&["line 63"]).await;
    api.finish("pod-1", 0);
    assert_eq!(run.ended().await, "succeeded");
    assert!(
        api.log_requests()
            .iter()
            .any(|it| it.contains("sinceTime="))
    );
    let failures: u64 = run.counters.failures().map(|(_, times)| times).sum();
    assert!(failures >= 5, "{:?}", run.counters);
}

async fn half_a_line_is_delivered_only_when_it_is_the_last(engine: KubectlEngine) {
    let api = KubeApi::start();
    api.add_running_pod("42", "pod-1", &["main"]);
    api.log("pod-1", "main", 1, "whole");
    api.log_part("pod-1", "main", 2, "half");
    let mut run = Setup::of(&api, engine).follow("42");
    run.ready().await;
    run.texts(&["whole"]).await;
    api.end_logs();
    // The rest comes after the follow was ended in the middle of the line.
    until("the log is followed again", || {
        api.log_requests().len() >= 2
    })
    .await;
    api.log("pod-1", "main", 2, " and half");
    run.texts(&["half and half"]).await;
    api.log_part("pod-1", "main", 3, "no line feed");
    api.finish("pod-1", 0);
    run.texts(&["no line feed"]).await;
    assert_eq!(run.ended().await, "succeeded");
}

async fn a_restarted_container_is_followed_on_and_told(engine: KubectlEngine) {
    let api = KubeApi::start();
    api.add_running_pod("42", "pod-1", &["main"]);
    api.log("pod-1", "main", 1, "one");
    let mut run = Setup::of(&api, engine).follow("42");
    run.ready().await;
    run.texts(&["one"]).await;
    // The last line of the first instance is written while nobody reads.
    api.fail(Ask::Log, Fault::Status(500, "InternalError"), 2);
    api.cut_logs();
    api.log("pod-1", "main", 2, "two");
    api.restart("pod-1", "main", 3);
    api.log("pod-1", "main", 9_000_000_000, "three");
    run.texts(&["two"]).await;
    let told = run.line().await;
    assert_eq!(told.kind, EventKind::Log);
    let payload: serde_json::Value = serde_json::from_slice(&told.payload).expect("JSON");
    assert_eq!(payload["message"], "container restarted");
    assert_eq!(
        (&payload["level"], &payload["restarts"]),
        (&"info".into(), &1.into())
    );
    assert_eq!(
        (&payload["exit_code"], &payload["reason"]),
        (&3.into(), &"Error".into())
    );
    let key = KubectlPosition::container_key("pod-1", "main");
    assert_eq!(told.position.get(key), Some((1_795_464_000_000_000_002, 1)));
    run.texts(&["three"]).await;
    api.finish("pod-1", 1);
    assert_eq!(run.ended().await, "failed");
    assert_eq!(run.counters.restarts(), 1);
}

async fn another_reader_of_a_restarted_container_gives_the_same_positions(engine: KubectlEngine) {
    let api = KubeApi::start();
    api.add_running_pod("42", "pod-1", &["main"]);
    api.log("pod-1", "main", 1, "one");
    let mut first = Setup::of(&api, engine).follow("42");
    first.ready().await;
    let mut seen = vec![first.line().await];
    api.restart("pod-1", "main", 3);
    api.log("pod-1", "main", 9_000_000_000, "two");
    seen.extend([first.line().await, first.line().await]);
    let mut second = Setup::of(&api, engine).follow("42");
    second.ready().await;
    for line in seen {
        assert_eq!(second.line().await, line);
    }
}

async fn a_job_that_tries_again_is_not_over(engine: KubectlEngine) {
    let api = KubeApi::start();
    api.add_running_pod("42", "try-1", &["main"]);
    api.own("try-1", "job");
    api.log("try-1", "main", 1, "failing");
    let mut run = Setup::of(&api, engine).follow("42");
    run.ready().await;
    run.texts(&["failing"]).await;
    api.finish("try-1", 1);
    until("the Job is asked", || {
        let asked = api.requests();
        asked.iter().filter(|it| it.contains("/jobs/job")).count() >= 2
    })
    .await;
    api.add_running_pod("42", "try-2", &["main"]);
    api.own("try-2", "job");
    api.log("try-2", "main", 5, "better");
    run.texts(&["better"]).await;
    api.finish("try-2", 0);
    api.end_job("job", "Complete");
    assert_eq!(run.ended().await, "succeeded");
}

async fn a_finished_run_is_read_and_ended(engine: KubectlEngine) {
    let api = KubeApi::start();
    api.add_running_pod("42", "pod-1", &["main"]);
    for n in 0..1000_u64 {
        api.log("pod-1", "main", n, format!("{n}"));
    }
    api.finish("pod-1", 1);
    let mut run = Setup::of(&api, engine).follow("42");
    run.ready().await;
    for n in 0..1000 {
        assert_eq!(text(&run.line().await), n.to_string());
    }
    assert_eq!(run.ended().await, "failed");
}

async fn bytes_pass_as_they_are(engine: KubectlEngine) {
    let api = KubeApi::start();
    api.add_running_pod("42", "pod-1", &["main"]);
    let bytes: Vec<u8> = (0..=255).filter(|byte| *byte != b'\n').collect();
    api.log("pod-1", "main", 1, &bytes);
    let mut run = Setup::of(&api, engine).follow("42");
    run.ready().await;
    assert_eq!(run.line().await.payload, bytes);
}
