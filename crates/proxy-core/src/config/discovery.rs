//! Source of workloads, services and policies.

use std::path::PathBuf;

use http::{HeaderName, HeaderValue, Uri};
use serde::Serialize;

use super::{
    proxy_config::ProxyConfig,
    source::Reader,
    values::{self, serialize_header_names, serialize_option},
};

const DEFAULT_ROOT: &str = "./var/run/secrets/istio/root-cert.pem";

/// A fixed mesh instead of, or besides, a control plane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum LocalXds {
    /// `LOCAL_XDS_PATH`: a YAML file.
    Path(PathBuf),
    /// `LOCAL_XDS`: the YAML itself.
    Inline(String),
}

/// Source of workloads and policies.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DiscoveryConfig {
    /// `XDS_ADDRESS`, then `discoveryAddress` of ProxyConfig; default istiod inside Kubernetes, else localhost, port 15012.
    /// Empty: no control plane.
    #[serde(serialize_with = "serialize_option")]
    pub address: Option<Uri>,
    /// `LOCAL_XDS_PATH` or `LOCAL_XDS`.
    pub local: Option<LocalXds>,
    /// `XDS_ROOT_CA`: path, `SYSTEM`, or PEM; default `./var/run/secrets/istio/root-cert.pem`.
    pub root_ca: String,
    /// `ALT_XDS_HOSTNAME`.
    pub alternative_host: Option<String>,
    /// `XDS_HEADER_*`.
    #[serde(serialize_with = "serialize_header_names")]
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl DiscoveryConfig {
    pub(super) fn parse(reader: &mut Reader<'_>, proxy: &ProxyConfig) -> Self {
        let fallback = proxy.discovery_address.clone().unwrap_or_else(|| default_address(reader));
        let local = match (reader.path("LOCAL_XDS_PATH"), reader.text("LOCAL_XDS")) {
            (Some(_), Some(_)) => {
                reader.problems.push("LOCAL_XDS", "(set)", "only one of LOCAL_XDS and LOCAL_XDS_PATH");
                None
            }
            (Some(path), None) => Some(LocalXds::Path(path)),
            (None, Some(text)) => Some(LocalXds::Inline(text)),
            (None, None) => None,
        };
        if reader.flag("XDS_ON_DEMAND", false) {
            reader.unsupported("XDS_ON_DEMAND", "all addresses are subscribed");
        }
        Self {
            address: address(reader, "XDS_ADDRESS", &fallback),
            local,
            root_ca: root_ca(reader, "XDS_ROOT_CA"),
            alternative_host: reader.text("ALT_XDS_HOSTNAME"),
            headers: values::headers(reader, "XDS_HEADER_"),
        }
    }
}

/// Default of the control plane's address: istiod where `KUBERNETES_SERVICE_HOST` is set, as in every pod, else this machine.
pub(super) fn default_address(reader: &Reader<'_>) -> String {
    let host = match reader.raw("KUBERNETES_SERVICE_HOST") {
        Some(_) => "istiod.istio-system.svc",
        None => "localhost",
    };
    format!("https://{host}:{}", contract::ports::CONTROL_GRPC)
}

/// `key`, or `fallback`. Empty: none.
pub(super) fn address(reader: &mut Reader<'_>, key: &str, fallback: &str) -> Option<Uri> {
    let value = reader.raw(key).unwrap_or(fallback);
    if value.is_empty() {
        return None;
    }
    let uri = values::uri(value);
    if uri.is_none() {
        reader.problems.push(key, value, "an address such as https://istiod.istio-system.svc:15012, or empty for none");
    }
    uri
}

pub(super) fn root_ca(reader: &Reader<'_>, key: &str) -> String {
    reader.text(key).unwrap_or_else(|| DEFAULT_ROOT.to_owned())
}
