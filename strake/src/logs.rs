//! `strake logs`: what the programs of the mesh have printed, on one node or all.

use std::{io::Write as _, process::ExitCode};

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use contract::manifests::{AGENT, CONTROL, SYSTEM_NAMESPACE, ZTUNNEL};
use kube_cluster::{Log, LogOptions};
use tokio::task::JoinSet;

use crate::{
    lab::logs::{self, Range},
    mesh::{Choice, ClusterMesh, Mesh},
    target::Target,
};

/// Prints logs of the programs of the mesh
#[derive(Debug, Args)]
#[command(
    after_help = "Of several pods each line begins with the pod. Logs of your own pods: kubectl logs, or strake lab logs.

Exit code: 0; 1 when the mesh cannot be asked or there is no such program; 2 for a wrong command line"
)]
pub(crate) struct Logs {
    /// The program [default: all]
    program: Option<Program>,
    /// Only of this node
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    #[command(flatten)]
    range: Range,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Program {
    #[value(alias = "strake-control")]
    Control,
    #[value(alias = "strake-agent")]
    Agent,
    Ztunnel,
}

impl Program {
    const fn name(self) -> &'static str {
        match self {
            Self::Control => CONTROL,
            Self::Agent => AGENT,
            Self::Ztunnel => ZTUNNEL,
        }
    }
}

impl Logs {
    pub(crate) async fn run(self, choice: &Choice) -> Result<ExitCode> {
        match choice.connect().await? {
            Mesh::Lab(mesh) => self.of_lab(Target::of(&mesh.lab)).await,
            Mesh::Cluster(mesh) => self.of_cluster(&mesh).await,
        }
    }

    fn programs(&self) -> Vec<&'static str> {
        let all = [CONTROL, AGENT, ZTUNNEL];
        self.program.map_or_else(|| all.to_vec(), |program| vec![program.name()])
    }

    async fn of_lab(self, target: Target) -> Result<ExitCode> {
        let lab = target.attach().await?;
        let programs = self.programs();
        let pods = lab.pods().await?.into_iter().filter(|pod| {
            let is_program =
                programs.iter().any(|program| pod.name == *program || pod.name.starts_with(&format!("{program}-")));
            let on_node = self.node.as_ref().is_none_or(|node| pod.node == *node);
            pod.namespace == SYSTEM_NAMESPACE && is_program && on_node
        });
        let pods: Vec<_> = pods.map(|pod| pod.name).collect();
        if pods.is_empty() {
            bail!("{}", self.none());
        }
        logs::Logs::of_pods(SYSTEM_NAMESPACE, pods, self.range).run(&target).await
    }

    fn none(&self) -> String {
        let node = self.node.as_ref().map(|node| format!(" on node {node}")).unwrap_or_default();
        format!("no pod of {}{node}", self.programs().join(", "))
    }

    async fn of_cluster(self, mesh: &ClusterMesh) -> Result<ExitCode> {
        let mut pods = Vec::new();
        for program in self.programs() {
            let found = mesh.program_pods(program).await?.into_iter();
            let wanted = found.filter(|pod| self.node.is_none() || pod.spec.node_name == self.node);
            pods.extend(wanted.map(|pod| pod.metadata.name));
        }
        pods.sort();
        let (titled, options) = (pods.len() > 1, self.range.options());
        if pods.is_empty() {
            bail!("{}", self.none());
        }
        if !options.follow {
            for pod in &pods {
                print_log(mesh, pod.clone(), titled, &options).await?;
            }
            return Ok(ExitCode::SUCCESS);
        }
        let mut following = JoinSet::new();
        for pod in pods {
            let log = Log::open(mesh.server(), (SYSTEM_NAMESPACE, &pod), &options).await?;
            following.spawn(copy(log, titled.then_some(pod)));
        }
        while let Some(ended) = following.join_next().await {
            ended??;
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn print_log(mesh: &ClusterMesh, pod: String, titled: bool, options: &LogOptions) -> Result<()> {
    let log = Log::open(mesh.server(), (SYSTEM_NAMESPACE, &pod), options).await?;
    copy(log, titled.then_some(pod)).await
}

/// Prints whole lines, so that those of several logs do not mix.
async fn copy(mut log: Log, title: Option<String>) -> Result<()> {
    let title = title.map(|title| format!("{title}: ")).unwrap_or_default();
    let mut partial = Vec::new();
    while let Some(bytes) = log.next().await? {
        partial.extend_from_slice(&bytes);
        let lines = whole_lines(&mut partial, &title);
        std::io::stdout().lock().write_all(&lines)?;
    }
    if !partial.is_empty() {
        partial.push(b'\n');
        let lines = whole_lines(&mut partial, &title);
        std::io::stdout().lock().write_all(&lines)?;
    }
    Ok(())
}

/// Takes the lines that have ended, each behind the title.
fn whole_lines(partial: &mut Vec<u8>, title: &str) -> Vec<u8> {
    let end = partial.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let whole: Vec<u8> = partial.drain(..end).collect();
    whole.split_inclusive(|byte| *byte == b'\n').flat_map(|line| [title.as_bytes(), line].concat()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_printed_when_it_has_ended() {
        let mut partial = b"one\ntwo\nthr".to_vec();

        assert_eq!(whole_lines(&mut partial, "p: "), b"p: one\np: two\n");
        assert_eq!(partial, b"thr");
        assert_eq!(whole_lines(&mut partial, "p: "), b"");
        partial.extend_from_slice(b"ee\n");
        assert_eq!(whole_lines(&mut partial, ""), b"three\n");
    }
}
