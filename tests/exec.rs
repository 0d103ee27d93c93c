//! `runcast exec` while Redis is well: the command's output, its signals, its
//! end.

use rustix::process::{Pid, Signal, kill_process};

use crate::support::cli::CliSettings;
use crate::support::history::{data_of, entries, statuses, wait_entries};
use crate::support::wait::SOON;
use crate::support::{Cli, Redis, eventually};

/// `runcast exec --run 42 -- sh -c <script>`. A busy machine may stop it in the
/// middle of a line for long; that is no line of its own.
pub(crate) fn shell(redis: &Redis, script: &str) -> CliSettings {
    Cli::with(redis)
        .set("exec.partial_line_after", "1h")
        .arguments(&["exec", "--run", "42", "--", "sh", "-c", script])
}

/// Bytes of every value, with line breaks in odd places and none at the end.
fn binary(length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(42);
    let mut bytes: Vec<u8> = (0..length).map(|_| random.u8(..)).collect();
    bytes.push(0xff);
    bytes
}

#[tokio::test]
async fn output_is_relayed_byte_for_byte_and_published_line_by_line() {
    let redis = Redis::start().await;
    let bytes = binary(100_000);
    let script = "cat; printf '\\033[1mbold\\r\\n' >&2; exit 3";
    let mut cli = shell(&redis, script).start();
    cli.feed(&bytes);
    let output = cli.end().await;
    assert_eq!(output.code, 3, "{}", output.stderr());
    assert!(output.stdout == bytes, "other bytes came out");
    assert_eq!(output.stderr, b"\x1b[1mbold\r\n");

    let entries = entries(&mut redis.publisher().await, "42").await;
    let lines = bytes.split(|byte| *byte == b'\n');
    let lines = lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line).to_vec());
    assert_eq!(data_of(&entries, "stdout"), lines.collect::<Vec<_>>());
    assert_eq!(data_of(&entries, "stderr"), [b"\x1b[1mbold"]);
    assert_eq!(
        statuses(&entries),
        [
            r#"{"status":"running"}"#,
            r#"{"status":"failed","exit_code":3}"#
        ]
    );
    assert_eq!(entries.last().expect("a status").kind, "status");
    assert!(entries.iter().all(|entry| entry.lost == 0));
}

#[tokio::test]
async fn the_run_and_the_sources_are_named_by_the_environment_and_a_flag() {
    let redis = Redis::start().await;
    let output = Cli::with(&redis)
        .variable("RUNCAST_RUN_ID", "from-env")
        .arguments(&["exec", "--source-prefix", "w1/", "--", "sh", "-c"])
        .arguments(&["echo $RUNCAST_RUN_ID; echo e >&2"])
        .run()
        .await;
    assert_eq!(output.stdout(), "from-env\n");
    let entries = entries(&mut redis.publisher().await, "from-env").await;
    assert_eq!(data_of(&entries, "w1/stdout"), [b"from-env"]);
    assert_eq!(data_of(&entries, "w1/stderr"), [b"e"]);
}

#[tokio::test]
async fn a_command_that_cannot_run_ends_as_in_a_shell() {
    let redis = Redis::start().await;
    for (run_id, command, code, error) in [
        (
            "a",
            "no-such-command",
            127,
            "No such file or directory (os error 2)",
        ),
        ("b", "/etc/passwd", 126, "Permission denied (os error 13)"),
    ] {
        let output = Cli::with(&redis)
            .arguments(&["exec", "--run", run_id, "--", command])
            .run()
            .await;
        assert_eq!(output.code, code);
        assert_eq!(
            output.stderr(),
            format!("runcast: cannot run {command}: {error}\n")
        );
        let entries = entries(&mut redis.publisher().await, run_id).await;
        let status = format!(r#"{{"status":"failed","exit_code":{code},"error":"{error}"}}"#);
        assert_eq!(statuses(&entries), [status]);
    }
}

#[tokio::test]
async fn wrong_usage_ends_with_64_and_starts_nothing() {
    let redis = Redis::start().await;
    for arguments in [
        &["exec", "--run", "42"][..],
        &["exec", "--run", "-42", "--", "echo"],
        &["exec", "--", "echo"],
        &["exec", "--run", "42", "echo"],
    ] {
        let output = Cli::with(&redis).arguments(arguments).run().await;
        assert_eq!(output.code, 64, "{arguments:?}");
        assert_eq!(output.stdout(), "");
    }
}

#[tokio::test]
async fn signals_reach_the_command_and_its_end_is_ours() {
    let redis = Redis::start().await;
    for (signal, script, code, status) in [
        (
            Signal::TERM,
            "echo up; exec sleep 1000",
            143,
            r#"{"status":"cancelled","exit_code":143,"signal":"SIGTERM"}"#,
        ),
        (
            Signal::INT,
            "trap 'echo asked; exit 7' INT; echo up; while :; do sleep 0.01; done",
            7,
            r#"{"status":"cancelled","exit_code":7}"#,
        ),
        (
            Signal::TERM,
            "trap 'exit 0' TERM; echo up; while :; do sleep 0.01; done",
            0,
            r#"{"status":"completed","exit_code":0}"#,
        ),
        (
            Signal::USR1,
            "trap 'exit 9' USR1; echo up; while :; do sleep 0.01; done",
            9,
            r#"{"status":"failed","exit_code":9}"#,
        ),
        (
            Signal::HUP,
            "echo up; exec sleep 1000",
            129,
            r#"{"status":"cancelled","exit_code":129,"signal":"SIGHUP"}"#,
        ),
    ] {
        let mut publisher = redis.publisher().await;
        let _: String = publisher.command(&["FLUSHALL"]).await;
        let cli = shell(&redis, script).start();
        cli.wait_stdout(b"up\n").await;
        cli.signal(signal);
        let output = cli.end().await;
        assert_eq!(output.code, code, "{signal:?}: {}", output.stderr());
        let entries = entries(&mut publisher, "42").await;
        assert_eq!(statuses(&entries)[1], status);
    }
}

#[tokio::test]
async fn a_command_killed_by_the_system_has_failed() {
    let redis = Redis::start().await;
    let output = shell(&redis, "kill -KILL $$").run().await;
    assert_eq!(output.code, 137);
    let entries = entries(&mut redis.publisher().await, "42").await;
    assert_eq!(
        statuses(&entries)[1],
        r#"{"status":"failed","exit_code":137,"signal":"SIGKILL"}"#
    );
}

/// Waits for a pid, the one line that the command writes.
async fn pid_said_by(cli: &Cli) -> Pid {
    let said = || cli.stdout().ends_with(b"\n");
    eventually("the command says its pid", SOON, async || said()).await;
    let said = String::from_utf8(cli.stdout()).expect("digits");
    Pid::from_raw(said.trim_end().parse().expect("a number")).expect("a pid")
}

fn is_stopped(process: Pid) -> bool {
    let path = format!("/proc/{}/stat", process.as_raw_pid());
    let stat = std::fs::read_to_string(path).expect("it runs");
    stat.contains(") T ")
}

/// A stop and a continue: the command stops too, and goes on.
#[tokio::test]
async fn a_stop_is_passed_on_and_so_is_its_end() {
    let redis = Redis::start().await;
    let mut cli = shell(&redis, "echo $$; exec cat").start_in_own_group();
    let command = pid_said_by(&cli).await;
    cli.signal(Signal::TSTP);
    eventually("it stops", SOON, async || is_stopped(command)).await;
    cli.signal(Signal::CONT);
    eventually("it goes on", SOON, async || !is_stopped(command)).await;
    cli.feed("x\n");
    assert_eq!(cli.end().await.code, 0);
}

#[tokio::test]
async fn what_has_no_line_break_is_published_all_the_same() {
    let redis = Redis::start().await;
    let mut publisher = redis.publisher().await;
    let mut cli = shell(&redis, "printf '10%%\\r'; cat")
        .set("exec.partial_line_after", "200ms")
        .start();
    let shown = wait_entries(&mut publisher, "42", 2).await;
    assert_eq!(data_of(&shown, "stdout"), [b"10%\r"]);
    cli.wait_stdout(b"10%\r").await;
    cli.feed("done\nlast");
    cli.end().await;
    let entries = entries(&mut publisher, "42").await;
    assert_eq!(
        data_of(&entries, "stdout"),
        [&b"10%\r"[..], b"done", b"last"]
    );
}

#[tokio::test]
async fn a_line_over_the_limit_comes_in_pieces() {
    let redis = Redis::start().await;
    let line = "é".repeat(100);
    let mut cli = shell(&redis, "cat")
        .set("limits.max_event_bytes", "99B")
        .start();
    cli.feed(format!("{line}\nc\n"));
    assert_eq!(cli.end().await.stdout(), format!("{line}\nc\n"));
    let entries = entries(&mut redis.publisher().await, "42").await;
    // 98 bytes are 49 characters: the 99th would be half of one.
    let pieces = [&line[..98], &line[..98], &line[..4], "c"].map(|piece| piece.as_bytes());
    assert_eq!(data_of(&entries, "stdout"), pieces);
}

#[tokio::test]
async fn a_grandchild_that_keeps_the_output_open_does_not_hold_us() {
    let redis = Redis::start().await;
    let output = shell(&redis, "sleep 1000 & echo $!")
        .set("exec.orphan_timeout", "50ms")
        .run()
        .await;
    let pid = output.stdout().trim().parse().ok().and_then(Pid::from_raw);
    kill_process(pid.expect("a pid"), Signal::KILL).expect("it runs");
    assert_eq!(output.code, 0);
    assert!(output.stderr().contains("keeps its stdout open"));
    let entries = entries(&mut redis.publisher().await, "42").await;
    assert_eq!(
        statuses(&entries)[1],
        r#"{"status":"completed","exit_code":0}"#
    );
}

/// As without us, a command whose reader goes away is told by SIGPIPE.
#[tokio::test]
async fn a_command_whose_reader_is_gone_learns_it() {
    let redis = Redis::start().await;
    let cli = shell(&redis, "exec yes").start_without_reader();
    assert_eq!(cli.end().await.code, 141);
}

#[tokio::test]
async fn a_run_that_is_over_takes_nothing_until_it_is_begun_anew() {
    let redis = Redis::start().await;
    let first = shell(&redis, "echo one; exit 1").set("runs.end_grace", "1ms");
    assert_eq!(first.run().await.code, 1);
    let again = shell(&redis, "echo two").run().await;
    assert_eq!((again.code, again.stdout()), (0, "two\n".to_owned()));
    let told = again.stderr();
    assert!(
        told.contains("the run is over; --restart begins it anew"),
        "{told}"
    );
    let mut publisher = redis.publisher().await;
    assert_eq!(
        data_of(&entries(&mut publisher, "42").await, "stdout"),
        [b"one"]
    );

    let anew = Cli::with(&redis)
        .arguments(&["exec", "--run", "42", "--restart", "--", "echo", "two"])
        .run()
        .await;
    assert_eq!((anew.code, anew.stderr()), (0, String::new()));
    let entries = entries(&mut publisher, "42").await;
    assert_eq!(data_of(&entries, "stdout"), [b"two"]);
    assert_eq!(statuses(&entries)[0], r#"{"status":"running"}"#);
}

/// As a container's first process we inherit what others leave behind.
#[tokio::test]
async fn orphans_that_we_inherit_are_reaped() {
    let redis = Redis::start().await;
    // The inner shell ends before its child does. Not reaped, that stays in
    // /proc, and the loop goes on for ever.
    let script = "sh -c 'sleep 0.05 & echo $!' | {
        read pid
        while test -e /proc/$pid; do sleep 0.01; done
        echo reaped
    }";
    let output = shell(&redis, script).inheriting_orphans().run().await;
    assert_eq!(output.stdout(), "reaped\n", "{}", output.stderr());
    assert_eq!(output.code, 0);
}

/// What ends the command comes to us as well, and may be seen after its end: it
/// must not cut off what is still to be published.
#[tokio::test]
async fn what_ended_the_command_does_not_end_us() {
    let redis = Redis::start().await;
    let cli = shell(&redis, "echo $$; exec sleep 1000").start();
    let command = pid_said_by(&cli).await;
    cli.signal(Signal::STOP);
    eventually("it is stopped", SOON, async || is_stopped(cli.pid())).await;
    cli.signal(Signal::INT);
    cli.signal(Signal::QUIT);
    kill_process(command, Signal::INT).expect("it runs");
    cli.signal(Signal::CONT);
    let output = cli.end().await;
    assert_eq!((output.code, output.stderr()), (130, String::new()));
    let entries = entries(&mut redis.publisher().await, "42").await;
    assert_eq!(
        statuses(&entries)[1],
        r#"{"status":"cancelled","exit_code":130,"signal":"SIGINT"}"#
    );
}

/// Keys of a terminal reach its whole foreground group: the command has the
/// signal already, and must not get it from us once more.
#[tokio::test]
async fn a_key_of_the_terminal_interrupts_the_command_once() {
    let redis = Redis::start().await;
    let count = "\
import signal
keys = {signal.SIGINT, signal.SIGQUIT}
signal.pthread_sigmask(signal.SIG_BLOCK, keys)
interrupts = 0
print('up', flush=True)
while signal.sigwait(keys) == signal.SIGINT:
    interrupts += 1
    print(f'interrupted {interrupts},', flush=True)
exit(4)";
    let mut cli = Cli::with(&redis)
        .arguments(&["exec", "--run", "42", "--", "python3", "-c", count])
        .start_in_terminal();
    let shows = async |cli: &Cli, text: &str| {
        let shown = || String::from_utf8_lossy(&cli.stdout()).contains(text);
        eventually(text, SOON, async || shown()).await;
    };
    shows(&cli, "up").await;
    for n in 1..=20 {
        cli.feed("\x03");
        shows(&cli, &format!("interrupted {n},")).await;
    }
    cli.feed("\x1c");
    let output = cli.end().await;
    assert_eq!(output.code, 4, "{}", output.stdout());
    assert!(!output.stdout().contains("interrupted 21"));
    let entries = entries(&mut redis.publisher().await, "42").await;
    assert_eq!(
        statuses(&entries)[1],
        r#"{"status":"cancelled","exit_code":4}"#
    );
}
