//! Nameservers and search domains of the process, from `/etc/resolv.conf`. Read once; Kubernetes does not change the file of
//! a container that runs.

use hickory_proto::rr::Name;
use hickory_resolver::config::ResolverConfig;
use hickory_resolver::system_conf::{parse_resolv_conf, read_system_conf};
use std::net::SocketAddr;

/// Port of nameservers: resolv.conf(5) has no other.
const PORT: u16 = 53;

/// Contents of `/etc/resolv.conf` that count here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResolvConf {
    /// In the order of the file.
    pub nameservers: Vec<SocketAddr>,
    /// Search domains: lower case, without a dot at the end.
    pub search: Vec<String>,
}

/// The file cannot be read, or names no nameserver.
#[derive(Debug, thiserror::Error)]
#[error("failed to read nameservers from /etc/resolv.conf: {0}")]
pub struct ResolvConfError(String);

impl ResolvConf {
    /// Reads the file of this process.
    ///
    /// # Errors
    /// When it is not there, has no nameserver, or an invalid search domain.
    pub fn of_process() -> Result<Self, ResolvConfError> {
        let (config, _) = read_system_conf().map_err(|e| ResolvConfError(e.to_string()))?;
        Ok(Self::from(&config))
    }

    /// Reads `text`, the contents of such a file.
    ///
    /// # Errors
    /// As [`of_process`](Self::of_process).
    pub fn parse(text: &str) -> Result<Self, ResolvConfError> {
        let (config, _) = parse_resolv_conf(text).map_err(|e| ResolvConfError(e.to_string()))?;
        Ok(Self::from(&config))
    }
}

impl From<&ResolverConfig> for ResolvConf {
    fn from(config: &ResolverConfig) -> Self {
        let plain = |name: &Name| name.to_ascii().trim_end_matches('.').to_ascii_lowercase();
        let search = config.search().iter().map(plain).filter(|domain| !domain.is_empty());
        Self {
            nameservers: config.name_servers().iter().map(|server| SocketAddr::new(server.ip, PORT)).collect(),
            search: search.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nameservers_keep_their_order_and_search_domains_lose_case_and_last_dot() {
        let text =
            "nameserver 10.96.0.10\nnameserver fd00::a\nsearch ns.svc.Cluster.Local. example.com\noptions ndots:5\n";

        let conf = ResolvConf::parse(text).unwrap();

        assert_eq!(conf.nameservers, ["10.96.0.10:53".parse().unwrap(), "[fd00::a]:53".parse().unwrap()]);
        assert_eq!(conf.search, ["ns.svc.cluster.local", "example.com"]);
    }

    #[test]
    fn a_file_without_nameservers_is_an_error_and_not_an_empty_list() {
        let error = ResolvConf::parse("search example.com\n").unwrap_err().to_string();

        assert!(error.starts_with("failed to read nameservers from /etc/resolv.conf"), "{error}");
    }
}
