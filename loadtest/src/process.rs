//! What `/proc` tells of a process: CPU time and memory.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// A process of this machine, measured from outside.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Process {
    pid: u32,
}

impl Process {
    /// Makes sure that `pid` can be measured.
    pub(crate) fn new(pid: u32) -> Result<Self> {
        let process = Self { pid };
        process.cpu_time()?;
        process.rss_bytes()?;
        Ok(process)
    }

    /// This process.
    pub(crate) fn current() -> Self {
        Self {
            pid: std::process::id(),
        }
    }

    /// Returns the CPU time that the process's living threads have used, user
    /// and system.
    ///
    /// From `schedstat`, which counts nanoseconds: `stat` counts in ticks of
    /// 10 ms, too coarse for a server with one client.
    pub(crate) fn cpu_time(self) -> Result<Duration> {
        let dir = format!("/proc/{}/task", self.pid);
        let mut total = 0;
        for task in fs::read_dir(&dir).with_context(|| format!("cannot read {dir}"))? {
            // A thread may end between the listing and the reading.
            if let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) {
                total += first_number(&text).context("malformed schedstat")?;
            }
        }
        Ok(Duration::from_nanos(total))
    }

    /// Returns the CPU time that one of the process's threads has used.
    pub(crate) fn thread_cpu_time(self, thread: u32) -> Result<Duration> {
        let path = format!("/proc/{}/task/{thread}/schedstat", self.pid);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        first_number(&text)
            .map(Duration::from_nanos)
            .context("malformed schedstat")
    }

    /// Returns the resident memory in bytes.
    pub(crate) fn rss_bytes(self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.pid);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(first_number).context("no VmRSS")?;
        Ok(kib * 1024)
    }
}

/// Processes measured as one: a server may be a master with workers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Processes {
    processes: Vec<Process>,
}

impl Processes {
    /// Makes sure that each of `pids` can be measured, and adds the children
    /// that they have now, and those of these.
    pub(crate) fn with_children(pids: &[u32]) -> Result<Self> {
        let mut found: Vec<u32> = Vec::new();
        for pid in pids {
            Process::new(*pid).with_context(|| format!("process {pid} cannot be measured"))?;
        }
        let parents = parents()?;
        let mut next = pids.to_vec();
        while let Some(pid) = next.pop() {
            if !found.contains(&pid) {
                found.push(pid);
                let is_child = |entry: &&(u32, u32)| entry.1 == pid;
                next.extend(parents.iter().filter(is_child).map(|(child, _)| *child));
            }
        }
        let processes = found.into_iter().map(|pid| Process { pid }).collect();
        Ok(Self { processes })
    }

    /// Returns the CPU time of all together.
    pub(crate) fn cpu_time(&self) -> Result<Duration> {
        self.processes.iter().map(|each| each.cpu_time()).sum()
    }

    /// Returns the resident memory of all together in bytes; what they share
    /// counts in each.
    pub(crate) fn rss_bytes(&self) -> Result<u64> {
        self.processes.iter().map(|each| each.rss_bytes()).sum()
    }
}

/// Returns each process of the machine with its parent.
fn parents() -> Result<Vec<(u32, u32)>> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").context("cannot read /proc")? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // A process may end between the listing and the reading.
        if let Ok(stat) = fs::read_to_string(entry.path().join("stat")) {
            parents.extend(parent_of(&stat).map(|parent| (pid, parent)));
        }
    }
    Ok(parents)
}

/// Reads `pid (name) state ppid …`; the name may hold anything.
fn parent_of(stat: &str) -> Option<u32> {
    let after_name = &stat[stat.rfind(')')? + 1..];
    after_name.split_whitespace().nth(1)?.parse().ok()
}

/// Returns the CPU time that all programs of the machine have used together,
/// and what a hypervisor took from it.
pub(crate) fn machine_cpu_time() -> Result<Duration> {
    let text = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    let line = text.lines().next().unwrap_or_default();
    // cpu user nice system idle iowait irq softirq steal …
    let ticks = line
        .split_whitespace()
        .skip(1)
        .take(8)
        .map(str::parse)
        .collect::<Result<Vec<u64>, _>>()?;
    let idle: u64 = ticks.iter().skip(3).take(2).sum();
    let busy = ticks.iter().sum::<u64>() - idle;
    let per_second = rustix::param::clock_ticks_per_second();
    Ok(Duration::from_secs_f64(busy as f64 / per_second as f64))
}

/// Returns the memory that the kernel keeps for itself: its objects, sockets
/// among them, and what waits in the buffers of TCP.
pub(crate) fn kernel_bytes() -> Result<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
    let sockstat = fs::read_to_string("/proc/net/sockstat").context("cannot read sockstat")?;
    let slab = slab_bytes(&meminfo).context("no Slab in meminfo")?;
    let buffered = tcp_pages(&sockstat).context("no TCP mem in sockstat")?;
    Ok(slab + buffered * rustix::param::page_size() as u64)
}

/// Reads `Slab:   1234 kB`.
fn slab_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("Slab:"))?;
    Some(first_number(line)? * 1024)
}

/// Reads `TCP: inuse 8 orphan 0 tw 1 alloc 9 mem 3`.
fn tcp_pages(sockstat: &str) -> Option<u64> {
    let line = sockstat.lines().find(|line| line.starts_with("TCP:"))?;
    first_number(line.split_once(" mem ")?.1)
}

fn first_number(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

/// Raises the limit of open files as far as allowed and returns it. Children
/// inherit it.
pub(crate) fn raise_open_files_limit() -> Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).context("cannot raise the limit of open files")?;
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_is_read_behind_any_name() {
        assert_eq!(parent_of("17 (a) b) 3 (c) S 4 17 17 0"), Some(4));
        assert_eq!(parent_of("17 (nginx) S 1 17 17 0"), Some(1));
        assert_eq!(parent_of("17 nginx"), None);
    }

    #[test]
    fn the_kernels_memory_is_its_objects_and_what_waits_in_tcp() {
        let meminfo = "MemTotal:  9 kB\nSlab:   1200 kB\nSReclaimable: 3 kB\n";
        assert_eq!(slab_bytes(meminfo), Some(1200 * 1024));
        let sockstat =
            "sockets: used 5\nTCP: inuse 8 orphan 0 tw 1 alloc 9 mem 3\nUDP: inuse 0 mem 7\n";
        assert_eq!(tcp_pages(sockstat), Some(3));
        assert_eq!(tcp_pages("UDP: inuse 0 mem 7"), None);
    }
}
