//! [`PodView`]: the pods of a run as its controller sees them: listed each
//! time it looks, or, with the engine `api`, listed once and watched.

use std::collections::BTreeMap;
use std::time::Duration;

use super::api::Watch;
use super::engine::Cluster;
use super::failure::Failure;
use super::pods::{Pod, PodEvent};
use crate::protocol::RunId;

/// A watch that ends sooner than this is not begun again at once: whatever
/// ends it would end the next one as well.
const LIFE_MIN: Duration = Duration::from_secs(1);

/// The pods of one run.
///
/// A watch is opened by [`PodView::pods`] and read by [`PodView::changed`]
/// only: what happens between two calls waits in its connection. There are no
/// more watches than follows may be (`kubectl.max_follows`); a run that finds
/// none free lists its pods each time it looks.
#[derive(Debug, Default)]
pub(crate) struct PodView {
    /// By uid, as the watch has them.
    pods: BTreeMap<String, Pod>,
    /// Up to where; none: they are to be listed.
    version: Option<String>,
    watch: Option<Watch>,
}

impl PodView {
    /// Returns the pods as they are now, or as they were when the watch told
    /// last.
    ///
    /// # Errors
    /// They cannot be listed, or not be watched.
    pub(crate) async fn pods(
        &mut self,
        cluster: &Cluster,
        run_id: &RunId,
    ) -> Result<Vec<Pod>, Failure> {
        if cluster.engine.api.is_none() {
            return cluster.pods(run_id).await.map(|list| list.pods);
        }
        if self.watch.is_none() && !self.resume(cluster, run_id).await {
            self.begin(cluster, run_id).await?;
        }
        Ok(self.pods.values().cloned().collect())
    }

    /// Waits for news of a pod, or for the end of a watch; for ever where
    /// there is none. It may be dropped while it waits, and called again.
    pub(crate) async fn changed(&mut self) {
        loop {
            let Some(watch) = &mut self.watch else {
                return std::future::pending().await;
            };
            match watch.next().await {
                PodEvent::Is(pod, version) => {
                    self.pods.insert(pod.uid.clone(), *pod);
                    self.version = Some(version);
                    return;
                }
                PodEvent::Deleted(uid, version) => {
                    self.pods.remove(&uid);
                    self.version = Some(version);
                    return;
                }
                PodEvent::Bookmark(version) => self.version = Some(version),
                PodEvent::Over { well } => {
                    let lived = watch.lived();
                    self.watch = None;
                    if !well {
                        self.version = None;
                    }
                    if lived >= LIFE_MIN {
                        return;
                    }
                }
            }
        }
    }

    /// Has the pods listed anew at the next look: something has happened that
    /// a watch, if it is dead, will never tell.
    pub(crate) fn doubt(&mut self) {
        (self.watch, self.version) = (None, None);
    }

    /// Goes on watching where the last watch ended; returns whether that can
    /// be done. It cannot if it is too long ago (410).
    async fn resume(&mut self, cluster: &Cluster, run_id: &RunId) -> bool {
        let Some(version) = self.version.take() else {
            return false;
        };
        self.watch = cluster.watch(run_id, &version).await.unwrap_or_default();
        self.version = Some(version);
        self.watch.is_some()
    }

    async fn begin(&mut self, cluster: &Cluster, run_id: &RunId) -> Result<(), Failure> {
        self.version = None;
        let list = cluster.pods(run_id).await?;
        let by_uid = |pod: Pod| (pod.uid.clone(), pod);
        self.pods = list.pods.into_iter().map(by_uid).collect();
        self.watch = cluster.watch(run_id, &list.version).await?;
        self.version = self.watch.is_some().then_some(list.version);
        Ok(())
    }
}
