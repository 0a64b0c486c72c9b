//! `strake status`: the programs of a mesh, the pods that should be in it, and what is not as it should be.

mod nodes;
pub(crate) mod overview;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, ValueEnum};
use contract::manifests::SYSTEM_NAMESPACE;
use kube_cluster::{ApiServer, Collection, Objects};
use serde::Serialize;

use crate::{
    check::{CHECK_FAILED, not_in_force},
    get::table,
    mesh::{LabMesh, Mesh, namespace, pod},
};
use nodes::{NodeView, Views};
use overview::{Input, Overview, Program};

/// Shows a mesh: its programs, how many pods are in it, what each node's proxy has, and what is not in place
#[derive(Debug, Args)]
#[command(after_help = "Exit code: 0; 1 when the mesh cannot be asked; 3 with --check when something is not in place")]
pub(crate) struct Status {
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
    Yaml,
}

#[derive(Debug, Serialize)]
struct View {
    programs: Vec<Program>,
    nodes: Vec<NodeView>,
    /// Texts about everything that is not as it should be.
    problems: Vec<String>,
}

impl Status {
    /// # Errors
    /// When the mesh does not answer: nothing is known then.
    pub(crate) async fn run(self, mesh: &Mesh) -> Result<ExitCode> {
        let Views { mut nodes, silent, unsettled } = nodes::views(mesh).await?;
        let (programs, mut problems) = match mesh {
            Mesh::Cluster(cluster) => {
                let Overview { programs, nodes: announced, problems } = Overview::new(&read(cluster.server()).await?);
                for node in &mut nodes {
                    node.in_mesh = announced.iter().find(|one| one.name == node.name).map(|one| one.in_mesh);
                }
                (programs, problems)
            }
            Mesh::Lab(lab) => (of_lab(lab).await?, [not_in_force(mesh, None).await?, unsettled].concat()),
        };
        problems.extend(silent);
        let view = View { programs, nodes, problems };
        match self.output {
            Some(Output::Json) => println!("{}", serde_json::to_string_pretty(&view)?),
            Some(Output::Yaml) => print!("{}", serde_saphyr::to_string(&view)?),
            None => print!("{}", render(&view)),
        }
        let failed = self.check && !view.problems.is_empty();
        Ok(if failed { ExitCode::from(CHECK_FAILED) } else { ExitCode::SUCCESS })
    }
}

/// Pods of the mesh's own programs in a lab. They have no image.
async fn of_lab(mesh: &LabMesh) -> Result<Vec<Program>> {
    let pods = mesh.lab.pods().await?.into_iter().filter(|pod| pod.namespace == SYSTEM_NAMESPACE);
    let program = |pod: lab::PodInfo| Program {
        program: pod.name.strip_suffix(&format!("-{}", pod.node)).unwrap_or(&pod.name).to_owned(),
        node: pod.node,
        pod: pod.name,
        image: String::new(),
        ready: pod.ready,
    };
    Ok(pods.map(program).collect())
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

fn render(view: &View) -> String {
    let programs = view.programs.iter().map(|program| {
        let state = if program.ready { "ready" } else { "not ready" };
        [&program.program, &program.node, &program.pod, &table::or_dash(&program.image), state]
            .map(str::to_owned)
            .to_vec()
    });
    let mut text = table::render(&["PROGRAM", "NODE", "POD", "IMAGE", "STATE"], &programs.collect::<Vec<_>>());
    text.push('\n');
    text.push_str(&table::render(&nodes::HEADER, &view.nodes.iter().map(NodeView::cells).collect::<Vec<_>>()));
    for problem in &view.problems {
        text.push_str(&format!("\n{problem}"));
    }
    if !view.problems.is_empty() {
        text.push('\n');
    }
    text
}
