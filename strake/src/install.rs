//! `strake install` and `strake uninstall`: the mesh in a Kubernetes cluster.

use std::{process::ExitCode, time::Duration};

use anyhow::Result;
use clap::Args;
use install::{Images, Progress, Settings};

use crate::cluster::Cluster;

/// Installs the mesh in a Kubernetes cluster, or changes it to this version
#[derive(Debug, Args)]
pub(crate) struct Install {
    /// Put before the names of images, for instance localhost
    #[arg(long)]
    hub: Option<String>,
    /// Tag of the images; default: this version
    #[arg(long)]
    tag: Option<String>,
    /// Seconds after which programs that are not ready are an error
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    timeout: u64,
    /// Refuse objects that can never work: policies of admission, for Kubernetes 1.31
    #[arg(long)]
    admission: bool,
    /// Print the manifests instead of applying them
    #[arg(long)]
    dry_run: bool,
}

/// Takes all pods out of the mesh and removes it from a Kubernetes cluster
#[derive(Debug, Args)]
pub(crate) struct Uninstall {
    /// Seconds after which something that is still there is an error
    #[arg(long, default_value_t = 120, value_name = "SECONDS")]
    timeout: u64,
    /// Take the pods out and end the agents; leave the rest for another tool to remove
    #[arg(long)]
    pods_only: bool,
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
    pub(crate) async fn run(self, cluster: &Cluster) -> Result<ExitCode> {
        let images = Images { hub: self.hub, tag: self.tag };
        let settings = Settings { images, admission: self.admission };
        if self.dry_run {
            for object in install::custom_resources()?.into_iter().chain(install::chosen(&settings)?) {
                print!("---\n{}", serde_saphyr::to_string(&object.value)?);
            }
            return Ok(ExitCode::SUCCESS);
        }
        let server = cluster.connect().await?;
        install::install(&server, &settings, Duration::from_secs(self.timeout), &mut Lines).await?;
        println!(
            "the mesh is installed; kubectl label namespace NAME istio.io/dataplane-mode=ambient adds a namespace to it"
        );
        Ok(ExitCode::SUCCESS)
    }
}

impl Uninstall {
    /// # Errors
    /// When pods stay in the mesh, or objects do not go.
    pub(crate) async fn run(self, cluster: &Cluster) -> Result<ExitCode> {
        let server = cluster.connect().await?;
        let limit = Duration::from_secs(self.timeout);
        if self.pods_only {
            install::take_out(&server, limit, &mut Lines).await?;
            println!("no pod is in the mesh any more");
        } else {
            install::remove(&server, limit, &mut Lines).await?;
            println!("the mesh is removed");
        }
        Ok(ExitCode::SUCCESS)
    }
}
