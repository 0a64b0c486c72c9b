//! Settings of the mesh that are in no Kubernetes object, and names that follow from them.

/// Names that appear in what is sent.
#[derive(Clone, Debug)]
pub struct Mesh {
    /// Policies in this namespace apply to the whole mesh.
    pub root_namespace: String,
    pub cluster_id: String,
    pub trust_domain: String,
    /// Suffix of service host names.
    pub cluster_domain: String,
}

impl Default for Mesh {
    fn default() -> Self {
        Self {
            root_namespace: "istio-system".to_owned(),
            cluster_id: "Kubernetes".to_owned(),
            trust_domain: "cluster.local".to_owned(),
            cluster_domain: "cluster.local".to_owned(),
        }
    }
}

impl Mesh {
    /// Host name of a Kubernetes Service.
    pub fn hostname(&self, namespace: &str, service: &str) -> String {
        format!("{service}.{namespace}.svc.{}", self.cluster_domain)
    }

    /// Resource name of a Service, also the key of a workload's service list.
    pub fn service_key(&self, namespace: &str, service: &str) -> String {
        format!("{namespace}/{}", self.hostname(namespace, service))
    }

    /// Resource name of a pod.
    pub fn pod_uid(&self, namespace: &str, name: &str) -> String {
        format!("{}//Pod/{namespace}/{name}", self.cluster_id)
    }
}
