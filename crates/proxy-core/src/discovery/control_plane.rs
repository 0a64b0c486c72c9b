//! The settings of the control plane's two clients, discovery and certificates, from the configuration. Connects to nothing.

use std::sync::Arc;

use ca_client::CertificateSource;
use http::{HeaderName, HeaderValue};
use tls::control_plane::RootSource;

use crate::config::{Authority, Config};

/// There is no source of certificates.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Connections of the process are configured already.
    #[error(transparent)]
    KeyExchange(#[from] tls::InUse),
    /// Only test builds have the fixed root.
    #[error("this build has no test certificates")]
    NoFixedRoot,
    /// The fixed root cannot be made.
    #[cfg(feature = "testing")]
    #[error(transparent)]
    FixedRoot(#[from] ca_server::IssuerError),
    /// Not a trust domain.
    #[cfg(feature = "testing")]
    #[error(transparent)]
    TrustDomain(#[from] identity::IdentityError),
}

/// Settings of the discovery client of a proxy of `kind`; none without a control plane.
#[must_use]
pub fn discovery_config(kind: &str, config: &Config) -> Option<xds_client::Config> {
    let discovery = &config.discovery;
    Some(xds_client::Config {
        address: discovery.address.clone()?,
        roots: RootSource::from_setting(&discovery.root_ca),
        alternative_host: discovery.alternative_host.clone(),
        token: config.certificates.token.clone(),
        headers: with_cluster(config, &discovery.headers),
        node: node(kind, config),
    })
}

/// Source of the certificates. `impersonate`: the proxy asks for the certificates of other workloads, not only for its own.
///
/// # Errors
/// When test certificates are wanted of a build without them.
pub fn certificate_source(config: &Config, impersonate: bool) -> Result<Arc<dyn CertificateSource>, SourceError> {
    let certificates = &config.certificates;
    let address = match &certificates.authority {
        Authority::FixedRoot => return fixed_root(config),
        Authority::Remote(address) => address.clone(),
    };
    Ok(Arc::new(ca_client::Client::new(ca_client::ClientConfig {
        address,
        roots: RootSource::from_setting(&certificates.root_ca),
        alternative_host: certificates.alternative_host.clone(),
        token: certificates.token.clone(),
        headers: with_cluster(config, &certificates.headers),
        ttl: certificates.ttl,
        impersonate,
    })))
}

#[cfg(feature = "testing")]
fn fixed_root(config: &Config) -> Result<Arc<dyn CertificateSource>, SourceError> {
    let trust_domain = config.node.trust_domain.parse()?;
    Ok(Arc::new(ca_server::testing::FixedRoot::new(trust_domain, config.certificates.ttl)?))
}

#[cfg(not(feature = "testing"))]
fn fixed_root(_: &Config) -> Result<Arc<dyn CertificateSource>, SourceError> {
    Err(SourceError::NoFixedRoot)
}

fn node(kind: &str, config: &Config) -> xds_client::Node {
    let own = &config.node;
    let mut node = xds_client::Node::new(
        kind,
        &own.instance_ip,
        own.pod_name.as_deref().unwrap_or_default(),
        own.pod_namespace.as_deref().unwrap_or_default(),
    );
    if let Some(name) = &own.name {
        node.set("NODE_NAME", name.as_str());
    }
    // After NODE_NAME, so that `ISTIO_META_NODE_NAME` may replace it, as in Istio.
    for (key, value) in &own.metadata {
        node.set(key, value.clone());
    }
    node
}

/// Adds the cluster's id, which goes with every call; one that no header can carry is left out and logged.
fn with_cluster(config: &Config, headers: &[(HeaderName, HeaderValue)]) -> Vec<(HeaderName, HeaderValue)> {
    let mut all = headers.to_vec();
    match HeaderValue::from_str(&config.node.cluster_id) {
        // istiod asks the API server of this cluster whether the token is valid.
        Ok(value) => all.push((HeaderName::from_static("clusterid"), value)),
        Err(error) => tracing::warn!(cluster = config.node.cluster_id, %error, "the cluster id is not sent"),
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, Reader, ThreadKeys};

    #[test]
    fn the_node_tells_who_it_is_and_its_cluster() {
        let variables = [
            ("POD_NAME", "ztunnel-x"),
            ("POD_NAMESPACE", "istio-system"),
            ("INSTANCE_IP", "10.0.0.7"),
            ("CLUSTER_ID", "c1"),
            ("XDS_HEADER_x-extra", "1"),
        ];
        let variables = variables.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        let environment = Environment { variables, mesh_config: None, processors: 1 };
        let keys = ThreadKeys { threads: "T", cpu_limit: "C", resource_cpu_limit: "L", resource_cpu_request: "R" };
        let config = Config::parse(&mut Reader::new(&environment), &keys);

        let client = discovery_config("ztunnel", &config).unwrap();

        assert_eq!(client.node.id(), "ztunnel~10.0.0.7~ztunnel-x.istio-system~istio-system.svc.cluster.local");
        let headers: Vec<_> = client.headers.iter().map(|(n, v)| (n.as_str(), v.to_str().unwrap())).collect();
        assert_eq!(headers, [("x-extra", "1"), ("clusterid", "c1")]);
    }
}
