//! Receives the node agent's commands over its enrolment socket. Their effect is in `pods`.

use super::Pods;
use crate::inpod::PodInfo;
use runtime::Backoff;
use runtime::drain::Watch;
use std::path::Path;
use zds::client::{Client, Command};
use zds::{PENDING_RETRY, RECONNECT_MAX, RECONNECT_MIN, ZdsError};

/// Connects, handles commands, and connects again, until the proxy drains.
///
/// An error means that agent and proxy do not speak the same protocol: the process should end.
pub async fn run(mut pods: Pods, path: &Path, drain: Watch) -> Result<(), ZdsError> {
    let mut backoff = Backoff::new(RECONNECT_MIN, RECONNECT_MAX);
    loop {
        let ended = tokio::select! {
            () = started(drain.clone()) => return Ok(()),
            ended = session(&mut pods, path, &mut backoff) => ended,
        };
        pods.disconnected();
        match ended {
            e if e.is_fatal() => return Err(e),
            e => tracing::warn!(error = %e, code = e.code(), "no connection to the node agent"),
        }
        let pause = backoff.pause();
        tokio::select! {
            () = started(drain.clone()) => return Ok(()),
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn started(mut drain: Watch) {
    drain.started().await;
}

/// One connection to the agent, until it ends.
async fn session(pods: &mut Pods, path: &Path, backoff: &mut Backoff) -> ZdsError {
    match handle_commands(pods, path, backoff).await {
        Ok(never) => match never {},
        Err(e) => e,
    }
}

async fn handle_commands(
    pods: &mut Pods,
    path: &Path,
    backoff: &mut Backoff,
) -> Result<std::convert::Infallible, ZdsError> {
    let mut client = Client::connect(path).await?;
    tracing::info!(path = %path.display(), "connected to the node agent");
    let mut retry = tokio::time::interval(PENDING_RETRY);
    retry.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let command = tokio::select! {
            // Loses no command when it is dropped.
            command = client.next() => command?,
            _ = retry.tick(), if pods.has_pending() => {
                pods.retry().await;
                continue;
            }
        };
        // Only for a command: an agent that accepts connections and closes them again is not worth a quick attempt.
        backoff.reset();
        let result = match command {
            Command::Add { uid, info, netns } => {
                // A pod that fails now has the whole pause before it is tried again.
                retry.reset();
                add(pods, uid, info, netns).await
            }
            Command::Keep { uid } => {
                pods.keep(uid.to_string());
                Ok(())
            }
            Command::Del { uid } => {
                pods.del(&uid.to_string()).await;
                Ok(())
            }
            Command::SnapshotSent => {
                pods.snapshot_complete().await;
                Ok(())
            }
        };
        // One answer for each command, in order: the protocol has no numbers by which the agent could tell them apart.
        client.ack(result).await?;
    }
}

async fn add(
    pods: &mut Pods,
    uid: zds::PodId,
    info: zds::WorkloadInfo,
    netns: std::os::fd::OwnedFd,
) -> Result<(), String> {
    let netns = runtime::sys::Netns::from_fd(netns).map_err(|e| format!("the network namespace: {e}"))?;
    let info = PodInfo {
        name: info.name.to_string(),
        namespace: info.namespace.to_string(),
        service_account: info.service_account.to_string(),
    };
    pods.add(uid.to_string(), info, netns).await.map_err(|e| e.to_string())
}
