//! `strake get ...`: one file per thing that can be listed, `listing` for what they have in common.

mod certificates;
mod connections;
mod known;
pub(crate) mod listing;
pub(crate) mod pods;
mod policies;
mod routes;
mod services;
pub(crate) mod table;
#[cfg(test)]
pub(crate) mod testing;
mod workloads;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

use crate::mesh::Mesh;

/// Kinds that can be listed.
#[derive(Debug, Subcommand)]
pub(crate) enum Get {
    /// Pods: in the mesh or not, with the checks in the kernel and the reason
    #[command(visible_alias = "pod", alias = "po")]
    Pods(pods::Pods),
    #[command(visible_alias = "service", alias = "svc")]
    Services(services::Services),
    #[command(visible_alias = "workload")]
    Workloads(workloads::Workloads),
    #[command(visible_alias = "policy")]
    Policies(policies::Policies),
    #[command(visible_alias = "route")]
    Routes(routes::Routes),
    #[command(visible_alias = "certificate", alias = "certs")]
    Certificates(certificates::Certificates),
    #[command(visible_alias = "connection")]
    Connections(connections::Connections),
}

impl Get {
    pub(crate) async fn run(&self, mesh: &Mesh) -> Result<ExitCode> {
        match self {
            Self::Pods(pods) => pods.run(mesh).await,
            Self::Services(services) => services.run(mesh).await,
            Self::Workloads(workloads) => workloads.run(mesh).await,
            Self::Policies(policies) => policies.run(mesh).await,
            Self::Routes(routes) => routes.run(mesh).await,
            Self::Certificates(certificates) => certificates.run(mesh).await,
            Self::Connections(connections) => connections.run(mesh).await,
        }
    }
}
