//! [`Controller`]: the life of a run's follows: look for pods, follow their
//! containers, look again, tell what is wrong, and notice the end.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::container::{Running, Tracked, pause};
use super::failure::{Failure, FailureReason};
use super::follow::{FollowEnd, FollowPlan, Shared, follow};
use super::outlet::{Closed, timestamp};
use super::pod_view::PodView;
use super::pods::{Container, Job, Log, Phase, Pod};
use super::update::KubectlUpdate;
use crate::protocol::{RunId, Timestamp};

/// Pause between two looks at pods that are followed without trouble, at
/// first; it grows to `kubectl.max_backoff` while nothing changes. What ends
/// shows at once in a follow; only a pod that comes in addition waits for the
/// next look.
const CALM_PAUSE: Duration = Duration::from_secs(2);

/// Most containers of one run: a position in all of them has to fit into a
/// cursor.
const CONTAINERS_MAX: usize = 128;

/// Why the loop ends.
pub(crate) enum Over {
    /// The hub was told all: `Ended` or `Failed`.
    Told,
    /// Nobody is left to tell.
    Closed,
}

impl From<Closed> for Over {
    fn from(_: Closed) -> Self {
        Self::Closed
    }
}

/// Pod uid and container name.
type Key = (String, String);

pub(crate) struct Controller {
    run_id: RunId,
    end_grace: Duration,
    shared: Rc<Shared>,
    /// Set when the loop ends, so that every follow ends too.
    stop: Arc<watch::Sender<bool>>,
    /// Aborted, and their children killed, when this is dropped.
    follows: JoinSet<(Key, Result<FollowEnd, Closed>)>,
    tracked: BTreeMap<Key, Tracked>,
    view: PodView,
    /// Every pod seen, by uid, as it was seen last.
    pods: BTreeMap<String, Pod>,
    /// Name of a pod that went before it had finished.
    deleted: Option<String>,
    ready: bool,
    told: Option<Failure>,
    over_since: Option<Instant>,
    /// Looks in a row that brought nothing new.
    looks: u32,
}

impl Controller {
    pub(crate) fn new(
        run_id: RunId,
        end_grace: Duration,
        shared: Shared,
        stop: Arc<watch::Sender<bool>>,
    ) -> Self {
        Self {
            run_id,
            end_grace,
            shared: Rc::new(shared),
            stop,
            follows: JoinSet::new(),
            tracked: BTreeMap::new(),
            view: PodView::default(),
            pods: BTreeMap::new(),
            deleted: None,
            ready: false,
            told: None,
            over_since: None,
            looks: 0,
        }
    }

    /// Runs until the run is over, nothing can be done, or nobody listens.
    /// Every child is killed and reaped when this returns.
    pub(crate) async fn run(mut self) {
        while let Ok(wait) = self.look().await
            && self.rest(wait).await.is_ok()
            && !self.shared.outlet.is_closed()
        {}
        tracing::debug!(run_id = %self.run_id, "kubectl follows end");
        self.stop.send_replace(true);
        // Each sees the mark, kills its child and waits for it.
        while self.follows.join_next().await.is_some() {}
    }

    /// Waits for `wait` to pass, a follow to end, news of a pod, or the stop.
    async fn rest(&mut self, wait: Duration) -> Result<(), Over> {
        let mut stop = self.shared.stop.clone();
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return Err(Over::Closed),
            Some(ended) = self.follows.join_next() => self.note_end(ended)?,
            () = self.view.changed() => {}
            () = sleep(wait) => {}
        }
        while let Some(ended) = self.follows.try_join_next() {
            self.note_end(ended)?;
        }
        Ok(())
    }

    /// Takes the pods as they are, starts what is due, tells what changed;
    /// returns when to look again at the latest.
    async fn look(&mut self) -> Result<Duration, Over> {
        match self.view.pods(&self.shared.cluster, &self.run_id).await {
            Ok(pods) => self.digest(pods).await,
            Err(_) if *self.stop.borrow() => Err(Over::Closed),
            Err(failure) => {
                self.count(&failure);
                if !self.ready || failure.reason.is_permanent() {
                    return self.fail(failure).await;
                }
                self.tell(Some(failure)).await?;
                Ok(self.next_pause())
            }
        }
    }

    async fn digest(&mut self, pods: Vec<Pod>) -> Result<Duration, Over> {
        self.merge(pods);
        let starved = self.start_due();
        if !self.ready {
            if starved && self.follows.is_empty() {
                return self.fail(FailureReason::TooManyFollows.into()).await;
            }
            self.ready = true;
            self.shared.outlet.tell(KubectlUpdate::Ready).await?;
        }
        let trouble = self.trouble(starved);
        let calm = trouble.is_none();
        if let Some(failure) = &trouble {
            self.count_new(failure);
        }
        self.tell(trouble).await?;
        if self.is_over() {
            return self.end().await;
        }
        self.over_since = None;
        let next = if calm {
            let grown = CALM_PAUSE.mul_f64(1.5_f64.powi(self.looks.min(10) as i32));
            self.looks += 1;
            grown.min(self.shared.cluster.settings().max_backoff)
        } else {
            self.next_pause()
        };
        Ok(self.next_due().map_or(next, |due| next.min(due)))
    }

    /// Brings `self.pods` and `self.tracked` to what was listed.
    fn merge(&mut self, listed: Vec<Pod>) {
        let listed: BTreeMap<_, _> = listed
            .into_iter()
            .map(|pod| (pod.uid.clone(), pod))
            .collect();
        let gone: Vec<_> = self
            .pods
            .keys()
            .filter(|uid| !listed.contains_key(*uid))
            .cloned()
            .collect();
        for uid in gone {
            if !self.pods[&uid].is_terminal() {
                let pod = self.pods.remove(&uid).expect("it was just seen");
                self.deleted = Some(pod.name);
                self.looks = 0;
            }
        }
        for (uid, pod) in listed {
            for container in pod.containers.iter().filter(|it| it.log != Log::None) {
                let key = (uid.clone(), container.name.clone());
                if self.tracked.len() < CONTAINERS_MAX {
                    let new = || Tracked::new(&uid, &pod.name, &container.name);
                    self.tracked.entry(key).or_insert_with(new);
                }
            }
            if self.pods.get(&uid) != Some(&pod) {
                self.looks = 0;
                self.pods.insert(uid.clone(), pod);
            }
            for (_, tracked) in self.tracked.iter_mut().filter(|((of, _), _)| *of == uid) {
                tracked.gone_since = None;
            }
        }
        self.drop_gone();
    }

    /// Forgets the containers of pods that are not there any more. A follow
    /// of one ends by itself when the kubelet has removed it, or is ended.
    fn drop_gone(&mut self) {
        let patience = self.shared.cluster.settings().timeout;
        let pods = &self.pods;
        self.tracked.retain(|(uid, _), tracked| {
            if pods.contains_key(uid) {
                return true;
            }
            let since = *tracked.gone_since.get_or_insert_with(Instant::now);
            match &tracked.running {
                Some(running) if since.elapsed() > patience => {
                    running.abort.abort();
                    false
                }
                Some(_) => true,
                None => false,
            }
        });
    }

    /// Starts every follow that is due; returns whether one found no permit.
    fn start_due(&mut self) -> bool {
        let mut starved = false;
        for (key, plan) in self.plans() {
            let tracked = self.tracked.get_mut(&key).expect("planned from it");
            if tracked.due() > Instant::now() {
                continue;
            }
            if tracked.permit.is_none() {
                tracked.permit = self.shared.cluster.permits.try_follow();
            }
            if tracked.permit.is_none() {
                starved = true;
                continue;
            }
            let new_lines = Rc::default();
            let task = run_follow(key, Rc::clone(&self.shared), plan, Rc::clone(&new_lines));
            let abort = self.follows.spawn_local(task);
            tracked.running = Some(Running { abort, new_lines });
        }
        starved
    }

    fn plans(&self) -> Vec<(Key, FollowPlan)> {
        self.containers()
            .filter_map(|(key, status)| {
                let pod_over = self.pods.get(&key.0).is_some_and(Pod::is_terminal);
                let plan = self.tracked.get(&key)?.plan(status, pod_over)?;
                Some((key, plan))
            })
            .collect()
    }

    fn containers(&self) -> impl Iterator<Item = (Key, &Container)> {
        self.pods.iter().flat_map(|(uid, pod)| {
            let each = pod.containers.iter();
            each.map(|container| ((uid.clone(), container.name.clone()), container))
        })
    }

    /// Returns how long until the next planned follow is due.
    fn next_due(&self) -> Option<Duration> {
        let dues = self.plans().into_iter().filter_map(|(key, _)| {
            let due = self.tracked.get(&key)?.due();
            due.checked_duration_since(Instant::now())
        });
        dues.min()
    }

    fn note_end(
        &mut self,
        ended: Result<(Key, Result<FollowEnd, Closed>), tokio::task::JoinError>,
    ) -> Result<(), Over> {
        self.looks = 0;
        self.view.doubt();
        let (key, end) = match ended {
            Ok((key, end)) => (key, end?),
            Err(error) => {
                if error.is_panic() {
                    tracing::error!(run_id = %self.run_id, %error, "a follow panicked");
                }
                self.forget_lost();
                return Ok(());
            }
        };
        if let Err(failure) = &end.result {
            self.count(failure);
        }
        let max_pause = self.shared.cluster.settings().max_backoff;
        if let Some(tracked) = self.tracked.get_mut(&key) {
            tracked.ended(end, max_pause);
        }
        Ok(())
    }

    /// Frees containers whose follow ended without a word.
    fn forget_lost(&mut self) {
        for tracked in self.tracked.values_mut() {
            if tracked
                .running
                .as_ref()
                .is_some_and(|run| run.abort.is_finished())
            {
                tracked.running = None;
            }
        }
    }

    /// Returns the one thing clients should know, the gravest first.
    fn trouble(&self, starved: bool) -> Option<Failure> {
        let of_logs = self.tracked.values().find_map(Tracked::problem);
        if let Some(failure) = of_logs {
            return Some(failure.clone());
        }
        if starved || self.tracked.len() >= CONTAINERS_MAX {
            return Some(FailureReason::TooManyFollows.into());
        }
        if self.pods.is_empty() {
            return Some(match &self.deleted {
                Some(pod) => Failure::about(FailureReason::PodDeleted, format!("pod {pod}")),
                None => FailureReason::NoPod.into(),
            });
        }
        self.pods.values().find_map(not_started)
    }

    /// Whether every pod is over and every log read to its end.
    fn is_over(&self) -> bool {
        let read_out = |(key, status): (Key, &Container)| match self.tracked.get(&key) {
            Some(tracked) => tracked.is_read_out(status),
            // Past the limit, or its pod went before it could be read.
            None => true,
        };
        !self.pods.is_empty()
            && self.pods.values().all(Pod::is_terminal)
            && self.containers().all(read_out)
            && self
                .tracked
                .values()
                .all(|tracked| tracked.running.is_none())
    }

    /// Ends the run if it has been over for the grace and no Job goes on.
    async fn end(&mut self) -> Result<Duration, Over> {
        let since = *self.over_since.get_or_insert_with(Instant::now);
        if let Some(left) = self.end_grace.checked_sub(since.elapsed())
            && !left.is_zero()
        {
            return Ok(left);
        }
        let succeeded = match self.verdict().await {
            Ok(Some(succeeded)) => succeeded,
            Ok(None) => {
                self.looks += 1;
                return Ok(pause(
                    self.looks,
                    self.shared.cluster.settings().max_backoff,
                ));
            }
            Err(failure) => {
                self.count(&failure);
                self.tell(Some(failure)).await?;
                return Ok(self.next_pause());
            }
        };
        let finished = self.pods.values().filter_map(|pod| pod.finished_ns).max();
        let status = if succeeded { "succeeded" } else { "failed" };
        let ts = finished.map_or_else(Timestamp::now, timestamp);
        tracing::info!(run_id = %self.run_id, status, "the run's pods are over");
        let update = KubectlUpdate::Ended { status, ts };
        self.shared.outlet.tell(update).await?;
        Err(Over::Told)
    }

    /// Returns whether the run succeeded; `None` while a Job may start more.
    async fn verdict(&self) -> Result<Option<bool>, Failure> {
        let pods_succeeded = self.pods.values().all(|pod| pod.phase == Phase::Succeeded);
        let mut jobs: Vec<_> = self
            .pods
            .values()
            .filter_map(|pod| pod.job.as_deref())
            .collect();
        jobs.sort_unstable();
        jobs.dedup();
        let mut all_complete = true;
        for name in &jobs {
            match self.job(name).await {
                Ok(Job::Going) => return Ok(None),
                Ok(Job::Complete) => {}
                Ok(Job::Failed) => all_complete = false,
                // The Job is gone, or cannot be read but has nothing to
                // repeat: the pods have the last word.
                Err(failure) if failure.reason == FailureReason::NotFound => {
                    all_complete &= pods_succeeded;
                }
                Err(failure) if failure.reason == FailureReason::Forbidden && pods_succeeded => {}
                Err(failure) => return Err(failure),
            }
        }
        let jobless = self.pods.values().filter(|pod| pod.job.is_none());
        let jobless_succeeded = jobless.clone().all(|pod| pod.phase == Phase::Succeeded);
        Ok(Some(all_complete && jobless_succeeded))
    }

    async fn job(&self, name: &str) -> Result<Job, Failure> {
        let job = self.shared.cluster.job(name).await;
        job.map_err(|failure| Failure::about(failure.reason, format!("job {name}")))
    }

    /// Tells `trouble` if it is another than the one told last.
    async fn tell(&mut self, trouble: Option<Failure>) -> Result<(), Over> {
        if trouble == self.told {
            return Ok(());
        }
        self.looks = 0;
        let update = match &trouble {
            Some(failure) => KubectlUpdate::Problem(failure.problem()),
            None => KubectlUpdate::Resolved,
        };
        self.told = trouble;
        Ok(self.shared.outlet.tell(update).await?)
    }

    async fn fail(&mut self, failure: Failure) -> Result<Duration, Over> {
        let update = KubectlUpdate::Failed(failure.problem());
        self.shared.outlet.tell(update).await?;
        Err(Over::Told)
    }

    fn next_pause(&mut self) -> Duration {
        let next = pause(self.looks, self.shared.cluster.settings().max_backoff);
        self.looks = self.looks.saturating_add(1);
        next
    }

    fn count(&self, failure: &Failure) {
        self.shared.cluster.counters.add_failure(failure.reason);
        tracing::debug!(run_id = %self.run_id, reason = failure.reason.slug(), "kubectl trouble");
    }

    /// Counts a state once, and not at every look.
    fn count_new(&self, failure: &Failure) {
        let state = matches!(
            failure.reason,
            FailureReason::NoPod
                | FailureReason::PodNotStarted
                | FailureReason::PodDeleted
                | FailureReason::TooManyFollows
        );
        if state && self.told.as_ref() != Some(failure) {
            self.count(failure);
        }
    }
}

async fn run_follow(
    key: Key,
    shared: Rc<Shared>,
    plan: FollowPlan,
    new_lines: Rc<std::cell::Cell<u64>>,
) -> (Key, Result<FollowEnd, Closed>) {
    let _counted = shared.cluster.counters.follow();
    let end = follow(Rc::clone(&shared), plan, new_lines).await;
    (key, end)
}

/// Returns why `pod` gives no log, if it should, or why one of its containers
/// does not run.
fn not_started(pod: &Pod) -> Option<Failure> {
    /// Reasons that are part of every start.
    const USUAL: [&str; 2] = ["PodInitializing", "ContainerCreating"];

    if pod.is_terminal() {
        return None;
    }
    let started = pod.containers.iter().any(|it| it.log != Log::None);
    let stuck = pod
        .containers
        .iter()
        .filter_map(|it| Some((it, it.waiting.as_deref()?)))
        .find(|(_, reason)| !USUAL.contains(reason));
    let subject = match stuck {
        Some((container, reason)) => {
            format!("pod {}, container {}: {reason}", pod.name, container.name)
        }
        None if started => return None,
        None => match &pod.waiting {
            Some(reason) => format!("pod {}: {reason}", pod.name),
            None => format!("pod {}", pod.name),
        },
    };
    Some(Failure::about(FailureReason::PodNotStarted, subject))
}
