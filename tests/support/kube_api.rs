//! A stand-in for the Kubernetes API server: as much of it as kubectl and our
//! own client ask for, a cluster that the test moves by hand, and faults on
//! demand.
//!
//! It answers `/version`, discovery, lists and reads of pods and Jobs, watches
//! of pods, and
//! `pods/NAME/log?container&follow&timestamps&sinceTime&tailLines&previous`,
//! chunked. What was asked is kept for the test to look at.

mod cluster;
mod log;
mod pod_watch;
mod server;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use actix_web::dev::ServerHandle;
use serde_json::json;
use tokio::sync::watch;

use cluster::{Container, Instance, Pod, Shared};
use server::serve;

/// 2026-11-23T20:00:00Z in nanoseconds; times of lines are given from here.
pub(crate) const T0: u64 = 1_795_464_000_000_000_000;

/// Which requests a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Lists and watches of pods; such a fault also cuts the watches there are.
    Pods,
    /// `pods/NAME/log`.
    Log,
    /// Jobs.
    Job,
}

/// What happens instead of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A `Status` with this code and reason.
    Status(u16, &'static str),
    /// The request is taken and never answered.
    Hang,
    /// The log is sent up to this many bytes, then the connection is cut.
    CutAfter(usize),
    /// A text of the kubelet's instead of the log, as after a clean-up.
    LogText(&'static str),
}

/// A running stand-in; stopped when dropped.
pub(crate) struct KubeApi {
    shared: Arc<Shared>,
    address: SocketAddr,
    server: Option<ServerHandle>,
    directory: tempfile::TempDir,
}

impl KubeApi {
    /// Starts on a free port and writes a kubeconfig for it.
    pub(crate) fn start() -> Self {
        let shared = Arc::new(Shared {
            cluster: Mutex::default(),
            changed: watch::Sender::new(0),
        });
        let (server, address) = serve(&shared, SocketAddr::from(([127, 0, 0, 1], 0)));
        let directory = tempfile::tempdir().expect("a temporary directory");
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": format!("http://{address}")}}],
            "users": [{"name": "u", "user": {"token": "secret"}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        });
        std::fs::write(directory.path().join("config"), config.to_string()).expect("written");
        Self {
            shared,
            address,
            server: Some(server),
            directory,
        }
    }

    /// Returns the path of a kubeconfig for this server. It is this test's
    /// own, so its name also marks the test's kubectl processes.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.directory.path().join("config")
    }

    /// Returns a directory that lives as long as this.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Makes a pod of `run` with containers that wait to be started.
    pub(crate) fn add_pod(&self, run: &str, name: &str, containers: &[&str]) {
        self.add(run, name, containers, false);
    }

    /// Makes a pod whose containers run.
    pub(crate) fn add_running_pod(&self, run: &str, name: &str, containers: &[&str]) {
        self.add(run, name, containers, true);
    }

    fn add(&self, run: &str, name: &str, containers: &[&str], running: bool) {
        self.shared.change(|cluster| {
            cluster.pods_made += 1;
            let each = containers.iter().map(|container| {
                let init = container.starts_with("init");
                let container_state = Container {
                    init,
                    waiting: (!running).then(|| "ContainerCreating".to_owned()),
                    instances: vec![Instance::default(); usize::from(running)],
                };
                ((*container).to_owned(), container_state)
            });
            let pod = Pod {
                uid: format!("uid-{}", cluster.pods_made),
                labels: BTreeMap::from([("run-id".to_owned(), run.to_owned())]),
                phase: if running { "Running" } else { "Pending" }.to_owned(),
                job: None,
                containers: each.collect(),
            };
            cluster.pods.insert(name.to_owned(), pod);
        });
    }

    fn change_container<T>(
        &self,
        pod: &str,
        container: &str,
        change: impl FnOnce(&mut Container) -> T,
    ) -> T {
        self.shared.change(|cluster| {
            let pod = cluster.pods.get_mut(pod).expect("the pod exists");
            let mut containers = pod.containers.iter_mut();
            let found = containers.find(|(name, _)| name == container);
            change(&mut found.expect("the container exists").1)
        })
    }

    /// Starts a container, again if it ran before.
    pub(crate) fn start_container(&self, pod: &str, container: &str) {
        self.change_container(pod, container, |container| {
            container.waiting = None;
            container.instances.push(Instance::default());
        });
    }

    /// Sets the reason a container waits for.
    pub(crate) fn set_waiting(&self, pod: &str, container: &str, reason: &str) {
        self.change_container(pod, container, |container| {
            container.waiting = Some(reason.to_owned());
        });
    }

    /// Appends a line that a container wrote `after_t0` nanoseconds after [`T0`].
    pub(crate) fn log(&self, pod: &str, container: &str, after_t0: u64, text: impl AsRef<[u8]>) {
        self.write(pod, container, after_t0, text.as_ref(), true);
    }

    /// Appends a text without a line feed.
    pub(crate) fn log_part(&self, pod: &str, container: &str, after_t0: u64, text: &str) {
        self.write(pod, container, after_t0, text.as_bytes(), false);
    }

    fn write(&self, pod: &str, container: &str, after_t0: u64, text: &[u8], end: bool) {
        self.change_container(pod, container, |container| {
            let instance = container.instances.last_mut().expect("it was started");
            instance.lines.push((T0 + after_t0, text.to_vec(), end));
        });
    }

    /// Ends a container's process; its log ends for those who follow.
    pub(crate) fn exit(&self, pod: &str, container: &str, code: i32) {
        self.change_container(pod, container, |container| {
            let instance = container.instances.last_mut().expect("it was started");
            instance.exit_code = Some(code);
        });
    }

    /// Ends a container and starts it again.
    pub(crate) fn restart(&self, pod: &str, container: &str, code: i32) {
        self.exit(pod, container, code);
        self.start_container(pod, container);
    }

    /// Sets a pod's phase.
    pub(crate) fn set_phase(&self, pod: &str, phase: &str) {
        self.shared.change(|cluster| {
            let pod = cluster.pods.get_mut(pod).expect("the pod exists");
            pod.phase = phase.to_owned();
        });
    }

    /// Ends all containers of a pod with `code` and the pod with them.
    pub(crate) fn finish(&self, pod: &str, code: i32) {
        self.shared.change(|cluster| {
            let pod = cluster.pods.get_mut(pod).expect("the pod exists");
            for instance in pod
                .containers
                .iter_mut()
                .filter_map(|(_, it)| it.instances.last_mut())
            {
                instance.exit_code.get_or_insert(code);
            }
            pod.phase = if code == 0 { "Succeeded" } else { "Failed" }.to_owned();
        });
    }

    /// Removes a pod; its logs end for those who follow.
    pub(crate) fn delete_pod(&self, pod: &str) {
        self.shared.change(|cluster| cluster.delete(pod));
    }

    /// Makes `job` the owner of `pod`; it goes on until [`KubeApi::end_job`].
    pub(crate) fn own(&self, pod: &str, job: &str) {
        self.shared.change(|cluster| {
            cluster.jobs.entry(job.to_owned()).or_default();
            cluster.pods.get_mut(pod).expect("the pod exists").job = Some(job.to_owned());
        });
    }

    /// Gives a Job the condition `Complete` or `Failed`.
    pub(crate) fn end_job(&self, job: &str, condition: &'static str) {
        self.shared
            .change(|cluster| cluster.jobs.insert(job.to_owned(), Some(condition)));
    }

    /// Lets the next `times` requests of this sort meet a fault.
    pub(crate) fn fail(&self, ask: Ask, fault: Fault, times: usize) {
        self.shared
            .change(|cluster| cluster.faults.push((ask, fault, times)));
    }

    /// Ends all faults.
    pub(crate) fn heal(&self) {
        self.shared.change(|cluster| cluster.faults.clear());
    }

    /// Cuts the connections of all logs being followed, without a last chunk.
    pub(crate) fn cut_logs(&self) {
        self.shared.change(|cluster| cluster.cuts += 1);
    }

    /// Ends all logs being followed as if they were complete, which is how a
    /// killed kubelet looks.
    pub(crate) fn end_logs(&self) {
        self.shared.change(|cluster| cluster.ends += 1);
    }

    /// Ends all watches, as the API does from time to time.
    pub(crate) fn end_watches(&self) {
        self.shared.change(|cluster| cluster.watch_ends += 1);
    }

    /// Lets nobody watch, as a Role does that was written for kubectl.
    pub(crate) fn forbid_watches(&self) {
        self.shared
            .change(|cluster| cluster.watches_forbidden = true);
    }

    /// Forgets what has happened so far: a watch from before is 410.
    pub(crate) fn forget_versions(&self) {
        self.shared
            .change(|cluster| cluster.forgotten = cluster.version);
    }

    /// Lets in nobody without this token.
    pub(crate) fn require_token(&self, token: &str) {
        self.shared
            .change(|cluster| cluster.token = Some(token.to_owned()));
    }

    /// Returns how many logs and watches are being answered.
    pub(crate) fn open_answers(&self) -> usize {
        self.shared.lock().open
    }

    /// Returns where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes the port and all connections.
    pub(crate) async fn refuse(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop(false).await;
        }
    }

    /// Opens the port again.
    pub(crate) fn accept(&mut self) {
        self.server = Some(serve(&self.shared, self.address).0);
    }

    /// Returns what was asked so far, path and query each, oldest first.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.shared.lock().requests.clone()
    }

    /// Returns the kubectl processes of this test that run now.
    pub(crate) fn kubectl_processes(&self) -> Vec<u32> {
        processes(&self.kubeconfig().display().to_string())
    }

    /// Returns the requests for logs so far.
    pub(crate) fn log_requests(&self) -> Vec<String> {
        let mut requests = self.requests();
        requests.retain(|request| request.contains("/log?"));
        requests
    }
}

impl Drop for KubeApi {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            // The stop is on its way when the call returns.
            drop(server.stop(false));
        }
    }
}

/// Returns the kubectl to test with: the program that `RUNCAST_TEST_KUBECTL`
/// names, or the one on `PATH`.
pub(crate) fn kubectl() -> String {
    std::env::var("RUNCAST_TEST_KUBECTL").unwrap_or_else(|_| "kubectl".to_owned())
}

/// Returns the processes that have `marker` in their command line, this one
/// and zombies aside.
pub(crate) fn processes(marker: &str) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").expect("Linux").flatten();
    entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let line = std::fs::read(entry.path().join("cmdline")).ok()?;
            let found = String::from_utf8_lossy(&line).contains(marker);
            found.then_some(pid)
        })
        .collect()
}
