//! All counters in the form of a scrape: names and help texts stand here only.

use super::{
    CHUNK_BOUNDS, EventResult, Histogram, LAG_BOUNDS, Limit, Metrics, PANICS, RejectReason, Switch,
    WorkerCounters,
};
use crate::protocol::{BackendKind, EventKind, GapReason};
use crate::session::CloseReason;

/// Name of the histogram that has exemplars.
pub const DELIVERY_LAG: &str = "runcast_delivery_lag_seconds";

impl Metrics {
    /// Returns all families for a scrape.
    pub fn families(&self) -> Vec<Family> {
        let mut out = Families::default();
        self.session_families(&mut out);
        self.access_families(&mut out);
        self.hub_families(&mut out);
        self.auto_families(&mut out);
        self.worker_families(&mut out);
        self.redis_families(&mut out);
        self.store_families(&mut out);
        self.recorder_families(&mut out);
        self.archive_families(&mut out);
        out.0
    }

    fn session_families(&self, out: &mut Families) {
        out.gauge(
            "runcast_sessions",
            "Streams open now.",
            by_backend(|backend| self.sessions_open.of(backend).get()),
        );
        out.counter(
            "runcast_sessions_opened_total",
            "Streams opened.",
            by_backend(|backend| self.sessions_opened.of(backend).get()),
        );
        out.counter(
            "runcast_sessions_closed_total",
            "Streams closed.",
            BackendKind::ALL.into_iter().flat_map(|backend| {
                CloseReason::ALL.map(|reason| {
                    (
                        vec![("backend", backend.as_str()), ("reason", reason.as_str())],
                        self.sessions_closed.of(backend).of(reason).get(),
                    )
                })
            }),
        );
        out.counter(
            "runcast_sessions_refused_total",
            "Stream requests answered with problem and goodbye.",
            CloseReason::ALL.map(|reason| {
                (
                    vec![("reason", reason.as_str())],
                    self.sessions_refused.of(reason).get(),
                )
            }),
        );
        out.counter(
            "runcast_limit_refusals_total",
            "Requests, streams and connections refused at a limit, by its setting.",
            Limit::ALL.map(|limit| {
                (
                    vec![("limit", limit.as_str())],
                    self.refusals.of(limit).get(),
                )
            }),
        );
    }

    fn access_families(&self, out: &mut Families) {
        out.gauge(
            "runcast_revocations",
            "Subjects and tokens known to be revoked.",
            [(vec![], self.revocations.get())],
        );
        out.counter(
            "runcast_revocation_read_failures_total",
            "Reads of what is revoked that failed.",
            [(vec![], self.revocation_read_failures.get())],
        );
    }

    fn hub_families(&self, out: &mut Families) {
        out.gauge(
            "runcast_hubs",
            "Run hubs now.",
            by_backend(|backend| self.hubs.of(backend).get()),
        );
        out.gauge(
            "runcast_past_runs",
            "Runs still listed whose hub has ended.",
            [(vec![], self.past_runs.get())],
        );
        out.counter(
            "runcast_events_in_total",
            "Messages that arrived for runs, by kind and what became of them.",
            EventKind::ALL.into_iter().flat_map(|kind| {
                EventResult::ALL.map(|result| {
                    (
                        vec![("kind", kind.as_str()), ("result", result.as_str())],
                        self.events_in.of(kind).of(result).get(),
                    )
                })
            }),
        );
        out.counter(
            "runcast_gaps_total",
            "Gaps told: per run where all clients of a hub are told, else per client.",
            GapReason::ALL.map(|reason| {
                (
                    vec![("reason", reason.as_str())],
                    self.gaps.of(reason).get(),
                )
            }),
        );
        out.gauge(
            "runcast_memory_pressure",
            "What is shed at limits.max_memory: 0 nothing, 1 idle rings, 2 log events of slow clients, 3 new streams.",
            [(vec![], self.memory_pressure.get())],
        );
        out.gauge(
            "runcast_quarantined_runs",
            "Runs not served because their hubs panicked again and again.",
            [(vec![], self.quarantined_runs.get())],
        );
        out.gauge(
            "runcast_ring_bytes",
            "Bytes in the rings of all hubs.",
            [(vec![], self.ring_bytes.get())],
        );
        out.gauge(
            "runcast_paged_bytes",
            "Bytes of pages on their way to clients that are not in their log yet.",
            [(vec![], self.paged_bytes.get())],
        );
        for (name, help, counter) in [
            (
                "runcast_hubs_retired_total",
                "Idle hubs ended by their time.",
                &self.hubs_retired,
            ),
            (
                "runcast_hubs_evicted_total",
                "Idle hubs ended to make room.",
                &self.hubs_evicted,
            ),
            (
                "runcast_logs_shed_total",
                "Clients that fell behind and get no log events since, as memory was short.",
                &self.logs_shed,
            ),
            (
                "runcast_mailbox_refusals_total",
                "Batches a full hub mailbox refused.",
                &self.mailbox_refusals,
            ),
            (
                "runcast_held_overflows_total",
                "Live events dropped, to be read later, while a hub read its store.",
                &self.held_overflows,
            ),
            (
                "runcast_inbox_refusals_total",
                "Batches a full worker inbox refused.",
                &self.inbox_refusals,
            ),
            (
                "runcast_actor_restarts_total",
                "Actors that ended by a panic and were replaced.",
                &self.actor_restarts,
            ),
            (
                "runcast_hub_panics_total",
                "Hubs that ended by a panic.",
                &self.hub_panics,
            ),
            (
                "runcast_panics_total",
                "Panics of this process, of whatever task.",
                &PANICS,
            ),
        ] {
            out.counter(name, help, [(vec![], counter.get())]);
        }
    }

    fn auto_families(&self, out: &mut Families) {
        out.gauge(
            "runcast_auto_failed_over",
            "Runs whose auto streams come from kubectl now.",
            [(vec![], self.auto.failed_over.get())],
        );
        out.counter(
            "runcast_auto_switches_total",
            "Runs whose auto streams went on from the other backend, by reason.",
            Switch::ALL.map(|switch| {
                let labels = vec![("to", switch.to().as_str()), ("reason", switch.as_str())];
                (labels, self.auto.switches.of(switch).get())
            }),
        );
        out.counter(
            "runcast_auto_matched_total",
            "Lines and events left out of auto streams because the other backend had shown them.",
            [(vec![], self.auto.matched.get())],
        );
        out.counter(
            "runcast_auto_lines_total",
            "Lines of pods shown in auto streams.",
            [(vec![], self.auto.shown.get())],
        );
    }

    fn worker_families(&self, out: &mut Families) {
        let workers = self.lock_workers();
        let total = |pick: &dyn Fn(&WorkerCounters) -> u64| {
            [(vec![], workers.iter().map(|worker| pick(worker)).sum())]
        };
        out.counter(
            "runcast_deliveries_total",
            "Events handed to client sockets.",
            total(&|worker| worker.deliveries.get()),
        );
        out.counter(
            "runcast_delivered_bytes_total",
            "Bytes handed to client sockets.",
            total(&|worker| worker.bytes.get()),
        );
        out.counter(
            "runcast_heartbeats_total",
            "Heartbeat events handed to client sockets.",
            total(&|worker| worker.heartbeats.get()),
        );
        out.histogram(
            "runcast_chunk_bytes",
            "Sizes of the chunks handed to client sockets.",
            &CHUNK_BOUNDS,
            workers.iter().map(|worker| &worker.chunk_bytes),
        );
        out.histogram(
            DELIVERY_LAG,
            "Time from reading an event from its source to handing it to a socket; one chunk in 8.",
            &LAG_BOUNDS,
            workers.iter().map(|worker| &worker.lag_seconds),
        );
    }

    fn redis_families(&self, out: &mut Families) {
        let redis = &self.redis;
        for (name, help, gauge) in [
            (
                "runcast_redis_up",
                "Whether the subscription is confirmed.",
                &redis.up,
            ),
            (
                "runcast_redis_queue_messages",
                "Messages read and not yet routed.",
                &redis.queue_messages,
            ),
            (
                "runcast_redis_queue_bytes",
                "Payload bytes read and not yet routed.",
                &redis.queue_bytes,
            ),
            (
                "runcast_redis_shard_runs",
                "Watched runs that are subscribed to in their shards (redis.sharded_pubsub).",
                &redis.shard_runs,
            ),
            (
                "runcast_redis_shard_runs_pending",
                "Those of them whose shard has not confirmed it.",
                &redis.shard_pending,
            ),
        ] {
            out.gauge(name, help, [(vec![], gauge.get())]);
        }
        for (name, help, counter) in [
            (
                "runcast_redis_subscribes_total",
                "Subscriptions confirmed.",
                &redis.subscribes,
            ),
            (
                "runcast_redis_disconnects_total",
                "Subscriptions lost.",
                &redis.disconnects,
            ),
            (
                "runcast_redis_probes_total",
                "Probes sent to ourselves.",
                &redis.probes,
            ),
            (
                "runcast_redis_positions_off_total",
                "Runs whose events did not arrive though the subscription looked well.",
                &redis.positions_off,
            ),
            (
                "runcast_redis_probe_misses_total",
                "Probes not echoed in time.",
                &redis.probe_misses,
            ),
            (
                "runcast_redis_messages_total",
                "Messages read from the subscription.",
                &redis.messages,
            ),
            (
                "runcast_redis_bytes_total",
                "Payload bytes read from the subscription.",
                &redis.bytes,
            ),
            (
                "runcast_redis_queue_overflows_total",
                "Messages dropped because the queue before routing was full.",
                &redis.queue_overflows,
            ),
            (
                "runcast_redis_publishes_total",
                "Events given to runcast_publish.",
                &redis.publishes,
            ),
            (
                "runcast_redis_publish_failures_total",
                "Events that runcast_publish did not answer for.",
                &redis.publish_failures,
            ),
        ] {
            out.counter(name, help, [(vec![], counter.get())]);
        }
        out.counter(
            "runcast_redis_rejected_total",
            "Messages that belong to no run.",
            RejectReason::ALL.map(|reason| {
                (
                    vec![("reason", reason.as_str())],
                    redis.rejected.of(reason).get(),
                )
            }),
        );
    }

    fn store_families(&self, out: &mut Families) {
        let store = &self.store;
        for (name, help, counter) in [
            (
                "runcast_store_reads_total",
                "Pages of history read from the store.",
                &store.reads,
            ),
            (
                "runcast_store_reads_paced_total",
                "Pages read for clients that waited for history.read_rate.",
                &store.reads_paced,
            ),
            (
                "runcast_store_read_events_total",
                "Events in pages read from the store.",
                &store.read_events,
            ),
            (
                "runcast_store_read_failures_total",
                "Reads of the store that failed.",
                &store.read_failures,
            ),
            (
                "runcast_store_checks_total",
                "Looks at the positions of runs in the store, of many at a time.",
                &store.checks,
            ),
        ] {
            out.counter(name, help, [(vec![], counter.get())]);
        }
        for (name, help, gauge) in [
            (
                "runcast_store_runs",
                "Runs the embedded store knows now.",
                &store.runs,
            ),
            (
                "runcast_store_bytes",
                "Bytes the runs of the embedded store take together.",
                &store.bytes,
            ),
        ] {
            out.gauge(name, help, [(vec![], gauge.get())]);
        }
        out.counter(
            "runcast_store_evicted_runs_total",
            "Runs the embedded store forgot to make room.",
            [(vec![], store.evicted_runs.get())],
        );
    }

    fn archive_families(&self, out: &mut Families) {
        let archive = &self.archive;
        for (name, help, counter) in [
            (
                "runcast_archive_queue_overflows_total",
                "Runs to archive that found no room in the queue, and are left to a sweep.",
                &archive.queue_overflows,
            ),
            (
                "runcast_archive_written_total",
                "Runs archived.",
                &archive.written,
            ),
            (
                "runcast_archive_written_bytes_total",
                "Bytes of the runs archived, compressed.",
                &archive.written_bytes,
            ),
            (
                "runcast_archive_write_failures_total",
                "Attempts to archive a run that failed, and are repeated.",
                &archive.write_failures,
            ),
            (
                "runcast_archive_lost_total",
                "Runs whose history went before it was archived.",
                &archive.lost,
            ),
            (
                "runcast_archive_reads_total",
                "Reads of parts of archived runs.",
                &archive.reads,
            ),
            (
                "runcast_archive_read_bytes_total",
                "Bytes read of archived runs, compressed.",
                &archive.read_bytes,
            ),
            (
                "runcast_archive_pages_served_total",
                "Pages of runs that their store has forgotten, served from the archive.",
                &archive.served,
            ),
            (
                "runcast_archive_read_failures_total",
                "Pages that could not be read from the archive.",
                &archive.read_failures,
            ),
            (
                "runcast_archive_missing_total",
                "Looks for runs that are not archived.",
                &archive.missing,
            ),
            (
                "runcast_archive_retention_failures_total",
                "Looks through all archived runs, to count and remove them, that failed.",
                &archive.retention_failures,
            ),
        ] {
            out.counter(name, help, [(vec![], counter.get())]);
        }
        out.counter(
            "runcast_archive_removed_total",
            "Archived runs removed, by what they were over.",
            [
                (vec![("reason", "age")], archive.removed_for_age.get()),
                (vec![("reason", "size")], archive.removed_for_size.get()),
            ],
        );
        for (name, help, gauge) in [
            (
                "runcast_archive_queue",
                "Runs that wait to be archived.",
                &archive.queue,
            ),
            (
                "runcast_archive_writing",
                "Runs being archived.",
                &archive.writing,
            ),
            (
                "runcast_archive_objects",
                "Archived runs, when this broker last counted them; 0 if another does.",
                &archive.objects,
            ),
            ("runcast_archive_bytes", "Bytes of these.", &archive.bytes),
        ] {
            out.gauge(name, help, [(vec![], gauge.get())]);
        }
    }

    fn recorder_families(&self, out: &mut Families) {
        let recorder = &self.recorder;
        for (name, help, counter) in [
            (
                "runcast_recorder_takeovers_total",
                "How often this broker became the recorder of plain messages.",
                &recorder.takeovers,
            ),
            (
                "runcast_recorder_taken_over_total",
                "Plain messages it had then that were not seen to be recorded.",
                &recorder.taken_over,
            ),
            (
                "runcast_recorder_recorded_total",
                "Plain messages this broker recorded.",
                &recorder.recorded,
            ),
            (
                "runcast_recorder_matched_total",
                "Plain messages whose recorded copy came, whoever recorded them.",
                &recorder.matched,
            ),
            (
                "runcast_recorder_dropped_total",
                "Plain messages that could not be recorded.",
                &recorder.dropped,
            ),
            (
                "runcast_recorder_breaks_total",
                "Times when no broker may have recorded plain messages.",
                &recorder.breaks,
            ),
        ] {
            out.counter(name, help, [(vec![], counter.get())]);
        }
        for (name, help, gauge) in [
            (
                "runcast_recorder_active",
                "1 while this broker records plain messages.",
                &recorder.is_recorder,
            ),
            (
                "runcast_recorder_standby",
                "1 while this broker could take over from a recorder that dies, without a loss.",
                &recorder.is_standby,
            ),
            (
                "runcast_recorder_messages",
                "Plain messages kept until they are recorded.",
                &recorder.messages,
            ),
            ("runcast_recorder_bytes", "Bytes of these.", &recorder.bytes),
        ] {
            out.gauge(name, help, [(vec![], gauge.get())]);
        }
    }
}

/// Returns a sample for each backend.
fn by_backend(number: impl Fn(BackendKind) -> u64) -> [(Labels, u64); BackendKind::ALL.len()] {
    BackendKind::ALL.map(|backend| (vec![("backend", backend.as_str())], number(backend)))
}

/// A metric with all its samples.
#[derive(Debug, Clone)]
pub struct Family {
    /// Prometheus name.
    pub name: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// What its samples are.
    pub samples: Samples,
}

/// Label names and values of one sample.
pub type Labels = Vec<(&'static str, &'static str)>;

/// The samples of a [`Family`].
#[derive(Debug, Clone)]
pub enum Samples {
    /// Numbers that only grow.
    Counter(Vec<(Labels, f64)>),
    /// Numbers that go up and down.
    Gauge(Vec<(Labels, f64)>),
    /// One histogram.
    Histogram {
        /// Upper bounds and how many observations lie at or below each.
        buckets: Vec<(f64, u64)>,
        /// All observations.
        count: u64,
        /// Their sum.
        sum: f64,
    },
}

/// Families as they are gathered.
#[derive(Debug, Default)]
pub struct Families(pub Vec<Family>);

impl Families {
    /// Adds a counter.
    pub fn counter(
        &mut self,
        name: &'static str,
        help: &'static str,
        samples: impl IntoIterator<Item = (Labels, u64)>,
    ) {
        let samples = samples.into_iter().map(|(l, value)| (l, value as f64));
        self.0.push(Family {
            name,
            help,
            samples: Samples::Counter(samples.collect()),
        });
    }

    /// Adds a gauge.
    pub fn gauge(
        &mut self,
        name: &'static str,
        help: &'static str,
        samples: impl IntoIterator<Item = (Labels, u64)>,
    ) {
        let samples = samples.into_iter().map(|(l, value)| (l, value as f64));
        self.0.push(Family {
            name,
            help,
            samples: Samples::Gauge(samples.collect()),
        });
    }

    fn histogram<'a, const N: usize>(
        &mut self,
        name: &'static str,
        help: &'static str,
        bounds: &'static [f64; N],
        parts: impl Iterator<Item = &'a Histogram<N>>,
    ) {
        let mut counts = [0; N];
        let (mut count, mut sum_micro) = (0, 0);
        for part in parts {
            for (total, bucket) in counts.iter_mut().zip(&part.buckets) {
                *total += bucket.get();
            }
            count += part.above.get();
            sum_micro += part.sum_micro.get();
        }
        let mut below = 0;
        let buckets = bounds.iter().zip(counts).map(|(bound, bucket)| {
            below += bucket;
            (*bound, below)
        });
        let buckets: Vec<_> = buckets.collect();
        self.0.push(Family {
            name,
            help,
            samples: Samples::Histogram {
                buckets,
                count: count + below,
                sum: sum_micro as f64 / 1e6,
            },
        });
    }
}
