//! DNS: whether the pods' questions are answered, where, and by which names.

use contract::ports;
use proxy_core::config::{Config, Reader};
use serde::Serialize;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

/// Form of [`DnsConfig::listen`], for messages.
const ADDRESS: &str = "localhost:PORT, or an address and a port such as 127.0.0.1:15053";
/// Form of a domain, for messages.
const DOMAIN: &str = "a domain such as cluster.local";
/// Most characters of a domain, and of each of its labels (RFC 1035, section 2.3.4). There must be room for a service, its
/// namespace and `svc`.
const DOMAIN_LENGTH: usize = 120;
const LABEL_LENGTH: usize = 63;

/// The DNS proxy.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DnsConfig {
    /// `ISTIO_META_DNS_CAPTURE`: are DNS questions of pods answered? Default true; any value but `true` switches it off. Whether
    /// questions are redirected to the proxy is the node agent's decision, pod by pod.
    pub enabled: bool,
    /// `ISTIO_META_DNS_PROXY_ADDR`: `localhost:PORT`, which is 127.0.0.1 and ::1, or one address and port; default
    /// `localhost:15053`. In each pod.
    pub listen: Vec<SocketAddr>,
    /// `CLUSTER_DOMAIN`: names of Services end with it; default `cluster.local`.
    pub cluster_domain: String,
    /// `PREFERED_SERVICE_NAMESPACE`: of several services of one name, one of this namespace is preferred, after those of the
    /// client's own and after canonical ones.
    pub preferred_namespace: Option<String>,
}

impl DnsConfig {
    /// Reads the section. The first two are metadata, which PROXY_CONFIG may set as well.
    pub(super) fn parse(reader: &mut Reader<'_>, common: &Config) -> Self {
        // A value of JSON may be a boolean.
        let metadata = |key: &str| {
            let value = common.node.metadata.get(key)?;
            Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
        };
        let listen = match metadata("DNS_PROXY_ADDR") {
            None => localhost(ports::DNS),
            Some(value) => addresses(&value).unwrap_or_else(|| {
                reader.problems.push("ISTIO_META_DNS_PROXY_ADDR", &value, ADDRESS);
                Vec::new()
            }),
        };
        let cluster_domain = reader.optional("CLUSTER_DOMAIN", DOMAIN, domain);
        Self {
            enabled: metadata("DNS_CAPTURE").is_none_or(|value| value.eq_ignore_ascii_case("true")),
            // Without IPv6 there is no ::1 to listen on.
            listen: listen.into_iter().filter(|address| common.listeners.ipv6 || address.is_ipv4()).collect(),
            cluster_domain: cluster_domain.unwrap_or_else(|| "cluster.local".to_owned()),
            preferred_namespace: reader.text("PREFERED_SERVICE_NAMESPACE"),
        }
    }
}

fn localhost(port: u16) -> Vec<SocketAddr> {
    vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()]
}

fn addresses(value: &str) -> Option<Vec<SocketAddr>> {
    match value.strip_prefix("localhost:") {
        Some(port) => port.parse().ok().map(localhost),
        None => value.parse().ok().map(|address| vec![address]),
    }
}

/// Lower case, without a dot at its end.
fn domain(value: &str) -> Option<String> {
    let name = value.strip_suffix('.').unwrap_or(value).to_ascii_lowercase();
    let is_label = |label: &str| {
        (1..=LABEL_LENGTH).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    (name.len() <= DOMAIN_LENGTH && name.split('.').all(is_label)).then_some(name)
}
