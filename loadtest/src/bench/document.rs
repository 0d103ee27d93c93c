//! The figures as Markdown, and their place in a document.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context as _, Result};

use super::cell::{Cell, Figure};
use super::part::Part;
use super::system::System;
use super::{Ours, Results, first_line_of, target};

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
    let mut text = format!("{}\n\n", machine(results, note));
    // Writing to a string cannot fail, here and below.
    text.push_str("### What it shall reach\n\n");
    target::table(&results.verdicts, &mut text);
    text.push_str("### All servers\n\n");
    for part in results.parts() {
        loads(results, part, &mut text);
    }
    if let Some(ours) = &results.ours {
        durable(ours, &mut text);
        let _ = write!(
            text,
            "| | |\n|---|---|\n\
             | start-up: from the process's start to the first 200 on `/health/live` | {:.1} ms |\n\
             | size of the binary | {:.1} MB |\n",
            ours.start_up_ms,
            ours.binary_bytes as f64 / 1e6
        );
    }
    text
}

/// Returns what is told of each load.
fn columns(part: Part) -> &'static [Figure] {
    use Figure::{Accept, Cpu, Load, Opened, P50, P99, PerCore, PerSecond, Rss, Served};
    match part {
        Part::FanOut | Part::Sizes | Part::ManyRuns | Part::Tokens | Part::Stalled => {
            &[P50, P99, Cpu, PerSecond]
        }
        Part::FlatOut => &[PerSecond, PerCore, P99],
        Part::DropAll => &[Served, Accept, Cpu],
        Part::Idle | Part::IdleRuns => &[Rss, Accept, Opened, Load],
    }
}

/// Writes a table of all systems under a load.
fn loads(results: &Results, part: Part, text: &mut String) {
    let columns = columns(part);
    let title = part.title();
    let names: Vec<&str> = columns.iter().map(|figure| figure.name()).collect();
    let _ = write!(
        text,
        "{}{}:\n\n| clients | server | {} | lost | rounds |\n|--:|---|{}--:|--:|\n",
        title[..1].to_uppercase(),
        &title[1..],
        names.join(" | "),
        "--:|".repeat(columns.len()),
    );
    let mut cells: Vec<&Cell> = results
        .cells
        .iter()
        .filter(|cell| cell.part == part)
        .collect();
    cells.sort_by_key(|cell| cell.subscribers());
    for cell in cells {
        let figures = columns
            .iter()
            .map(|figure| figure.show(cell.median(*figure)));
        let figures: Vec<String> = figures.collect();
        let _ = writeln!(
            text,
            "| {} | {}{} | {} | {} | {} |",
            cell.subscribers(),
            cell.system.name(),
            cell.slower(),
            figures.join(" | "),
            cell.lost(),
            cell.rounds.len(),
        );
    }
    text.push('\n');
    if part == Part::FanOut {
        store_work(results, text);
    }
}

/// Tells what the durable events asked of the store: nothing.
fn store_work(results: &Results, text: &mut String) {
    let Some(cell) = results.cell(Part::FanOut, System::Durable) else {
        return;
    };
    let (mut events, mut reads, mut checks) = (0, 0, 0);
    for report in &cell.rounds {
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

fn durable(ours: &Ours, text: &mut String) {
    let Ours {
        publish,
        memory,
        resync,
        ..
    } = ours;
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
fn machine(results: &Results, note: Option<&str>) -> String {
    let cpu = proc_value("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown CPU".to_owned());
    let memory = proc_value("/proc/meminfo", "MemTotal")
        .and_then(|text| text.split(' ').next()?.parse::<f64>().ok())
        .map_or_else(|| "?".to_owned(), |kib| format!("{:.0}", kib / 1e6 * 1.024));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let version = |program, args: &[&str]| first_line_of(program, args).unwrap_or_default();
    let redis = version("redis-server", &["--version"]);
    let redis = redis.split(" sha").next().unwrap_or_default();
    let nchan = version(
        "dpkg-query",
        &["-W", "-f", "${Version}", "libnginx-mod-nchan"],
    );
    format!(
        "Measured {date} at commit {commit} by `make bench` in {minutes:.0} minutes on {cores} cores \
         of {cpu}, {memory} GB, Linux {kernel}; {rustc}; {redis}; nchan {nchan}; Python with the \
         packages of `loadtest/peers/requirements.txt`. The load test, Redis and the server share \
         the cores. Each load was put on all servers in turn; a figure is the median of its \
         rounds. All that was neither server nor load test took at most \
         {others_cpu_percent:.0} % of a core, Redis included.{note}",
        minutes = results.seconds / 60.0,
        others_cpu_percent = results.others_cpu_percent(),
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
