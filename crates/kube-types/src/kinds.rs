//! The table of kinds: each fact that differs by kind stands here once. A new kind is a row here, a type in
//! [`crate::core`], [`crate::istio`] or [`crate::gateway`], and its fields in the schema of `manifests`.

use std::io;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::meta::ObjectMeta;
use crate::{core, gateway, istio};

/// Set of objects in which a name is unique.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KindScope {
    Cluster,
    Namespaced,
}

/// Facts of one kind.
pub(crate) struct Facts {
    pub(crate) name: &'static str,
    pub(crate) api_version: &'static str,
    /// Other versions of the same group that are read; they differ in nothing that matters here.
    pub(crate) also: &'static [&'static str],
    pub(crate) plural: &'static str,
    pub(crate) scope: KindScope,
    pub(crate) strict: bool,
    /// Path of the specification of a pod; empty when the kind has none.
    pub(crate) pod_spec: &'static [&'static str],
}

macro_rules! kinds {
    // Pods of a kind: it is one (`itself`), makes some (`template`), or neither (`none`).
    (@path none) => { &[] };
    (@path itself) => { &["spec"] };
    (@path template) => { &["spec", "template", "spec"] };
    (@template template $object:ident) => { Some(&$object.spec.template) };
    // Every arm of the `match` binds the object; kinds without a template do not use it.
    (@template $pods:ident $object:ident) => {{ let _ = $object; None }};
    ($($kind:ident: $object:ty {
        $api_version:literal, also: $also:expr, plural: $plural:literal, $scope:ident, strict: $strict:literal,
        pods: $pods:ident $(,)?
    })*) => {
        /// Kinds of resources that are read. The order is the order of events within one batch: what others refer to comes
        /// first.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Kind {
            $($kind,)*
        }

        /// A typed object, cheap to clone.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Resource {
            $($kind(Arc<$object>),)*
        }

        impl Kind {
            /// Every kind, in order.
            pub const ALL: &[Self] = &[$(Self::$kind,)*];

            pub(crate) const fn facts(self) -> &'static Facts {
                match self {
                    $(Self::$kind => &Facts {
                        name: stringify!($kind),
                        api_version: $api_version,
                        also: $also,
                        plural: $plural,
                        scope: KindScope::$scope,
                        strict: $strict,
                        pod_spec: kinds!(@path $pods),
                    },)*
                }
            }
        }

        impl Resource {
            pub const fn kind(&self) -> Kind {
                match self {
                    $(Self::$kind(_) => Kind::$kind,)*
                }
            }

            pub fn meta(&self) -> &ObjectMeta {
                match self {
                    $(Self::$kind(object) => &object.metadata,)*
                }
            }

            /// Reads an object from any deserializer. It has to be complete: see [`Resource::complete`].
            pub fn read<'de, D: Deserializer<'de>>(kind: Kind, from: D) -> Result<Self, D::Error> {
                match kind {
                    $(Kind::$kind => <Arc<$object>>::deserialize(from).map(Self::$kind),)*
                }
            }

            /// The template of the pods that a workload kind makes.
            pub fn pod_template(&self) -> Option<&core::PodTemplate> {
                match self {
                    $(Self::$kind(object) => kinds!(@template $pods object),)*
                }
            }

            /// Writes the fields that are read as JSON, with nothing in between.
            pub(crate) fn write_fields(&self, writer: impl io::Write) -> Result<(), serde_json::Error> {
                match self {
                    $(Self::$kind(object) => serde_json::to_writer(writer, object.as_ref()),)*
                }
            }

            /// The fields that are read, without `apiVersion` and `kind`.
            pub(crate) fn fields(&self) -> Result<Value, serde_json::Error> {
                match self {
                    $(Self::$kind(object) => serde_json::to_value(object.as_ref()),)*
                }
            }
        }
    };
}

// What others refer to comes first: see the order of `Kind`. Strict are the policies alone, since only there an empty
// field lets more in.
kinds! {
    Namespace: core::Namespace {
        "v1", also: &[], plural: "namespaces", Cluster, strict: false, pods: none,
    }
    Node: core::Node {
        "v1", also: &[], plural: "nodes", Cluster, strict: false, pods: none,
    }
    ServiceAccount: core::ServiceAccount {
        "v1", also: &[], plural: "serviceaccounts", Namespaced, strict: false, pods: none,
    }
    ConfigMap: core::ConfigMap {
        "v1", also: &[], plural: "configmaps", Namespaced, strict: false, pods: none,
    }
    Secret: core::Secret {
        "v1", also: &[], plural: "secrets", Namespaced, strict: false, pods: none,
    }
    PersistentVolumeClaim: core::PersistentVolumeClaim {
        "v1", also: &[], plural: "persistentvolumeclaims", Namespaced, strict: false, pods: none,
    }
    PeerAuthentication: istio::PeerAuthentication {
        "security.istio.io/v1", also: &["v1beta1"], plural: "peerauthentications", Namespaced, strict: true, pods: none,
    }
    AuthorizationPolicy: istio::AuthorizationPolicy {
        "security.istio.io/v1", also: &["v1beta1"], plural: "authorizationpolicies", Namespaced, strict: true, pods: none,
    }
    GatewayClass: gateway::GatewayClass {
        "gateway.networking.k8s.io/v1", also: &["v1beta1"], plural: "gatewayclasses", Cluster, strict: false, pods: none,
    }
    Gateway: gateway::Gateway {
        "gateway.networking.k8s.io/v1", also: &["v1beta1"], plural: "gateways", Namespaced, strict: false, pods: none,
    }
    Service: core::Service {
        "v1", also: &[], plural: "services", Namespaced, strict: false, pods: none,
    }
    ServiceEntry: istio::ServiceEntry {
        "networking.istio.io/v1", also: &["v1beta1", "v1alpha3"], plural: "serviceentries", Namespaced, strict: false,
        pods: none,
    }
    Deployment: core::Deployment {
        "apps/v1", also: &[], plural: "deployments", Namespaced, strict: false, pods: template,
    }
    ReplicaSet: core::ReplicaSet {
        "apps/v1", also: &[], plural: "replicasets", Namespaced, strict: false, pods: template,
    }
    StatefulSet: core::StatefulSet {
        "apps/v1", also: &[], plural: "statefulsets", Namespaced, strict: false, pods: template,
    }
    DaemonSet: core::DaemonSet {
        "apps/v1", also: &[], plural: "daemonsets", Namespaced, strict: false, pods: template,
    }
    Job: core::Job {
        "batch/v1", also: &[], plural: "jobs", Namespaced, strict: false, pods: template,
    }
    Pod: core::Pod {
        "v1", also: &[], plural: "pods", Namespaced, strict: false, pods: itself,
    }
    WorkloadEntry: istio::WorkloadEntry {
        "networking.istio.io/v1", also: &["v1beta1", "v1alpha3"], plural: "workloadentries", Namespaced, strict: false,
        pods: none,
    }
    EndpointSlice: core::EndpointSlice {
        "discovery.k8s.io/v1", also: &[], plural: "endpointslices", Namespaced, strict: false, pods: none,
    }
    VirtualService: istio::VirtualService {
        "networking.istio.io/v1", also: &["v1beta1", "v1alpha3"], plural: "virtualservices", Namespaced, strict: false,
        pods: none,
    }
    DestinationRule: istio::DestinationRule {
        "networking.istio.io/v1", also: &["v1beta1", "v1alpha3"], plural: "destinationrules", Namespaced, strict: false,
        pods: none,
    }
    HTTPRoute: gateway::HttpRoute {
        "gateway.networking.k8s.io/v1", also: &["v1beta1"], plural: "httproutes", Namespaced, strict: false, pods: none,
    }
    GRPCRoute: gateway::GrpcRoute {
        "gateway.networking.k8s.io/v1", also: &[], plural: "grpcroutes", Namespaced, strict: false, pods: none,
    }
}
