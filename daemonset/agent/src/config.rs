//! Flags of the agent, each with an environment variable. It checks their form; whether paths exist is found on use.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Parser, Subcommand, ValueEnum};
use contract::ports;

use self::plugin::PluginFlags;

pub mod plugin;

/// Enrols the pods of one node in the mesh, and proves it.
#[derive(Debug, Clone, Parser)]
#[command(name = "strake-agent", version)]
pub struct Config {
    /// Name of this node, as in the pods' spec.nodeName.
    #[arg(long, env = "NODE_NAME", global = true, default_value = "")]
    pub node: String,
    /// Place of the pods that are read and of the annotations that are written.
    #[arg(long, env = "STRAKE_SOURCE", global = true, value_enum, default_value = "directory")]
    pub source: SourceKind,
    /// With --source cluster: kubeconfig; default: the ServiceAccount of this pod.
    #[arg(long, env = "STRAKE_KUBECONFIG", global = true)]
    pub kubeconfig: Option<PathBuf>,
    /// With --source directory: directory of manifests; may be given several times.
    #[arg(long, env = "STRAKE_MANIFESTS", value_delimiter = ',', global = true)]
    pub manifests: Vec<PathBuf>,
    /// With --source directory: directory of derived objects and of statuses.
    #[arg(long, env = "STRAKE_STATE", global = true)]
    pub state: Option<PathBuf>,
    /// cgroup v2 directory that holds everything of this node; default: the root of the hierarchy.
    #[arg(long, env = "STRAKE_CGROUP_ROOT", global = true)]
    pub cgroup_root: Option<PathBuf>,
    /// Directory on a bpf file system, of this node alone, for programs that keep working without the agent.
    #[arg(long, env = "STRAKE_BPFFS_DIR", global = true, default_value = "/sys/fs/bpf/strake")]
    pub bpffs_dir: PathBuf,
    /// Network namespace of the node itself.
    #[arg(long, env = "STRAKE_HOST_NETNS", global = true, default_value = "/proc/1/ns/net")]
    pub host_netns: PathBuf,
    /// Socket on which node proxies connect.
    #[arg(long, env = "ZTUNNEL_UDS_ADDRESS", global = true, default_value = "/var/run/ztunnel/ztunnel.sock")]
    pub ztunnel_uds_address: PathBuf,
    /// Directory of the socket on which CNI plugins ask for pods that start.
    #[arg(long, env = "CNI_AGENT_RUN_DIR", global = true, default_value = "/var/run/istio-cni")]
    pub cni_agent_run_dir: PathBuf,
    #[command(flatten)]
    pub plugin: PluginFlags,
    /// Cgroup whose health probes bypass the proxy; default: that of a process called kubelet.
    #[arg(long, env = "STRAKE_PROBER_CGROUP", global = true)]
    pub prober_cgroup: Option<PathBuf>,
    /// Directory for the admin socket and for state that must survive a restart of the agent, but not of the kernel.
    #[arg(long, env = "STRAKE_RUN_DIR", global = true, default_value = "/run/strake-agent")]
    pub run_dir: PathBuf,
    /// Time that a pod which leaves the mesh keeps its proxied connections.
    #[arg(long, env = "STRAKE_UNENROL_GRACE", global = true, default_value = "30s", value_parser = duration)]
    pub unenrol_grace: Duration,
    /// Namespaces whose pods are never enrolled.
    #[arg(long, env = "EXCLUDE_NAMESPACES", value_delimiter = ',', global = true, default_value = "kube-system")]
    pub exclude_namespaces: Vec<String>,
    /// Send DNS questions of enrolled pods to the node proxy; a pod's annotation ambient.istio.io/dns-capture overrides it.
    #[arg(long, env = "AMBIENT_DNS_CAPTURE", global = true, default_value_t = true, action = ArgAction::Set)]
    pub ambient_dns_capture: bool,
    /// Namespace of the node proxies.
    #[arg(long, env = "SYSTEM_NAMESPACE", global = true, default_value = "istio-system")]
    pub system_namespace: String,
    /// Address of /metrics and /pods.
    #[arg(long, env = "STRAKE_MONITORING_ADDRESS", global = true, default_value_t = ports::on_all_addresses(ports::MONITORING))]
    pub monitoring_address: SocketAddr,
    /// Address of /healthz and /readyz.
    #[arg(long, env = "STRAKE_HEALTH_ADDRESS", global = true, default_value_t = ports::on_all_addresses(ports::AGENT_HEALTH))]
    pub health_address: SocketAddr,
    /// Remove everything from the node when the agent ends. Without it pods stay enrolled while the agent is away.
    #[arg(long, env = "STRAKE_CLEANUP_ON_EXIT", global = true)]
    pub cleanup_on_exit: bool,
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Place of the objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SourceKind {
    Directory,
    Cluster,
}

/// Action instead of running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Remove all pods on this node from the mesh and unload Strake's eBPF programs. Stop the agent first.
    Uninstall,
}

impl Config {
    /// Checks the configuration and reports every missing flag at once.
    ///
    /// # Errors
    /// When a flag without a default is not given.
    pub fn check(&self) -> Result<(), runtime::Problems> {
        let mut problems = runtime::Problems::default();
        if self.node.is_empty() {
            problems.push("--node", "", "the name of this node, such as node-1");
        }
        let is_directory = self.source == SourceKind::Directory;
        if is_directory && self.manifests.is_empty() {
            problems.push("--manifests", "", "a directory of manifests, or --source cluster");
        }
        if is_directory && self.state.is_none() {
            problems.push("--state", "", "a directory, such as /run/strake/state");
        }
        for (flag, is_given, is_of_directory) in [
            ("--kubeconfig", self.kubeconfig.is_some(), false),
            ("--manifests", !self.manifests.is_empty(), true),
            ("--state", self.state.is_some(), true),
        ] {
            if is_given && is_directory != is_of_directory {
                let other = if is_directory { "cluster" } else { "directory" };
                problems.push(flag, "", format!("no such flag, or --source {other}"));
            }
        }
        if is_directory && self.plugin.startup_taint.is_some() {
            problems.push("--startup-taint", "", "no such flag, or --source cluster");
        }
        problems.into_result()
    }
}

/// `RUST_LOG`: levels by module, such as `debug` or `strake_agent::enrol=debug`.
pub fn log_filter() -> Option<String> {
    std::env::var("RUST_LOG").ok()
}

/// `30s`, `500ms`, `2m`, `0.5s`; a number alone counts seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    // Factors to seconds.
    let seconds = match unit {
        "ms" => 0.001,
        "s" | "" => 1.0,
        "m" => 60.0,
        _ => return Err(format!("unit {unit:?}, expected ms, s or m as in 30s")),
    };
    let number: f64 = number.parse().map_err(|_| "expected a number and a unit, as in 30s".to_owned())?;
    Duration::try_from_secs_f64(number * seconds).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn durations_have_a_unit_or_count_seconds() {
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("2"), Ok(Duration::from_secs(2)));
        assert_eq!(duration("0.5s"), Ok(Duration::from_millis(500)));
        assert!(duration("s").is_err() && duration("5h").is_err() && duration("99999999999999999999m").is_err());
    }

    #[test]
    fn everything_that_is_missing_is_told_at_once() {
        let config = Config::try_parse_from(["strake-agent"]).unwrap();

        let problems = config.check().unwrap_err();

        assert_eq!(problems.iter().count(), 3);
    }

    #[test]
    fn a_cluster_needs_no_directories() {
        let check = |flags: &[&str]| {
            let config = Config::try_parse_from(["strake-agent", "--node", "n1"].iter().chain(flags)).unwrap();
            config.check().map_err(|problems| problems.iter().map(|problem| problem.key.clone()).collect::<Vec<_>>())
        };

        assert_eq!(check(&["--source", "cluster"]), Ok(()));
        assert_eq!(check(&["--source", "cluster", "--state", "s"]), Err(vec!["--state".to_owned()]));
        assert!(check(&["--kubeconfig", "k"]).unwrap_err().contains(&"--kubeconfig".to_owned()));
    }

    #[test]
    fn the_help_text_is_reviewed_where_it_changes() {
        // What the environment happens to hold is not part of it.
        let mut command = Config::command().term_width(120).mut_args(|arg| arg.hide_env_values(true));

        insta::assert_snapshot!(command.render_long_help());
    }

    #[test]
    fn flags_may_follow_the_subcommand() {
        let config = Config::try_parse_from(["strake-agent", "uninstall", "--node", "n1"]).unwrap();

        assert_eq!(config.command, Some(Command::Uninstall));
        assert_eq!(config.node, "n1");
    }
}
