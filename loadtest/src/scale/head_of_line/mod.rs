//! [`HeadOfLine`]: the latency of quiet runs while something else keeps the
//! broker busy.
//!
//! Load test, Redis, kubectl and brokers share the machine's cores, so that a
//! disturbance delays whoever needs one, through no broker's fault. Hence each
//! is also measured *elsewhere*: the same, at the same time, on another broker
//! and Redis; and *beside*: on another broker of the same Redis, which has one
//! thread, and whose messages of all runs every broker hears. What is worse
//! *here* than beside is the serving broker's own doing.

mod disturbance;
mod history;
mod kube_api;
mod slow;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::ValueEnum as _;
use serde::Serialize;

pub(super) use self::disturbance::Disturbance;
use self::disturbance::{Done, Running};
use self::kube_api::KubeApi;
use super::{Scale, check, median, shown};
use crate::load::{self, LoadPlan, Rate};
use crate::report::LoadReport;
use crate::servers::{Redis, Server};

/// What was measured.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(super) struct HeadOfLine(Vec<Measure>);

/// Where a disturbance is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Place {
    /// On another broker and Redis of this machine.
    Elsewhere,
    /// On another broker of the same Redis.
    Beside,
    /// On the broker that serves the quiet runs.
    Here,
}

impl Place {
    const ALL: [Self; 3] = [Self::Elsewhere, Self::Beside, Self::Here];

    fn name(self) -> &'static str {
        match self {
            Self::Elsewhere => "elsewhere",
            Self::Beside => "beside",
            Self::Here => "**here**",
        }
    }
}

/// The quiet runs, once.
#[derive(Debug, Serialize)]
struct Measure {
    disturbance: Option<(Disturbance, Place)>,
    report: LoadReport,
    done: Option<Done>,
}

/// What a disturbed measure needs.
struct Bench<'a> {
    scale: &'a Scale,
    kube_api: KubeApi,
}

impl HeadOfLine {
    /// Measures without and with each disturbance in turn, and again.
    pub(super) fn measure(scale: &Scale) -> Result<Self> {
        let bench = Bench {
            scale,
            kube_api: KubeApi::start()?,
        };
        let disturbances = if scale.disturbances.is_empty() {
            Disturbance::value_variants()
        } else {
            &scale.disturbances
        };
        let mut measures = Vec::new();
        for _ in 0..scale.rounds {
            measures.push(bench.measure(None)?);
            for disturbance in disturbances {
                for place in Place::ALL {
                    measures.push(bench.measure(Some((*disturbance, place)))?);
                }
            }
        }
        Ok(Self(measures))
    }
}

impl Bench<'_> {
    fn measure(&self, disturbance: Option<(Disturbance, Place)>) -> Result<Measure> {
        let (redis, other_redis) = (Redis::start()?, Redis::start()?);
        let here = self.start(&redis)?;
        let beside = self.start(&redis)?;
        let elsewhere = self.start(&other_redis)?;
        let running = disturbance.map(|(disturbance, place)| {
            let (redis, broker) = match place {
                Place::Elsewhere => (&other_redis, &elsewhere),
                Place::Beside => (&redis, &beside),
                Place::Here => (&redis, &here),
            };
            Running::start(disturbance, broker, redis)
                .with_context(|| format!("cannot disturb by {}", disturbance.title()))
        });
        let running = running.transpose()?;
        let report = self.probe(&redis, &here)?;
        let done = running.map(Running::stop).transpose()?;
        eprintln!(
            "{disturbance:?}: p99 {} ms; {done:?}",
            shown(p99(&report), 2)
        );
        Ok(Measure {
            disturbance,
            report,
            done,
        })
    }

    fn start(&self, redis: &Redis) -> Result<Server> {
        let config = format!("--kubeconfig={}", self.kube_api.config().display());
        let settings = [
            ("RUNCAST__KUBECTL__COMMAND", self.scale.kubectl.as_str()),
            ("RUNCAST__KUBECTL__EXTRA_ARGS", config.as_str()),
        ];
        self.scale.start_broker(redis, &settings)
    }

    /// Puts the quiet load on the broker.
    fn probe(&self, redis: &Redis, broker: &Server) -> Result<LoadReport> {
        let report = load::run(&LoadPlan {
            url: broker.url(),
            redis: redis.url.clone(),
            pid: vec![broker.pid()],
            subscribers: 200,
            runs: 20,
            rate: Rate::PerSecond(5.0),
            warmup: self.scale.duration.min(Duration::from_secs(1)),
            duration: self.scale.duration,
            ..LoadPlan::default()
        })?;
        check("the quiet runs", &report)?;
        Ok(report)
    }
}

fn p99(report: &LoadReport) -> Option<f64> {
    Some(report.latency_ms?.p99)
}

fn p50(report: &LoadReport) -> Option<f64> {
    Some(report.latency_ms?.p50)
}

impl HeadOfLine {
    /// Returns the median of a figure of the rounds of one sort.
    fn median(
        &self,
        disturbance: Option<(Disturbance, Place)>,
        figure: impl Fn(&Measure) -> Option<f64>,
    ) -> Option<f64> {
        let rounds = self
            .0
            .iter()
            .filter(|measure| measure.disturbance == disturbance);
        median(rounds.filter_map(figure))
    }

    /// Returns the least and greatest p99 of the rounds of one sort.
    fn range(&self, disturbance: Option<(Disturbance, Place)>) -> String {
        let rounds = self
            .0
            .iter()
            .filter(|measure| measure.disturbance == disturbance);
        let values = rounds.filter_map(|measure| p99(&measure.report));
        let (least, greatest) = values.fold((f64::MAX, 0.0), |(least, greatest), value| {
            (f64::min(least, value), f64::max(greatest, value))
        });
        format!("{least:.2}–{greatest:.2}")
    }

    fn row(&self, name: &str, disturbance: Option<(Disturbance, Place)>) -> String {
        let of = |figure: fn(&LoadReport) -> Option<f64>| {
            self.median(disturbance, |measure| figure(&measure.report))
        };
        let calm = self.median(None, |measure| p99(&measure.report));
        let at = |place| {
            let sort = disturbance.map(|(disturbance, _)| (disturbance, place))?;
            self.median(Some(sort), |measure| p99(&measure.report))
        };
        let to = |other: Option<f64>| of(p99).zip(other).map(|(p99, other)| p99 / other);
        let figures = [
            name.to_owned(),
            shown(of(p50), 2),
            shown(of(p99), 2),
            self.range(disturbance),
            shown(to(calm), 2),
            shown(to(at(Place::Elsewhere)), 2),
            shown(to(at(Place::Beside)), 2),
            shown(of(|report| Some(report.server.as_ref()?.cpu_percent)), 0),
            shown(of(|report| Some(report.tool.cpu_percent)), 0),
            shown(of(|report| Some(report.others_cpu_percent)), 0),
            self.amounts(disturbance),
        ];
        format!("| {} |", figures.join(" | "))
    }

    /// Says what the disturbance did.
    fn amounts(&self, disturbance: Option<(Disturbance, Place)>) -> String {
        let mut amounts: BTreeMap<&'static str, f64> = BTreeMap::new();
        for (name, figure) in Done::FIGURES {
            let value = self.median(disturbance, |measure| figure(measure.done.as_ref()?));
            amounts.extend(value.map(|value| (name, value)));
        }
        let amounts = amounts.iter();
        let shown: Vec<String> = amounts
            .map(|(name, value)| format!("{value:.0} {name}"))
            .collect();
        shown.join(", ")
    }
}

impl fmt::Display for HeadOfLine {
    /// A table in Markdown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = [
            "p50 ms",
            "p99 ms",
            "least–greatest",
            "to calm",
            "to elsewhere",
            "to beside",
            "quiet runs' broker CPU %",
            "load test CPU %",
            "all others CPU %",
            "the disturbance did",
        ];
        writeln!(
            f,
            "| disturbed by | {} |\n|---|{}---|",
            head.join(" | "),
            "--:|".repeat(head.len() - 1)
        )?;
        writeln!(f, "{}", self.row("nothing", None))?;
        for disturbance in Disturbance::value_variants() {
            for place in Place::ALL {
                let sort = Some((*disturbance, place));
                if self.0.iter().any(|measure| measure.disturbance == sort) {
                    let name = format!("{}, {}", disturbance.title(), place.name());
                    writeln!(f, "{}", self.row(&name, sort))?;
                }
            }
        }
        Ok(())
    }
}
