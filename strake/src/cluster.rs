//! The Kubernetes cluster that a command speaks to, found as kubectl finds it.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use kube_cluster::{ApiServer, Credentials};

/// A cluster.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Cluster {
    /// Path of the kubeconfig; default: that of kubectl
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "lab")]
    kubeconfig: Option<PathBuf>,
    /// Name of the kubeconfig's context; default: the current one
    #[arg(long, global = true, value_name = "NAME", conflicts_with = "lab")]
    context: Option<String>,
}

impl Cluster {
    /// Reads the credentials; the API server is not asked yet.
    ///
    /// # Errors
    /// When there are none, or they cannot be read.
    pub(crate) async fn connect(&self) -> Result<ApiServer> {
        let Self { kubeconfig, context } = self.clone();
        let credentials = match kubeconfig {
            Some(path) => Credentials::Kubeconfig { path, context },
            None => Credentials::User { context },
        };
        Ok(ApiServer::new(&credentials).await?)
    }

    /// Returns true if an option names the cluster.
    pub(crate) const fn is_named(&self) -> bool {
        self.kubeconfig.is_some() || self.context.is_some()
    }

    /// Name for people.
    pub(crate) fn name(&self) -> String {
        match (&self.context, &self.kubeconfig) {
            (Some(context), _) => context.clone(),
            (None, Some(path)) => path.display().to_string(),
            (None, None) => "of the kubeconfig".to_owned(),
        }
    }

    #[cfg(test)]
    pub(crate) fn of_context(context: &str) -> Self {
        Self { context: Some(context.to_owned()), ..Self::default() }
    }
}
