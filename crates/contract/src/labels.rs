//! Keys of labels and annotations, and the values that have a meaning. A constant ends with `_LABEL` or `_ANNOTATION` where
//! only one of the two is read.

/// Puts the pods of a namespace, or a pod, into the mesh or leaves it out. Istio's.
pub const DATAPLANE_MODE_LABEL: &str = "istio.io/dataplane-mode";
/// Value of [`DATAPLANE_MODE_LABEL`]: in the mesh.
pub const DATAPLANE_MODE_AMBIENT: &str = "ambient";
/// Value of [`DATAPLANE_MODE_LABEL`]: not in the mesh.
pub const DATAPLANE_MODE_NONE: &str = "none";

/// State of a pod's redirection, written by the agent once the kernel has been read back. Istio's.
pub const REDIRECTION_ANNOTATION: &str = "ambient.istio.io/redirection";
/// Value of [`REDIRECTION_ANNOTATION`] for a pod that is enrolled.
pub const REDIRECTION_ENABLED: &str = "enabled";
/// Value of [`REDIRECTION_ANNOTATION`] for a pod that is steered and not served by the proxy yet: it is not enrolled.
pub const REDIRECTION_PENDING: &str = "pending";

/// Written by Istio's sidecar injector: the pod has a proxy of its own. Istio's.
pub const SIDECAR_STATUS_ANNOTATION: &str = "sidecar.istio.io/status";
/// Asks for a sidecar. Istio's.
// Neither `_LABEL` nor `_ANNOTATION`: Istio reads both.
pub const SIDECAR_INJECT: &str = "sidecar.istio.io/inject";
/// Revision of the control plane that handles the object. Istio's.
pub const REVISION_LABEL: &str = "istio.io/rev";

/// Inbound connections of the pod are not captured. Istio's.
pub const BYPASS_INBOUND_CAPTURE_ANNOTATION: &str = "ambient.istio.io/bypass-inbound-capture";
/// DNS requests of the pod are captured. Istio's.
pub const DNS_CAPTURE_ANNOTATION: &str = "ambient.istio.io/dns-capture";
/// Interfaces of the pod whose connections are captured as outbound ones. Istio's.
pub const REROUTE_VIRTUAL_INTERFACES_ANNOTATION: &str = "istio.io/reroute-virtual-interfaces";

/// Waypoint of the object's traffic. Istio's.
pub const USE_WAYPOINT_LABEL: &str = "istio.io/use-waypoint";
/// Value of [`USE_WAYPOINT_LABEL`]: no waypoint, also when the namespace names one.
pub const USE_WAYPOINT_NONE: &str = "none";
/// Namespace of the waypoint, when it is another one than the object's. Istio's.
pub const USE_WAYPOINT_NAMESPACE_LABEL: &str = "istio.io/use-waypoint-namespace";
/// Second waypoint, which takes a share of a service's connections. Istio's.
pub const USE_WAYPOINT_CANARY_LABEL: &str = "istio.io/use-waypoint-canary";
/// Namespace of the second waypoint. Istio's.
pub const USE_WAYPOINT_CANARY_NAMESPACE_LABEL: &str = "istio.io/use-waypoint-canary-namespace";
/// Share of the second waypoint in percent, from 0 to 100. Istio's.
pub const USE_WAYPOINT_CANARY_WEIGHT_ANNOTATION: &str = "istio.io/use-waypoint-canary-weight";
/// Traffic that a waypoint handles: `service`, `workload`, `all` or `none`. Istio's.
pub const WAYPOINT_FOR_LABEL: &str = "istio.io/waypoint-for";
/// Protocol and port by which a waypoint behind a node proxy takes its traffic. Istio's.
pub const WAYPOINT_INBOUND_BINDING_ANNOTATION: &str = "ambient.istio.io/waypoint-inbound-binding";
/// Controller that made an object for a Gateway. Istio's.
pub const GATEWAY_MANAGED_LABEL: &str = "gateway.istio.io/managed";
/// Value of [`GATEWAY_MANAGED_LABEL`] on the Service and the pods of a waypoint.
// Set by Istio's waypoint controller, which may run beside this control plane.
pub const GATEWAY_MANAGED_MESH: &str = "istio.io-mesh-controller";
/// Gateway that a Service or pod was made for. Of the Gateway API.
pub const GATEWAY_NAME_LABEL: &str = "gateway.networking.k8s.io/gateway-name";
/// Class of [`GATEWAY_NAME_LABEL`]'s Gateway. Of the Gateway API's implementations.
pub const GATEWAY_CLASS_LABEL: &str = "gateway.networking.k8s.io/gateway-class-name";
/// On a ConfigMap of the root namespace: it has defaults for the Gateways of the class that is the value. Istio's.
pub const GATEWAY_DEFAULTS_LABEL: &str = "gateway.istio.io/defaults-for-class";
/// Name of the objects that are made for a Gateway, when it is not that of the Gateway. Istio's.
pub const GATEWAY_NAME_OVERRIDE_ANNOTATION: &str = "gateway.istio.io/name-override";
/// ServiceAccount of a Gateway's pods. Istio's; here it is the one with the name of the Gateway, and another one is refused.
pub const GATEWAY_SERVICE_ACCOUNT_ANNOTATION: &str = "gateway.istio.io/service-account";
/// Type of the Service that is made for a Gateway. Istio's.
pub const GATEWAY_SERVICE_TYPE_ANNOTATION: &str = "networking.istio.io/service-type";
/// Version of the controller that has made an object for a Gateway: an older one leaves it alone.
pub const CONTROLLER_VERSION_ANNOTATION: &str = "strake.io/controller-version";
/// On a Service, ServiceEntry, workload or their namespace: what becomes of connections while the waypoint cannot take them.
pub const WAYPOINT_FAILURE_LABEL: &str = "strake.io/waypoint-failure-mode";
/// Value of [`WAYPOINT_FAILURE_LABEL`]: they fail, also before the waypoint was ready for the first time.
pub const WAYPOINT_FAILURE_CLOSED: &str = "closed";
/// Value of [`WAYPOINT_FAILURE_LABEL`]: they go to the endpoints directly, also after it was.
pub const WAYPOINT_FAILURE_OPEN: &str = "open";
/// Addresses are allocated for the hosts of a ServiceEntry, or not (`false`). Istio's.
pub const AUTO_ALLOCATE_LABEL: &str = "networking.istio.io/enable-autoallocate-ip";
/// Traffic from ingress gateways goes through the waypoint, too. Istio's.
pub const INGRESS_USE_WAYPOINT_LABEL: &str = "istio.io/ingress-use-waypoint";
/// The service is visible in all clusters. Istio's.
pub const GLOBAL_LABEL: &str = "istio.io/global";
/// Connections of a client go to the same endpoint. Istio's.
pub const PERSISTENT_SESSION_LABEL: &str = "istio.io/persistent-session";
/// Policy that is logged and not enforced. Istio's.
pub const DRY_RUN_ANNOTATION: &str = "istio.io/dry-run";
/// Protocol by which the workload is reached. Istio's.
pub const TUNNEL_LABEL: &str = "networking.istio.io/tunnel";
/// Preference for near endpoints. Istio's.
pub const TRAFFIC_DISTRIBUTION_ANNOTATION: &str = "networking.istio.io/traffic-distribution";
/// Network of the workload, in a mesh of several. Istio's.
pub const NETWORK_LABEL: &str = "topology.istio.io/network";

/// Region of a node. Kubernetes'.
pub const REGION_LABEL: &str = "topology.kubernetes.io/region";
/// Zone of a node, within its region. Kubernetes'.
pub const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
/// Part of a zone. Istio's.
pub const SUBZONE_LABEL: &str = "topology.istio.io/subzone";

/// Name of the workload in metrics. Istio's.
pub const CANONICAL_NAME_LABEL: &str = "service.istio.io/canonical-name";
/// Revision of the workload in metrics. Istio's.
pub const CANONICAL_REVISION_LABEL: &str = "service.istio.io/canonical-revision";
/// Name of the workload, in place of its owner's. Istio's.
pub const WORKLOAD_NAME_LABEL: &str = "service.istio.io/workload-name";
/// Name of the application. Kubernetes' recommended labels.
pub const APP_NAME_LABEL: &str = "app.kubernetes.io/name";
/// Version of the application. Kubernetes' recommended labels.
pub const APP_VERSION_LABEL: &str = "app.kubernetes.io/version";

/// Service that an EndpointSlice belongs to. Kubernetes'.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// Name of a namespace, set on each by the API server. Kubernetes'.
pub const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";
/// Name of a node. Kubernetes'.
pub const HOSTNAME_LABEL: &str = "kubernetes.io/hostname";
/// Operating system of a node. Kubernetes'.
pub const OS_LABEL: &str = "kubernetes.io/os";
/// Architecture of a node. Kubernetes'.
pub const ARCH_LABEL: &str = "kubernetes.io/arch";
/// Kind of machine of a node. Kubernetes'.
pub const INSTANCE_TYPE_LABEL: &str = "node.kubernetes.io/instance-type";
/// Taint of a node that takes no new pods. Kubernetes'.
pub const UNSCHEDULABLE_TAINT: &str = "node.kubernetes.io/unschedulable";
/// Taint of a new node, which the agent removes when pods of the mesh can start there. Any other key can be set instead.
pub const STARTUP_TAINT: &str = "strake.io/agent-not-ready";
/// Pod of a StatefulSet. Kubernetes'.
pub const STATEFUL_SET_POD_NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
/// Ordinal of a pod of a StatefulSet or an indexed Job. Kubernetes'.
pub const POD_INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";
/// Job of a pod. Kubernetes'.
pub const JOB_NAME_LABEL: &str = "batch.kubernetes.io/job-name";
/// UID of the Job of a pod. Kubernetes'.
pub const JOB_UID_LABEL: &str = "batch.kubernetes.io/controller-uid";

/// On the agent's DaemonSet: `true` says that it is deleted because the mesh is uninstalled, so that pods leave the mesh.
// An annotation and not the deletion alone: `kubectl delete` and `apply` also happen in an upgrade.
pub const UNINSTALL_ANNOTATION: &str = "strake.io/uninstall";

/// Marks the mirror of a static pod. The API server lets nobody but a kubelet create a pod with it.
pub const CONFIG_MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";
/// UID that the kubelet has given to the static pod itself.
// The kubelet names the pod's cgroup by it, not by the mirror's uid.
pub const CONFIG_HASH_ANNOTATION: &str = "kubernetes.io/config.hash";
