//! Kinds that exist and are not read here: which of them protect or route traffic, and which are typing errors.

use kube_types::Kind;
use kube_types::similar::nearest;

/// Effect of a kind where it is supported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unread {
    /// Its author relies on it for protection.
    Protects,
    /// It decides where traffic goes.
    Routes,
    Other,
}

/// Groups of which all kinds are known: the kinds that are not read. Those that are read are in [`Kind`].
const GROUPS: [(&str, &[&str]); 11] = [
    (
        "",
        &[
            "Binding",
            "ComponentStatus",
            "Endpoints",
            "Event",
            "LimitRange",
            "List",
            "PersistentVolume",
            "PodTemplate",
            "ReplicationController",
            "ResourceQuota",
        ],
    ),
    ("apps", &["ControllerRevision"]),
    ("batch", &["CronJob"]),
    // `EndpointSlice`, its only kind, is read.
    ("discovery.k8s.io", &[]),
    ("autoscaling", &["HorizontalPodAutoscaler", "Scale"]),
    ("policy", &["Eviction", "PodDisruptionBudget", "PodSecurityPolicy"]),
    ("rbac.authorization.k8s.io", &["ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"]),
    ("networking.k8s.io", &["IPAddress", "Ingress", "IngressClass", "NetworkPolicy", "ServiceCIDR"]),
    (
        "storage.k8s.io",
        &["CSIDriver", "CSINode", "CSIStorageCapacity", "StorageClass", "VolumeAttachment", "VolumeAttributesClass"],
    ),
    ("security.istio.io", &["RequestAuthentication"]),
    ("networking.istio.io", &["EnvoyFilter", "Gateway", "ProxyConfig", "Sidecar", "WorkloadGroup"]),
];

/// Groups that had kinds which are read, under the same names.
// `extensions/v1beta1` had Deployments, DaemonSets and Ingresses until Kubernetes 1.15 and 1.21; old manifests still
// say so.
const FORMER_GROUPS: [&str; 1] = ["extensions"];

/// Returns true if the name cannot mean another kind in this group, which is not the kind's own. A group that is nearly
/// the kind's own is a typing error.
pub(crate) fn is_elsewhere(kind: Kind, group: &str) -> bool {
    FORMER_GROUPS.contains(&group)
        || GROUPS.iter().any(|(known, unread)| *known == group && !unread.contains(&kind.name()))
        || !kind.group().is_empty() && nearest(group, [kind.group()]).is_some()
}

/// Effect that a kind has where it is supported; of a kind that does not exist, the one that was meant.
pub(crate) fn of(group: &str, kind: &str) -> Result<Unread, Option<&'static str>> {
    // Of these groups all kinds are known, so an unknown one is a typing error.
    if let Some((_, unread)) = GROUPS.iter().find(|(known, _)| *known == group)
        && !unread.contains(&kind)
    {
        let read = Kind::ALL.iter().copied().filter(|known| known.group() == group).map(Kind::name);
        let mut known: Vec<_> = read.chain(unread.iter().copied()).collect();
        known.sort_unstable();
        return Err(nearest(kind, known));
    }
    Ok(effect(group, kind))
}

fn effect(group: &str, kind: &str) -> Unread {
    // By the ends of names, since kinds of other vendors (`CiliumNetworkPolicy`, `TCPRoute`) cannot all be listed.
    let ends = |suffixes: &[&str]| suffixes.iter().any(|suffix| kind.ends_with(suffix));
    if group == "security.istio.io"
        || kind == "EnvoyFilter"
        || ends(&["NetworkPolicy", "AuthorizationPolicy", "ClusterwideNetworkPolicy", "ServiceIntentions"])
        || group == "policy.linkerd.io"
    {
        return Unread::Protects;
    }
    let is_route = ends(&["Route", "Gateway", "BackendTrafficPolicy", "BackendTLSPolicy", "TrafficSplit"]);
    if group == "networking.istio.io" || is_route || kind == "Ingress" && group == "networking.k8s.io" {
        return Unread::Routes;
    }
    Unread::Other
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_error_is_told_from_a_kind_that_is_not_read() {
        assert_eq!(of("", "pod"), Err(Some("Pod")));
        assert_eq!(of("", "Endpoints"), Ok(Unread::Other));
        assert_eq!(of("", "Frobnicator"), Err(None));
        assert_eq!(of("security.istio.io", "AuthorizationPolicies"), Err(Some("AuthorizationPolicy")));
        assert_eq!(of("example.com", "Anything"), Ok(Unread::Other));
    }

    #[test]
    fn kinds_that_protect_or_route_are_known() {
        assert_eq!(of("networking.k8s.io", "NetworkPolicy"), Ok(Unread::Protects));
        assert_eq!(of("cilium.io", "CiliumNetworkPolicy"), Ok(Unread::Protects));
        assert_eq!(of("security.istio.io", "RequestAuthentication"), Ok(Unread::Protects));
        assert_eq!(of("networking.istio.io", "Sidecar"), Ok(Unread::Routes));
        assert_eq!(of("networking.istio.io", "Gateway"), Ok(Unread::Routes));
        assert_eq!(of("gateway.networking.k8s.io", "TCPRoute"), Ok(Unread::Routes));
        assert_eq!(of("autoscaling", "HorizontalPodAutoscaler"), Ok(Unread::Other));
    }

    #[test]
    fn a_group_of_another_maker_may_have_a_kind_of_the_same_name() {
        assert!(!is_elsewhere(Kind::Service, "serving.knative.dev"));
        assert!(!is_elsewhere(Kind::AuthorizationPolicy, "policy.linkerd.io"));
        assert!(!is_elsewhere(Kind::Gateway, "networking.istio.io"));
        assert!(is_elsewhere(Kind::Deployment, "extensions"));
        assert!(is_elsewhere(Kind::AuthorizationPolicy, "securty.istio.io"));
        assert!(is_elsewhere(Kind::Pod, "apps"));
    }
}
