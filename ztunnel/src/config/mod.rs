//! Settings of the node proxy, from its environment: every key, its default, its range. Read once, at start, and nowhere
//! else. Mistakes are collected and reported together.

mod dns;
#[cfg(test)]
mod tests;
mod traffic;

use contract::Unsupported;
use proxy_core::config::{self, Environment, Reader, ThreadKeys};
use runtime::Problems;
use serde::Serialize;

pub use dns::DnsConfig;
pub use traffic::{Mode, PreserveSource, TrafficConfig, WorkloadInfo};

/// `ZTUNNEL_WORKER_THREADS` (`N`, 0 for all processors, or `P%`), then `concurrency` of ProxyConfig, then a default from
/// what Kubernetes gives the pod: `ZTUNNEL_CPU_LIMIT` (processors), `ZTUNNEL_RESOURCE_CPU_LIMIT` and
/// `ZTUNNEL_RESOURCE_CPU_REQUEST` (quantities, such as 500m).
const THREADS: ThreadKeys = ThreadKeys {
    threads: "ZTUNNEL_WORKER_THREADS",
    cpu_limit: "ZTUNNEL_CPU_LIMIT",
    resource_cpu_limit: "ZTUNNEL_RESOURCE_CPU_LIMIT",
    resource_cpu_request: "ZTUNNEL_RESOURCE_CPU_REQUEST",
};

/// Everything, section by section.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// Sections that every proxy has.
    #[serde(flatten)]
    pub common: config::Config,
    /// Traffic of the node.
    pub traffic: TrafficConfig,
    /// DNS of the pods.
    pub dns: DnsConfig,
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
        let common = config::Config::parse(&mut reader, &THREADS);
        let traffic = TrafficConfig::parse(&mut reader);
        let dns = DnsConfig::parse(&mut reader, &common);
        let (problems, unsupported) = reader.finish();
        problems.into_result()?;
        Ok(Self { common, traffic, dns, unsupported })
    }

    /// Returns the configuration as YAML, for the line at start. No secret is in it.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        config::to_yaml(self)
    }
}
