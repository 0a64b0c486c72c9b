//! Policies and callers of workloads, as a mesh knows them.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use anyhow::Result;
use contract::admin::control::{Finding, Policy};
use identity::Identity;
use model::Workload;
use policy::{AllowedBy, Decision, Trace};
use serde::Serialize;

use crate::{
    check::unenforced,
    explain::world::{Verdict, World, address_of, connection},
    mesh::Mesh,
};

/// Answers of a mesh.
pub(super) struct Asked {
    pub(super) world: World,
    pub(super) policies: Vec<Policy>,
    pub(super) findings: Vec<Finding>,
    pub(super) notes: Vec<String>,
}

/// Callers of a port.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PortView {
    /// Port of the pod; of a Service with that of the Service before it.
    pub(super) port: String,
    /// Reasons, each with the callers that are allowed for it.
    pub(super) allowed: BTreeMap<String, Vec<String>>,
    /// Reasons, each with the callers that are refused for it.
    pub(super) refused: BTreeMap<String, Vec<String>>,
    /// Reasons why it cannot be told.
    pub(super) unknown: Vec<String>,
}

/// A policy for the endpoint, as its proxy has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PolicyView {
    pub(super) policy: String,
    pub(super) action: String,
    pub(super) dry_run: bool,
    /// Message of the control plane when it is not enforced everywhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) unenforced: Option<String>,
}

impl Asked {
    /// Asks everything. What does not answer is a note: the rest is worth showing.
    pub(super) async fn ask(mesh: &Mesh) -> Result<Self> {
        let world = World::ask(mesh).await?;
        let mut notes: Vec<_> = world.silent.values().map(|reason| format!("not seen: {reason}")).collect();
        let mut said = |what: &str, error: anyhow::Error| notes.push(format!("not seen: {what}: {error:#}"));
        let policies = mesh.policies().await.unwrap_or_else(|error| {
            said("conditions of policies", error);
            Vec::new()
        });
        let findings = mesh.findings().await.unwrap_or_else(|error| {
            said("findings", error);
            Vec::new()
        });
        Ok(Self { world, policies, findings, notes })
    }

    pub(super) fn findings(&self, objects: &[String]) -> Vec<Finding> {
        self.findings.iter().filter(|finding| objects.contains(&finding.object)).cloned().collect()
    }

    /// Callers of a port of a workload.
    pub(super) fn callers(&self, workload: &Workload, label: String, port: u16, into: &mut PortView) {
        into.port = label;
        let Some(ip) = address_of(workload, None) else {
            into.unknown.push(format!("{}/{} has no address", workload.namespace, workload.name));
            return;
        };
        let destination = SocketAddr::new(ip, port);
        let mut callers: Vec<(String, IpAddr, Option<Identity>)> = Vec::new();
        for (identity, address) in self.world.identities() {
            let name = format!("{}/{}", identity.namespace(), identity.service_account());
            callers.push((name, address, Some(identity)));
        }
        // From an address that no policy names, unless one names all.
        callers.push(("plaintext".to_owned(), ip, None));
        for (name, source, identity) in callers {
            match self.world.verdict(workload, &connection(source, destination, identity)) {
                Verdict::NotCaptured => {
                    let reason = "not in the mesh: everybody who reaches it may call it".to_owned();
                    into.allowed.entry(reason).or_default();
                    return;
                }
                Verdict::Unknown(reason) => {
                    if !into.unknown.contains(&reason) {
                        into.unknown.push(reason);
                    }
                    return;
                }
                Verdict::Decided(trace) => {
                    let (side, reason) = reason(&trace, into);
                    let names = side.entry(reason).or_default();
                    if !names.contains(&name) {
                        names.push(name);
                    }
                }
            }
        }
    }

    pub(super) fn policies_of(&self, workload: &Workload) -> Vec<PolicyView> {
        let destination = SocketAddr::new(address_of(workload, None).unwrap_or(Ipv4Addr::LOCALHOST.into()), 0);
        let Verdict::Decided(trace) = self.world.verdict(workload, &connection(destination.ip(), destination, None))
        else {
            return Vec::new();
        };
        let view = |policy: &model::Authorization| PolicyView {
            policy: policy.to_string(),
            action: format!("{:?}", policy.action).to_uppercase(),
            dry_run: policy.dry_run,
            unenforced: self.unenforced(&policy.to_string()),
        };
        trace.policies.iter().map(|trace| view(&trace.policy)).collect()
    }

    fn unenforced(&self, key: &str) -> Option<String> {
        let object = format!("AuthorizationPolicy {key}");
        let policy = self.policies.iter().find(|policy| policy.object == object)?;
        unenforced(policy.clone()).map(|unenforced| unenforced.status_text())
    }
}

/// The side of a decision, and its reason in words.
fn reason<'a>(trace: &Trace, into: &'a mut PortView) -> (&'a mut BTreeMap<String, Vec<String>>, String) {
    match &trace.decision {
        Decision::Allow { by: AllowedBy::NoPolicies } => (&mut into.allowed, "no policy refuses them".to_owned()),
        Decision::Allow { by: AllowedBy::Policy(policy) } => (&mut into.allowed, format!("by {policy}")),
        Decision::Deny { reason, .. } => (&mut into.refused, reason.to_string()),
    }
}
