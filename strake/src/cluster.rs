//! The Kubernetes cluster that a command speaks to, found as kubectl finds it.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use kube_cluster::{ApiServer, Credentials};

/// A cluster.
#[derive(Debug, Args)]
pub(crate) struct Cluster {
    /// Path of the kubeconfig; default: that of kubectl
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Name of the kubeconfig's context; default: the current one
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
}

impl Cluster {
    /// Reads the credentials; the API server is not asked yet.
    ///
    /// # Errors
    /// When there are none, or they cannot be read.
    pub(crate) async fn connect(self) -> Result<ApiServer> {
        let Self { kubeconfig, context } = self;
        let credentials = match kubeconfig {
            Some(path) => Credentials::Kubeconfig { path, context },
            None => Credentials::User { context },
        };
        Ok(ApiServer::new(&credentials).await?)
    }
}
