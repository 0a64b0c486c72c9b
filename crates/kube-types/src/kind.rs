//! Names of resources: kind, namespace and name. It knows nothing of contents.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Kinds of resources that are read. The order is the order of events within one batch: what others
/// refer to comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    Namespace,
    Node,
    ServiceAccount,
    ConfigMap,
    Secret,
    PersistentVolumeClaim,
    PeerAuthentication,
    AuthorizationPolicy,
    Service,
    Deployment,
    ReplicaSet,
    StatefulSet,
    DaemonSet,
    Job,
    Pod,
    EndpointSlice,
}

impl Kind {
    /// Every kind, in order.
    pub const ALL: [Self; 16] = [
        Self::Namespace,
        Self::Node,
        Self::ServiceAccount,
        Self::ConfigMap,
        Self::Secret,
        Self::PersistentVolumeClaim,
        Self::PeerAuthentication,
        Self::AuthorizationPolicy,
        Self::Service,
        Self::Deployment,
        Self::ReplicaSet,
        Self::StatefulSet,
        Self::DaemonSet,
        Self::Job,
        Self::Pod,
        Self::EndpointSlice,
    ];

    /// The name as in the `kind` field.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Namespace => "Namespace",
            Self::Node => "Node",
            Self::ServiceAccount => "ServiceAccount",
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
            Self::PersistentVolumeClaim => "PersistentVolumeClaim",
            Self::PeerAuthentication => "PeerAuthentication",
            Self::AuthorizationPolicy => "AuthorizationPolicy",
            Self::Service => "Service",
            Self::Deployment => "Deployment",
            Self::ReplicaSet => "ReplicaSet",
            Self::StatefulSet => "StatefulSet",
            Self::DaemonSet => "DaemonSet",
            Self::Job => "Job",
            Self::Pod => "Pod",
            Self::EndpointSlice => "EndpointSlice",
        }
    }

    /// The API group; empty for the core group.
    pub const fn group(self) -> &'static str {
        match self {
            Self::Namespace
            | Self::Node
            | Self::ServiceAccount
            | Self::ConfigMap
            | Self::Secret
            | Self::PersistentVolumeClaim
            | Self::Service
            | Self::Pod => "",
            Self::PeerAuthentication | Self::AuthorizationPolicy => "security.istio.io",
            Self::Deployment | Self::ReplicaSet | Self::StatefulSet | Self::DaemonSet => "apps",
            Self::Job => "batch",
            Self::EndpointSlice => "discovery.k8s.io",
        }
    }

    /// The `apiVersion` written for new objects.
    pub const fn api_version(self) -> &'static str {
        match self {
            Self::Namespace
            | Self::Node
            | Self::ServiceAccount
            | Self::ConfigMap
            | Self::Secret
            | Self::PersistentVolumeClaim
            | Self::Service
            | Self::Pod => "v1",
            Self::PeerAuthentication | Self::AuthorizationPolicy => "security.istio.io/v1",
            Self::Deployment | Self::ReplicaSet | Self::StatefulSet | Self::DaemonSet => "apps/v1",
            Self::Job => "batch/v1",
            Self::EndpointSlice => "discovery.k8s.io/v1",
        }
    }

    /// The versions of the group that are read; they differ in nothing that matters here.
    pub const fn versions(self) -> &'static [&'static str] {
        match self {
            Self::PeerAuthentication | Self::AuthorizationPolicy => &["v1", "v1beta1"],
            Self::Namespace
            | Self::Node
            | Self::ServiceAccount
            | Self::ConfigMap
            | Self::Secret
            | Self::PersistentVolumeClaim
            | Self::Service
            | Self::Deployment
            | Self::ReplicaSet
            | Self::StatefulSet
            | Self::DaemonSet
            | Self::Job
            | Self::Pod
            | Self::EndpointSlice => &["v1"],
        }
    }

    /// Path of the specification of the pod that the object is, or of the pods that it makes.
    pub const fn pod_spec(self) -> Option<&'static [&'static str]> {
        match self {
            Self::Pod => Some(&["spec"]),
            Self::Deployment | Self::ReplicaSet | Self::StatefulSet | Self::DaemonSet | Self::Job => {
                Some(&["spec", "template", "spec"])
            }
            Self::Namespace
            | Self::Node
            | Self::ServiceAccount
            | Self::ConfigMap
            | Self::Secret
            | Self::PersistentVolumeClaim
            | Self::PeerAuthentication
            | Self::AuthorizationPolicy
            | Self::Service
            | Self::EndpointSlice => None,
        }
    }

    /// Does an object of this kind live in a namespace?
    pub const fn is_namespaced(self) -> bool {
        !matches!(self, Self::Namespace | Self::Node)
    }

    /// Is an empty field of the specification an error? It would widen a policy.
    pub const fn is_strict(self) -> bool {
        matches!(self, Self::PeerAuthentication | Self::AuthorizationPolicy)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A kind that is not supported.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unsupported kind {0:?}")]
pub struct UnknownKind(pub String);

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| UnknownKind(text.to_owned()))
    }
}

/// Key of an object. Ordered by kind, namespace, name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectRef {
    pub kind: Kind,
    /// Empty for cluster-scoped kinds.
    pub namespace: String,
    pub name: String,
}

impl ObjectRef {
    /// Key of a namespaced object, or of a cluster-scoped one with `namespace` empty.
    pub fn new(kind: Kind, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { kind, namespace: namespace.into(), name: name.into() }
    }

    /// `namespace/name`, or the name alone when cluster-scoped.
    pub fn path(&self) -> String {
        if self.namespace.is_empty() { self.name.clone() } else { format!("{}/{}", self.namespace, self.name) }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.path())
    }
}

/// Name of the cluster that a resource comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(Arc<str>);

impl ClusterId {
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for ClusterId {
    /// `Kubernetes`, Istio's default.
    fn default() -> Self {
        Self::new("Kubernetes")
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
