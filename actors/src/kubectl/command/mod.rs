//! The engine `command`: every question is a short `kubectl`, every log a
//! `kubectl logs` of its own.

mod child;

use super::engine::{ANSWER_BYTES_MAX, Ask, Cluster, LogAsk};
use super::failure::{Failure, FailureReason};

pub(crate) use child::KubectlChild;

/// Runs kubectl to its end and returns what it wrote.
///
/// # Errors
/// Whatever kubectl says on stderr, [`FailureReason::Timeout`] or
/// [`FailureReason::Killed`]; the child is killed and reaped by then.
pub(crate) async fn ask(cluster: &Cluster, ask: &Ask<'_>) -> Result<Vec<u8>, Failure> {
    let args = ask_args(ask, &cluster.settings().namespace);
    let mut child = child::spawn(cluster.settings(), &cluster.counters, &args)?;
    let answer = async {
        let mut answer = Vec::new();
        while child
            .read(&mut answer)
            .await
            .map_err(|_| FailureReason::Failed)?
            > 0
        {
            if answer.len() > ANSWER_BYTES_MAX {
                return Err(FailureReason::Failed.into());
            }
        }
        Ok(answer)
    };
    match cluster.in_time(answer).await {
        Ok(answer) => child.ended().await.map(|()| answer),
        Err(failure) => {
            child.kill().await;
            Err(failure)
        }
    }
}

/// Starts `kubectl logs`.
///
/// # Errors
/// The program is missing or cannot be executed.
pub(crate) fn open_log(cluster: &Cluster, ask: &LogAsk<'_>) -> Result<KubectlChild, Failure> {
    let settings = cluster.settings();
    child::spawn(
        settings,
        &cluster.counters,
        &log_args(ask, &settings.namespace),
    )
}

fn owned<const N: usize>(args: [&str; N]) -> Vec<String> {
    args.map(str::to_owned).to_vec()
}

fn ask_args(ask: &Ask<'_>, namespace: &str) -> Vec<String> {
    match ask {
        Ask::Pods { selector } => {
            owned(["get", "pods", "-n", namespace, "-l", selector, "-o", "json"])
        }
        Ask::Pod { name } => owned(["get", "pod", "-n", namespace, "-o", "json", "--", name]),
        Ask::Job { name } => owned(["get", "job", "-n", namespace, "-o", "json", "--", name]),
        Ask::LastLine(log) => owned([
            "logs",
            "--tail=1",
            "--timestamps",
            "-n",
            namespace,
            "-c",
            &log.container,
            "--",
            &log.pod,
        ]),
    }
}

fn log_args(ask: &LogAsk<'_>, namespace: &str) -> Vec<String> {
    let mut args = vec!["logs".to_owned()];
    args.push(if ask.previous { "--previous" } else { "-f" }.to_owned());
    args.extend(owned(["--tail=-1", "--timestamps"]));
    args.extend(ask.since.map(|since| format!("--since-time={since}")));
    let (pod, container) = (&ask.name.pod, &ask.name.container);
    args.extend(owned(["-n", namespace, "-c", container, "--", pod]));
    args
}
