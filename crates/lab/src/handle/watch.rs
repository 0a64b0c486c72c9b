//! Reads the status of a running lab, and waits until it is another one. It changes nothing.

use std::time::{Duration, Instant};

use super::{Lab, unexpected};
use crate::{
    control::{NodeInfo, Phase, PodInfo, Reply, Request, Status},
    error::LabError,
    handle::{no_pod, split_pod},
    process_ids,
};

/// Pause between two looks at the status while waiting for it to change.
const POLL: Duration = Duration::from_millis(25);

impl Lab {
    /// Everything the supervisor knows, with process ids as this process sees them.
    ///
    /// # Errors
    /// When the lab is gone.
    pub async fn status(&self) -> Result<Status, LabError> {
        match self.ask(&Request::Status).await? {
            Reply::Status(mut status) => {
                status.pods.iter_mut().for_each(process_ids::fill_in);
                Ok(*status)
            }
            other => Err(unexpected(&other)),
        }
    }

    /// The pods.
    ///
    /// # Errors
    /// When the lab is gone.
    pub async fn pods(&self) -> Result<Vec<PodInfo>, LabError> {
        Ok(self.status().await?.pods)
    }

    /// One pod, by `namespace/name` or by name in `default`.
    ///
    /// # Errors
    /// When there is none.
    pub async fn pod(&self, pod: &str) -> Result<PodInfo, LabError> {
        let (namespace, name) = split_pod(pod);
        let pods = self.pods().await?;
        let known = || pods.iter().map(|pod| (pod.namespace.as_str(), pod.name.as_str()));
        match pods.iter().find(|pod| pod.namespace == namespace && pod.name == name) {
            Some(pod) => Ok(pod.clone()),
            None => Err(LabError::Refused(no_pod(namespace, name, known()))),
        }
    }

    /// The nodes.
    ///
    /// # Errors
    /// When the lab is gone.
    pub async fn nodes(&self) -> Result<Vec<NodeInfo>, LabError> {
        Ok(self.status().await?.nodes)
    }

    /// Waits until the manifests were read and every pod that should be ready is.
    ///
    /// # Errors
    /// `NotReady` with a line for each thing that is wrong, then for each that is missing: when the deadline
    /// passes, or when all is ready that can be.
    pub async fn wait_ready(&self, deadline: Duration) -> Result<(), LabError> {
        self.wait_ready_with(deadline, |_| {}).await
    }

    /// As `wait_ready`; `progress` receives again and again what is still missing.
    ///
    /// # Errors
    /// As `wait_ready`.
    pub async fn wait_ready_with(
        &self,
        deadline: Duration,
        mut progress: impl FnMut(&[String]),
    ) -> Result<(), LabError> {
        let start = Instant::now();
        loop {
            let status = self.status().await?;
            let waiting = waiting(&status);
            if waiting.is_empty() && status.problems.is_empty() {
                return Ok(());
            }
            // A problem does not keep the rest from becoming ready, and is not all there is to say before.
            if waiting.is_empty() || start.elapsed() >= deadline {
                let reasons = [status.problems, waiting].concat();
                return Err(LabError::NotReady { waited: start.elapsed(), reasons });
            }
            progress(&waiting);
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until `condition` holds of the status.
    ///
    /// # Errors
    /// `NotReady` naming `what` and the pods as they are, when the deadline passes.
    pub async fn wait_for(
        &self,
        what: &str,
        deadline: Duration,
        mut condition: impl FnMut(&Status) -> bool,
    ) -> Result<Status, LabError> {
        let start = Instant::now();
        loop {
            let status = self.status().await?;
            if condition(&status) {
                return Ok(status);
            }
            if start.elapsed() >= deadline {
                let mut reasons = vec![format!("waited for: {what}")];
                reasons.extend(status.pods.iter().map(describe));
                reasons.extend(status.problems);
                return Err(LabError::NotReady { waited: start.elapsed(), reasons });
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// A line for each thing that may become ready and is not.
fn waiting(status: &Status) -> Vec<String> {
    let mut reasons = Vec::new();
    if !status.synced {
        reasons.push("the manifests have not been read".to_owned());
    }
    // What is blocked or has failed for good is a problem, and a failed pod of a Job is tried again by the Job.
    let ended = |pod: &PodInfo| matches!(pod.phase, Phase::Succeeded | Phase::Failed) && !pod.terminating;
    let waiting = |pod: &&PodInfo| !(pod.ready || pod.blocked || ended(pod));
    reasons.extend(status.pods.iter().filter(waiting).map(describe));
    reasons.extend(status.waiting.iter().cloned());
    reasons
}

fn describe(pod: &PodInfo) -> String {
    let place = if pod.node.is_empty() { String::new() } else { format!(" on {}", pod.node) };
    let state = match pod.reason.as_str() {
        "" if pod.ready => "ready".to_owned(),
        "" => pod.phase.as_str().to_owned(),
        reason => format!("{}: {reason}", pod.phase.as_str()),
    };
    format!("{}/{}{place}: {state}", pod.namespace, pod.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lab_is_waited_for_until_its_manifests_are_read() {
        assert_eq!(waiting(&Status { synced: true, ..Status::default() }), Vec::<String>::new());
        assert_eq!(waiting(&Status::default()).len(), 1);
    }

    #[test]
    fn nobody_waits_for_a_pod_that_has_ended_or_cannot_start() {
        let pod = |phase: &str, more: serde_json::Value| -> PodInfo {
            let mut pod = serde_json::json!({"namespace": "n", "name": "p", "uid": "", "node": "a", "ips": [], "phase": phase,
                "ready": false, "terminating": false, "reason": "c: why", "containers": [], "cgroup": ""});
            pod.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            serde_json::from_value(pod).unwrap()
        };
        let none = serde_json::json!({});
        let status = Status {
            synced: true,
            pods: vec![
                pod("Failed", none.clone()),
                pod("Succeeded", none.clone()),
                pod("Pending", serde_json::json!({"blocked": true})),
                pod("Running", none),
            ],
            waiting: vec!["Job n/j: tried again".to_owned()],
            ..Status::default()
        };

        assert_eq!(waiting(&status), ["n/p on a: Running: c: why", "Job n/j: tried again"]);
    }
}
