//! Which backend a stream request gets.

use runcast_actors::protocol::{BackendKind, KUBECTL_RUN_ID_BYTES_MAX, RunId};
use runcast_actors::settings::DefaultBackend;

use super::problem::ApiError;
use super::stream_query::BackendChoice;

/// What decides: settings.
#[derive(Debug, Clone, Copy)]
pub(super) struct Backends {
    /// `streaming.default_backend`.
    pub(super) default: DefaultBackend,
    /// What `redis` names here: Redis, or the embedded store in its place.
    pub(super) store: BackendKind,
    /// `kubectl.enabled`.
    pub(super) kubectl_enabled: bool,
}

impl Backends {
    /// Returns the backends on offer, the one without processes first.
    pub(super) fn on_offer(self) -> Vec<BackendKind> {
        let mut backends = vec![self.store];
        if self.kubectl_enabled {
            backends.push(BackendKind::Kubectl);
        }
        backends
    }

    /// Chooses the backend of one stream of `run_id`; `None` is the default.
    ///
    /// # Errors
    /// 404 `backend-disabled`; 400 for a run id that kubectl cannot select.
    pub(super) fn choose(
        self,
        choice: Option<BackendChoice>,
        run_id: &RunId,
    ) -> Result<BackendKind, ApiError> {
        let choice = choice.unwrap_or(match self.default {
            DefaultBackend::Redis | DefaultBackend::Embedded => BackendChoice::Redis,
            DefaultBackend::Kubectl => BackendChoice::Kubectl,
            DefaultBackend::Auto => BackendChoice::Auto,
        });
        let fits = run_id.as_str().len() <= KUBECTL_RUN_ID_BYTES_MAX;
        match choice {
            BackendChoice::Redis => Ok(self.store),
            BackendChoice::Kubectl if !self.kubectl_enabled => Err(ApiError::backend_disabled(
                "the kubectl backend is switched off on this broker; use /stream/redis, or set kubectl.enabled = true",
            )),
            BackendChoice::Kubectl if !fits => Err(ApiError::bad_run_id_because(format!(
                "the kubectl backend takes run ids of at most {KUBECTL_RUN_ID_BYTES_MAX} characters, as a label value has; use /stream/redis"
            ))),
            BackendChoice::Kubectl => Ok(BackendKind::Kubectl),
            // What cannot be had from kubectl waits for Redis: the client is
            // told to come back.
            BackendChoice::Auto
                if self.store == BackendKind::Embedded || !self.kubectl_enabled || !fits =>
            {
                Ok(self.store)
            }
            BackendChoice::Auto => Ok(BackendKind::Auto),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_query_and_default_decide_in_this_order() {
        use BackendChoice::{Auto, Kubectl, Redis};
        let short = RunId::parse("42").expect("valid");
        let long = RunId::parse(&"x".repeat(64)).expect("valid");
        for (default, kubectl_enabled, choice, run_id, expected) in [
            (DefaultBackend::Redis, true, None, &long, Ok("redis")),
            (
                DefaultBackend::Redis,
                true,
                Some(Kubectl),
                &short,
                Ok("kubectl"),
            ),
            (
                DefaultBackend::Redis,
                true,
                Some(Kubectl),
                &long,
                Err("bad-run-id"),
            ),
            (
                DefaultBackend::Redis,
                false,
                Some(Kubectl),
                &short,
                Err("backend-disabled"),
            ),
            (DefaultBackend::Redis, true, Some(Auto), &short, Ok("auto")),
            (DefaultBackend::Redis, true, Some(Auto), &long, Ok("redis")),
            (
                DefaultBackend::Redis,
                false,
                Some(Auto),
                &short,
                Ok("redis"),
            ),
            (DefaultBackend::Auto, true, None, &short, Ok("auto")),
            (DefaultBackend::Kubectl, true, None, &short, Ok("kubectl")),
            (
                DefaultBackend::Kubectl,
                true,
                Some(Redis),
                &short,
                Ok("redis"),
            ),
            (DefaultBackend::Embedded, true, None, &short, Ok("embedded")),
            (
                DefaultBackend::Embedded,
                true,
                Some(Redis),
                &short,
                Ok("embedded"),
            ),
            (
                DefaultBackend::Embedded,
                true,
                Some(Auto),
                &short,
                Ok("embedded"),
            ),
            (
                DefaultBackend::Embedded,
                true,
                Some(Kubectl),
                &short,
                Ok("kubectl"),
            ),
        ] {
            let store = match default {
                DefaultBackend::Embedded => BackendKind::Embedded,
                _ => BackendKind::Redis,
            };
            let backends = Backends {
                default,
                store,
                kubectl_enabled,
            };
            let chosen = backends.choose(choice, run_id);
            match (chosen, expected) {
                (Ok(backend), Ok(word)) => assert_eq!(backend.as_str(), word),
                (Err(error), Err(slug)) => assert!(error.to_string().starts_with(slug)),
                (chosen, expected) => panic!("{chosen:?} is not {expected:?}"),
            }
        }
    }
}
