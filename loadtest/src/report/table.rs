//! [`LoadReport`] as tables.

use std::fmt;

use comfy_table::{CellAlignment, Table, presets};

use super::{Deliveries, LatencyMs, LoadReport, StoreWork};

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows = Rows::default();
        self.streams(&mut rows);
        self.messages(&mut rows);
        self.stalled_and_cost(&mut rows);
        writeln!(f, "{}", rows.0)?;
        write!(f, "{}", self.latencies())?;
        if self.tool.is_bottleneck {
            write!(
                f,
                "\nTHE TOOL WAS THE BOTTLENECK: give it more --threads, or read the server's figures as a floor"
            )?;
        }
        Ok(())
    }
}

/// A table of what was counted.
struct Rows(Table);

impl Default for Rows {
    fn default() -> Self {
        Self(table())
    }
}

impl Rows {
    fn add(&mut self, name: &str, value: impl fmt::Display) {
        self.0.add_row([name.to_owned(), value.to_string()]);
    }
}

fn table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table
}

impl LoadReport {
    fn streams(&self, rows: &mut Rows) {
        let connects = &self.connects;
        rows.add(
            "streams",
            format!(
                "{} of {} on {} runs, {:.0}/s",
                connects.connected, self.subscribers, self.runs, connects.per_second
            ),
        );
        for (why, count) in &self.failures {
            rows.add("failed", format!("{count}: {why}"));
        }
        if let Some(churn) = &self.churn {
            rows.add("came and went", churn.connected);
        }
        for (name, returns) in [
            ("came back", &self.reconnects),
            ("dropped at once", &self.drop_all),
        ] {
            if let Some(returns) = returns {
                rows.add(
                    name,
                    format!("{}, served again {}", returns.went, returns.served),
                );
            }
        }
        if let Some(rest) = &self.rest
            && let Some(percent) = rest.all.server_cpu_percent
        {
            let text = format!("server CPU {percent:.2} % for {:.1} s", rest.all.seconds);
            rows.add("at rest", text);
            let text = format!(
                "{}, at most {} a second, then {:.2} % CPU",
                rest.all.heartbeats,
                rest.heartbeats_max(),
                rest.cpu_percent_max().unwrap_or_default()
            );
            rows.add("heartbeats", text);
        }
    }

    fn messages(&self, rows: &mut Rows) {
        rows.add(
            "published",
            format!(
                "{} of {} bytes, {:.0}/s (asked for {}); {} heard by nobody",
                self.published,
                self.payload_bytes,
                self.published_per_second,
                self.rate,
                self.unheard
            ),
        );
        let d = &self.deliveries;
        rows.add("delivered", format!("{} ({:.0}/s)", d.total, d.per_second));
        rows.add("faults", faults(d));
        rows.add(
            "also read",
            format!(
                "{} heartbeats, {} problems; {:.1} MB in all",
                d.heartbeats,
                d.problems,
                d.bytes as f64 / 1e6
            ),
        );
    }

    fn stalled_and_cost(&self, rows: &mut Rows) {
        if let Some(stalled) = &self.stalled {
            let d = &stalled.deliveries;
            let text = format!("{}, read {} in the end", stalled.subscribers, d.total);
            rows.add("stalled", text);
            rows.add("their faults", faults(d));
            for (why, count) in &stalled.failures {
                rows.add("of them cut", format!("{count}: {why}"));
            }
        }
        if let Some(server) = &self.server {
            rows.add("server CPU", format!("{:.1} %", server.cpu_percent));
            if let (Some(us), Some(count)) = (
                server.cpu_us_per_delivery,
                server.deliveries_per_core_second,
            ) {
                let text = format!("{us:.2} µs: {count:.0}/s of one core");
                rows.add("a delivery", text);
            }
            rows.add("an accept", format!("{:.1} µs", server.cpu_us_per_accept));
            rows.add(
                "server memory",
                format!(
                    "{:.1} MB, {:.2} kB a stream",
                    server.rss_bytes as f64 / 1e6,
                    server.rss_bytes_per_connection / 1e3
                ),
            );
        }
        if let Some(StoreWork { reads, checks }) = self.store {
            rows.add("store", format!("{reads} reads, {checks} position checks"));
        }
        rows.add(
            "this tool",
            format!(
                "CPU {:.1} %, busiest thread {:.1} %; all others {:.1} %",
                self.tool.cpu_percent, self.tool.busiest_thread_percent, self.others_cpu_percent
            ),
        );
    }

    fn latencies(&self) -> Table {
        let mut table = table();
        table.set_header(["ms", "p50", "p90", "p99", "p99.9", "max"]);
        let rows = [
            ("connect", Some(self.connects.latency_ms)),
            ("delivery", self.latency_ms),
            ("churn", self.churn.map(|churn| churn.latency_ms)),
            ("come back", self.reconnects.map(|each| each.latency_ms)),
            ("drop at once", self.drop_all.map(|each| each.latency_ms)),
        ];
        for (name, latency) in rows {
            let Some(latency) = latency else { continue };
            let LatencyMs {
                p50,
                p90,
                p99,
                p999,
                max,
            } = latency;
            let values = [p50, p90, p99, p999, max].map(|ms| format!("{ms:.2}"));
            table.add_row([&[name.to_owned()], &values[..]].concat());
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }
}

fn faults(d: &Deliveries) -> String {
    format!(
        "lost {} (untold {}), duplicated {}, out of order {}, misrouted {}; {} gaps count {}",
        d.lost, d.untold, d.duplicated, d.out_of_order, d.misrouted, d.gaps, d.told
    )
}
