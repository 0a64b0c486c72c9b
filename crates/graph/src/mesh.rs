//! Settings of the mesh, and names that follow from them.

/// Names that appear in what is sent.
#[derive(Clone, Debug)]
pub struct Mesh {
    /// Policies in this namespace apply to the whole mesh.
    pub root_namespace: String,
    pub cluster_id: String,
    pub trust_domain: String,
    /// Suffix of service host names.
    pub cluster_domain: String,
    /// Network of the pods and services of the cluster; empty when it has no name.
    pub network: String,
}

impl Default for Mesh {
    fn default() -> Self {
        Self {
            // Istio's defaults, so that an installation that names nothing keeps the identities and resource names that
            // its peers and policies already know.
            root_namespace: "istio-system".to_owned(),
            cluster_id: "Kubernetes".to_owned(),
            trust_domain: "cluster.local".to_owned(),
            cluster_domain: "cluster.local".to_owned(),
            network: String::new(),
        }
    }
}

impl Mesh {
    /// Host name of a Kubernetes Service.
    pub fn hostname(&self, namespace: &str, service: &str) -> String {
        format!("{service}.{namespace}.svc.{}", self.cluster_domain)
    }

    /// Namespace and name of the Kubernetes Service that has a host name.
    pub(crate) fn service_of<'a>(&self, host: &'a str) -> Option<(&'a str, &'a str)> {
        let (name, namespace) = host.strip_suffix(&self.cluster_domain)?.strip_suffix(".svc.")?.split_once('.')?;
        // A name with more labels (`pod.service.namespace.svc...`) is that of a pod of a headless Service, not of a
        // Service.
        (!namespace.contains('.')).then_some((namespace, name))
    }

    /// Resource name of a Service, also the key of a workload's service list.
    pub fn service_key(&self, namespace: &str, service: &str) -> String {
        format!("{namespace}/{}", self.hostname(namespace, service))
    }

    /// Resource name of a pod.
    pub fn pod_uid(&self, namespace: &str, name: &str) -> String {
        // The group between the slashes is empty: pods are of the core API group.
        format!("{}//Pod/{namespace}/{name}", self.cluster_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_of_a_host_name_is_found() {
        let mesh = Mesh::default();
        assert_eq!(mesh.service_of("web.app.svc.cluster.local"), Some(("app", "web")));
        for host in ["web.app", "web.app.svc", "a.b.c.svc.cluster.local", "svc.cluster.local", "example.com"] {
            assert_eq!(mesh.service_of(host), None, "{host}");
        }
    }
}
