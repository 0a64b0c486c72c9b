//! The command line, checked: all mistakes are reported together.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use contract::ports;
use graph::Mesh;
use graph::enrolment::Enablement;
use identity::TrustDomain;
use kube_cluster::Credentials;
use runtime::Problems;
use telemetry::logging::LogFormat;

use crate::certificates::{AuthorityConfig, TokensConfig};
use crate::source::SourceConfig;
use crate::waypoints::ControllerConfig;

/// Control plane of an ambient mesh: workload discovery, policies, certificate authority.
#[derive(Clone, Debug, Parser)]
#[command(name = "strake-control", version)]
pub struct Flags {
    /// Place of the resources that are read and of the statuses that are written.
    #[arg(long, value_enum, default_value = "directory")]
    pub source: SourceKind,
    /// With --source directory: directory or file of manifests; may be given several times.
    #[arg(long)]
    pub manifests: Vec<PathBuf>,
    /// With --source directory: directory of derived objects and of statuses.
    #[arg(long)]
    pub state: Option<PathBuf>,
    /// With --source cluster: kubeconfig; default: the ServiceAccount of this pod.
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// With --source cluster: unique name of this replica, as its pod's.
    #[arg(long, env = "POD_NAME")]
    pub replica: Option<String>,
    /// With --source cluster: file with the token of this replica's pod, for the audience `istio-ca`. Replicas show it to each
    /// other, to learn what the node proxies of the others have acknowledged.
    #[arg(long, default_value = "/var/run/secrets/tokens/istio-token")]
    pub replica_token: PathBuf,
    /// Directory of the root certificate and its key; both are made when they are not there. With --source cluster it may
    /// be left out: the Secret `cacerts` of the root namespace, or `istio-ca-secret`, which is made when neither is there.
    #[arg(long)]
    pub ca_dir: Option<PathBuf>,
    /// Longest validity of a workload's certificate, as 90m, 24h or 7d. A node proxy that asks for more gets this.
    #[arg(long, default_value = "24h", value_parser = duration)]
    pub max_workload_cert_ttl: Duration,
    /// YAML list of {node, namespace, serviceAccount, sha256}, mode 0600. With --source cluster it may be left out: the API
    /// server checks tokens.
    #[arg(long)]
    pub node_tokens: Option<PathBuf>,
    /// Address of discovery and the certificate authority, over TLS.
    #[arg(long, default_value_t = ports::on_all_addresses(ports::CONTROL_GRPC))]
    pub listen: SocketAddr,
    /// Policies of this namespace apply to the whole mesh.
    #[arg(long, default_value = "istio-system")]
    pub root_namespace: String,
    #[arg(long, default_value = "cluster.local")]
    pub trust_domain: String,
    #[arg(long, default_value = "Kubernetes")]
    pub cluster_id: String,
    /// Suffix of the host names of services.
    #[arg(long, default_value = "cluster.local")]
    pub cluster_domain: String,
    /// Service accounts of node proxies, `namespace/name`: they may ask for certificates of the pods on
    /// their node. Default: `ztunnel` in the root namespace.
    #[arg(long, value_delimiter = ',')]
    pub trusted_node_accounts: Vec<String>,
    /// Namespaces whose pods are never in the mesh.
    #[arg(long, value_delimiter = ',', default_value = "kube-system")]
    pub exclude_namespaces: Vec<String>,
    /// With --source cluster: image of the pods of waypoints. Without it no waypoint is made.
    #[arg(long)]
    pub waypoint_image: Option<String>,
    /// With --source cluster: when the image of waypoints is pulled: Always, IfNotPresent or Never.
    #[arg(long, default_value = "IfNotPresent", value_parser = ["Always", "IfNotPresent", "Never"])]
    pub waypoint_image_pull_policy: String,
    /// With --source cluster: names of Secrets with which the image of waypoints is pulled.
    #[arg(long, value_delimiter = ',')]
    pub waypoint_image_pull_secrets: Vec<String>,
    /// With --source cluster: environment variable of waypoints, NAME=VALUE; may be given several times.
    #[arg(long, value_parser = variable)]
    pub waypoint_env: Vec<(String, String)>,
    /// With --source cluster: Gateways of the class istio-waypoint are waypoints, too, as long as there is no Deployment with
    /// the label app=istiod. An istiod outside of the cluster cannot be seen: both would make the same objects. With
    /// --source directory they always are.
    #[arg(long)]
    pub istio_waypoint_class: bool,
    /// Directory for the admin socket, `admin.sock`.
    #[arg(long)]
    pub run_dir: Option<PathBuf>,
    /// Address of metrics and health.
    #[arg(long, default_value_t = ports::on_all_addresses(ports::MONITORING))]
    pub monitoring_address: SocketAddr,
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value = "plain")]
    pub log_format: Format,
    /// Levels, as `info,strake_control=debug`.
    #[arg(long, env = "RUST_LOG")]
    pub log_filter: Option<String>,
}

/// Place of the resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SourceKind {
    Directory,
    Cluster,
}

/// Format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Plain,
    Json,
}

impl From<Format> for LogFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::Plain => Self::Plain,
            Format::Json => Self::Json,
        }
    }
}

/// Configuration of the program.
#[derive(Clone, Debug)]
pub struct Config {
    pub source: SourceConfig,
    pub authority: AuthorityConfig,
    pub max_workload_cert_ttl: Duration,
    pub tokens: TokensConfig,
    pub listen: SocketAddr,
    pub mesh: Mesh,
    pub trust_domain: TrustDomain,
    /// Namespace and name.
    pub trusted_node_accounts: Vec<(String, String)>,
    pub enablement: Enablement,
    /// Image and settings of waypoints; `None`: none is made.
    pub waypoint: Option<WaypointConfig>,
    /// Gateways of Istio's class are waypoints.
    pub istio_waypoint_class: bool,
    pub run_dir: Option<PathBuf>,
    pub monitoring_address: SocketAddr,
}

/// Settings of the pods of waypoints.
#[derive(Clone, Debug)]
pub struct WaypointConfig {
    pub image: String,
    pub image_pull_policy: String,
    pub image_pull_secrets: Vec<String>,
    pub env: Vec<(String, String)>,
}

impl Flags {
    /// Checks what clap cannot.
    pub fn check(self) -> Result<Config, Problems> {
        let mut problems = Problems::default();
        let trust_domain = self.trust_domain.parse::<TrustDomain>();
        if trust_domain.is_err() {
            problems.push("--trust-domain", &self.trust_domain, "a trust domain, as cluster.local");
        }
        for (flag, value) in [
            ("--root-namespace", &self.root_namespace),
            ("--cluster-id", &self.cluster_id),
            ("--cluster-domain", &self.cluster_domain),
        ] {
            // They become parts of the names of resources, where a slash separates.
            if value.is_empty() || value.contains('/') {
                problems.push(flag, value, "a name without slashes");
            }
        }
        let mut accounts = Vec::new();
        for account in &self.trusted_node_accounts {
            match account.split_once('/') {
                Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => {
                    accounts.push((namespace.to_owned(), name.to_owned()));
                }
                Some(_) | None => {
                    problems.push("--trusted-node-accounts", account, "namespace/name, as istio-system/ztunnel")
                }
            }
        }
        if self.trusted_node_accounts.is_empty() {
            // Where Istio's chart installs its node proxy.
            accounts.push((self.root_namespace.clone(), "ztunnel".to_owned()));
        }
        let source = self.source_config(&mut problems);
        let (authority, tokens) = self.certificates_config(&mut problems);
        let waypoint = self.waypoint_config(&mut problems);
        problems.into_result()?;
        let (Ok(trust_domain), Some(source), Some(authority), Some(tokens)) = (trust_domain, source, authority, tokens)
        else {
            return Err(Problems::default());
        };
        Ok(Config {
            source,
            authority,
            max_workload_cert_ttl: self.max_workload_cert_ttl,
            tokens,
            listen: self.listen,
            enablement: Enablement {
                excluded_namespaces: self.exclude_namespaces,
                system_namespace: self.root_namespace.clone(),
            },
            mesh: Mesh {
                root_namespace: self.root_namespace,
                cluster_id: self.cluster_id,
                trust_domain: self.trust_domain,
                cluster_domain: self.cluster_domain,
                // The namespace of the control plane names it.
                network: String::new(),
            },
            trust_domain,
            trusted_node_accounts: accounts,
            waypoint,
            // Nobody else reads the directory.
            istio_waypoint_class: self.istio_waypoint_class || self.source == SourceKind::Directory,
            run_dir: self.run_dir,
            monitoring_address: self.monitoring_address,
        })
    }
}

impl Flags {
    /// Without an API server both come from files.
    fn certificates_config(&self, problems: &mut Problems) -> (Option<AuthorityConfig>, Option<TokensConfig>) {
        let in_cluster = self.source == SourceKind::Cluster;
        let authority = match &self.ca_dir {
            Some(directory) => Some(AuthorityConfig::Directory(directory.clone())),
            None => in_cluster.then(|| AuthorityConfig::Secrets(self.root_namespace.clone())),
        };
        let tokens = match &self.node_tokens {
            Some(path) => Some(TokensConfig::File(path.clone())),
            None => in_cluster.then_some(TokensConfig::Reviewed),
        };
        if authority.is_none() {
            problems.push("--ca-dir", "", "a directory, or --source cluster");
        }
        if tokens.is_none() {
            problems.push("--node-tokens", "", "a file, or --source cluster");
        }
        (authority, tokens)
    }

    fn waypoint_config(&self, problems: &mut Problems) -> Option<WaypointConfig> {
        let image = self.waypoint_image.clone()?;
        if self.source == SourceKind::Directory {
            problems.push("--waypoint-image", &image, "no such flag, or --source cluster: a directory has no images");
        }
        if image.is_empty() || image.contains(char::is_whitespace) {
            problems.push("--waypoint-image", &image, "the name of an image, as HOST/PROJECT/waypoint:TAG");
        }
        let mut env = self.waypoint_env.clone();
        if self.log_format == Format::Json {
            // Before what is given, which wins.
            env.insert(0, ("LOG_FORMAT".to_owned(), "json".to_owned()));
        }
        Some(WaypointConfig {
            image,
            image_pull_policy: self.waypoint_image_pull_policy.clone(),
            image_pull_secrets: self.waypoint_image_pull_secrets.clone(),
            env,
        })
    }

    fn source_config(&self, problems: &mut Problems) -> Option<SourceConfig> {
        let mut unused = |flag: &str, is_given: bool, source: &str| {
            if is_given {
                problems.push(flag, "", format!("no such flag, or --source {source}"));
            }
        };
        match self.source {
            SourceKind::Directory => {
                unused("--kubeconfig", self.kubeconfig.is_some(), "cluster");
                if self.manifests.is_empty() {
                    problems.push("--manifests", "", "a directory of manifests, or --source cluster");
                }
                let Some(state) = self.state.clone() else {
                    problems.push("--state", "", "a directory, such as /run/strake/state");
                    return None;
                };
                Some(SourceConfig::Directory { manifests: self.manifests.clone(), state })
            }
            SourceKind::Cluster => {
                unused("--manifests", !self.manifests.is_empty(), "directory");
                unused("--state", self.state.is_some(), "directory");
                let Some(replica) = self.replica.clone().filter(|replica| !replica.is_empty()) else {
                    problems.push("--replica", "", "the name of this replica, such as its pod's (POD_NAME)");
                    return None;
                };
                let credentials = match self.kubeconfig.clone() {
                    Some(path) => Credentials::Kubeconfig { path, context: None },
                    None => Credentials::InCluster,
                };
                let (namespace, token) = (self.root_namespace.clone(), self.replica_token.clone());
                Some(SourceConfig::Cluster { credentials, namespace, replica, token })
            }
        }
    }
}

/// Reads a number with a unit: `s`, `m`, `h` or `d`. At least a minute: a proxy renews at half of the time.
fn duration(text: &str) -> Result<Duration, String> {
    let expected = || format!("expected a time of at least 1m, as 90m, 24h or 7d, found {text:?}");
    let seconds = match text.char_indices().last() {
        Some((end, 's')) => (end, 1),
        Some((end, 'm')) => (end, 60),
        Some((end, 'h')) => (end, 3600),
        Some((end, 'd')) => (end, 24 * 3600),
        _ => return Err(expected()),
    };
    let (end, unit) = seconds;
    let number: u64 = text[..end].parse().map_err(|_| expected())?;
    number.checked_mul(unit).filter(|seconds| *seconds >= 60).map(Duration::from_secs).ok_or_else(expected)
}

/// Reads a variable, `NAME=VALUE`.
fn variable(text: &str) -> Result<(String, String), String> {
    let is_name = |name: &str| {
        let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        !name.is_empty() && !name.starts_with(|first: char| first.is_ascii_digit()) && name.bytes().all(is_inner)
    };
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    if is_name(name) && text.contains('=') {
        return Ok((name.to_owned(), value.to_owned()));
    }
    Err(format!("expected NAME=VALUE, as NETWORK=east, found {text:?}"))
}

impl Config {
    pub(crate) fn waypoints(&self) -> ControllerConfig {
        ControllerConfig {
            cluster_domain: self.mesh.cluster_domain.clone(),
            root_namespace: self.mesh.root_namespace.clone(),
            istio_class: self.istio_waypoint_class,
        }
    }

    /// Settings of the objects of waypoints; `None`: none is made.
    pub(crate) fn waypoint_settings(&self) -> Option<waypoint_manifests::Settings> {
        let WaypointConfig { image, image_pull_policy, image_pull_secrets, env } = self.waypoint.clone()?;
        let control = format!("strake-control.{}.svc", self.mesh.root_namespace);
        Some(waypoint_manifests::Settings {
            image,
            image_pull_policy,
            image_pull_secrets,
            control_address: format!("https://{control}:{}", ports::CONTROL_GRPC),
            cluster_id: self.mesh.cluster_id.clone(),
            trust_domain: self.mesh.trust_domain.clone(),
            env,
        })
    }

    /// Host names that the serving certificate is for.
    pub(crate) fn serving_names(&self) -> Vec<String> {
        let namespace = &self.mesh.root_namespace;
        let mut names = Vec::new();
        // Proxies of Istio dial `istiod`, and check that the certificate has this name.
        for service in ["strake-control", "istiod"] {
            names.push(format!("{service}.{namespace}.svc"));
            names.push(format!("{service}.{namespace}.svc.{}", self.mesh.cluster_domain));
        }
        names.push("localhost".to_owned());
        names
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn validities_have_a_unit_and_a_minimum() {
        assert_eq!(duration("90m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("7d"), Ok(Duration::from_secs(7 * 86_400)));
        for bad in ["", "24", "h", "59s", "-1h", "1.5h", "99999999999999999999d", "18446744073709551615d"] {
            assert!(duration(bad).unwrap_err().contains("24h"), "{bad}");
        }
    }

    #[test]
    fn a_variable_has_a_name_and_a_value() {
        assert_eq!(variable("NETWORK=a=b"), Ok(("NETWORK".to_owned(), "a=b".to_owned())));
        assert_eq!(variable("A="), Ok(("A".to_owned(), String::new())));
        for bad in ["", "A", "=b", "1A=b", "A B=c"] {
            assert!(variable(bad).unwrap_err().contains("NAME=VALUE"), "{bad}");
        }
    }

    #[test]
    fn waypoints_are_made_in_a_cluster_that_has_an_image() {
        let flags = |line: &[&str]| Flags::parse_from(["strake-control"].iter().chain(line));
        let cluster = ["--source", "cluster", "--replica", "a"];
        let with_image = ["--waypoint-image", "hub/waypoint:1", "--waypoint-env", "A=b", "--log-format", "json"];

        assert_eq!(flags(&cluster).check().unwrap().waypoint_settings(), None);
        let made = flags(&[&cluster[..], &with_image].concat()).check().unwrap();
        let settings = made.waypoint_settings().unwrap();
        assert_eq!(settings.control_address, "https://strake-control.istio-system.svc:15012");
        assert_eq!(settings.env.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["LOG_FORMAT", "A"]);
        assert!(!made.istio_waypoint_class);
        assert_eq!(problems(&["--manifests", "m", "--state", "s", "--waypoint-image", "x"]), ["--waypoint-image"]);
    }

    const FILES: [&str; 4] = ["--ca-dir", "ca", "--node-tokens", "tokens"];

    fn problems(source: &[&str]) -> Vec<String> {
        let flags = Flags::parse_from(["strake-control"].iter().chain(&FILES).chain(source));
        flags_problems(flags)
    }

    fn flags_problems(flags: Flags) -> Vec<String> {
        let keys = |problems: Problems| problems.iter().map(|problem| problem.key.clone()).collect();
        flags.check().map_or_else(keys, |_| Vec::new())
    }

    #[test]
    fn each_source_has_flags_of_its_own() {
        let empty: [&str; 0] = [];

        assert_eq!(problems(&["--manifests", "m", "--state", "s"]), empty);
        assert_eq!(problems(&["--source", "cluster", "--replica", "a", "--kubeconfig", "k"]), empty);
        assert_eq!(problems(&["--kubeconfig", "k"]), ["--kubeconfig", "--manifests", "--state"]);
        let mixed = ["--source", "cluster", "--manifests", "m", "--state", "s", "--replica", ""];
        assert_eq!(problems(&mixed), ["--manifests", "--state", "--replica"]);
    }

    #[test]
    fn without_an_api_server_certificates_and_tokens_are_files() {
        let flags = |line: &[&str]| Flags::parse_from(["strake-control"].iter().chain(line));
        let config = flags(&["--source", "cluster", "--replica", "a"]).check().unwrap();

        assert_eq!(config.authority, AuthorityConfig::Secrets("istio-system".to_owned()));
        assert_eq!(config.tokens, TokensConfig::Reviewed);
        let directory = flags(&["--manifests", "m", "--state", "s"]);
        assert_eq!(flags_problems(directory), ["--ca-dir", "--node-tokens"]);
    }

    #[test]
    fn the_help_text_is_reviewed_where_it_changes() {
        // What the environment happens to hold is not part of it.
        let mut command = Flags::command().term_width(120).mut_args(|arg| arg.hide_env_values(true));

        insta::assert_snapshot!(command.render_long_help());
    }
}
