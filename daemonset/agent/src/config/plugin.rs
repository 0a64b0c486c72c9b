//! Flags of the CNI plugin's installation.

use std::path::PathBuf;

use clap::Args;
use cni::AgentDown;

/// Place and settings of the CNI plugin. Paths of the node are as this program sees them, unless their text says otherwise.
#[derive(Debug, Clone, Args)]
pub struct PluginFlags {
    /// Directory of the node's CNI configurations. Without it the plugin is not installed, and pods start without asking.
    #[arg(long, env = "MOUNTED_CNI_NET_DIR", global = true)]
    pub mounted_cni_net_dir: Option<PathBuf>,
    /// The same directory as the node sees it.
    #[arg(long, env = "CNI_NET_DIR", global = true, default_value = "/etc/cni/net.d")]
    pub cni_net_dir: PathBuf,
    /// Directory of the node's CNI plugins.
    #[arg(long, env = "STRAKE_CNI_BIN_DIR", global = true, default_value = "/host/opt/cni/bin")]
    pub cni_bin_dir: PathBuf,
    /// The plugin's program, which is copied to --cni-bin-dir.
    #[arg(long, env = "STRAKE_CNI_PLUGIN", global = true, default_value = "/usr/local/bin/strake-cni")]
    pub cni_plugin: PathBuf,
    /// Configuration that the plugin is added to; default: the first valid one by name, which container runtimes use.
    #[arg(long, env = "CNI_CONF_NAME", global = true)]
    pub cni_conf_name: Option<String>,
    /// Pods that start while the agent does not answer the plugin: refuse-selected (those that are not selected for the mesh),
    /// refuse-all (none but those of excluded namespaces) or allow-all (all: selected pods send in plaintext meanwhile).
    #[arg(long, env = "STRAKE_CNI_AGENT_DOWN", global = true, value_name = "POLICY", default_value_t = AgentDown::RefuseSelected)]
    pub cni_agent_down: AgentDown,
    /// Key of a taint of this node, such as strake.io/agent-not-ready, that the agent removes when pods of the mesh can start;
    /// default: none.
    #[arg(long, env = "STRAKE_STARTUP_TAINT", global = true, value_name = "KEY")]
    pub startup_taint: Option<String>,
}

/// Address of the API server as every pod of the cluster has it, `host:port`; `None` outside of a cluster.
pub fn api_server() -> Option<String> {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let (host, port) = (variable("KUBERNETES_SERVICE_HOST")?, variable("KUBERNETES_SERVICE_PORT")?);
    Some(authority(&host, &port))
}

fn authority(host: &str, port: &str) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_address_is_in_brackets() {
        assert_eq!(authority("fd92::1", "443"), "[fd92::1]:443");
        assert_eq!(authority("10.92.0.1", "443"), "10.92.0.1:443");
    }
}
