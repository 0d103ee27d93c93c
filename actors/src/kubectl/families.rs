//! The kubectl counters in the form of a scrape.

use super::KubectlCounters;
use crate::metrics::{Families, Family};

impl KubectlCounters {
    /// Returns all families for a scrape.
    pub fn families(&self) -> Vec<Family> {
        let mut out = Families::default();
        out.gauge(
            "runcast_kubectl_follows",
            "Logs followed now, each by a kubectl process or a connection.",
            [(vec![], self.follows())],
        );
        out.gauge(
            "runcast_kubectl_watches",
            "Runs whose pods are watched now, with kubectl.engine = \"api\".",
            [(vec![], self.watches())],
        );
        for (name, help, value) in [
            (
                "runcast_kubectl_follows_started_total",
                "Follows of a log started.",
                self.follows_started(),
            ),
            (
                "runcast_kubectl_lines_total",
                "Lines delivered to hubs.",
                self.lines(),
            ),
            (
                "runcast_kubectl_restarts_total",
                "Container restarts told.",
                self.restarts(),
            ),
            (
                "runcast_kubectl_killed_total",
                "kubectl processes killed by us; none with kubectl.engine = \"api\".",
                self.killed(),
            ),
            (
                "runcast_kubectl_reads_paced_total",
                "Reads of a log that waited for kubectl.follow_rate.",
                self.paced(),
            ),
        ] {
            out.counter(name, help, [(vec![], value)]);
        }
        out.counter(
            "runcast_kubectl_failures_total",
            "Failures of kubectl, the Kubernetes API or pods, by problem.",
            self.failures()
                .map(|(reason, count)| (vec![("reason", reason.slug())], count)),
        );
        out.0
    }
}
