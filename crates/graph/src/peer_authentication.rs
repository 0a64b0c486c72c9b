//! PeerAuthentication: the mode that holds for a workload, and the policies that enforce it.
//!
//! Plaintext has no identity, so STRICT is a DENY policy for peers without one. DISABLE means
//! PERMISSIVE: who is enrolled is always reachable by mutual TLS.
//!
//! Istio's control plane, below a STRICT mesh, never sends the policy of a PERMISSIVE workload with a
//! STRICT port while the workload refers to it: the port stays open. Here a policy that a workload may
//! refer to is always sent.
//!
//! Of several for the same workloads the oldest decides; where none says when it was created, the first by name.

use std::collections::BTreeMap;

use kube_types::istio::{PeerAuthentication, TlsMode};
use kube_types::{StringMap, is_subset};
use proto::security::string_match::MatchType;
use proto::security::{Action, Authorization, Clause, Match, Rule, Scope, StringMatch};

use crate::enforcement::Effect;
use crate::finding::Reason;
use crate::mesh::Mesh;

/// Name of the policy for workloads that are STRICT on every port.
pub(crate) const STATIC_STRICT: &str = "istio_converted_static_strict";
const CONVERTED_PREFIX: &str = "converted_peer_authentication_";

/// All resources of the mesh, by namespace and name.
pub(crate) type ByNamespace = BTreeMap<String, BTreeMap<String, std::sync::Arc<PeerAuthentication>>>;

/// The policies that decide for a workload.
#[derive(Debug, Default)]
pub(crate) struct Levels<'a> {
    pub(crate) workload: Option<&'a PeerAuthentication>,
    pub(crate) namespace: Option<&'a PeerAuthentication>,
    pub(crate) mesh: Option<&'a PeerAuthentication>,
}

/// Labels of the selector; `None` for an empty one, which selects the whole namespace.
pub(crate) fn selector(policy: &PeerAuthentication) -> Option<&StringMap> {
    policy.spec.selector.as_ref().map(|selector| &selector.match_labels).filter(|labels| !labels.is_empty())
}

/// Older first; without a time of creation, by name.
fn age(policy: &PeerAuthentication) -> (&Option<String>, &str) {
    (&policy.metadata.creation_timestamp, &policy.metadata.name)
}

fn oldest<'a>(
    policies: &'a ByNamespace,
    namespace: &str,
    admits: impl Fn(&PeerAuthentication) -> bool,
) -> Option<&'a PeerAuthentication> {
    policies
        .get(namespace)?
        .values()
        .map(AsRef::as_ref)
        .filter(|policy| admits(policy))
        .min_by(|left, right| age(left).cmp(&age(right)))
}

/// The policies without a selector that hold in a namespace.
pub(crate) fn inherited<'a>(mesh: &Mesh, policies: &'a ByNamespace, namespace: &str) -> Levels<'a> {
    let wide = |namespace| oldest(policies, namespace, |policy| selector(policy).is_none());
    Levels {
        workload: None,
        namespace: (namespace != mesh.root_namespace).then(|| wide(namespace)).flatten(),
        mesh: wide(&mesh.root_namespace),
    }
}

/// The policies that decide for a workload with these labels. In the root namespace selectors count
/// for nothing.
pub(crate) fn levels<'a>(mesh: &Mesh, policies: &'a ByNamespace, namespace: &str, labels: &StringMap) -> Levels<'a> {
    let workload = (namespace != mesh.root_namespace)
        .then(|| {
            oldest(policies, namespace, |policy| selector(policy).is_some_and(|selector| is_subset(selector, labels)))
        })
        .flatten();
    Levels { workload, ..inherited(mesh, policies, namespace) }
}

/// The policies with a selector that matches these labels.
pub(crate) fn selecting<'a>(
    mesh: &Mesh,
    policies: &'a ByNamespace,
    namespace: &str,
    labels: &'a StringMap,
) -> impl Iterator<Item = &'a PeerAuthentication> {
    let policies = (namespace != mesh.root_namespace).then(|| policies.get(namespace)).flatten();
    let policies = policies.into_iter().flat_map(BTreeMap::values).map(AsRef::as_ref);
    policies.filter(|policy| selector(policy).is_some_and(|selector| is_subset(selector, labels)))
}

/// An older policy that decides for every workload that this one could decide for.
pub(crate) fn older<'a>(
    mesh: &Mesh,
    policies: &'a ByNamespace,
    policy: &PeerAuthentication,
) -> Option<&'a PeerAuthentication> {
    let labels = selector(policy);
    if labels.is_some() && policy.metadata.namespace == mesh.root_namespace {
        return None;
    }
    let oldest = oldest(policies, &policy.metadata.namespace, |other| match (selector(other), labels) {
        (None, None) => true,
        (Some(theirs), Some(labels)) => is_subset(theirs, labels),
        (None, Some(_)) | (Some(_), None) => false,
    });
    oldest.filter(|oldest| oldest.metadata.name != policy.metadata.name)
}

/// Place of a policy among others for the same workloads.
pub(crate) enum Standing<'a> {
    Counts,
    /// Another policy, this one, takes precedence.
    Shadowed(&'a PeerAuthentication),
}

/// A part of a policy that has no effect, or another one than it says.
#[derive(Debug)]
pub(crate) struct Loss {
    pub(crate) reason: Reason,
    /// Path of the field.
    pub(crate) field: &'static str,
    pub(crate) message: String,
}

/// Returns the effect of a policy, and its parts that have no effect or another one than they say.
pub(crate) fn effect(mesh: &Mesh, policy: &PeerAuthentication, standing: Standing<'_>) -> (Effect, Vec<Loss>) {
    let nothing = |reason, code, message: &str| {
        (Effect::nothing(code, message), vec![Loss { reason, field: "spec", message: message.to_owned() }])
    };
    if selector(policy).is_some() && policy.metadata.namespace == mesh.root_namespace {
        let message = "selectors are ignored in the root namespace: the policy has no effect";
        return nothing(Reason::Ignored, "Ignored", message);
    }
    if let Standing::Shadowed(other) = standing {
        let name = &other.metadata.name;
        let why = if other.metadata.creation_timestamp == policy.metadata.creation_timestamp {
            format!("{name} was created at the same time and sorts first by name")
        } else {
            format!("{name} is older and takes precedence")
        };
        return nothing(Reason::Shadowed, "Shadowed", &format!("ignored: {why}"));
    }
    let mut losses = Vec::new();
    let ports = policy.spec.port_level_mtls.values().any(|port| port.mode != TlsMode::Unset);
    if ports && selector(policy).is_none() {
        let message = "portLevelMtls requires a selector: its ports use mtls.mode".to_owned();
        losses.push(Loss { reason: Reason::Ignored, field: "spec.portLevelMtls", message });
    }
    let modes = policy.spec.port_level_mtls.values().chain(&policy.spec.mtls);
    if modes.into_iter().any(|port| port.mode == TlsMode::Disable) {
        let message = "DISABLE is treated as PERMISSIVE: workloads in the mesh always accept mutual TLS";
        losses.push(Loss { reason: Reason::Ignored, field: "spec", message: message.to_owned() });
    }
    let own = mode(Some(policy));
    let what = match (own, ports && selector(policy).is_some()) {
        (TlsMode::Strict, false) => "STRICT",
        (TlsMode::Strict, true) => "STRICT with the exceptions of portLevelMtls",
        (TlsMode::Permissive | TlsMode::Disable, false) => "PERMISSIVE (plaintext is accepted)",
        (TlsMode::Permissive | TlsMode::Disable, true) => {
            "PERMISSIVE (plaintext is accepted) with the exceptions of portLevelMtls"
        }
        (TlsMode::Unset, true) => "portLevelMtls",
        (TlsMode::Unset, false) => {
            let message = "mtls.mode is not set: the policy has no effect";
            return (Effect::nothing("NothingSet", message), losses);
        }
    };
    let how = losses.iter().map(|loss| loss.message.as_str()).collect::<Vec<_>>().join("; ");
    let effect = if how.is_empty() { Effect::whole(what) } else { Effect::partial(what, how) };
    (effect, losses)
}

/// Ports for which a policy sets a mode of their own.
pub(crate) fn ports(policy: &PeerAuthentication) -> impl Iterator<Item = u16> {
    let set = policy.spec.port_level_mtls.iter().filter(|(_, port)| port.mode != TlsMode::Unset);
    set.map(|(port, _)| *port).filter(|_| selector(policy).is_some())
}

/// Returns true if a policy sets a mode for all ports of a workload.
pub(crate) fn sets_mode(policy: &PeerAuthentication) -> bool {
    mode(Some(policy)) != TlsMode::Unset
}

fn mode(policy: Option<&PeerAuthentication>) -> TlsMode {
    policy.and_then(|policy| policy.spec.mtls).map_or(TlsMode::Unset, |mtls| mtls.mode)
}

impl<'a> Levels<'a> {
    /// The policies whose modes hold for a workload: the first that sets one for the whole workload, and the workload's
    /// own when it sets some for ports.
    pub(crate) fn deciding(&self) -> Vec<&'a PeerAuthentication> {
        let sets_ports =
            |policy: &&PeerAuthentication| policy.spec.port_level_mtls.values().any(|port| port.mode != TlsMode::Unset);
        let ports = self.workload.filter(sets_ports).filter(|policy| mode(Some(policy)) == TlsMode::Unset);
        let levels = [self.workload, self.namespace, self.mesh];
        let whole = levels.into_iter().flatten().find(|policy| mode(Some(policy)) != TlsMode::Unset);
        ports.into_iter().chain(whole).collect()
    }

    /// Returns true if a workload inherits STRICT.
    fn inherits_strict(&self) -> bool {
        let decides = [mode(self.namespace), mode(self.mesh)].into_iter().find(|mode| *mode != TlsMode::Unset);
        decides == Some(TlsMode::Strict)
    }

    /// Resource name of the policy that the workload has to refer to, if any.
    pub(crate) fn reference(&self, mesh: &Mesh) -> Option<String> {
        if let Some(policy) = self.workload
            && let Some(converted) = convert(policy, self)
        {
            return Some(format!("{}/{}", converted.namespace, converted.name));
        }
        self.is_strict().then(|| format!("{}/{STATIC_STRICT}", mesh.root_namespace))
    }

    fn is_strict(&self) -> bool {
        match mode(self.workload) {
            TlsMode::Strict => true,
            TlsMode::Permissive | TlsMode::Disable => false,
            TlsMode::Unset => self.inherits_strict(),
        }
    }
}

/// The policy of a PeerAuthentication whose ports differ from the rest; `levels` says what it inherits.
pub(crate) fn convert(policy: &PeerAuthentication, levels: &Levels<'_>) -> Option<Authorization> {
    selector(policy)?;
    let own = mode(Some(policy));
    let strict = match own {
        TlsMode::Strict => true,
        TlsMode::Permissive | TlsMode::Disable => false,
        TlsMode::Unset => levels.inherits_strict(),
    };
    let differing: Vec<u32> = policy
        .spec
        .port_level_mtls
        .iter()
        .filter(|(_, port)| match port.mode {
            TlsMode::Unset => false,
            TlsMode::Strict => !strict,
            TlsMode::Permissive | TlsMode::Disable => strict,
        })
        .map(|(port, _)| (*port).into())
        .collect();
    if differing.is_empty() {
        return None;
    }
    let rules = if strict {
        vec![all_but(&differing, own == TlsMode::Strict)]
    } else {
        differing.into_iter().map(only).collect()
    };
    let meta = &policy.metadata;
    Some(Authorization { name: format!("{CONVERTED_PREFIX}{}", meta.name), rules, ..deny(&meta.namespace) })
}

/// The policy for workloads that are STRICT on every port.
pub(crate) fn static_strict(mesh: &Mesh) -> Authorization {
    Authorization {
        name: STATIC_STRICT.to_owned(),
        rules: vec![Rule { clauses: vec![clause(plaintext())] }],
        ..deny(&mesh.root_namespace)
    }
}

fn deny(namespace: &str) -> Authorization {
    Authorization {
        namespace: namespace.to_owned(),
        scope: Scope::WorkloadSelector.into(),
        action: Action::Deny.into(),
        ..Authorization::default()
    }
}

/// Matches peers without an identity on any port but these.
fn all_but(ports: &[u32], plaintext_first: bool) -> Rule {
    let mut clauses: Vec<_> =
        ports.iter().map(|port| clause(Match { not_destination_ports: vec![*port], ..Match::default() })).collect();
    let position = if plaintext_first { 0 } else { clauses.len() };
    clauses.insert(position, clause(plaintext()));
    Rule { clauses }
}

/// Matches peers without an identity on this port.
fn only(port: u32) -> Rule {
    Rule { clauses: vec![clause(Match { destination_ports: vec![port], ..plaintext() })] }
}

fn plaintext() -> Match {
    Match { not_principals: vec![StringMatch { match_type: Some(MatchType::Presence(())) }], ..Match::default() }
}

fn clause(part: Match) -> Clause {
    Clause { matches: vec![part] }
}
