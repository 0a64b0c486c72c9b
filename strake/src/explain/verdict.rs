//! The end of a way: an endpoint, and what is decided there.

use std::net::SocketAddr;

use model::view;
use policy::{Decision, PolicyTrace};
use serde::Serialize;

use super::{render::rule_text, world::Verdict};

/// The connection to one endpoint.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Path {
    /// `NAMESPACE/NAME` of the workload, or the address of something outside of the mesh.
    pub(crate) endpoint: String,
    pub(crate) node: String,
    pub(crate) address: Option<SocketAddr>,
    /// `HBONE`: in a tunnel, both sides authenticated. `TCP`: in plaintext.
    pub(crate) protocol: &'static str,
    /// `None`: it cannot be told.
    pub(crate) allowed: Option<bool>,
    /// Side that decides.
    pub(crate) decided_by: String,
    pub(crate) reason: String,
    pub(crate) policies: Vec<PolicyView>,
}

/// A policy and its rules.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PolicyView {
    pub(crate) policy: String,
    pub(crate) action: String,
    pub(crate) dry_run: bool,
    pub(crate) matches: bool,
    /// A text for each rule.
    pub(crate) rules: Vec<String>,
}

/// The verdict in words.
pub(super) fn judged(verdict: &Verdict) -> (Option<bool>, String, Vec<PolicyView>) {
    match verdict {
        Verdict::NotCaptured => {
            (Some(true), "the endpoint is not in the mesh: no policy of the mesh applies to it".to_owned(), Vec::new())
        }
        Verdict::Unknown(reason) => (None, reason.clone(), Vec::new()),
        Verdict::Decided(trace) => {
            let reason = match &trace.decision {
                Decision::Allow { by: policy::AllowedBy::NoPolicies } => {
                    "no ALLOW policy applies to it, and no DENY policy matches".to_owned()
                }
                Decision::Allow { by: policy::AllowedBy::Policy(policy) } => format!("allowed by {policy}"),
                Decision::Deny { reason, .. } => format!("{reason} ({})", reason.code()),
            };
            let policies = trace.policies.iter().map(PolicyView::new).collect();
            (Some(trace.decision.is_allowed()), reason, policies)
        }
    }
}

impl PolicyView {
    fn new(trace: &PolicyTrace) -> Self {
        let PolicyTrace { policy, matches, rules } = trace;
        Self {
            policy: policy.to_string(),
            action: format!("{:?}", policy.action).to_uppercase(),
            dry_run: policy.dry_run,
            matches: *matches,
            rules: rules.iter().map(rule_text).collect(),
        }
    }
}

impl Path {
    pub(super) fn outside(address: SocketAddr) -> Self {
        Self {
            endpoint: address.to_string(),
            node: String::new(),
            address: Some(address),
            protocol: "TCP",
            allowed: Some(true),
            decided_by: "nobody".to_owned(),
            reason: "the address is not one of the mesh: the connection passes as the application sends it".to_owned(),
            policies: Vec::new(),
        }
    }

    pub(super) fn waypoint(route: &view::Route) -> Self {
        let (endpoint, node) = match &route.workload {
            Some(workload) => (format!("{}/{}", workload.namespace, workload.name), workload.node.to_string()),
            None => (route.dial.to_string(), String::new()),
        };
        Self {
            decided_by: format!("waypoint {endpoint}"),
            endpoint,
            node,
            address: route.dial.address(),
            protocol: "HBONE",
            allowed: None,
            reason: "the waypoint chooses the endpoint and decides by its own policies, which are not seen from here"
                .to_owned(),
            policies: Vec::new(),
        }
    }
}
