//! Node, pod and network of this proxy, and its metadata for the control plane.

use std::collections::BTreeMap;

use identity::Identity;
use serde::Serialize;

use super::{proxy_config::ProxyConfig, source::Reader};

const META: &str = "ISTIO_META_";
const META_JSON: &str = "ISTIO_METAJSON_";

/// Node, pod and network of this proxy.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeConfig {
    /// `NETWORK`; default "", the default network.
    pub network: String,
    /// `NODE_NAME`; unset: every workload counts as local.
    pub name: Option<String>,
    /// `ISTIO_META_CLUSTER_ID`, then `CLUSTER_ID`; default `Kubernetes`.
    pub cluster_id: String,
    /// `TRUST_DOMAIN`; default `cluster.local`. Only of the proxy's own identity.
    pub trust_domain: String,
    /// `POD_NAME`.
    pub pod_name: Option<String>,
    /// `POD_NAMESPACE`.
    pub pod_namespace: Option<String>,
    /// `SERVICE_ACCOUNT`.
    pub service_account: Option<String>,
    /// `INSTANCE_IP`; default `1.1.1.1`.
    pub instance_ip: String,
    /// Told to the control plane: `ISTIO_META_*`, `ISTIO_METAJSON_*` and the proxy's metadata of ProxyConfig.
    pub metadata: BTreeMap<String, serde_json::Value>,
}

impl NodeConfig {
    pub(super) fn parse(reader: &mut Reader<'_>, proxy: &ProxyConfig) -> Self {
        let text = |key: &str| reader.text(key);
        let cluster_id = text("ISTIO_META_CLUSTER_ID").or_else(|| text("CLUSTER_ID"));
        let node = Self {
            network: text("NETWORK").unwrap_or_default(),
            name: text("NODE_NAME"),
            // Istio's default.
            cluster_id: cluster_id.unwrap_or_else(|| "Kubernetes".to_owned()),
            trust_domain: text("TRUST_DOMAIN").unwrap_or_else(|| "cluster.local".to_owned()),
            pod_name: text("POD_NAME"),
            pod_namespace: text("POD_NAMESPACE"),
            service_account: text("SERVICE_ACCOUNT"),
            // Istio's placeholder for a proxy that is not told its address.
            instance_ip: text("INSTANCE_IP").unwrap_or_else(|| "1.1.1.1".to_owned()),
            metadata: metadata(reader, proxy),
        };
        // Found now, with the names of the variables, and not when the proxy asks for its own certificate.
        if node.service_account.is_some() && node.pod_namespace.is_some() && node.self_identity().is_none() {
            let names = format!("{:?}/{:?}", node.pod_namespace, node.service_account);
            reader.problems.push("TRUST_DOMAIN, POD_NAMESPACE, SERVICE_ACCOUNT", names, "names that make a SPIFFE id");
        }
        node
    }

    /// The proxy's own identity, when namespace and service account are known.
    #[must_use]
    pub fn self_identity(&self) -> Option<Identity> {
        let (namespace, account) = (self.pod_namespace.as_ref()?, self.service_account.as_ref()?);
        format!("spiffe://{}/ns/{namespace}/sa/{account}", self.trust_domain).parse().ok()
    }

    /// `ISTIO_META_ISTIO_VERSION`, for the metric `istio_build`.
    #[must_use]
    pub fn istio_version(&self) -> &str {
        self.metadata.get("ISTIO_VERSION").and_then(|v| v.as_str()).unwrap_or_default()
    }
}

fn metadata(reader: &Reader<'_>, proxy: &ProxyConfig) -> BTreeMap<String, serde_json::Value> {
    // Weakest first: ProxyConfig, then variables, then those with JSON.
    let from_config = proxy.proxy_metadata.iter().map(|(key, value)| (key.strip_prefix(META).unwrap_or(key), value));
    let mut all: BTreeMap<String, serde_json::Value> =
        from_config.map(|(key, value)| (key.to_owned(), value.as_str().into())).collect();
    all.extend(reader.with_prefix(META).map(|(key, value)| (key.to_owned(), value.into())));
    for (key, value) in reader.with_prefix(META_JSON) {
        match serde_json::from_str(value) {
            Ok(value) => {
                all.insert(key.to_owned(), value);
            }
            // As in Istio: it is information for the control plane, and not worth a proxy that does not start.
            Err(error) => tracing::error!(variable = format!("{META_JSON}{key}"), %error, "not JSON, skipped"),
        }
    }
    all
}
