//! PeerAuthentication: the mode that holds for a workload, in `convert` the policies that enforce it, and in `effect` the
//! effect of each resource.
//!
//! Plaintext has no identity, so STRICT is a DENY policy for peers without one. DISABLE means
//! PERMISSIVE: enrolled workloads always accept mutual TLS.
//!
//! Istio's control plane, below a STRICT mesh, never sends the policy of a PERMISSIVE workload with a
//! STRICT port while the workload refers to it: the port stays open. Here a policy that a workload may
//! refer to is always sent.
//!
//! Of several for the same workloads the oldest takes precedence; without a creation time, the first by name.

mod convert;
mod effect;

use std::collections::BTreeMap;

use kube_types::istio::{PeerAuthentication, TlsMode};
use kube_types::{StringMap, is_subset};

use crate::mesh::Mesh;
pub(crate) use convert::{STATIC_STRICT, convert, static_strict};
pub(crate) use effect::{Precedence, effect};

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
        // As Istio: of several the oldest wins.
        .min_by(|left, right| age(left).cmp(&age(right)))
}

/// The policies without a selector that hold in a namespace.
pub(crate) fn inherited<'a>(mesh: &Mesh, policies: &'a ByNamespace, namespace: &str) -> Levels<'a> {
    let wide = |namespace| oldest(policies, namespace, |policy| selector(policy).is_none());
    Levels {
        workload: None,
        // For workloads of the root namespace itself its policy is that of the mesh, and would count twice.
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
    // It has no effect at all, which is another finding.
    if labels.is_some() && policy.metadata.namespace == mesh.root_namespace {
        return None;
    }
    // A selector that is a part of this one selects all workloads of this one, and perhaps others.
    let oldest = oldest(policies, &policy.metadata.namespace, |other| match (selector(other), labels) {
        (None, None) => true,
        (Some(theirs), Some(labels)) => is_subset(theirs, labels),
        // Of different breadth: the narrower one wins whatever its age.
        (None, Some(_)) | (Some(_), None) => false,
    });
    oldest.filter(|oldest| oldest.metadata.name != policy.metadata.name)
}

/// Ports for which a policy sets a mode of their own.
pub(crate) fn ports(policy: &PeerAuthentication) -> impl Iterator<Item = u16> {
    // UNSET for a port means the mode of the workload, which is no mode of its own.
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
        // It decides for its ports although its mode for the rest comes from another policy. With a mode of its own it
        // is found below.
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
        // Never both: the converted policy already refuses plaintext on the ports that are strict.
        if let Some(policy) = self.workload
            && let Some(converted) = convert(policy, self)
        {
            return Some(converted.resource_name());
        }
        self.is_strict().then(|| format!("{}/{STATIC_STRICT}", mesh.root_namespace))
    }

    fn is_strict(&self) -> bool {
        match mode(self.workload) {
            TlsMode::Strict => true,
            // Set explicitly for the workload, and so before what the namespace or the mesh says.
            TlsMode::Permissive | TlsMode::Disable => false,
            TlsMode::Unset => self.inherits_strict(),
        }
    }
}
