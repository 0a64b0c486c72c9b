//! Reports of the agent about each pod of its node. They hold the latest state; nothing is found out here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use contract::admin::agent::{Check, NodeReport, PodReport, PodState};
use ebpf_loader::probe::Feature;
use parking_lot::Mutex;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::watch;

use crate::pod::{LocalPod, PodNetns};

/// Namespace, name and uid.
type Key = (String, String, String);

/// Every pod's report; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Reports(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    reports: Mutex<BTreeMap<Key, PodReport>>,
    /// Of the node's kernel; empty until it was looked at.
    kernel: Mutex<Vec<Check>>,
    /// Ticks when a report has changed, come or gone.
    changed: watch::Sender<u64>,
}

impl Reports {
    /// The report of one pod, which disappears with the last clone of its view.
    pub fn view(&self, pod: &LocalPod) -> View {
        let key = (pod.info.namespace.to_string(), pod.info.name.to_string(), pod.uid.to_string());
        let (namespace, name, uid) = key.clone();
        let reason = "not looked at yet".to_owned();
        let report =
            PodReport { uid, namespace, name, reason, ips: pod.ips.clone(), since: now(), ..PodReport::default() };
        // Keyed with the uid: the report of the next pod of this name begins before that of this one ends.
        self.0.reports.lock().insert(key.clone(), report);
        self.note_change();
        View(Arc::new(Entry { reports: self.clone(), key }))
    }

    /// The answer to `GET /pods`.
    pub fn node(&self, node: &str) -> NodeReport {
        NodeReport {
            node: node.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kernel: self.0.kernel.lock().clone(),
            pods: self.0.reports.lock().values().cloned().collect(),
        }
    }

    /// Sets what the node's kernel has.
    pub fn set_kernel(&self, features: Vec<Feature>) {
        let check = |Feature { name, found }: Feature| {
            let (ok, detail) = found.map_or_else(|missing| (false, missing.to_string()), |found| (true, found));
            Check { name: name.to_owned(), ok, unreadable: false, detail }
        };
        *self.0.kernel.lock() = features.into_iter().map(check).collect();
    }

    /// The report of one pod, while there is one.
    pub fn find(&self, namespace: &str, name: &str, uid: &str) -> Option<PodReport> {
        self.0.reports.lock().get(&(namespace.to_owned(), name.to_owned(), uid.to_owned())).cloned()
    }

    /// Ticks when a report has changed, come or gone.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    /// Number of pods in a state.
    pub fn count(&self, state: PodState) -> usize {
        self.0.reports.lock().values().filter(|report| report.state == state).count()
    }

    fn note_change(&self) {
        self.0.changed.send_modify(|count| *count = count.wrapping_add(1));
    }
}

/// One pod's report, to be kept up to date.
#[derive(Debug, Clone)]
pub struct View(Arc<Entry>);

#[derive(Debug)]
struct Entry {
    reports: Reports,
    key: Key,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.reports.0.reports.lock().remove(&self.key);
        self.reports.note_change();
    }
}

impl View {
    /// Sets addresses and whether labels select the pod.
    pub fn described(&self, pod: &LocalPod, selected: bool) {
        self.update(|report| {
            report.ips.clone_from(&pod.ips);
            report.selected = selected;
        });
    }

    /// Sets the settings that the pod requests and that are not supported. Each is logged when it is new.
    pub fn noted(&self, pod: &LocalPod, notes: Vec<String>) {
        self.update(|report| {
            for note in notes.iter().filter(|note| !report.notes.contains(note)) {
                tracing::warn!(pod = pod.key.path(), "{note}");
            }
            report.notes = notes;
        });
    }

    /// Sets what in the pod's namespace may take connections away from the proxy. Each is counted and logged when it is new.
    pub(crate) fn set_hazards(&self, pod: &LocalPod, hazards: Vec<String>) {
        self.update(|report| {
            for hazard in hazards.iter().filter(|hazard| !report.hazards.contains(hazard)) {
                crate::metrics::hazard();
                tracing::warn!(
                    pod = pod.key.path(),
                    hazard,
                    "a program or filter in an enrolled pod may take connections from ztunnel; remove it or take the pod out of the mesh"
                );
            }
            report.hazards = hazards;
        });
    }

    pub(crate) fn state(&self, state: PodState, reason: &str) {
        self.update(|report| {
            enter(report, state);
            reason.clone_into(&mut report.reason);
        });
    }

    /// `state`: how a pod for which a step failed stands.
    pub(crate) fn failed(&self, state: PodState, reason: &str, checks: Option<Vec<Check>>) {
        self.update(|report| {
            enter(report, state);
            reason.clone_into(&mut report.reason);
            if let Some(checks) = checks {
                report.checks = checks;
            }
        });
    }

    /// Sets the facts that were read when a step failed; none when the pod's namespace is not known.
    pub(crate) fn set_checks(&self, checks: Vec<Check>) {
        self.update(|report| report.checks = checks);
    }

    pub(crate) fn enrolled(&self, pod_netns: &PodNetns, checks: Vec<Check>) {
        self.update(|report| {
            enter(report, PodState::Enrolled);
            report.reason.clear();
            report.checks = checks;
            report.netns = pod_netns.netns.id().ino.to_string();
            report.cookie = Some(pod_netns.cookie);
        });
    }

    pub(crate) fn outside(&self, reason: &str) {
        self.update(|report| {
            enter(report, PodState::NotSelected);
            reason.clone_into(&mut report.reason);
            report.checks.clear();
            report.hazards.clear();
            report.netns.clear();
            // All of it: facts of a namespace that the mesh has left would look like a proof.
            report.cookie = None;
        });
    }

    fn update(&self, change: impl FnOnce(&mut PodReport)) {
        if let Some(report) = self.0.reports.0.reports.lock().get_mut(&self.0.key) {
            change(report);
        }
        // Outside of the lock, as those who are woken take it.
        self.0.reports.note_change();
    }
}

fn enter(report: &mut PodReport, state: PodState) {
    if report.state != state {
        report.state = state;
        report.since = now();
    }
}

fn now() -> String {
    OffsetDateTime::from(SystemTime::now()).format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn before_somebody_has_looked_nothing_is_said_of_a_pod() {
        let reports = Reports::default();

        let _view = reports.view(&crate::enrol::tests::pod());

        let pods = reports.node("n").pods;
        assert_eq!(pods[0].state, PodState::Unknown);
        assert!(!pods[0].reason.is_empty());
    }
}
