//! The figures as Markdown, and their place in a document.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context as _, Result};

use super::{Cell, Results, System, first_line_of};

const BEGIN: &str = "<!-- figures: begin, written by `make bench` -->";
const END: &str = "<!-- figures: end -->";

/// Replaces what stands between the two markers of `document`.
pub(super) fn replace(document: &str, figures: &str) -> Result<String> {
    let lacks = || format!("the document lacks the markers {BEGIN} and {END}");
    let (before, rest) = document.split_once(BEGIN).with_context(lacks)?;
    let (_, after) = rest.split_once(END).with_context(lacks)?;
    Ok(format!("{before}{BEGIN}\n{figures}{END}{after}"))
}

/// Returns the machine and every figure as Markdown.
pub(super) fn figures(results: &Results, note: Option<&str>) -> String {
    let mut text = format!("{}\n\n", machine(results.others_cpu_percent(), note));
    fan_out(results, &mut text);
    idle(results, &mut text);
    durable(results, &mut text);
    // Writing to a string cannot fail, here and below.
    let _ = write!(
        text,
        "| | |\n|---|---|\n\
         | start-up: from the process's start to the first 200 on `/health/live` | {:.1} ms |\n\
         | size of the binary | {:.1} MB |\n",
        results.start_up_ms,
        results.binary_bytes as f64 / 1e6
    );
    text
}

fn fan_out(results: &Results, text: &mut String) {
    text.push_str(
        "100 messages a second of 200 bytes to one run, from `PUBLISH` to the client's read:\n\n\
         | clients | server | median | p99 | server CPU per delivery | to the bare loop |\n\
         |--:|---|--:|--:|--:|--:|\n",
    );
    for Cell { system, report } in &results.fan_out {
        let cost = report.cpu_us_per_delivery();
        let ratio = match (cost, results.floor(report.subscribers)) {
            (Some(cost), Some(floor)) if *system != System::BareLoop => {
                format!("{:.2}", cost / floor)
            }
            _ => String::new(),
        };
        let latency =
            |ms: Option<f64>| ms.map_or_else(|| "–".to_owned(), |ms| format!("{ms:.2} ms"));
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {ratio} |",
            report.subscribers,
            system.name(),
            latency(report.latency_ms.map(|latency| latency.p50)),
            latency(report.latency_ms.map(|latency| latency.p99)),
            cost.map_or_else(|| "–".to_owned(), |cost| format!("{cost:.1} µs")),
        );
    }
    text.push('\n');
    store_work(results, text);
}

/// Tells what the durable events asked of the store: nothing.
fn store_work(results: &Results, text: &mut String) {
    let durable = results
        .fan_out
        .iter()
        .filter(|cell| cell.system == System::RuncastDurable);
    let (mut events, mut reads, mut checks) = (0, 0, 0);
    for Cell { report, .. } in durable {
        events += report.published;
        reads += report.store.map_or(0, |store| store.reads);
        checks += report.store.map_or(0, |store| store.checks);
    }
    let _ = write!(
        text,
        "While the {events} durable events of these were delivered, the broker read {reads} pages \
         from its store and compared positions {checks} times, at `redis.check_interval`.\n\n"
    );
}

fn idle(results: &Results, text: &mut String) {
    text.push_str(
        "Streams held open without a message:\n\n\
         | streams | runs | opened | p99 of opening | resident, each | CPU at rest |\n\
         |--:|--:|--:|--:|--:|--:|\n",
    );
    for Cell { report, .. } in &results.idle {
        let Some(server) = report.server else {
            continue;
        };
        let _ = writeln!(
            text,
            "| {} | {} | {:.0}/s | {:.1} ms | {:.1} kB | {:.2} % |",
            report.connects.connected,
            report.runs,
            report.connects.per_second,
            report.connects.latency_ms.p99,
            server.rss_bytes_per_connection / 1e3,
            server.cpu_percent,
        );
    }
    text.push('\n');
}

fn durable(results: &Results, text: &mut String) {
    let Results {
        publish,
        memory,
        resync,
        ..
    } = results;
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        "What an event of 200 bytes costs Redis, published in pipelines with nobody subscribed:\n\n\
         {publish}\n\
         What runs with a history take; events of 200 bytes:\n\n\
         {memory}\n\
         A subscription cut, and every run's events published before it could be made anew:\n\n\
         {resync}\n",
    );
}

/// Describes where and with what this was measured.
fn machine(others_cpu_percent: f64, note: Option<&str>) -> String {
    let cpu = proc_value("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown CPU".to_owned());
    let memory = proc_value("/proc/meminfo", "MemTotal")
        .and_then(|text| text.split(' ').next()?.parse::<f64>().ok())
        .map_or_else(|| "?".to_owned(), |kib| format!("{:.0}", kib / 1e6 * 1.024));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let version = |program, args: &[&str]| first_line_of(program, args).unwrap_or_default();
    let redis = version("redis-server", &["--version"]);
    let redis = redis.split(" sha").next().unwrap_or_default();
    format!(
        "Measured {date} at commit {commit} by `make bench` on {cores} cores of {cpu}, {memory} GB, \
         Linux {kernel}; {rustc}; {redis}. The load test, Redis and the server \
         share the cores. Each fan-out cell was measured several times, the servers in turn, and the \
         round shown is the one in which other programs did least; in all that is shown they (and \
         Redis) took at most {others_cpu_percent:.0} % of a core.{note}",
        date = jiff::Zoned::now().strftime("%Y-%m-%d"),
        commit = version("git", &["describe", "--always", "--dirty"]),
        kernel = kernel.trim(),
        rustc = version("rustc", &["--version"]),
        note = note.map(|note| format!(" {note}")).unwrap_or_default(),
    )
}

fn proc_value(path: &str, key: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_between_the_markers_is_replaced() {
        let document = format!("# Title\n{BEGIN}\nold\n{END}\nprose\n");
        let replaced = replace(&document, "new\n").expect("has markers");
        assert_eq!(replaced, format!("# Title\n{BEGIN}\nnew\n{END}\nprose\n"));
        assert_eq!(replace(&replaced, "new\n").expect("has markers"), replaced);
        assert!(replace("# Title\n", "new\n").is_err());
    }
}
