//! `strake describe pod|service`: who may call it, through what, by which policies, and what is wrong with it.

mod asked;
mod pod;
mod render;
mod service;

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use crate::{explain, get::pods, mesh::Mesh};
use asked::Asked;
use pod::PodView;
use render::{pod_text, service_text};
use service::ServiceView;

/// Describes an object of the mesh: who may call it, through what, by which policies, and what is wrong
#[derive(Debug, Subcommand)]
pub(crate) enum Describe {
    /// Describes a pod
    #[command(visible_alias = "pods", alias = "po")]
    Pod(Object),
    /// Describes a Service
    #[command(visible_alias = "svc", alias = "services")]
    Service(Object),
}

#[derive(Debug, Args)]
#[command(
    after_help = "Callers are the identities of pods in the mesh, and plaintext; each is judged by the policies that the ztunnel of the endpoint
has now.

Exit code: 0; 1 when the mesh cannot be asked or there is no such object; 2 for a wrong command line"
)]
pub(crate) struct Object {
    /// Its name; also NAMESPACE/NAME
    name: String,
    /// Namespace
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Form of the output; default: text
    #[arg(short, long, value_enum)]
    output: Option<Output>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Json,
    Yaml,
}

impl Describe {
    pub(crate) async fn run(&self, mesh: &Mesh) -> Result<ExitCode> {
        match self {
            Self::Pod(object) => {
                let (namespace, name) = object.key();
                let facts = mesh.pods().await?;
                let pod = explain::pod(&facts, namespace, name)?;
                let rows = pods::of(mesh, |other| other.uid == pod.uid).await?;
                let Some(row) = rows.into_iter().next() else { bail!("pod {namespace}/{name} is gone") };
                let view = PodView::new(row, &Asked::ask(mesh).await?);
                object.print(&view, || pod_text(&view))
            }
            Self::Service(object) => {
                let (namespace, name) = object.key();
                let view = ServiceView::new(namespace, name, &Asked::ask(mesh).await?)?;
                object.print(&view, || service_text(&view))
            }
        }
    }
}

impl Object {
    fn key(&self) -> (&str, &str) {
        self.name.split_once('/').unwrap_or((&self.namespace, &self.name))
    }

    fn print(&self, view: &impl Serialize, text: impl FnOnce() -> String) -> Result<ExitCode> {
        match self.output {
            Some(Output::Json) => println!("{}", serde_json::to_string_pretty(view)?),
            Some(Output::Yaml) => print!("{}", serde_saphyr::to_string(view)?),
            None => print!("{}", text()),
        }
        Ok(ExitCode::SUCCESS)
    }
}

#[cfg(test)]
mod tests;
