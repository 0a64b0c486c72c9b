//! Settings that every proxy has, from its environment: the reader, and the sections. A program adds its own sections, and
//! decides when the environment is read. Mistakes are collected and reported together.

mod certificates;
mod discovery;
mod drain;
mod listeners;
mod node;
mod proxy_config;
mod sockets;
mod source;
mod telemetry;
#[cfg(test)]
mod tests;
mod threads;
mod tunnels;
pub mod values;

use std::time::Duration;

use serde::Serialize;

pub use certificates::{Authority, CertificatesConfig};
pub use discovery::{DiscoveryConfig, LocalXds};
pub use listeners::ListenersConfig;
pub use node::NodeConfig;
pub use sockets::SocketsConfig;
pub use source::{Environment, Reader};
pub use telemetry::TelemetryConfig;
pub use threads::ThreadKeys;
pub use tunnels::TunnelsConfig;

use proxy_config::ProxyConfig;

/// Sections that every proxy has.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// Node, pod and network of the proxy.
    pub node: NodeConfig,
    /// TCP options.
    pub sockets: SocketsConfig,
    /// HBONE.
    pub tunnels: TunnelsConfig,
    /// Source of workloads and policies.
    pub discovery: DiscoveryConfig,
    /// Source of certificates.
    pub certificates: CertificatesConfig,
    /// Own ports and sockets.
    pub listeners: ListenersConfig,
    /// Logs.
    pub telemetry: TelemetryConfig,
    /// Threads that carry traffic.
    pub worker_threads: usize,
    /// Time that open connections have once the proxy is asked to end.
    #[serde(serialize_with = "values::serialize_duration")]
    pub drain_deadline: Duration,
}

impl Config {
    /// Reads the sections; `threads` names the program's variables for the number of workers. `reader` has the mistakes.
    pub fn parse(reader: &mut Reader<'_>, threads: &ThreadKeys) -> Self {
        let proxy = ProxyConfig::parse(reader);
        Self {
            node: NodeConfig::parse(reader, &proxy),
            listeners: ListenersConfig::parse(reader, &proxy),
            sockets: SocketsConfig::parse(reader),
            tunnels: TunnelsConfig::parse(reader),
            discovery: DiscoveryConfig::parse(reader, &proxy),
            certificates: CertificatesConfig::parse(reader),
            telemetry: TelemetryConfig::parse(reader),
            worker_threads: threads::parse(reader, &proxy, threads),
            drain_deadline: drain::deadline(reader),
        }
    }
}

/// Returns a program's whole configuration as YAML, for the line at start. Sections show no secret.
#[must_use]
pub fn to_yaml(config: &impl Serialize) -> String {
    serde_saphyr::to_string(config).unwrap_or_else(|error| format!("the configuration cannot be shown: {error}\n"))
}
