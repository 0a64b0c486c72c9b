//! The Kubernetes manifests of the mesh's own programs, `daemonset/manifests`: what an installation applies, and what a lab runs.
//! They are what the chart `daemonset/chart` renders.

/// The files, in the order in which a cluster needs them: name and text.
// Compiled in: the command line and the lab need no files of a checkout, and cannot disagree with them.
pub const FILES: [(&str, &str); 4] = [
    ("namespace.yaml", include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../daemonset/manifests/namespace.yaml"))),
    (
        "strake-control.yaml",
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../daemonset/manifests/strake-control.yaml")),
    ),
    (
        "strake-agent.yaml",
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../daemonset/manifests/strake-agent.yaml")),
    ),
    ("ztunnel.yaml", include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../daemonset/manifests/ztunnel.yaml"))),
];

/// Custom resources, for a cluster that does not have them.
// Apart from `FILES`: a cluster with Istio or the Gateway API has them, perhaps newer.
pub const CRDS: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../daemonset/manifests/crds.yaml"));

/// Policies of admission, for a cluster whose user wants them.
pub const ADMISSION: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../daemonset/manifests/admission.yaml"));

/// Namespace of the mesh's own pods in the manifests.
pub const SYSTEM_NAMESPACE: &str = "istio-system";

/// Names of the DaemonSets and the Deployment in the manifests, and of their containers and images.
pub const AGENT: &str = "strake-agent";
pub const ZTUNNEL: &str = "ztunnel";
pub const CONTROL: &str = "strake-control";

/// Namespaces' ConfigMap with the roots of the mesh, and its key. Istio's.
// In every namespace, since a pod can mount ConfigMaps of its own namespace only.
pub const ROOTS_CONFIG_MAP: &str = "istio-ca-root-cert";
pub const ROOTS_KEY: &str = "root-cert.pem";

/// Secret of the root that the control plane makes when the user has plugged in none. Istio's.
pub const ROOT_SECRET: &str = "istio-ca-secret";
/// Secret of an authority that the user plugs in. Istio's.
pub const PLUGGED_IN_SECRET: &str = "cacerts";
