//! [`KubeApi`]: the least of a Kubernetes API server that a real kubectl needs
//! to find a pod and follow its log, which never ends.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Lines written in one go.
const BATCH_LINES: usize = 200;

/// Text of a line, behind its time.
const LINE: &str =
    "a line of a container that writes as fast as anybody reads, of a hundred bytes in all";

/// It serves until the tool ends.
pub(super) struct KubeApi {
    dir: TempDir,
}

impl KubeApi {
    /// Starts it and writes a kubeconfig for it.
    pub(super) fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let server = format!("http://{}", listener.local_addr()?);
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                // Whoever goes while it is written to is no matter.
                std::thread::spawn(move || drop(serve(&socket)));
            }
        });
        let dir = tempfile::Builder::new().prefix("runcast-kube-").tempdir()?;
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": server}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        });
        std::fs::write(dir.path().join("config"), config.to_string())?;
        Ok(Self { dir })
    }

    /// Returns the path of the kubeconfig.
    pub(super) fn config(&self) -> PathBuf {
        self.dir.path().join("config")
    }
}

/// Answers one request and closes the connection.
fn serve(mut socket: &TcpStream) -> Result<()> {
    let mut lines = BufReader::new(socket).lines();
    let request = lines.next().context("no request")??;
    for line in lines.by_ref() {
        if line?.is_empty() {
            break;
        }
    }
    let target = request.split(' ').nth(1).context("no path")?;
    let path = target.split('?').next().unwrap_or_default();
    if path.ends_with("/log") {
        head(socket, "200 OK", "text/plain", None)?;
        return flood(socket);
    }
    let body = answer(path);
    let status = if body["kind"] == "Status" {
        "404 Not Found"
    } else {
        "200 OK"
    };
    let body = body.to_string();
    head(socket, status, "application/json", Some(body.len()))?;
    Ok(socket.write_all(body.as_bytes())?)
}

fn head(mut socket: &TcpStream, status: &str, kind: &str, length: Option<usize>) -> Result<()> {
    let length = length.map(|length| format!("Content-Length: {length}\r\n"));
    let length = length.unwrap_or_default();
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{length}Connection: close\r\n\r\n");
    Ok(socket.write_all(head.as_bytes())?)
}

fn answer(path: &str) -> Value {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    match parts[..] {
        ["version"] => json!({"major": "1", "minor": "32", "gitVersion": "v1.32.0"}),
        ["api"] => {
            json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})
        }
        ["apis"] => json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": []}),
        ["api", "v1"] => {
            json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "v1",
            "resources": [
                {"name": "pods", "singularName": "", "namespaced": true, "kind": "Pod",
                    "verbs": ["get", "list", "watch"], "shortNames": ["po"]},
                {"name": "pods/log", "singularName": "", "namespaced": true, "kind": "Pod",
                    "verbs": ["get"]},
            ]})
        }
        ["api", "v1", "namespaces", _, "pods"] => json!({"kind": "PodList", "apiVersion": "v1",
            "metadata": {"resourceVersion": "1"}, "items": [pod()]}),
        ["api", "v1", "namespaces", _, "pods", _] => pod(),
        _ => json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "not found", "reason": "NotFound", "code": 404}),
    }
}

/// The one pod there is, whatever run is asked for.
fn pod() -> Value {
    let state = json!({"running": {"startedAt": "2026-11-23T20:00:00Z"}});
    json!({"kind": "Pod", "apiVersion": "v1",
    "metadata": {"name": "flood", "namespace": "default", "uid": "flood-1", "labels": {}},
    "spec": {"containers": [{"name": "main", "image": "i"}]},
    "status": {"phase": "Running", "containerStatuses": [{
        "name": "main", "restartCount": 0, "ready": true, "image": "i", "imageID": "i",
        "state": state, "lastState": {},
    }]}})
}

/// Writes lines as fast as they are taken, until nobody takes them.
fn flood(mut socket: &TcpStream) -> Result<()> {
    let mut batch = String::new();
    let mut number = 0u64;
    loop {
        batch.clear();
        let now = jiff::Timestamp::now();
        for _ in 0..BATCH_LINES {
            number += 1;
            batch.push_str(&format!("{now:.9} {number} {LINE}\n"));
        }
        socket.write_all(batch.as_bytes())?;
    }
}
