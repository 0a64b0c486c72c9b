//! Fills the state of the mesh, from the control plane or a local file, and passes on what a change means: certificates to
//! fetch or forget, open connections to be evaluated again.

mod apply;
mod control_plane;
mod file;
mod local_mesh;
mod lookup;
#[cfg(test)]
mod seam;
#[cfg(feature = "waypoint")]
mod waypoint;

use runtime::drain::Watch;
use telemetry::readiness;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tracing::info;
use xds_client::Client;

pub use apply::Updates;
pub use control_plane::{SourceError, certificate_source, discovery_config};
pub use file::FileError;
pub use local_mesh::{KnownNames, LocalChanges, LocalMesh, LocalMeshError};
pub use lookup::{LookupError, Lookups, UnreadableAddress, is_unsettled};
#[cfg(feature = "waypoint")]
pub use waypoint::subscribe_waypoint;

use crate::config::{Config, LocalXds};

/// Discovery cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// The local file is not what it should be.
    #[error(transparent)]
    File(#[from] FileError),
}

/// The tasks of discovery. Dropping it ends them; the state keeps what it has.
#[derive(Debug)]
pub struct Discovery {
    tasks: JoinSet<()>,
    synced: watch::Receiver<bool>,
}

/// Starts discovery on the current runtime, as a proxy of `kind` (`ztunnel`, `waypoint`). `ready` (the task `state
/// manager`) is done once everything arrived once.
///
/// # Errors
/// When the local file cannot be read.
pub async fn start(
    kind: &str,
    config: &Config,
    updates: Updates,
    ready: readiness::Task,
    drain: Watch,
) -> Result<Discovery, DiscoveryError> {
    start_with(kind, config, updates, ready, drain, |client| client).await
}

/// As [`start`], for a client to which `subscribe` adds types; they are asked for after workloads and services.
///
/// # Errors
/// When the local file cannot be read.
pub async fn start_with(
    kind: &str,
    config: &Config,
    updates: Updates,
    ready: readiness::Task,
    drain: Watch,
    subscribe: impl FnOnce(Client) -> Client,
) -> Result<Discovery, DiscoveryError> {
    let mut tasks = JoinSet::new();
    // Also with a local file, whose policies may lag behind its workloads as well.
    tasks.spawn(updates.clone().close_undecided());
    if let Some(local) = &config.discovery.local {
        // Read now: a mistake in the file at the start ends the process; later it only keeps the old content.
        let mut file = file::Local::read(local, updates.clone()).await?;
        if matches!(local, LocalXds::Path(_)) {
            let drain = drain.clone();
            tasks.spawn(async move { file.follow(drain).await });
        }
    }
    let synced = match discovery_config(kind, config) {
        None => {
            // Nothing else will bring any: what the file lacks is missing, not late.
            updates.policies_complete();
            drop(ready);
            watch::channel(true).1
        }
        Some(client) => {
            let client = subscribe(updates.handlers(Client::new(client)));
            // Subscribed before the client runs.
            let mut synced = client.synced();
            let seen = synced.clone();
            tasks.spawn(client.run(drain));
            tasks.spawn(async move {
                // An error means that the client has ended: the process does too.
                if synced.wait_for(|synced| *synced).await.is_ok() {
                    info!("discovery is in sync");
                    drop(ready);
                }
            });
            seen
        }
    };
    Ok(Discovery { tasks, synced })
}

impl Discovery {
    /// True once everything has arrived once; see [`reached`].
    #[must_use]
    pub fn synced(&self) -> watch::Receiver<bool> {
        self.synced.clone()
    }

    /// Returns when one of the tasks has panicked: its updates are missing from then on.
    pub async fn failed(&mut self) -> JoinError {
        loop {
            match self.tasks.join_next().await {
                Some(Err(e)) => return e,
                // Tasks end in order with the drain.
                Some(Ok(())) => {}
                None => std::future::pending().await,
            }
        }
    }
}

/// Returns once everything has arrived once; never when discovery has ended before.
pub async fn reached(synced: &mut watch::Receiver<bool>) {
    if synced.wait_for(|synced| *synced).await.is_err() {
        std::future::pending::<()>().await;
    }
}
