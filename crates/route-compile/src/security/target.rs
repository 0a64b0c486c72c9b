//! Targets of a policy: what a waypoint serves, or workloads.

use kube_types::istio::{PolicyTargetReference, WorkloadSelector};
use kube_types::{ObjectMeta, StringMap};
use route::Origin;

use super::Settings;
use crate::finding::{Findings, Reason};

/// Object that a policy is attached to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// Every service of the waypoint.
    Gateway {
        namespace: String,
        name: String,
    },
    /// Every waypoint of the class.
    GatewayClass {
        name: String,
    },
    Service {
        namespace: String,
        name: String,
    },
    ServiceEntry {
        namespace: String,
        name: String,
    },
    /// Workloads with all labels, in one namespace or in all. Node proxies enforce it for them; a waypoint does only where it
    /// is asked to.
    Workloads {
        namespace: Option<String>,
        labels: StringMap,
    },
}

/// The fields that name targets.
pub(super) struct References<'a> {
    pub(super) selector: Option<&'a WorkloadSelector>,
    /// Deprecated form of `target_refs`.
    pub(super) target_ref: Option<&'a PolicyTargetReference>,
    pub(super) target_refs: &'a [PolicyTargetReference],
}

impl References<'_> {
    /// Targets of an object. One that cannot have a policy is reported and left out.
    pub(super) fn targets(
        &self,
        settings: &Settings,
        meta: &ObjectMeta,
        at: &Origin,
        findings: &mut Findings,
    ) -> Vec<Target> {
        let deprecated = self.target_ref.map(|of| ("spec.targetRef".to_owned(), of));
        let refs = self.target_refs.iter().enumerate().map(|(index, of)| (format!("spec.targetRefs[{index}]"), of));
        let refs: Vec<_> = deprecated.into_iter().chain(refs).collect();
        if refs.is_empty() {
            let namespace = (meta.namespace != settings.root_namespace).then(|| meta.namespace.clone());
            let labels = self.selector.map(|selector| selector.match_labels.clone()).unwrap_or_default();
            return vec![Target::Workloads { namespace, labels }];
        }
        if self.selector.is_some() {
            let message = "selector and targetRefs are mutually exclusive: the selector is ignored";
            findings.add(Reason::Invalid, at, "spec.selector", message);
        }
        let mut targets = Vec::new();
        for (field, reference) in refs {
            match target(settings, meta, reference) {
                Ok(target) if targets.contains(&target) => {}
                Ok(target) => targets.push(target),
                Err((reason, message)) => {
                    findings.add(reason, at, &field, format!("{message}: the policy is not enforced for it"));
                }
            }
        }
        targets
    }
}

fn target(
    settings: &Settings,
    meta: &ObjectMeta,
    reference: &PolicyTargetReference,
) -> Result<Target, (Reason, String)> {
    let PolicyTargetReference { group, kind, name, namespace } = reference;
    if name.is_empty() {
        return Err((Reason::Invalid, "expected a name".to_owned()));
    }
    if !namespace.is_empty() && *namespace != meta.namespace {
        let own = &meta.namespace;
        return Err((Reason::Invalid, format!("namespace {namespace:?} is not that of the policy, {own:?}")));
    }
    let (namespace, name) = (meta.namespace.clone(), name.clone());
    match (group.as_str(), kind.as_str()) {
        ("gateway.networking.k8s.io", "Gateway") => Ok(Target::Gateway { namespace, name }),
        ("gateway.networking.k8s.io", "GatewayClass") if namespace != settings.root_namespace => {
            let root = &settings.root_namespace;
            Err((Reason::Invalid, format!("only policies of the root namespace {root:?} may be for a GatewayClass")))
        }
        ("gateway.networking.k8s.io", "GatewayClass") if !settings.waypoint_classes.contains(&name) => {
            let known = settings.waypoint_classes.join(", ");
            Err((
                Reason::Unsupported,
                format!("class {name:?} has no waypoints of this mesh, expected one of: {known}"),
            ))
        }
        ("gateway.networking.k8s.io", "GatewayClass") => Ok(Target::GatewayClass { name }),
        ("" | "core", "Service") => Ok(Target::Service { namespace, name }),
        ("networking.istio.io", "ServiceEntry") => Ok(Target::ServiceEntry { namespace, name }),
        _ => {
            let expected = "expected Service, ServiceEntry, Gateway or GatewayClass with their API groups";
            Err((Reason::Unsupported, format!("unsupported kind {kind:?} of group {group:?}, {expected}")))
        }
    }
}
