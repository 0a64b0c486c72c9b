//! `strake install` and `strake uninstall`: the mesh in a Kubernetes cluster.

use std::{process::ExitCode, time::Duration};

use anyhow::Result;
use clap::Args;
use install::{Images, Progress};

use crate::cluster::Cluster;

/// Installs the mesh in a Kubernetes cluster, or changes it to this version
#[derive(Debug, Args)]
pub(crate) struct Install {
    #[command(flatten)]
    cluster: Cluster,
    /// Put before the names of images, for instance localhost
    #[arg(long)]
    hub: Option<String>,
    /// Tag of the images; default: this version
    #[arg(long)]
    tag: Option<String>,
    /// Seconds after which programs that are not ready are an error
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    timeout: u64,
    /// Print the manifests instead of applying them
    #[arg(long)]
    dry_run: bool,
}

/// Takes all pods out of the mesh and removes it from a Kubernetes cluster
#[derive(Debug, Args)]
pub(crate) struct Uninstall {
    #[command(flatten)]
    cluster: Cluster,
    /// Seconds after which something that is still there is an error
    #[arg(long, default_value_t = 120, value_name = "SECONDS")]
    timeout: u64,
}

/// Prints each line at once.
struct Lines;

impl Progress for Lines {
    fn tell(&mut self, line: &str) {
        println!("{line}");
    }
}

impl Install {
    /// # Errors
    /// When the API server refuses an object or a program does not become ready.
    pub(crate) async fn run(self) -> Result<ExitCode> {
        let images = Images { hub: self.hub, tag: self.tag };
        if self.dry_run {
            for object in install::custom_resources()?.into_iter().chain(install::objects(&images)?) {
                print!("---\n{}", serde_saphyr::to_string(&object.value)?);
            }
            return Ok(ExitCode::SUCCESS);
        }
        let server = self.cluster.connect().await?;
        install::install(&server, &images, Duration::from_secs(self.timeout), &mut Lines).await?;
        println!(
            "the mesh is installed; kubectl label namespace NAME istio.io/dataplane-mode=ambient adds a namespace to it"
        );
        Ok(ExitCode::SUCCESS)
    }
}

impl Uninstall {
    /// # Errors
    /// When pods stay in the mesh, or objects do not go.
    pub(crate) async fn run(self) -> Result<ExitCode> {
        let server = self.cluster.connect().await?;
        install::remove(&server, Duration::from_secs(self.timeout), &mut Lines).await?;
        println!("the mesh is removed");
        Ok(ExitCode::SUCCESS)
    }
}
