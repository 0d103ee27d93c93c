//! The built program's command line: exit codes, and what it says before it
//! serves. What each setting allows is tested under `src/settings`.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

fn runcast(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_runcast"))
        .args(arguments)
        .current_dir(std::env::temp_dir())
        .env_clear()
        .envs(environment.iter().copied())
        .output()
        .expect("the program was built")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("messages are UTF-8")
}

/// Checks exit code 64 and returns stderr.
fn refused(arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let output = runcast(arguments, environment);
    assert_eq!(output.status.code(), Some(64), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    stderr(&output)
}

#[test]
fn bad_settings_exit_with_64_and_one_line_each() {
    let text = refused(
        &["serve", "--bind", "localhost"],
        &[
            ("RUNCAST__HEARTBEAT__INTERVAL", "30"),
            ("RUNCAST__REDIS__PASSWORD", "s3cret"),
        ],
    );
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines[0].starts_with(
        "runcast: heartbeat.interval = \"30\" (environment RUNCAST__HEARTBEAT__INTERVAL): must be"
    ));
    assert!(lines[1].starts_with(
        "runcast: unknown key redis.password (environment RUNCAST__REDIS__PASSWORD): "
    ));
    assert!(lines[2].starts_with("runcast: server.bind = \"localhost\" (flag --bind): must be"));
    assert!(!text.contains("s3cret"));
}

#[test]
fn wrong_usage_exits_with_64() {
    for arguments in [
        &["--no-such-flag"][..],
        &["no-such-command"],
        &["serve", "--bind"],
        &["--config", "/nowhere/runcast.toml"],
    ] {
        assert!(!refused(arguments, &[]).is_empty());
    }
    assert_eq!(
        refused(&["--set", "redis.url:redis://:s3cret@h"], &[]),
        "runcast: --set ***@h: must be section.key=value, like --set \
         heartbeat.interval=15s\n"
    );
}

#[test]
fn a_file_named_by_the_environment_must_exist() {
    let text = refused(&[], &[("RUNCAST_CONFIG", "/nowhere/runcast.toml")]);
    assert_eq!(
        text,
        "runcast: /nowhere/runcast.toml: cannot be read: No such file or directory (os error 2)\n"
    );
}

#[test]
fn flags_are_taken_before_and_after_the_command() {
    for arguments in [
        &["check", "--backend", "kafka"][..],
        &["--backend", "kafka", "check"],
    ] {
        assert!(refused(arguments, &[]).contains("(flag --backend)"));
    }
}

#[test]
fn version_and_help_exit_with_0_and_print_to_stdout() {
    let output = runcast(&["--version"], &[]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        output.stdout,
        format!("runcast {}\n", env!("CARGO_PKG_VERSION")).as_bytes()
    );
    let output = runcast(
        &["--help"],
        &[("RUNCAST__REDIS__URL", "bad, and of no concern")],
    );
    assert_eq!(output.status.code(), Some(0));
    let help = String::from_utf8(output.stdout).expect("help is UTF-8");
    for word in [
        "serve",
        "dev",
        "check",
        "--config",
        "--set",
        "RUNCAST_CONFIG",
    ] {
        assert!(help.contains(word), "{word} is not in {help}");
    }
}

#[test]
fn check_reaches_no_redis_and_says_so_without_the_password() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = closed.local_addr().expect("bound").port();
    drop(closed);
    let url = format!("redis://:s3cret@127.0.0.1:{port}");
    let environment = [
        ("RUNCAST__REDIS__URL", url.as_str()),
        ("RUNCAST__KUBECTL__ENABLED", "false"),
    ];
    let output = runcast(&["check"], &environment);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8(output.stdout.clone()).expect("findings are UTF-8");
    let place = format!("redis: FAILED (redis://***@127.0.0.1:{port}): ");
    assert!(text.starts_with("settings: ok\n"), "{text}");
    assert!(text.contains(&place), "{text}");
    assert!(!format!("{output:?}").contains("s3cret"));
}

/// A redis-server on a socket of its own, gone with the test.
struct Redis {
    child: Child,
    directory: PathBuf,
}

impl Redis {
    fn start(password: &str) -> Self {
        let name = format!("runcast-check-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&directory).expect("the temporary directory is writable");
        let child = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--requirepass", password])
            .args(["--unixsocket", "redis.sock"])
            .current_dir(&directory)
            .stdout(Stdio::piped())
            .spawn()
            .expect("redis-server is installed");
        let mut redis = Self { child, directory };
        let log = redis.child.stdout.take().expect("it is piped");
        // The log ends if it cannot start; it goes on being written, so the
        // pipe is read to its end elsewhere.
        let (ready, is_ready) = sync_channel(1);
        thread::spawn(move || {
            for line in BufReader::new(log).lines().map_while(Result::ok) {
                if line.contains("eady to accept connections") {
                    let _ = ready.try_send(());
                }
            }
        });
        is_ready
            .recv_timeout(Duration::from_secs(10))
            .expect("redis-server says that it is ready");
        redis
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

#[test]
fn check_logs_in_to_redis() {
    let redis = Redis::start("s3cret");
    let socket = redis.directory.join("redis.sock");
    for (password, code, finding) in [
        ("s3cret", 0, "redis: ok (unix://"),
        ("wrong", 1, "redis: FAILED (unix://"),
    ] {
        let url = format!("unix://{}?pass={password}", socket.display());
        let arguments = [
            "check",
            "--redis-url",
            &url,
            "--set",
            "kubectl.enabled=false",
        ];
        let output = runcast(&arguments, &[]);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        let text = String::from_utf8(output.stdout).expect("findings are UTF-8");
        assert!(text.contains(finding), "{text}");
        assert!(!text.contains(password), "{text}");
    }
}

/// It does all that a broker does, and leaves nothing behind.
#[tokio::test]
async fn check_names_what_redis_forbids() {
    let redis = crate::support::Redis::start().await;
    let mut admin = redis.publisher().await;
    let url = format!("redis://agent:s3cret@127.0.0.1:{}", redis.port());
    let arguments = ["check", "--redis-url", &url];
    let environment = [("RUNCAST__KUBECTL__ENABLED", "false")];
    let scripts = "-eval -evalsha -eval_ro -evalsha_ro";
    for (rules, finding) in [
        ("", "redis: ok ("),
        // Scripts do where functions are forbidden.
        ("-fcall -fcall_ro -function", "redis: ok ("),
        ("-psubscribe", "cannot subscribe to run:*: "),
        ("resetchannels &other:*", "cannot subscribe to run:*: "),
        ("-publish", "cannot publish to the own subscription: "),
        (
            &format!("-fcall {scripts}"),
            "cannot call runcast_publish: ",
        ),
        ("resetkeys ~other:*", "cannot call runcast_publish: "),
        (
            &format!("-fcall_ro {scripts}"),
            "cannot call runcast_read: ",
        ),
    ] {
        let user = "ACL SETUSER agent reset on >s3cret ~* &* +@all";
        let words = user.split(' ').chain(rules.split_whitespace());
        let _: String = admin.command(&words.collect::<Vec<_>>()).await;
        let output = runcast(&arguments, &environment);
        let text = String::from_utf8(output.stdout).expect("findings are UTF-8");
        assert!(text.contains(finding), "{rules}: {text}");
        let is_good = finding.starts_with("redis: ok");
        assert_eq!(output.status.success(), is_good, "{rules}");
        assert!(!text.contains("s3cret"), "{text}");
    }
    let keys: Vec<String> = admin.command(&["KEYS", "*"]).await;
    assert_eq!(keys, Vec::<String>::new());
}

#[test]
fn check_of_an_embedded_broker_needs_no_redis() {
    let environment = [("RUNCAST__KUBECTL__ENABLED", "false")];
    let output = runcast(&["check", "--backend", "embedded"], &environment);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stdout.starts_with(b"settings: ok\n"));
}

#[test]
fn check_says_what_keeps_kubectl_from_working() {
    let missing = ("RUNCAST__KUBECTL__COMMAND", "/nowhere/kubectl");
    for (backend, code, finding) in [
        (
            "kubectl",
            1,
            "kubectl: FAILED (engine command, namespace default): ",
        ),
        (
            "embedded",
            0,
            "kubectl: not usable (engine command, namespace default): ",
        ),
    ] {
        let output = runcast(&["check", "--backend", backend], &[missing]);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        let text = String::from_utf8(output.stdout).expect("findings are UTF-8");
        let finding = format!("{finding}the broker finds no kubectl");
        assert!(text.contains(&finding), "{text}");
    }
}
