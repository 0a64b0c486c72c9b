//! Selection of pods for the mesh, by their labels and their namespace's. A selected pod is in the mesh only once the
//! agent has read its enrolment back from the kernel; see the annotation `ambient.istio.io/redirection`.

use std::fmt;

use contract::labels::{DATAPLANE_MODE_LABEL, REDIRECTION_ANNOTATION, REDIRECTION_ENABLED, SIDECAR_STATUS_ANNOTATION};
use kube_types::core::{Namespace, Pod};

/// Result of the selection of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enrolment {
    Selected,
    NotSelected { reason: Reason },
}

impl Enrolment {
    pub const fn is_selected(self) -> bool {
        matches!(self, Self::Selected)
    }
}

/// Reason why a pod is not selected for the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Neither the pod nor its namespace has the label.
    NotLabelled,
    /// The pod's own label says otherwise.
    OptedOut,
    ExcludedNamespace,
    HostNetwork,
    /// The pod has a sidecar proxy.
    Sidecar,
    /// The pod is the node proxy.
    NodeProxy,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Self; 6] =
        [Self::NotLabelled, Self::OptedOut, Self::ExcludedNamespace, Self::HostNetwork, Self::Sidecar, Self::NodeProxy];

    /// Stable: metric label, log key.
    pub const fn code(self) -> &'static str {
        match self {
            Self::NotLabelled => "not_labelled",
            Self::OptedOut => "opted_out",
            Self::ExcludedNamespace => "excluded_namespace",
            Self::HostNetwork => "host_network",
            Self::Sidecar => "sidecar",
            Self::NodeProxy => "node_proxy",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotLabelled => "neither the pod nor its namespace has the label istio.io/dataplane-mode=ambient",
            Self::OptedOut => "the pod's label istio.io/dataplane-mode is not ambient",
            Self::ExcludedNamespace => "the namespace is excluded",
            Self::HostNetwork => "the pod is on the host network",
            Self::Sidecar => "the pod has a sidecar proxy",
            Self::NodeProxy => "the pod is the node proxy",
        })
    }
}

/// Exclusions from the mesh, besides those that pods ask for themselves.
#[derive(Clone, Debug)]
pub struct Enablement {
    /// Namespaces whose pods are never enrolled.
    pub excluded_namespaces: Vec<String>,
    /// Namespace of the node proxies.
    pub system_namespace: String,
}

impl Default for Enablement {
    fn default() -> Self {
        Self { excluded_namespaces: vec!["kube-system".to_owned()], system_namespace: "istio-system".to_owned() }
    }
}

impl Enablement {
    /// Decides for a pod; `namespace` is `None` when nothing is known of its namespace. The pod's own
    /// label wins over its namespace's in both directions.
    pub fn selected(&self, pod: &Pod, namespace: Option<&Namespace>) -> Enrolment {
        let meta = &pod.metadata;
        let no = |reason| Enrolment::NotSelected { reason };
        if self.excluded_namespaces.contains(&meta.namespace) {
            return no(Reason::ExcludedNamespace);
        }
        // Its namespace is the node's: steering it would steer the node.
        if pod.spec.host_network {
            return no(Reason::HostNetwork);
        }
        // Two proxies in one namespace would capture each other's connections.
        if meta.annotations.contains_key(SIDECAR_STATUS_ANNOTATION) {
            return no(Reason::Sidecar);
        }
        // Label and namespace together: anybody can label a pod, but only the mesh's owner puts one into this
        // namespace.
        let is_proxy = meta.labels.get("app").is_some_and(|app| app == "ztunnel");
        if is_proxy && meta.namespace == self.system_namespace {
            return no(Reason::NodeProxy);
        }
        let own = meta.labels.get(DATAPLANE_MODE_LABEL).map(String::as_str);
        // An unknown namespace enrols nothing: its label may say no.
        let inherited = namespace
            .and_then(|namespace| namespace.metadata.labels.get(DATAPLANE_MODE_LABEL))
            .is_some_and(|mode| mode == "ambient");
        match own {
            Some("ambient") => Enrolment::Selected,
            Some("none") => no(Reason::OptedOut),
            // An unknown value counts as no label: an error in it must not take a pod out of the mesh that its
            // namespace puts in.
            Some(_) | None if inherited => Enrolment::Selected,
            Some(_) | None => no(Reason::NotLabelled),
        }
    }
}

/// Decides as [`Enablement::selected`] with the default exclusions.
pub fn selected(pod: &Pod, namespace: Option<&Namespace>) -> Enrolment {
    Enablement::default().selected(pod, namespace)
}

/// Returns true if the agent has confirmed that the pod's traffic is steered.
pub fn is_enrolled(pod: &Pod) -> bool {
    pod.metadata.annotations.get(REDIRECTION_ANNOTATION).is_some_and(|value| value == REDIRECTION_ENABLED)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(labels: &[(&str, &str)]) -> Pod {
        let mut pod = Pod::default();
        pod.metadata.namespace = "app".to_owned();
        pod.metadata.labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        pod
    }

    fn namespace(mode: Option<&str>) -> Namespace {
        let mut namespace = Namespace::default();
        if let Some(mode) = mode {
            let label = DATAPLANE_MODE_LABEL.to_owned();
            namespace.metadata.labels.insert(label, mode.to_owned());
        }
        namespace
    }

    fn reason(pod: &Pod, namespace: &Namespace) -> Option<Reason> {
        match selected(pod, Some(namespace)) {
            Enrolment::Selected => None,
            Enrolment::NotSelected { reason } => Some(reason),
        }
    }

    #[test]
    fn the_label_of_the_pod_wins_over_that_of_the_namespace() {
        let (ambient, plain) = (namespace(Some("ambient")), namespace(None));

        assert_eq!(reason(&pod(&[]), &ambient), None);
        assert_eq!(reason(&pod(&[(DATAPLANE_MODE_LABEL, "none")]), &ambient), Some(Reason::OptedOut));
        assert_eq!(reason(&pod(&[(DATAPLANE_MODE_LABEL, "ambient")]), &plain), None);
        assert_eq!(reason(&pod(&[]), &plain), Some(Reason::NotLabelled));
        assert_eq!(reason(&pod(&[]), &namespace(Some("none"))), Some(Reason::NotLabelled));
        assert!(!selected(&pod(&[]), None).is_selected());
    }

    #[test]
    fn some_pods_are_never_enrolled() {
        let ambient = namespace(Some("ambient"));
        let mut host = pod(&[(DATAPLANE_MODE_LABEL, "ambient")]);
        host.spec.host_network = true;
        let mut sidecar = pod(&[]);
        sidecar.metadata.annotations.insert(SIDECAR_STATUS_ANNOTATION.to_owned(), String::new());
        let mut excluded = pod(&[]);
        excluded.metadata.namespace = "kube-system".to_owned();
        let mut proxy = pod(&[("app", "ztunnel")]);
        proxy.metadata.namespace = "istio-system".to_owned();

        assert_eq!(reason(&host, &ambient), Some(Reason::HostNetwork));
        assert_eq!(reason(&sidecar, &ambient), Some(Reason::Sidecar));
        assert_eq!(reason(&excluded, &ambient), Some(Reason::ExcludedNamespace));
        assert_eq!(reason(&proxy, &ambient), Some(Reason::NodeProxy));
        assert_eq!(reason(&pod(&[("app", "ztunnel")]), &ambient), None);
    }
}
