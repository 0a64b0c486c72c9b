//! `strake status`: the programs of a cluster's mesh, the pods that should be in it, and what is not as it should be.

mod overview;

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use contract::manifests::SYSTEM_NAMESPACE;
use kube_cluster::{ApiServer, Collection, Objects};
use kube_types::core::{Namespace, Pod};
use kube_types::{Kind, Resource};
use serde_json::Value;

use crate::{check::CHECK_FAILED, cluster::Cluster, get::table};
use overview::{Input, Overview};

/// Shows the mesh of a Kubernetes cluster: its programs, how many pods are in it, and what is not in place
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code: 0; 1 when the API server cannot be asked; 3 with --check when something is not in place"
)]
pub(crate) struct Status {
    #[command(flatten)]
    cluster: Cluster,
    /// Form of the output; default: tables
    #[arg(short, long, value_enum)]
    output: Option<Output>,
    /// Exit with 3 if a program is missing or not ready, a selected pod is not in the mesh or a policy is not enforced
    #[arg(long)]
    check: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Json,
}

impl Status {
    /// # Errors
    /// When the API server does not answer: nothing is known then.
    pub(crate) async fn run(self) -> Result<ExitCode> {
        let server = self.cluster.connect().await?;
        let overview = Overview::new(&read(&server).await?);
        match self.output {
            Some(Output::Json) => println!("{}", serde_json::to_string_pretty(&overview)?),
            None => print!("{}", render(&overview)),
        }
        let failed = self.check && !overview.problems.is_empty();
        Ok(if failed { ExitCode::from(CHECK_FAILED) } else { ExitCode::SUCCESS })
    }
}

async fn read(server: &ApiServer) -> Result<Input> {
    let api = Objects::new(server);
    let list = async |version: &str, plural: &str| api.list(&Collection::all(version, plural), None, None).await;
    let mut policies = Vec::new();
    for plural in ["authorizationpolicies", "peerauthentications"] {
        // A cluster without the custom resources has no policies; anything else is an error.
        let kinds = Collection::all("apiextensions.k8s.io/v1", "customresourcedefinitions");
        if api.get(&kinds.named(&format!("{plural}.security.istio.io"))).await?.is_some() {
            policies.extend(list("security.istio.io/v1", plural).await?);
        }
    }
    let pods = list("v1", "pods").await?.into_iter().map(pod).collect::<Result<_>>()?;
    let namespaces = list("v1", "namespaces").await?.into_iter().map(namespace).collect::<Result<_>>()?;
    let settings = Collection::namespaced("v1", "configmaps", SYSTEM_NAMESPACE).named(contract::manifests::AGENT);
    Ok(Input { nodes: list("v1", "nodes").await?, namespaces, pods, policies, settings: api.get(&settings).await? })
}

fn pod(value: Value) -> Result<Pod> {
    match Resource::from_value(Kind::Pod, value).context("a pod of the API server")? {
        Resource::Pod(pod) => Ok(pod.as_ref().clone()),
        other => anyhow::bail!("{} in a list of pods", other.key()),
    }
}

fn namespace(value: Value) -> Result<Namespace> {
    match Resource::from_value(Kind::Namespace, value).context("a namespace of the API server")? {
        Resource::Namespace(namespace) => Ok(namespace.as_ref().clone()),
        other => anyhow::bail!("{} in a list of namespaces", other.key()),
    }
}

fn render(overview: &Overview) -> String {
    let programs = overview.programs.iter().map(|program| {
        let state = if program.ready { "ready" } else { "not ready" };
        [&program.program, &program.node, &program.pod, &program.image, state].map(str::to_owned).to_vec()
    });
    let nodes =
        overview.nodes.iter().map(|node| vec![node.name.clone(), node.selected.to_string(), node.in_mesh.to_string()]);
    let mut text = table::render(&["PROGRAM", "NODE", "POD", "IMAGE", "STATE"], &programs.collect::<Vec<_>>());
    text.push('\n');
    text.push_str(&table::render(&["NODE", "PODS SELECTED", "IN THE MESH"], &nodes.collect::<Vec<_>>()));
    for problem in &overview.problems {
        text.push_str(&format!("\n{problem}"));
    }
    if !overview.problems.is_empty() {
        text.push('\n');
    }
    text
}
