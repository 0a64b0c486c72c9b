//! Settings that all pods of a proxy share.

use std::net::SocketAddr;

/// Names and nameservers by which questions are answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Domain of the cluster, such as `cluster.local`: lower case, without a dot at its end.
    pub cluster_domain: String,
    /// Namespace whose services are preferred among those of one name, after the client's own and canonical ones.
    pub preferred_namespace: Option<String>,
    /// Are services' IPv6 addresses answered? Otherwise they have none.
    pub ipv6: bool,
    /// Search domains in the form of `cluster_domain`; `None`: those that Kubernetes gives a pod of the client's namespace.
    pub search: Option<Vec<String>>,
    /// Servers of all names that are not the mesh's, in the order in which they are asked.
    pub nameservers: Vec<SocketAddr>,
}

impl Settings {
    /// Suffix of the names of Kubernetes' Services.
    pub(crate) fn service_suffix(&self) -> String {
        format!("svc.{}", self.cluster_domain)
    }

    /// Search domains of a client in `namespace`.
    pub(crate) fn search_domains(&self, namespace: &str) -> Vec<String> {
        match &self.search {
            Some(domains) => domains.clone(),
            None => {
                let suffix = self.service_suffix();
                vec![format!("{namespace}.{suffix}"), suffix, self.cluster_domain.clone()]
            }
        }
    }
}
