//! `strake waypoint`: makes, lists and removes waypoints, as Gateways of a cluster or in the manifests of a lab. What runs them
//! is made by the control plane, or by the lab.

mod cluster;
mod lab;
mod manifest;
mod show;

use std::{collections::BTreeSet, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use contract::labels::USE_WAYPOINT_LABEL;
use kube_types::gateway::Gateway;
use tokio::time::{Instant, sleep};

use self::{cluster::ClusterGateways, lab::LabGateways, manifest::Manifest};
use crate::{
    get::table,
    mesh::{Choice, Mesh},
    progress::Progress,
};

/// Name of a waypoint without `--name`. As istioctl's.
const DEFAULT_NAME: &str = "waypoint";

/// Pause between two looks at a status.
const INTERVAL: Duration = Duration::from_millis(500);

/// Commands about waypoints.
#[derive(Debug, Subcommand)]
pub(crate) enum Waypoint {
    /// Makes a waypoint, or changes it to be as the options say
    Apply(Apply),
    /// Prints the Gateway that apply makes
    Generate(Generate),
    /// Lists waypoints
    List(List),
    /// Prints the conditions of waypoints; exit code 1 if one is not ready
    Status(Named),
    /// Waits until a waypoint is ready
    Wait(WaitFor),
    /// Removes waypoints
    Delete(Delete),
}

/// Traffic that a waypoint handles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Traffic {
    /// Connections to the addresses of Services
    Service,
    /// Connections to the addresses of pods
    Workload,
    /// Both
    All,
    /// None, to try a waypoint before it is used
    None,
}

/// Description of a waypoint.
#[derive(Debug, Args)]
pub(crate) struct Description {
    /// Namespace of the waypoint
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Name of the waypoint
    #[arg(long, default_value = DEFAULT_NAME)]
    name: String,
    /// Traffic that it handles [default: service]
    #[arg(long = "for", value_name = "TRAFFIC")]
    traffic: Option<Traffic>,
    /// Class of the Gateway
    #[arg(long, default_value = waypoint_manifests::CLASS)]
    class: String,
    /// Not supported: there are no revisions
    #[arg(short, long, hide_short_help = true)]
    revision: Option<String>,
}

/// Options of `apply`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  strake waypoint apply -n shop --enroll-namespace --wait    every Service of shop is behind a waypoint
  strake waypoint apply -n shop --name people --for workload

In a lab the Gateway is written to a file of its own, waypoint-NAMESPACE-NAME.yaml, in the first directory of manifests.")]
pub(crate) struct Apply {
    #[command(flatten)]
    description: Description,
    /// Label the namespace, so that its Services use the waypoint
    #[arg(long)]
    enroll_namespace: bool,
    /// Replace the waypoint that the namespace uses
    #[arg(long, requires = "enroll_namespace")]
    overwrite: bool,
    #[command(flatten)]
    wait: WaitOptions,
}

/// Options of commands that can wait.
#[derive(Debug, Args)]
pub(crate) struct WaitOptions {
    /// Wait until the waypoint is ready
    #[arg(long)]
    wait: bool,
    /// Seconds that --wait takes at most
    #[arg(long, value_name = "SECONDS", default_value_t = 60, requires = "wait")]
    timeout: u64,
}

/// Options of `generate`.
#[derive(Debug, Args)]
pub(crate) struct Generate {
    #[command(flatten)]
    description: Description,
}

/// Options of `list`.
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Namespace [default: default]
    #[arg(short, long, conflicts_with = "all_namespaces")]
    namespace: Option<String>,
    /// All namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
}

/// Waypoints by their names.
#[derive(Debug, Args)]
pub(crate) struct Named {
    /// Names; all of the namespace without one
    names: Vec<String>,
    /// Namespace
    #[arg(short, long, default_value = "default")]
    namespace: String,
}

/// Options of `wait`.
#[derive(Debug, Args)]
pub(crate) struct WaitFor {
    /// Name of the waypoint
    #[arg(default_value = DEFAULT_NAME)]
    name: String,
    /// Namespace
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Seconds to wait at most
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
}

/// Options of `delete`.
#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// Names of the waypoints
    #[arg(required_unless_present = "all")]
    names: Vec<String>,
    /// Namespace
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Every waypoint of the namespace
    #[arg(long, conflicts_with = "names")]
    all: bool,
}

/// Place of the Gateways.
enum Gateways {
    Lab(LabGateways),
    Cluster(ClusterGateways),
}

impl Waypoint {
    /// # Errors
    /// When the mesh cannot be asked, or refuses the change.
    pub(crate) async fn run(self, choice: &Choice) -> Result<ExitCode> {
        if let Self::Generate(command) = self {
            print!("{}", command.description.manifest()?.text());
            return Ok(ExitCode::SUCCESS);
        }
        let gateways = match choice.connect().await? {
            Mesh::Lab(mesh) => Gateways::Lab(LabGateways::new(mesh)),
            Mesh::Cluster(mesh) => Gateways::Cluster(ClusterGateways::new(mesh)),
        };
        match self {
            Self::Apply(command) => command.run(&gateways).await,
            Self::Generate(_) => Ok(ExitCode::SUCCESS),
            Self::List(command) => command.run(&gateways).await,
            Self::Status(command) => command.run(&gateways).await,
            Self::Wait(command) => {
                until_ready(&gateways, &command.namespace, &command.name, command.timeout).await?;
                println!("waypoint {}/{} is ready", command.namespace, command.name);
                Ok(ExitCode::SUCCESS)
            }
            Self::Delete(command) => command.run(&gateways).await,
        }
    }
}

impl Description {
    fn manifest(&self) -> Result<Manifest> {
        if let Some(revision) = &self.revision {
            bail!("--revision {revision}: not supported, every Gateway of the class is this control plane's");
        }
        Manifest::new(&self.namespace, &self.name, &self.class, self.traffic)
    }
}

impl Apply {
    async fn run(self, gateways: &Gateways) -> Result<ExitCode> {
        let Description { namespace, name, .. } = &self.description;
        let manifest = self.description.manifest()?;
        if self.enroll_namespace && !self.overwrite {
            // Before anything is made: the waypoint would be there, and nobody would use it.
            gateways.refuse_other(namespace, name).await?;
        }
        println!("{}", gateways.apply(&manifest).await?);
        if self.enroll_namespace {
            println!("{}", gateways.enrol(namespace, name, self.overwrite).await?);
        }
        if self.wait.wait {
            until_ready(gateways, namespace, name, self.wait.timeout).await?;
            println!("waypoint {namespace}/{name} is ready");
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl List {
    async fn run(self, gateways: &Gateways) -> Result<ExitCode> {
        let namespace = (!self.all_namespaces).then(|| self.namespace.unwrap_or_else(|| "default".to_owned()));
        let found = gateways.list(namespace.as_deref()).await?;
        if found.is_empty() {
            eprintln!(
                "no waypoints found{}",
                namespace.map(|name| format!(" in namespace {name}")).unwrap_or_default()
            );
            return Ok(ExitCode::SUCCESS);
        }
        let rows: Vec<_> = found.iter().map(show::row).collect();
        print!("{}", table::render(&show::HEADER, &rows));
        Ok(ExitCode::SUCCESS)
    }
}

impl Named {
    async fn run(self, gateways: &Gateways) -> Result<ExitCode> {
        let found = gateways.named(&self.namespace, &self.names).await?;
        if found.is_empty() {
            bail!("no waypoints found in namespace {}", self.namespace);
        }
        let rows: Vec<_> = found.iter().flat_map(show::conditions).collect();
        print!("{}", table::render(&show::CONDITIONS, &rows));
        let is_ready = found.iter().all(|gateway| show::unready(gateway).is_none());
        Ok(if is_ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

impl Delete {
    async fn run(self, gateways: &Gateways) -> Result<ExitCode> {
        // Found before the first is removed: a misspelt name removes nothing.
        let found = gateways.named(&self.namespace, &self.names).await?;
        if found.is_empty() {
            eprintln!("no waypoints found in namespace {}", self.namespace);
        }
        for gateway in &found {
            println!("{}", gateways.delete(&gateway.metadata.namespace, &gateway.metadata.name).await?);
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Gateways {
    /// Waypoints of a namespace or of all, by namespace and name.
    async fn list(&self, namespace: Option<&str>) -> Result<Vec<Gateway>> {
        let mut all = match self {
            Self::Lab(lab) => lab.all().await?,
            Self::Cluster(cluster) => cluster.all().await?,
        };
        all.retain(|gateway| {
            manifest::is_waypoint(gateway) && namespace.is_none_or(|namespace| gateway.metadata.namespace == namespace)
        });
        all.sort_by(|a, b| {
            let key = |gateway: &Gateway| (gateway.metadata.namespace.clone(), gateway.metadata.name.clone());
            key(a).cmp(&key(b))
        });
        Ok(all)
    }

    /// Waypoints of these names; all of the namespace without names.
    async fn named(&self, namespace: &str, names: &[String]) -> Result<Vec<Gateway>> {
        let found = self.list(Some(namespace)).await?;
        if names.is_empty() {
            return Ok(found);
        }
        let known: BTreeSet<_> = found.iter().map(|gateway| gateway.metadata.name.as_str()).collect();
        let missing: Vec<_> = names.iter().filter(|name| !known.contains(name.as_str())).map(String::as_str).collect();
        if !missing.is_empty() {
            bail!("no waypoint {} in namespace {namespace}", missing.join(", "));
        }
        Ok(found.into_iter().filter(|gateway| names.contains(&gateway.metadata.name)).collect())
    }

    async fn apply(&self, manifest: &Manifest) -> Result<String> {
        match self {
            Self::Lab(lab) => lab.apply(manifest),
            Self::Cluster(cluster) => cluster.apply(manifest).await,
        }
    }

    /// Refuses when the namespace uses another waypoint.
    async fn refuse_other(&self, namespace: &str, name: &str) -> Result<()> {
        let used = match self {
            Self::Lab(lab) => lab.used(namespace)?,
            Self::Cluster(cluster) => cluster.used(namespace).await?,
        };
        match used.filter(|used| used != name) {
            Some(used) => bail!(
                "namespace {namespace} uses waypoint {used} (label {USE_WAYPOINT_LABEL}): --overwrite replaces it"
            ),
            None => Ok(()),
        }
    }

    async fn enrol(&self, namespace: &str, name: &str, overwrite: bool) -> Result<String> {
        match self {
            Self::Lab(lab) => lab.enrol(namespace, name, overwrite),
            Self::Cluster(cluster) => cluster.enrol(namespace, name, overwrite).await,
        }
    }

    async fn delete(&self, namespace: &str, name: &str) -> Result<String> {
        match self {
            Self::Lab(lab) => lab.delete(namespace, name),
            Self::Cluster(cluster) => cluster.delete(namespace, name).await,
        }
    }
}

/// Waits until a waypoint is ready, as its status says about its newest specification.
async fn until_ready(gateways: &Gateways, namespace: &str, name: &str, seconds: u64) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let mut progress = Progress::new();
    loop {
        let found = gateways.list(Some(namespace)).await.context("waypoints")?;
        let gateway = found.iter().find(|gateway| gateway.metadata.name == name);
        let missing = match gateway {
            Some(gateway) => show::unready(gateway),
            None => Some("no Gateway of this name".to_owned()),
        };
        let Some(missing) = missing else {
            progress.clear();
            return Ok(());
        };
        if Instant::now() >= deadline {
            progress.clear();
            bail!("waypoint {namespace}/{name} is not ready after {seconds} s: {missing}");
        }
        progress.show(&[format!("waypoint {namespace}/{name}: {missing}")]);
        sleep(INTERVAL).await;
    }
}

/// Note about a namespace whose pods are not in the mesh: nothing sends their connections to the waypoint.
fn outside(namespace: &str, program: &str) -> String {
    format!(
        "\nnote: the namespace is not in the mesh, so that connections of its pods do not go through the waypoint; `{program} label namespace {namespace} istio.io/dataplane-mode=ambient` puts them there"
    )
}
