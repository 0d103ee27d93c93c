//! Where the API server is and who we are to it: as kubectl finds it, a
//! kubeconfig if there is one, else the service account of the pod we are in.

use std::path::{Path, PathBuf};

use kube::config::{Config, KubeConfigOptions, Kubeconfig};

use super::failure;
use crate::kubectl::failure::{Failure, FailureReason};
use crate::settings::{KubeconfigChoice, KubectlSettings};

/// Reads the configuration.
///
/// # Errors
/// There is none, it cannot be read, or it asks for what only kubectl does.
pub(super) async fn load(settings: &KubectlSettings) -> Result<Config, Failure> {
    let choice = KubeconfigChoice::of(&settings.extra_args).map_err(|error| {
        tracing::error!(%error, "kubectl.extra_args cannot be honoured");
        Failure::about(FailureReason::Failed, "kubectl.extra_args")
    })?;
    let Some(kubeconfig) = kubeconfig(&choice)? else {
        return Config::incluster().map_err(|error| {
            tracing::warn!(%error, "neither a kubeconfig nor a service account was found");
            Failure::about(
                FailureReason::Unreachable,
                "neither a kubeconfig nor a service account was found",
            )
        });
    };
    let options = KubeConfigOptions {
        context: choice.context,
        cluster: choice.cluster,
        user: choice.user,
    };
    let own_proxies: Vec<http::Uri> = kubeconfig
        .clusters
        .iter()
        .filter_map(|named| named.cluster.as_ref()?.proxy_url.as_ref()?.parse().ok())
        .collect();
    let loaded = Config::from_custom_kubeconfig(kubeconfig, &options).await;
    let config = loaded.map_err(|error| failure::of_kubeconfig(&error))?;
    refuse_foreign(&config, &own_proxies)?;
    Ok(config)
}

/// Reads the kubeconfig that was chosen, that of `KUBECONFIG`, or that of the
/// home directory, whichever there is.
fn kubeconfig(choice: &KubeconfigChoice) -> Result<Option<Kubeconfig>, Failure> {
    let read = |path: &Path| {
        Kubeconfig::read_from(path)
            .map(Some)
            .map_err(|error| failure::of_kubeconfig(&error))
    };
    if let Some(path) = &choice.path {
        return read(path);
    }
    let from_environment =
        Kubeconfig::from_env().map_err(|error| failure::of_kubeconfig(&error))?;
    if from_environment.is_some() {
        return Ok(from_environment);
    }
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".kube/config"));
    match home.filter(|path| path.exists()) {
        Some(path) => read(&path),
        None => Ok(None),
    }
}

/// Refuses what we would have to start a process, or to speak to a proxy, for.
fn refuse_foreign(config: &Config, own_proxies: &[http::Uri]) -> Result<(), Failure> {
    if config.auth_info.exec.is_some() || config.auth_info.auth_provider.is_some() {
        return Err(Failure::about(
            FailureReason::Unauthorized,
            "the kubeconfig names a credential plugin, which only kubectl.engine = \"command\" runs",
        ));
    }
    // `kube` takes a proxy from the environment, too, which kubectl is not
    // given, and which is not used.
    let proxy = config.proxy_url.as_ref();
    if proxy.is_some_and(|proxy| own_proxies.contains(proxy)) {
        return Err(Failure::about(
            FailureReason::Unreachable,
            "the kubeconfig names a proxy, which only kubectl.engine = \"command\" uses",
        ));
    }
    Ok(())
}
