//! What can go wrong with kubectl or the Kubernetes API, how kubectl's errors
//! are told apart, and what a client is told. Pure.

use crate::protocol::Problem;

/// Why kubectl gave no pods or no log. One counter each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureReason {
    /// No such program.
    Missing,
    /// The program cannot be executed.
    NotExecutable,
    /// kubectl ended with an error we do not know, or what was answered or is
    /// configured makes no sense.
    Failed,
    /// 403: the credentials lack a permission.
    Forbidden,
    /// 401, or no credentials could be had.
    Unauthorized,
    /// No connection to the API server.
    Unreachable,
    /// The API server answered with an error of its own.
    ApiError,
    /// 429.
    Overloaded,
    /// No answer in `kubectl.timeout`.
    Timeout,
    /// The pod or container is gone.
    NotFound,
    /// The container has not started, or has no such log.
    NotStarted,
    /// The connection broke in the middle of a log.
    Interrupted,
    /// kubectl was killed by somebody else.
    Killed,
    /// A follow gave nothing although its log went on.
    Stalled,
    /// The kubelet cannot read the log.
    LogUnavailable,
    /// `kubectl.max_follows` are running.
    TooManyFollows,
    /// No pod has the run's label.
    NoPod,
    /// The pod exists and nothing of it runs.
    PodNotStarted,
    /// The pod was deleted before it finished.
    PodDeleted,
}

/// What a client sees of a [`FailureReason`].
struct Told {
    slug: &'static str,
    title: &'static str,
    status: u16,
    advice: &'static str,
}

const fn told(slug: &'static str, title: &'static str, status: u16, advice: &'static str) -> Told {
    Told {
        slug,
        title,
        status,
        advice,
    }
}

impl FailureReason {
    /// All reasons, in the order used for counters.
    pub const ALL: [Self; 19] = [
        Self::Missing,
        Self::NotExecutable,
        Self::Failed,
        Self::Forbidden,
        Self::Unauthorized,
        Self::Unreachable,
        Self::ApiError,
        Self::Overloaded,
        Self::Timeout,
        Self::NotFound,
        Self::NotStarted,
        Self::Interrupted,
        Self::Killed,
        Self::Stalled,
        Self::LogUnavailable,
        Self::TooManyFollows,
        Self::NoPod,
        Self::PodNotStarted,
        Self::PodDeleted,
    ];

    /// Returns the stable word of this reason: a problem's `type` suffix and
    /// a metric's label.
    pub fn slug(self) -> &'static str {
        self.told().slug
    }

    /// Whether waiting can help. A program that is not there will not appear
    /// by itself.
    pub(crate) fn is_permanent(self) -> bool {
        matches!(self, Self::Missing | Self::NotExecutable)
    }

    /// Whether following again at once usually cures it, so that clients are
    /// told only when it does not. An API that is down shows in the next look
    /// for pods; a follow alone may only have met a closing connection.
    pub(crate) fn is_passing(self) -> bool {
        matches!(
            self,
            Self::NotFound
                | Self::NotStarted
                | Self::Interrupted
                | Self::Killed
                | Self::Stalled
                | Self::Unreachable
        )
    }

    /// Whether it says something about one log, and nothing about the API.
    pub(crate) fn is_about_the_log(self) -> bool {
        match self {
            Self::LogUnavailable | Self::ApiError | Self::Failed => true,
            Self::Unreachable => false,
            _ => self.is_passing(),
        }
    }

    fn told(self) -> Told {
        match self {
            Self::Missing => told(
                "kubectl-missing",
                "kubectl not found",
                503,
                "the broker finds no kubectl; install it or set kubectl.command to its path",
            ),
            Self::NotExecutable => told(
                "kubectl-not-executable",
                "kubectl cannot be executed",
                503,
                "the program kubectl.command names cannot be executed; check its permissions and architecture",
            ),
            Self::Failed => told(
                "kubectl-failed",
                "kubectl failed",
                502,
                "no answer that can be understood; the broker's log has what was said; it is tried again",
            ),
            Self::Forbidden => told(
                "kubernetes-forbidden",
                "Kubernetes refused access",
                403,
                "the broker may not read this; allow its account get, list and watch on pods, get on pods/log and get on jobs in the namespace",
            ),
            Self::Unauthorized => told(
                "kubernetes-unauthorized",
                "Kubernetes did not accept the credentials",
                401,
                "the broker's credentials are missing or expired; renew its kubeconfig or service account token",
            ),
            Self::Unreachable => told(
                "kubernetes-unreachable",
                "Kubernetes API unreachable",
                503,
                "no connection to the Kubernetes API server; check that it runs and that the kubeconfig names it; it is tried again",
            ),
            Self::ApiError => told(
                "kubernetes-error",
                "Kubernetes API error",
                502,
                "the Kubernetes API answered with an error of its own; it is tried again, look at the API server if it lasts",
            ),
            Self::Overloaded => told(
                "kubernetes-overloaded",
                "Kubernetes API overloaded",
                503,
                "the Kubernetes API answers 'too many requests'; it is tried again more slowly",
            ),
            Self::Timeout => told(
                "kubernetes-timeout",
                "Kubernetes API timeout",
                504,
                "the Kubernetes API gave no answer in time; it is tried again, check the API server or raise kubectl.timeout if it lasts",
            ),
            Self::NotFound => told(
                "log-not-found",
                "Log not found",
                404,
                "the container is listed but its log is not found; it is tried again",
            ),
            Self::NotStarted => told(
                "container-not-started",
                "Container not started",
                503,
                "the container has not started; it is tried again",
            ),
            Self::Interrupted => told(
                "log-interrupted",
                "Log interrupted",
                502,
                "the connection to the log breaks again and again; check the kubelet and what stands between it and the broker",
            ),
            Self::Killed => told(
                "kubectl-killed",
                "kubectl was killed",
                503,
                "kubectl is killed again and again; check the broker's memory limit",
            ),
            Self::Stalled => told(
                "log-stalled",
                "Log stalled",
                504,
                "the log goes on but its follow gives nothing; it is followed again",
            ),
            Self::LogUnavailable => told(
                "log-unavailable",
                "Log unavailable",
                502,
                "the kubelet cannot read the container's log, it may have been removed; lines may be missing",
            ),
            Self::TooManyFollows => told(
                "too-many-follows",
                "Too many logs followed",
                503,
                "the broker follows as many containers as it may; wait, or raise kubectl.max_follows (about 50 MB each if kubectl is called)",
            ),
            Self::NoPod => told(
                "pod-not-found",
                "No pod of this run",
                404,
                "no pod has the run's label yet; the stream begins when one appears; check the run id and kubectl.selector if none should be missing",
            ),
            Self::PodNotStarted => told(
                "pod-not-started",
                "Pod not started",
                503,
                "the pod exists and has not started; the stream begins when it does",
            ),
            Self::PodDeleted => told(
                "pod-deleted",
                "Pod deleted",
                410,
                "the pod was deleted before it finished; the stream goes on if another one takes its place",
            ),
        }
    }
}

/// A failure and what is known of this occurrence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// Which one.
    pub(crate) reason: FailureReason,
    /// What clients may read of this occurrence, such as a pod's name and
    /// waiting reason; empty if there is nothing to add.
    pub(crate) subject: String,
}

impl Failure {
    /// Returns a failure about `subject`.
    pub(crate) fn about(reason: FailureReason, subject: impl Into<String>) -> Self {
        Self {
            reason,
            subject: subject.into(),
        }
    }

    /// Returns it as clients are told.
    pub(crate) fn problem(&self) -> Problem {
        let Told {
            slug,
            title,
            status,
            advice,
        } = self.reason.told();
        let detail = if self.subject.is_empty() {
            advice.to_owned()
        } else {
            format!("{}: {advice}", self.subject)
        };
        Problem::new(status, slug, title, detail).retryable(!self.reason.is_permanent())
    }
}

impl From<FailureReason> for Failure {
    fn from(reason: FailureReason) -> Self {
        Self::about(reason, "")
    }
}

/// What the API says of one log, and what it means; the codes of these answers
/// say less. kubectl repeats it.
const OF_THE_LOG: &[(&str, FailureReason)] = &[
    ("is waiting to start", FailureReason::NotStarted),
    ("previous terminated container", FailureReason::NotStarted),
    ("is not valid for pod", FailureReason::NotFound),
    (
        "unable to retrieve container logs",
        FailureReason::LogUnavailable,
    ),
    (
        "failed to try resolving symlinks",
        FailureReason::LogUnavailable,
    ),
];

/// What else kubectl (1.20 to 1.32) writes on stderr, and what it means; the
/// first match counts.
const SAYINGS: &[(&str, FailureReason)] = &[
    ("(Forbidden)", FailureReason::Forbidden),
    ("(Unauthorized)", FailureReason::Unauthorized),
    ("must be logged in", FailureReason::Unauthorized),
    ("provide credentials", FailureReason::Unauthorized),
    ("getting credentials", FailureReason::Unauthorized),
    ("(NotFound)", FailureReason::NotFound),
    ("(TooManyRequests)", FailureReason::Overloaded),
    ("(Timeout)", FailureReason::Timeout),
    ("(ServerTimeout)", FailureReason::Timeout),
    ("(GatewayTimeout)", FailureReason::Timeout),
    ("Client.Timeout", FailureReason::Timeout),
    ("context deadline exceeded", FailureReason::Timeout),
    ("Error from server", FailureReason::ApiError),
    ("error from server", FailureReason::ApiError),
    ("server is currently unable", FailureReason::ApiError),
    ("connection refused", FailureReason::Unreachable),
    ("was refused", FailureReason::Unreachable),
    (
        "Unable to connect to the server",
        FailureReason::Unreachable,
    ),
    ("no such host", FailureReason::Unreachable),
    ("no route to host", FailureReason::Unreachable),
    ("network is unreachable", FailureReason::Unreachable),
    ("i/o timeout", FailureReason::Unreachable),
    ("x509:", FailureReason::Unreachable),
    ("connection reset", FailureReason::Interrupted),
    ("broken pipe", FailureReason::Interrupted),
    ("http2:", FailureReason::Interrupted),
    ("stream error", FailureReason::Interrupted),
    ("EOF", FailureReason::Interrupted),
];

/// Returns what kubectl means by `stderr`, when it ended with an error.
pub(crate) fn classify(stderr: &str) -> FailureReason {
    said_of_the_log(stderr)
        .or_else(|| heard(SAYINGS, stderr))
        .unwrap_or(FailureReason::Failed)
}

/// Returns what an error's text says of one log, if it does.
pub(crate) fn said_of_the_log(text: &str) -> Option<FailureReason> {
    heard(OF_THE_LOG, text)
}

fn heard(sayings: &[(&str, FailureReason)], text: &str) -> Option<FailureReason> {
    let mut sayings = sayings.iter();
    let (_, reason) = sayings.find(|(saying, _)| text.contains(saying))?;
    Some(*reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubectl_is_understood() {
        use FailureReason::*;
        for (stderr, reason) in [
            (
                "Error from server (Forbidden): pods is forbidden: User \"x\" cannot list resource \"pods\"",
                Forbidden,
            ),
            (
                "error: You must be logged in to the server (Unauthorized)",
                Unauthorized,
            ),
            (
                "Unable to connect to the server: getting credentials: exec: executable aws not found",
                Unauthorized,
            ),
            (
                "error: error from server (NotFound): pods \"x\" not found in namespace \"default\"",
                NotFound,
            ),
            (
                "Error from server (NotFound): pods \"x\" not found",
                NotFound,
            ),
            ("error: container nope is not valid for pod x", NotFound),
            (
                "Error from server (TooManyRequests): too many requests",
                Overloaded,
            ),
            (
                "Error from server (Timeout): the request timed out",
                Timeout,
            ),
            (
                "Error from server (InternalError): an error on the server",
                ApiError,
            ),
            (
                "Error from server (ServiceUnavailable): the server is currently unable to handle the request",
                ApiError,
            ),
            (
                "Error from server (BadRequest): container \"c\" in pod \"p\" is waiting to start: ContainerCreating",
                NotStarted,
            ),
            (
                "Error from server (BadRequest): previous terminated container \"c\" in pod \"p\" not found",
                NotStarted,
            ),
            (
                "E1123 memcache.go:265] couldn't get current server API group list: Get \"http://localhost:8080/api\": dial tcp 127.0.0.1:8080: connect: connection refused\nThe connection to the server localhost:8080 was refused - did you specify the right host or port?",
                Unreachable,
            ),
            (
                "Unable to connect to the server: dial tcp: lookup nowhere: no such host",
                Unreachable,
            ),
            (
                "error: read tcp 127.0.0.1:1->127.0.0.1:2: read: connection reset by peer",
                Interrupted,
            ),
            ("error: unexpected EOF", Interrupted),
            ("error: unknown flag: --frobnicate", Failed),
            ("", Failed),
        ] {
            assert_eq!(classify(stderr), reason, "{stderr}");
        }
    }

    #[test]
    fn every_reason_has_its_own_slug_and_its_place() {
        for (index, reason) in FailureReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
            let twins = FailureReason::ALL
                .iter()
                .filter(|other| other.slug() == reason.slug());
            assert_eq!(twins.count(), 1, "{}", reason.slug());
        }
    }

    #[test]
    fn a_problem_names_its_subject_and_what_to_do() {
        let problem = Failure::about(FailureReason::PodNotStarted, "pod p: ErrImagePull").problem();
        assert_eq!(problem.slug, "pod-not-started");
        assert!(
            problem
                .detail
                .starts_with("pod p: ErrImagePull: the pod exists")
        );
        assert_eq!(problem.retryable, Some(true));
        let problem = Failure::from(FailureReason::Missing).problem();
        assert_eq!(problem.retryable, Some(false));
    }
}
