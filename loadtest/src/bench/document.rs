//! The figures as Markdown.

use std::fmt::Write as _;

use super::cell::{Cell, Figure};
use super::part::Part;
use super::system::System;
use super::{Ours, Results, target};
use crate::section;

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
    let nchan = section::first_line_of(
        "dpkg-query",
        &["-W", "-f", "${Version}", "libnginx-mod-nchan"],
    );
    format!(
        "Measured {today} at commit {commit} by `make bench` in {minutes:.0} minutes on {machine}; \
         nchan {nchan}; Python with the packages of `loadtest/peers/requirements.txt`. The load \
         test, Redis and the server share the cores. Each load was put on all servers in turn; a \
         figure is the median of its rounds. All that was neither server nor load test took at \
         most {others_cpu_percent:.0} % of a core, Redis included.{note}",
        today = section::today(),
        commit = section::commit(),
        minutes = results.seconds / 60.0,
        machine = section::machine(),
        others_cpu_percent = results.others_cpu_percent(),
        note = note.map(|note| format!(" {note}")).unwrap_or_default(),
    )
}
