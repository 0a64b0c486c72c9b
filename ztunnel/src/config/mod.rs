//! What the environment asks of the proxy: every key, its default, its range. Read once, at start, and nowhere else.
//! Mistakes are collected and reported together.

mod certificates;
mod discovery;
mod listeners;
mod node;
mod proxy_config;
mod source;
mod telemetry;
#[cfg(test)]
mod tests;
mod traffic;
mod values;
mod workers;

use std::time::Duration;

use contract::Unsupported;
use runtime::Problems;
use serde::Serialize;

pub use certificates::{Authority, CertificatesConfig};
pub use discovery::{DiscoveryConfig, LocalXds};
pub use listeners::ListenersConfig;
pub use node::NodeConfig;
pub use source::Environment;
pub use telemetry::TelemetryConfig;
pub use traffic::{Mode, PreserveSource, SocketsConfig, TrafficConfig, TunnelsConfig, WorkloadInfo};

use proxy_config::ProxyConfig;
use source::Reader;

/// Everything, section by section.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// Who we are.
    pub node: NodeConfig,
    /// What is carried, and how it is treated.
    pub traffic: TrafficConfig,
    /// TCP options.
    pub sockets: SocketsConfig,
    /// HBONE.
    pub tunnels: TunnelsConfig,
    /// Where workloads and policies come from.
    pub discovery: DiscoveryConfig,
    /// Where certificates come from.
    pub certificates: CertificatesConfig,
    /// Own ports and sockets.
    pub listeners: ListenersConfig,
    /// Logs.
    pub telemetry: TelemetryConfig,
    /// Threads that carry traffic (`ZTUNNEL_WORKER_THREADS`).
    pub worker_threads: usize,
    /// How long connections may go on once the proxy is asked to end.
    #[serde(serialize_with = "values::serialize_duration")]
    pub drain_deadline: Duration,
    /// Settings that were read and change nothing, and why.
    pub unsupported: Vec<Unsupported>,
}

impl Config {
    /// Reads all sections.
    ///
    /// # Errors
    /// Every mistake, with variable, value and what would be accepted.
    pub fn from_env(environment: &Environment) -> Result<Self, Problems> {
        let mut reader = Reader::new(environment);
        let proxy = ProxyConfig::parse(&mut reader);
        let node = NodeConfig::parse(&mut reader, &proxy);
        let listeners = ListenersConfig::parse(&mut reader, &proxy);
        let config = Self {
            traffic: TrafficConfig::parse(&mut reader),
            sockets: SocketsConfig::parse(&mut reader),
            tunnels: TunnelsConfig::parse(&mut reader),
            discovery: DiscoveryConfig::parse(&mut reader, &proxy),
            certificates: CertificatesConfig::parse(&mut reader),
            telemetry: TelemetryConfig::parse(&mut reader),
            worker_threads: workers::parse(&mut reader, &proxy),
            drain_deadline: drain_deadline(&mut reader),
            node,
            listeners,
            unsupported: Vec::new(),
        };
        config.note_dns(&mut reader);
        let (problems, unsupported) = reader.finish();
        problems.into_result()?;
        Ok(Self { unsupported, ..config })
    }

    /// As YAML, for the line at start. No secret is in it.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        serde_saphyr::to_string(self).unwrap_or_else(|error| format!("the configuration cannot be shown: {error}\n"))
    }

    fn note_dns(&self, reader: &mut Reader<'_>) {
        let wanted = match self.node.metadata.get("DNS_CAPTURE") {
            None => true,
            Some(value) => value.as_str().is_some_and(|text| text.eq_ignore_ascii_case("true")),
        };
        if wanted {
            reader.unsupported("ISTIO_META_DNS_CAPTURE", "there is no DNS proxy: set it to false to say so");
        }
    }
}

/// An explicit deadline, or one that ends before Kubernetes kills the pod, or 5 s.
fn drain_deadline(reader: &mut Reader<'_>) -> Duration {
    const DEFAULT: Duration = Duration::from_secs(5);
    let explicit = reader.optional("CONNECTION_TERMINATION_DEADLINE", values::DURATION, values::duration);
    let grace: Option<u64> =
        reader.optional("TERMINATION_GRACE_PERIOD_SECONDS", "a number of seconds, such as 30", values::number);
    let within = grace.map(|s| Duration::from_secs(if s > 10 { s - 5 } else { s.saturating_sub(1).max(1) }));
    explicit.or(within).unwrap_or(DEFAULT)
}
