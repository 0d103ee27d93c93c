//! A stand-in for the Kubernetes API server: as much of it as kubectl asks
//! for, a cluster that the test moves by hand, and faults on demand.
//!
//! It answers `/version`, discovery, lists and reads of pods and Jobs, and
//! `pods/NAME/log?container&follow&timestamps&sinceTime&tailLines&previous`,
//! chunked. What kubectl asked is kept for the test to look at.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, mpsc};

use actix_web::dev::ServerHandle;
use actix_web::http::StatusCode;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use bytes::Bytes;
use futures_util::stream;
use serde_json::{Value, json};
use tokio::sync::watch;

/// 2026-11-23T20:00:00Z in nanoseconds; times of lines are given from here.
pub(crate) const T0: u64 = 1_795_464_000_000_000_000;

/// Which requests a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Lists of pods.
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

#[derive(Debug, Default, Clone)]
struct Instance {
    /// Time, text, and whether a line feed follows.
    lines: Vec<(u64, Vec<u8>, bool)>,
    exit_code: Option<i32>,
}

#[derive(Debug, Default)]
struct Container {
    init: bool,
    instances: Vec<Instance>,
    waiting: Option<String>,
}

#[derive(Debug, Default)]
struct Pod {
    uid: String,
    labels: BTreeMap<String, String>,
    phase: String,
    job: Option<String>,
    containers: Vec<(String, Container)>,
}

#[derive(Debug, Default)]
struct Cluster {
    pods: BTreeMap<String, Pod>,
    jobs: BTreeMap<String, Option<&'static str>>,
    faults: Vec<(Ask, Fault, usize)>,
    requests: Vec<String>,
    pods_made: u64,
    /// Raised to cut, or to end, every log that is being followed.
    cuts: u64,
    ends: u64,
}

#[derive(Debug)]
struct Shared {
    cluster: Mutex<Cluster>,
    /// Moved by every change, so that followed logs look again.
    changed: watch::Sender<u64>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Cluster> {
        self.cluster.lock().expect("no test panics with the lock")
    }

    fn change<T>(&self, change: impl FnOnce(&mut Cluster) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.send_modify(|version| *version += 1);
        result
    }
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
        self.shared.change(|cluster| {
            cluster.pods_made += 1;
            let each = containers.iter().map(|container| {
                let init = container.starts_with("init");
                let waiting = Some("ContainerCreating".to_owned());
                let container_state = Container {
                    init,
                    waiting,
                    ..Container::default()
                };
                ((*container).to_owned(), container_state)
            });
            let pod = Pod {
                uid: format!("uid-{}", cluster.pods_made),
                labels: BTreeMap::from([("run-id".to_owned(), run.to_owned())]),
                phase: "Pending".to_owned(),
                job: None,
                containers: each.collect(),
            };
            cluster.pods.insert(name.to_owned(), pod);
        });
    }

    /// Makes a pod whose containers run.
    pub(crate) fn add_running_pod(&self, run: &str, name: &str, containers: &[&str]) {
        self.add_pod(run, name, containers);
        for container in containers {
            self.start_container(name, container);
        }
        self.set_phase(name, "Running");
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
        self.shared.change(|cluster| cluster.pods.remove(pod));
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

/// Serves on a thread of its own, so that a test that blocks does not.
fn serve(shared: &Arc<Shared>, address: SocketAddr) -> (ServerHandle, SocketAddr) {
    let (started, starting) = mpsc::sync_channel(1);
    let shared = web::Data::from(Arc::clone(shared));
    std::thread::spawn(move || {
        actix_web::rt::System::new().block_on(async move {
            let app = move || {
                App::new()
                    .app_data(shared.clone())
                    .default_service(web::to(answer))
            };
            let server = HttpServer::new(app)
                .workers(1)
                .disable_signals()
                .bind(address)
                .expect("a free port");
            let address = server.addrs()[0];
            let server = server.run();
            started.send((server.handle(), address)).expect("awaited");
            server.await.expect("it serves until it is stopped");
        });
    });
    starting.recv().expect("it starts")
}

async fn answer(request: HttpRequest, shared: web::Data<Shared>) -> HttpResponse {
    let path = request.path().to_owned();
    let query: BTreeMap<String, String> = web::Query::from_query(request.query_string())
        .map_or_else(|_| BTreeMap::new(), web::Query::into_inner);
    shared.lock().requests.push(request.uri().to_string());
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    match parts[..] {
        ["version"] => ok(json!({"major": "1", "minor": "32", "gitVersion": "v1.32.0"})),
        ["api"] => {
            ok(json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}))
        }
        ["apis"] => ok(groups()),
        ["api", "v1"] => ok(resources("v1", "pods", "Pod", "po")),
        ["apis", "batch", "v1"] => ok(resources("batch/v1", "jobs", "Job", "job")),
        ["api", "v1", "namespaces", _, "pods"] => match strike(&shared, Ask::Pods).await {
            Some(Struck::Answer(answer)) => answer,
            _ => ok(list_pods(&shared, query.get("labelSelector"))),
        },
        ["api", "v1", "namespaces", _, "pods", name] => read_pod(&shared, name),
        ["api", "v1", "namespaces", _, "pods", name, "log"] => {
            match strike(&shared, Ask::Log).await {
                Some(Struck::Answer(answer)) => answer,
                Some(Struck::Cut(after)) => log(&shared, name, &query, after),
                None => log(&shared, name, &query, usize::MAX),
            }
        }
        ["apis", "batch", "v1", "namespaces", _, "jobs", name] => {
            match strike(&shared, Ask::Job).await {
                Some(Struck::Answer(answer)) => answer,
                _ => read_job(&shared, name),
            }
        }
        _ => status(
            404,
            "NotFound",
            "the server could not find the requested resource",
        ),
    }
}

enum Struck {
    Answer(HttpResponse),
    Cut(usize),
}

/// Takes the next fault for `ask`, if one is due.
async fn strike(shared: &Shared, ask: Ask) -> Option<Struck> {
    let fault = {
        let mut cluster = shared.lock();
        let due = |(of, _, times): &&mut (Ask, Fault, usize)| *of == ask && *times > 0;
        let (_, fault, times) = cluster.faults.iter_mut().find(due)?;
        *times -= 1;
        *fault
    };
    Some(match fault {
        Fault::Status(code, reason) => Struck::Answer(status(code, reason, "as the test wants it")),
        Fault::Hang => std::future::pending().await,
        Fault::CutAfter(bytes) => Struck::Cut(bytes),
        Fault::LogText(text) => {
            Struck::Answer(HttpResponse::Ok().content_type("text/plain").body(text))
        }
    })
}

fn ok(body: Value) -> HttpResponse {
    HttpResponse::Ok().json(body)
}

fn status(code: u16, reason: &str, message: &str) -> HttpResponse {
    let status_code = StatusCode::from_u16(code).expect("a status code");
    HttpResponse::build(status_code).json(json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    }))
}

fn not_found(kind: &str, name: &str) -> HttpResponse {
    status(404, "NotFound", &format!("{kind} \"{name}\" not found"))
}

fn groups() -> Value {
    let version = json!({"groupVersion": "batch/v1", "version": "v1"});
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [
        {"name": "batch", "versions": [version], "preferredVersion": version},
    ]})
}

fn resources(group: &str, name: &str, kind: &str, short: &str) -> Value {
    let verbs = ["get", "list", "watch"];
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group, "resources": [
        {"name": name, "singularName": "", "namespaced": true, "kind": kind, "verbs": verbs, "shortNames": [short]},
        {"name": format!("{name}/log"), "singularName": "", "namespaced": true, "kind": kind, "verbs": ["get"]},
    ]})
}

fn list_pods(shared: &Shared, selector: Option<&String>) -> Value {
    let wanted = selector.and_then(|selector| selector.split_once('='));
    let cluster = shared.lock();
    let chosen = cluster.pods.iter().filter(|(_, pod)| {
        wanted.is_none_or(|(key, value)| pod.labels.get(key).is_some_and(|it| it == value))
    });
    let items: Vec<Value> = chosen.map(|(name, pod)| pod_json(name, pod)).collect();
    json!({"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items})
}

fn read_pod(shared: &Shared, name: &str) -> HttpResponse {
    match shared.lock().pods.get(name) {
        Some(pod) => ok(pod_json(name, pod)),
        None => not_found("pods", name),
    }
}

fn read_job(shared: &Shared, name: &str) -> HttpResponse {
    let Some(condition) = shared.lock().jobs.get(name).copied() else {
        return not_found("jobs.batch", name);
    };
    let conditions: Vec<Value> = condition
        .into_iter()
        .map(|condition| json!({"type": condition, "status": "True"}))
        .collect();
    ok(
        json!({"kind": "Job", "apiVersion": "batch/v1", "metadata": {"name": name, "namespace": "default"},
        "spec": {}, "status": {"conditions": conditions}}),
    )
}

fn pod_json(name: &str, pod: &Pod) -> Value {
    let of = |init: bool| pod.containers.iter().filter(move |(_, it)| it.init == init);
    let specs = |init| {
        of(init)
            .map(|(name, _)| json!({"name": name, "image": "i"}))
            .collect::<Vec<_>>()
    };
    let statuses = |init| {
        of(init)
            .map(|(name, it)| status_json(name, it))
            .collect::<Vec<_>>()
    };
    let owners: Vec<Value> = pod
        .job
        .iter()
        .map(|job| json!({"apiVersion": "batch/v1", "kind": "Job", "name": job, "uid": "j", "controller": true}))
        .collect();
    json!({"kind": "Pod", "apiVersion": "v1",
        "metadata": {"name": name, "namespace": "default", "uid": pod.uid, "labels": pod.labels, "ownerReferences": owners},
        "spec": {"containers": specs(false), "initContainers": specs(true)},
        "status": {"phase": pod.phase, "containerStatuses": statuses(false), "initContainerStatuses": statuses(true)}})
}

fn status_json(name: &str, container: &Container) -> Value {
    let started = "2026-11-23T20:00:00Z";
    let terminated = |instance: &Instance| {
        instance.exit_code.map(|code| {
            json!({"terminated": {
                "exitCode": code, "reason": if code == 0 { "Completed" } else { "Error" },
                "startedAt": started, "finishedAt": "2026-11-23T20:10:00Z",
            }})
        })
    };
    let mut instances = container.instances.iter().rev();
    let mut last_state = json!({});
    let present = instances.next();
    let state = match (&container.waiting, present) {
        (Some(reason), present) => {
            last_state = present.and_then(terminated).unwrap_or(last_state);
            json!({"waiting": {"reason": reason}})
        }
        (None, Some(present)) => {
            last_state = instances.next().and_then(terminated).unwrap_or(last_state);
            terminated(present).unwrap_or_else(|| json!({"running": {"startedAt": started}}))
        }
        (None, None) => json!({}),
    };
    json!({"name": name, "restartCount": container.instances.len().saturating_sub(1), "ready": true,
        "image": "i", "imageID": "i", "state": state, "lastState": last_state})
}

/// One answer to a request for a log.
struct LogStream {
    shared: web::Data<Shared>,
    uid: String,
    pod: String,
    container: String,
    instance: usize,
    next: usize,
    since: u64,
    timestamps: bool,
    follow: bool,
    /// Bytes that may still be sent.
    left: usize,
    line_begins: bool,
    cuts: u64,
    ends: u64,
    changed: watch::Receiver<u64>,
    over: bool,
}

fn log(
    shared: &web::Data<Shared>,
    pod_name: &str,
    query: &BTreeMap<String, String>,
    left: usize,
) -> HttpResponse {
    let cluster = shared.lock();
    let Some(pod) = cluster.pods.get(pod_name) else {
        return not_found("pods", pod_name);
    };
    let on = |key: &str| query.get(key).is_some_and(|value| value == "true");
    let wanted = query.get("container").map_or("", String::as_str);
    let Some((name, container)) = pod.containers.iter().find(|(name, _)| name == wanted) else {
        return status(
            400,
            "BadRequest",
            &format!("container {wanted} is not valid for pod {pod_name}"),
        );
    };
    let count = container.instances.len();
    let Some(instance) = count.checked_sub(if on("previous") { 2 } else { 1 }) else {
        let message = if on("previous") {
            format!("previous terminated container \"{name}\" in pod \"{pod_name}\" not found")
        } else {
            let reason = container.waiting.as_deref().unwrap_or("ContainerCreating");
            format!("container \"{name}\" in pod \"{pod_name}\" is waiting to start: {reason}")
        };
        return status(400, "BadRequest", &message);
    };
    let since = query
        .get("sinceTime")
        .and_then(|text| text.parse::<jiff::Timestamp>().ok());
    let tail = query
        .get("tailLines")
        .and_then(|text| text.parse::<usize>().ok());
    let lines = container.instances[instance].lines.len();
    let stream = LogStream {
        shared: shared.clone(),
        uid: pod.uid.clone(),
        pod: pod_name.to_owned(),
        container: name.clone(),
        instance,
        next: lines.saturating_sub(tail.unwrap_or(lines)),
        since: since.map_or(0, |time| u64::try_from(time.as_nanosecond()).unwrap_or(0)),
        timestamps: on("timestamps"),
        follow: on("follow"),
        left,
        line_begins: true,
        cuts: cluster.cuts,
        ends: cluster.ends,
        changed: shared.changed.subscribe(),
        over: false,
    };
    let body = stream::unfold(stream, |mut stream| async move {
        let item = stream.next_bytes().await?;
        Some((item, stream))
    });
    HttpResponse::Ok()
        .content_type("text/plain")
        .streaming(body)
}

impl LogStream {
    /// Returns the next bytes; an error cuts the connection.
    async fn next_bytes(&mut self) -> Option<Result<Bytes, std::io::Error>> {
        if self.over {
            return None;
        }
        loop {
            self.changed.borrow_and_update();
            let (mut bytes, ended) = self.collect();
            if bytes.len() > self.left {
                bytes.truncate(self.left);
                self.left = 0;
                self.cuts = u64::MAX;
                return Some(Ok(Bytes::from(bytes)));
            }
            if self.is_cut() {
                self.over = true;
                return Some(Err(std::io::Error::other("cut")));
            }
            self.left -= bytes.len();
            self.over = ended;
            if !bytes.is_empty() {
                return Some(Ok(Bytes::from(bytes)));
            }
            if ended || self.changed.changed().await.is_err() {
                return None;
            }
        }
    }

    fn is_cut(&self) -> bool {
        self.shared.lock().cuts != self.cuts
    }

    /// Returns what was written since, and whether nothing more will come.
    fn collect(&mut self) -> (Vec<u8>, bool) {
        let shared = self.shared.clone();
        let cluster = shared.lock();
        let mut bytes = Vec::new();
        let pod = cluster
            .pods
            .get(&self.pod)
            .filter(|pod| pod.uid == self.uid);
        let Some(pod) = pod else {
            return (bytes, true);
        };
        let (_, container) = pod
            .containers
            .iter()
            .find(|(name, _)| *name == self.container)
            .expect("containers stay");
        let instance = &container.instances[self.instance];
        for (ns, text, end) in &instance.lines[self.next..] {
            if *ns < self.since {
                continue;
            }
            if self.timestamps && self.line_begins {
                let stamp = jiff::Timestamp::from_nanosecond(i128::from(*ns)).expect("a time");
                bytes.extend_from_slice(format!("{stamp} ").as_bytes());
            }
            bytes.extend_from_slice(text);
            self.line_begins = *end;
            if *end {
                bytes.push(b'\n');
            }
        }
        self.next = instance.lines.len();
        let ended = !self.follow || instance.exit_code.is_some() || cluster.ends != self.ends;
        (bytes, ended)
    }
}
