//! The proxy's own ports: metrics, readiness, admin. Not the ones in pods.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};

use contract::ports;
use serde::Serialize;

use super::{proxy_config::ProxyConfig, source::Reader};

/// Own ports and sockets.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenersConfig {
    /// `IPV6_ENABLED`; default true: wildcards are dual-stack.
    pub ipv6: bool,
    /// Loopback, `proxyAdminPort` of ProxyConfig; default 15000.
    pub admin: SocketAddr,
    /// All addresses, `statsPort` of ProxyConfig; default 15020.
    pub metrics: SocketAddr,
    /// All addresses, 15021.
    pub readiness: SocketAddr,
    /// `STRAKE_RUN_DIR` (flag `--run-dir`): admin also answers on `admin.sock` in there.
    pub run_dir: Option<PathBuf>,
}

impl ListenersConfig {
    pub(super) fn parse(reader: &mut Reader<'_>, proxy: &ProxyConfig) -> Self {
        let ipv6 = reader.flag("IPV6_ENABLED", true);
        let any = if ipv6 { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
        Self {
            ipv6,
            // Never on all addresses: its pages show the whole mesh, and one of them ends the proxy.
            admin: (Ipv4Addr::LOCALHOST, proxy.proxy_admin_port.unwrap_or(ports::PROXY_ADMIN)).into(),
            metrics: (any, proxy.stats_port.unwrap_or(ports::PROXY_METRICS)).into(),
            readiness: (any, ports::PROXY_READINESS).into(),
            run_dir: reader.path("STRAKE_RUN_DIR"),
        }
    }

    /// The admin port on IPv6's loopback, where that exists.
    #[must_use]
    pub fn admin_v6(&self) -> Option<SocketAddr> {
        // Asked of the kernel: without IPv6 on `lo` the bind would fail, and with it the start.
        let disabled = std::fs::read_to_string("/proc/sys/net/ipv6/conf/lo/disable_ipv6").ok()?;
        let usable = self.ipv6 && disabled.trim() == "0";
        usable.then(|| (Ipv6Addr::LOCALHOST, self.admin.port()).into())
    }
}
