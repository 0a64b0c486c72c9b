//! Keeps the CNI plugin installed on the node: its program, its kubeconfig, and the CNI configuration that has it at the end.
//! What the configuration is made of is in `cni::conflist`. It asks nothing of pods; see `cni` for the plugin's requests.

mod credentials;
mod files;
mod installation;
mod lifecycle;
mod watcher;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use kube_cluster::ApiServer;
use runtime::Backoff;
use tokio::sync::{Notify, watch};
use tokio::task::{JoinError, JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep};

pub use credentials::{ACCOUNT, permissions};
pub use installation::{InstallError, Installation, Installed};
pub use lifecycle::{ended, remove_if_uninstalled, start};

use crate::metrics;
use credentials::Credentials;
use watcher::Watcher;

/// Time after which everything is looked at, also when nothing was heard of a change.
const RECHECK: Duration = Duration::from_secs(30);

/// Pauses between two looks. Where another program takes the configuration away again and again, pods start without asking
/// in between: never for longer than a second.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// State of the installation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum State {
    #[default]
    Pending,
    Installed,
    Failed {
        reason: String,
    },
}

/// The task that keeps the plugin installed.
#[derive(Debug)]
pub struct Installer {
    stop: Arc<Notify>,
    task: JoinHandle<()>,
    renewing: JoinHandle<Infallible>,
}

impl Installer {
    /// Starts the task. `server`: where the plugin's token comes from; without one the plugin has no kubeconfig.
    pub fn start(installation: Installation, server: Option<ApiServer>, state: watch::Sender<State>) -> Self {
        let (stop, changed) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let installation = Arc::new(installation);
        let renewing = {
            let (installation, changed) = (installation.clone(), changed.clone());
            tokio::spawn(async move {
                match server {
                    Some(server) => {
                        Credentials::new(server, installation.namespace()).keep(&installation, &changed).await
                    }
                    None => std::future::pending().await,
                }
            })
        };
        let task = tokio::spawn(keep(installation, changed, stop.clone(), state));
        Self { stop, task, renewing }
    }

    /// Waits for the task, which ends only by a defect.
    ///
    /// # Errors
    /// When it panicked.
    pub async fn ended(&mut self) -> Result<(), JoinError> {
        tokio::select! {
            ended = &mut self.task => ended,
            ended = &mut self.renewing => ended.map(|never| match never {}),
        }
    }

    /// Ends the task. Nothing writes to the node's configuration any more after it.
    pub async fn stop(self) {
        self.renewing.abort();
        self.stop.notify_one();
        // `ended` may have seen the end of it.
        if !self.task.is_finished() {
            let _: Result<(), JoinError> = self.task.await;
        }
    }
}

async fn keep(installation: Arc<Installation>, changed: Arc<Notify>, stop: Arc<Notify>, state: watch::Sender<State>) {
    let mut backoff = Backoff::new(PAUSE_MIN, PAUSE_MAX);
    let mut watcher: Option<Watcher> = None;
    let mut quiet_since = Instant::now();
    loop {
        // Before the look: what changes after it is heard of.
        watcher = watcher.filter(Watcher::is_whole).or_else(|| Watcher::start(&installation, &changed));
        let looking = installation.clone();
        let outcome = spawn_blocking(move || looking.install()).await;
        match outcome {
            Ok(outcome) => report(outcome, &state),
            Err(error) => return tracing::error!(%error, "the installation of the CNI plugin panicked"),
        }
        if quiet_since.elapsed() > RECHECK {
            backoff.reset();
        }
        // Every arm is cancel-safe.
        tokio::select! {
            () = changed.notified() => quiet_since = Instant::now(),
            // Anew: a directory may be another one by now.
            () = sleep(RECHECK) => watcher = None,
            () = stop.notified() => return,
        }
        tokio::select! {
            () = sleep(backoff.pause()) => {}
            () = stop.notified() => return,
        }
    }
}

fn report(outcome: Result<Installed, InstallError>, state: &watch::Sender<State>) {
    let new = match &outcome {
        Ok(_) => State::Installed,
        Err(error) => State::Failed { reason: error.to_string() },
    };
    let is_new = *state.borrow() != new;
    match outcome {
        Ok(Installed { name, primary, written, skipped }) => {
            for (file, reason) in skipped.iter().filter(|_| written || is_new) {
                tracing::warn!(file, %reason, "ignored an invalid CNI configuration");
            }
            if written {
                metrics::cni_configuration_written();
                tracing::info!(name, primary, "wrote the CNI configuration with strake-cni");
            }
            if written || is_new {
                metrics::cni_install("SUCCESS");
            }
        }
        Err(error) if is_new => {
            metrics::cni_install(error.result());
            tracing::error!(
                "failed to install the CNI plugin: {error}; pods start without asking the agent unless an earlier installation is there; trying again"
            );
        }
        Err(_) => {}
    }
    metrics::cni_install_ready(new == State::Installed);
    state.send_if_modified(|held| std::mem::replace(held, new.clone()) != new);
}

#[cfg(test)]
mod tests;
