//! Counters of the agent. Names that Istio's agent has keep them; ours begin with `strake_agent_`.

use std::time::Duration;

use ::metrics::{counter, gauge, histogram};
use contract::cni::Outcome;

/// Live proxy connections.
pub fn proxies_connected(count: usize) {
    gauge!("ztunnel_connected").set(count as f64);
}

/// An answer to a CNI plugin. Istio's name and label, as Istio's plugin asks: for pods that belong into the mesh only, so that
/// every other code than 200 is a pod that has to wait.
pub(crate) fn cni_request(outcome: Outcome, took: Duration) {
    counter!("strake_agent_cni_answers_total", "outcome" => outcome.as_str()).increment(1);
    if outcome != Outcome::NotSelected {
        let status = outcome.status().to_string();
        counter!("istio_cni_plugin_requests_total", "response_code" => status).increment(1);
        histogram!("strake_agent_cni_request_duration_seconds").record(took.as_secs_f64());
    }
}

/// Result of the plugin's installation, when it changes. Name and label are Istio's.
pub(crate) fn cni_install(result: &'static str) {
    counter!("istio_cni_installs_total", "result" => result).increment(1);
}

/// State of the plugin's installation. The name is Istio's.
pub(crate) fn cni_install_ready(is_ready: bool) {
    gauge!("istio_cni_install_ready").set(f64::from(u8::from(is_ready)));
}

/// The configuration with the plugin was written: it was not there, or differed from what it has to be.
pub(crate) fn cni_configuration_written() {
    counter!("strake_agent_cni_configurations_written_total").increment(1);
}

/// The node had the startup taint, and has it no longer.
pub(crate) fn startup_taint_removed() {
    counter!("strake_agent_startup_taints_removed_total").increment(1);
}

/// A CNI plugin waits for its answer, until this is dropped.
pub(crate) struct Waiting(());

impl Waiting {
    pub(crate) fn begin() -> Self {
        gauge!("strake_agent_cni_requests_waiting").increment(1);
        Self(())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        gauge!("strake_agent_cni_requests_waiting").decrement(1);
    }
}

/// A change of a pod on this node: `add`, `update` or `delete`.
pub fn reconcile(kind: &'static str) {
    counter!("nodeagent_reconcile_events_total", "type" => kind).increment(1);
}

pub(crate) fn enrolled(took: Duration) {
    counter!("strake_agent_enrolments_total").increment(1);
    histogram!("strake_agent_enrolment_duration_seconds").record(took.as_secs_f64());
}

pub(crate) fn left() {
    counter!("strake_agent_departures_total").increment(1);
}

pub(crate) fn withdrawn() {
    counter!("strake_agent_withdrawals_total").increment(1);
}

/// Counts a pod that is annotated as enrolled and is not served by the proxy any more.
pub(crate) fn unserved() {
    counter!("strake_agent_unserved_total").increment(1);
}

/// Counts a pod that is annotated as enrolled and whose traffic may bypass the proxy.
pub(crate) fn broken() {
    counter!("strake_agent_broken_total").increment(1);
}

/// Counts a pod that is annotated as enrolled and whose routing does not lead to the proxy; its traffic is dropped.
pub(crate) fn blocked() {
    counter!("strake_agent_blocked_total").increment(1);
}

/// Counts a pod that is annotated as enrolled and could not be verified.
pub(crate) fn unverified() {
    counter!("strake_agent_unverified_total").increment(1);
}

/// A fact of a pod could not be read; `check` is a `Fact`'s name.
pub(crate) fn unreadable(check: &'static str) {
    counter!("strake_agent_unreadable_total", "check" => check).increment(1);
}

/// Something was found in an enrolled pod that may take connections from the proxy.
pub(crate) fn hazard() {
    counter!("strake_agent_hazards_total").increment(1);
}

/// Changes to a pod's routing are noticed by polling only.
pub(crate) fn unwatched() {
    counter!("strake_agent_unwatched_total").increment(1);
}

/// Somebody else had changed the annotation of an enrolled pod.
pub(crate) fn annotation_corrected() {
    counter!("strake_agent_annotations_corrected_total").increment(1);
}

pub(crate) fn drain_expired() {
    counter!("strake_agent_drain_expired_total").increment(1);
}

pub(crate) fn step_failed(code: &'static str) {
    counter!("strake_agent_step_failures_total", "code" => code).increment(1);
}

/// A fact of an enrolled pod did not hold; `check` is its name.
pub(crate) fn repair(check: &'static str) {
    counter!("strake_agent_repairs_total", "check" => check).increment(1);
}

/// A pod's facts were read back, whatever they were.
pub(crate) fn proved() {
    counter!("strake_agent_proofs_total").increment(1);
}

/// A look at the kernel's links, which serves the proofs of all pods.
pub(crate) fn surveyed(took: Duration) {
    counter!("strake_agent_surveys_total").increment(1);
    histogram!("strake_agent_survey_duration_seconds").record(took.as_secs_f64());
}

/// A pod's task ended by a defect and was started anew.
pub(crate) fn task_lost() {
    counter!("strake_agent_tasks_lost_total").increment(1);
}

/// The kernel's counters could not be read: those shown are old.
pub(crate) fn steering_unread() {
    counter!("strake_agent_steering_unread_total").increment(1);
}

/// A proxy was not admitted; `reason` is a fixed code.
pub fn proxy_refused(reason: &'static str) {
    counter!("strake_agent_proxies_refused_total", "reason" => reason).increment(1);
}

/// Pods of the node in each state.
pub fn pods(state: &'static str, count: usize) {
    gauge!("strake_agent_pods", "state" => state).set(count as f64);
}

/// A counter of the kernel programs.
pub fn steering(name: &'static str, value: u64) {
    counter!("strake_agent_steering_total", "event" => name).absolute(value);
}

/// Further addresses of pods that the kernel programs have learnt, and pods that have used up their share of them.
pub(crate) fn further_addresses(known: usize, pods_full: usize) {
    gauge!("strake_agent_further_addresses").set(known as f64);
    gauge!("strake_agent_further_addresses_full_pods").set(pods_full as f64);
}

/// Further addresses that were forgotten, because nothing arrived for them any more.
pub(crate) fn further_addresses_forgotten(count: usize) {
    counter!("strake_agent_further_addresses_forgotten_total").increment(count as u64);
}

/// Files of the source that have a mistake.
pub fn source_problems(count: usize) {
    gauge!("strake_agent_source_problems").set(count as f64);
}
