//! [`KubectlEngine`]: who asks the cluster, and what of `kubectl.extra_args`
//! each of them can honour.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// `kubectl.engine`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KubectlEngine {
    /// Processes of kubectl.
    Command,
    /// This process, over the Kubernetes API.
    Api,
}

impl KubectlEngine {
    /// Whether this build has it: `api` is the cargo feature `kubernetes-api`.
    pub const fn is_built(self) -> bool {
        match self {
            Self::Command => true,
            Self::Api => cfg!(feature = "kubernetes-api"),
        }
    }

    /// Returns its name in the settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Api => "api",
        }
    }
}

/// Which kubeconfig is used, and what of it: the arguments of kubectl that the
/// engine `api` honours as well.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KubeconfigChoice {
    /// `--kubeconfig`
    pub path: Option<PathBuf>,
    /// `--context`
    pub context: Option<String>,
    /// `--cluster`
    pub cluster: Option<String>,
    /// `--user`
    pub user: Option<String>,
}

/// An argument that only kubectl understands.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "only --kubeconfig, --context, --cluster and --user, each with a value, work with kubectl.engine = \"api\""
)]
pub struct ForeignArgument;

impl KubeconfigChoice {
    /// Returns what `kubectl.extra_args` choose.
    ///
    /// # Errors
    /// [`ForeignArgument`], or one without its value. It is not named: it may
    /// be a secret.
    pub fn of(extra_args: &[String]) -> Result<Self, ForeignArgument> {
        let mut choice = Self::default();
        let mut args = extra_args.iter();
        while let Some(arg) = args.next() {
            let (name, value) = match arg.split_once('=') {
                Some((name, value)) => (name, value.to_owned()),
                None => (&**arg, args.next().ok_or(ForeignArgument)?.clone()),
            };
            match name {
                "--kubeconfig" => choice.path = Some(value.into()),
                "--context" => choice.context = Some(value),
                "--cluster" => choice.cluster = Some(value),
                "--user" => choice.user = Some(value),
                _ => return Err(ForeignArgument),
            }
        }
        Ok(choice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kubectl_is_told_of_a_kubeconfig_is_understood() {
        let of = |args: &[&str]| {
            KubeconfigChoice::of(&args.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        assert_eq!(of(&[]), Ok(KubeconfigChoice::default()));
        let all = [
            "--kubeconfig=/k=1",
            "--context",
            "dev",
            "--cluster=c",
            "--user=u",
        ];
        let choice = KubeconfigChoice {
            path: Some("/k=1".into()),
            context: Some("dev".to_owned()),
            cluster: Some("c".to_owned()),
            user: Some("u".to_owned()),
        };
        assert_eq!(of(&all), Ok(choice));
        for foreign in [&["--token=s"][..], &["--context"], &["-v=6"], &["dev"]] {
            assert_eq!(of(foreign), Err(ForeignArgument), "{foreign:?}");
        }
    }
}
