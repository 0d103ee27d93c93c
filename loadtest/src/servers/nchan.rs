//! nchan in nginx: its configuration, and how it is started and ended.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};

use super::{Guard, POLL_INTERVAL, Redis, START_TIMEOUT, Server, free_addr};
use crate::http;
use crate::process::raise_open_files_limit;

/// Where Debian's `libnginx-mod-nchan` puts the module.
const MODULE: &str = "/usr/lib/nginx/modules/ngx_nchan_module.so";

/// Where Debian puts nginx; that is not in every user's `PATH`.
const PROGRAM: &str = "/usr/sbin/nginx";

/// Path of a run's stream.
pub(crate) const STREAM_PATH: &str = "/sub/{run}";

/// Path to post a run's messages to.
pub(crate) const POST_PATH: &str = "/pub/{run}";

/// Files that a worker needs beside its connections.
const FILES_BESIDE: u64 = 200;

/// How nchan is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Nchan {
    /// Processes that serve.
    pub(crate) workers: u16,
    /// Whether messages are kept in Redis instead of shared memory.
    pub(crate) in_redis: bool,
}

impl Server {
    /// Starts nginx with nchan.
    ///
    /// # Errors
    /// Also when nginx or the module is not installed.
    pub(crate) fn nchan(nchan: Nchan, redis: &Redis) -> Result<Self> {
        ensure!(
            Path::new(MODULE).exists() && Path::new(PROGRAM).exists(),
            "nchan is not installed (Debian's libnginx-mod-nchan): there is no {MODULE} or {PROGRAM}"
        );
        let dir = tempfile::Builder::new()
            .prefix("runcast-nchan-")
            .tempdir()?;
        let addr = free_addr()?;
        let connections = raise_open_files_limit()?.saturating_sub(FILES_BESIDE);
        let config = dir.path().join("nginx.conf");
        let text = nchan.config(&addr.to_string(), &redis.url, connections, dir.path());
        fs::write(&config, text)?;
        let started = Instant::now();
        let process = Command::new(PROGRAM)
            .arg("-p")
            .arg(dir.path())
            .arg("-e")
            .arg(error_log(dir.path()))
            .arg("-c")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start nginx")?;
        let log = error_log(dir.path());
        let server = Self {
            process: Guard {
                child: process,
                is_master: true,
            },
            _files: Some(dir),
            addr,
            started,
        };
        while !nchan.is_ready(addr, &log) {
            if started.elapsed() > START_TIMEOUT {
                let said = fs::read_to_string(&log).unwrap_or_default();
                bail!("nginx does not answer, but says: {said}");
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        Ok(server)
    }
}

fn error_log(dir: &Path) -> PathBuf {
    dir.join("error.log")
}

impl Nchan {
    /// Whether it answers, and each worker is connected to Redis: until then it
    /// refuses streams.
    fn is_ready(self, addr: SocketAddr, log: &Path) -> bool {
        let said = fs::read_to_string(log).unwrap_or_default();
        let connected = said.matches("Redis upstream redis: ready").count();
        (!self.in_redis || connected >= usize::from(self.workers))
            && matches!(http::get(addr, "/ready"), Ok(answer) if answer.status == 200)
    }

    /// Returns an `nginx.conf`: what a careful user would set for many streams,
    /// and nothing of a web server that streams do not need.
    fn config(self, addr: &str, redis_url: &str, connections: u64, dir: &Path) -> String {
        let Self { workers, in_redis } = self;
        let dir = dir.display();
        let upstream = if in_redis {
            format!("upstream redis {{ nchan_redis_server {redis_url}; }}\n")
        } else {
            String::new()
        };
        let pass = if in_redis {
            "nchan_redis_pass redis;"
        } else {
            ""
        };
        // Each worker has a queue of its own: the kernel spreads the streams.
        let reuse = if workers > 1 { " reuseport" } else { "" };
        format!(
            "load_module {MODULE};\n\
             daemon off;\n\
             pid {dir}/nginx.pid;\n\
             worker_processes {workers};\n\
             worker_rlimit_nofile {files};\n\
             error_log {dir}/error.log notice;\n\
             events {{ worker_connections {connections}; }}\n\
             http {{\n\
             access_log off;\n\
             tcp_nodelay on;\n\
             client_body_temp_path {dir}/body;\n\
             proxy_temp_path {dir}/proxy;\n\
             fastcgi_temp_path {dir}/fastcgi;\n\
             uwsgi_temp_path {dir}/uwsgi;\n\
             scgi_temp_path {dir}/scgi;\n\
             nchan_shared_memory_size 256M;\n\
             {upstream}\
             server {{\n\
             listen {addr} backlog=4096{reuse};\n\
             keepalive_requests 1000000000;\n\
             keepalive_timeout 1h;\n\
             location = /ready {{ return 200; }}\n\
             location ~ ^/sub/([^/]+)$ {{\n\
             nchan_subscriber eventsource;\n\
             nchan_channel_id $1;\n\
             nchan_subscriber_first_message newest;\n\
             {pass}\n\
             }}\n\
             location ~ ^/pub/([^/]+)$ {{\n\
             nchan_publisher http;\n\
             nchan_channel_id $1;\n\
             nchan_message_buffer_length 10000;\n\
             nchan_message_timeout 1m;\n\
             {pass}\n\
             }}\n\
             }}\n\
             }}\n",
            files = connections + FILES_BESIDE,
        )
    }
}
