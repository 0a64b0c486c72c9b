//! Beginning and end of the installation in the life of an agent.

use std::time::Duration;

use contract::manifests::AGENT;
use kube_cluster::{ApiServer, Presence, find_daemon_set};
use telemetry::readiness::Readiness;
use tokio::sync::watch;
use tokio::task::JoinError;
use tokio::time::timeout;

use super::{InstallError, Installation, Installer, State};
use crate::config::Config;

/// Longest time for finding out whether agents are being uninstalled, of the time that an agent has for its end.
const FIND_TIMEOUT: Duration = Duration::from_secs(5);

/// Starts the installation that the flags ask for, if any. The agent is not ready before it has succeeded.
pub fn start(config: &Config, server: Option<&ApiServer>, readiness: &Readiness) -> Option<Installer> {
    let installation = Installation::new(config, server.is_some())?;
    let (state, installed) = watch::channel(State::default());
    readiness.probe("CNI plugin", move || std::future::ready(*installed.borrow() == State::Installed));
    Some(Installer::start(installation, server.cloned(), state))
}

/// Waits for the end of the installer, which is a defect; for ever where there is none.
///
/// # Errors
/// When it panicked.
pub async fn ended(installer: &mut Option<Installer>) -> Result<(), JoinError> {
    match installer {
        Some(installer) => installer.ended().await,
        None => std::future::pending().await,
    }
}

/// Removes the plugin when no agent will answer it any more: the agent cleans up on its exit, or agents are being uninstalled.
///
/// # Errors
/// When a file cannot be removed.
pub async fn remove_if_uninstalled(config: &Config, server: Option<&ApiServer>) -> Result<(), InstallError> {
    // `false`: for the removal no credentials for the plugin are needed.
    let Some(installation) = Installation::new(config, false) else { return Ok(()) };
    let is_removed = match server {
        _ if config.cleanup_on_exit => true,
        Some(server) => is_uninstalled(server, &config.system_namespace).await,
        None => false,
    };
    if is_removed {
        installation.uninstall()?;
        tracing::info!("removed the CNI plugin from the node's configuration; pods start without asking the agent");
    }
    Ok(())
}

/// Returns true if the agents' DaemonSet is being deleted: no agent will come after this one, and a plugin that nobody answers
/// would refuse pods. So it is when this agent's permissions are gone, which `kubectl delete` takes away with it.
async fn is_uninstalled(server: &ApiServer, namespace: &str) -> bool {
    match timeout(FIND_TIMEOUT, find_daemon_set(server, namespace, AGENT)).await {
        Ok(Ok(Presence::Present)) => false,
        Ok(Ok(Presence::Deleting | Presence::Absent)) => true,
        Ok(Err(error)) => {
            tracing::warn!("failed to find out whether the agent is being uninstalled: {error}");
            error.is_denied()
        }
        Err(_) => {
            tracing::warn!(
                "failed to find out whether the agent is being uninstalled: no answer within {FIND_TIMEOUT:?}; the CNI plugin stays installed"
            );
            false
        }
    }
}
