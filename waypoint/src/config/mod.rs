//! Settings of the waypoint, from its environment. Read once, at start, and nowhere else. Mistakes are collected and reported
//! together.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use contract::{Unsupported, ports};
use identity::Identity;
use proxy_core::config::{self, Environment, Reader, ThreadKeys};
use runtime::Problems;
use serde::Serialize;

/// `WAYPOINT_WORKER_THREADS` (`N`, 0 for all processors, or `P%`), then `concurrency` of ProxyConfig, then a default from what
/// Kubernetes gives the pod: `WAYPOINT_CPU_LIMIT` (processors), `WAYPOINT_RESOURCE_CPU_LIMIT` and
/// `WAYPOINT_RESOURCE_CPU_REQUEST` (quantities, such as 500m).
const THREADS: ThreadKeys = ThreadKeys {
    threads: "WAYPOINT_WORKER_THREADS",
    cpu_limit: "WAYPOINT_CPU_LIMIT",
    resource_cpu_limit: "WAYPOINT_RESOURCE_CPU_LIMIT",
    resource_cpu_request: "WAYPOINT_RESOURCE_CPU_REQUEST",
};

/// Everything, section by section.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// Sections that every proxy has.
    #[serde(flatten)]
    pub common: config::Config,
    /// Traffic of the waypoint.
    pub traffic: TrafficConfig,
    /// Settings that were read and change nothing, and why.
    pub unsupported: Vec<Unsupported>,
}

/// Traffic of the waypoint.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TrafficConfig {
    /// Address on which tunnels are accepted: all addresses, port 15008.
    pub listen: SocketAddr,
    /// `WAYPOINT_ACCESS_LOG`; default false: a line for each request on standard output, in Envoy's text format.
    pub access_log: bool,
    /// The waypoint's own identity, by `TRUST_DOMAIN`, `POD_NAMESPACE` and `SERVICE_ACCOUNT`.
    #[serde(serialize_with = "serialize_identity")]
    pub identity: Identity,
}

impl Config {
    /// Reads all sections.
    ///
    /// # Errors
    /// Every mistake, with variable, value and what would be accepted.
    pub fn from_env(environment: &Environment) -> Result<Self, Problems> {
        let mut reader = Reader::new(environment);
        let common = config::Config::parse(&mut reader, &THREADS);
        let access_log = reader.flag("WAYPOINT_ACCESS_LOG", false);
        let identity = common.node.self_identity();
        if identity.is_none() {
            reader.problems.push("POD_NAMESPACE, SERVICE_ACCOUNT", "", "the waypoint's own namespace and account");
        }
        let (problems, unsupported) = reader.finish();
        let any = if common.listeners.ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
        let listen = SocketAddr::new(any, ports::HBONE);
        match identity {
            Some(identity) if problems.is_empty() => {
                Ok(Self { common, traffic: TrafficConfig { listen, access_log, identity }, unsupported })
            }
            Some(_) | None => Err(problems),
        }
    }

    /// Returns the configuration as YAML, for the line at start. No secret is in it.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        config::to_yaml(self)
    }
}

fn serialize_identity<S: serde::Serializer>(identity: &Identity, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(identity.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        let variables = variables.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Environment { variables, mesh_config: None, processors: 4 }
    }

    #[test]
    fn a_waypoint_has_an_identity_and_accepts_on_all_addresses() {
        let config = Config::from_env(&environment(&[
            ("POD_NAMESPACE", "shop"),
            ("SERVICE_ACCOUNT", "waypoint"),
            ("WAYPOINT_ACCESS_LOG", "true"),
            ("WAYPOINT_WORKER_THREADS", "3"),
        ]));
        let config = config.unwrap();

        assert_eq!(config.traffic.identity.as_str(), "spiffe://cluster.local/ns/shop/sa/waypoint");
        assert_eq!(config.traffic.listen.to_string(), "[::]:15008");
        assert_eq!(config.common.worker_threads, 3);
        assert!(config.traffic.access_log);
        assert!(config.to_yaml().contains("identity: spiffe://cluster.local/ns/shop/sa/waypoint"));
    }

    #[test]
    fn all_mistakes_are_reported_together() {
        let wrong = Config::from_env(&environment(&[("WAYPOINT_ACCESS_LOG", "perhaps")])).unwrap_err().to_string();
        assert!(wrong.contains("WAYPOINT_ACCESS_LOG") && wrong.contains("POD_NAMESPACE"), "{wrong}");
    }
}
