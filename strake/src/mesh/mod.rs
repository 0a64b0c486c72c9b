//! The mesh that a command asks: a lab on this machine, or that of a Kubernetes cluster. Commands are written once, over
//! [`Mesh`]; how its programs are reached is in `lab` and `cluster`.

mod choice;
mod cluster;
pub(crate) mod dump;
mod lab;

use std::net::IpAddr;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use contract::admin::agent::NodeReport;
use contract::admin::control::{Finding, Policy, Route};
use contract::manifests::CONTROL;

pub(crate) use self::cluster::{ClusterMesh, namespace, object_name, pod};
pub(crate) use self::lab::{LabMesh, agents as lab_agents};
pub(crate) use choice::{Choice, Place};
use dump::ProxyDump;

/// Page of the control plane with its version. Istio's.
const VERSION_PATH: &str = "/version";

/// A mesh.
#[derive(Debug)]
pub(crate) enum Mesh {
    Lab(LabMesh),
    Cluster(ClusterMesh),
}

/// A pod as the lab or the API server has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PodFacts {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) node: String,
    pub(crate) ips: Vec<IpAddr>,
    /// `Terminating`, or Kubernetes' phase.
    pub(crate) phase: String,
    pub(crate) ready: bool,
    /// Selection by the labels of pod and namespace; `None` when these are not known any more.
    pub(crate) selected: Option<bool>,
}

/// Reports of agents from their pages.
pub(crate) fn node_reports(pages: ByNode<Bytes>) -> ByNode<NodeReport> {
    let read = |node: &str, page: Result<Bytes>| -> Result<NodeReport> {
        let page = page.with_context(|| format!("agent of {node}"))?;
        serde_json::from_slice(&page).with_context(|| format!("agent of {node}: unexpected page"))
    };
    pages.into_iter().map(|(node, page)| (node.clone(), read(&node, page))).collect()
}

/// An answer for each node, by its name.
pub(crate) type ByNode<T> = Vec<(String, Result<T>)>;

impl Mesh {
    /// Name for people, as `lab demo` or `cluster kind`.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Lab(mesh) => format!("lab {}", mesh.lab.name()),
            Self::Cluster(mesh) => format!("cluster {}", mesh.name),
        }
    }

    /// Every pod, the mesh's own included.
    ///
    /// # Errors
    /// When the lab or the API server cannot be asked.
    pub(crate) async fn pods(&self) -> Result<Vec<PodFacts>> {
        match self {
            Self::Lab(mesh) => mesh.pods().await,
            Self::Cluster(mesh) => mesh.pods().await,
        }
    }

    /// The page with the version of each replica of the control plane, by its name.
    ///
    /// # Errors
    /// When the replicas are not known.
    pub(crate) async fn controls(&self) -> Result<ByNode<Bytes>> {
        match self {
            Self::Lab(mesh) => Ok(vec![(CONTROL.to_owned(), mesh.control_page(VERSION_PATH).await)]),
            Self::Cluster(mesh) => mesh.controls(VERSION_PATH).await,
        }
    }

    /// What the agent of each node reports of its pods.
    ///
    /// # Errors
    /// When the nodes are not known. An agent that does not answer is an error of its node only.
    pub(crate) async fn reports(&self) -> Result<ByNode<NodeReport>> {
        let pages = match self {
            Self::Lab(mesh) => mesh.agents().await?,
            Self::Cluster(mesh) => mesh.agents().await?,
        };
        Ok(node_reports(pages))
    }

    /// The dump of the proxy of each node, as it was sent.
    ///
    /// # Errors
    /// As [`Mesh::reports`].
    pub(crate) async fn raw_dumps(&self) -> Result<ByNode<Bytes>> {
        let mut pages = match self {
            Self::Lab(mesh) => mesh.proxies().await?,
            Self::Cluster(mesh) => mesh.proxies().await?,
        };
        for (node, page) in &mut pages {
            if let Err(error) = page {
                let error = std::mem::replace(error, anyhow::Error::msg(""));
                *page = Err(error.context(format!("ztunnel of {node}")));
            }
        }
        Ok(pages)
    }

    /// The dump of the proxy of each node, as far as lists need it.
    ///
    /// # Errors
    /// As [`Mesh::reports`].
    pub(crate) async fn dumps(&self) -> Result<ByNode<ProxyDump>> {
        let read = |node: &str, page: Result<Bytes>| -> Result<ProxyDump> {
            serde_json::from_slice(&page?).with_context(|| format!("ztunnel of {node}: unexpected /config_dump"))
        };
        Ok(self.raw_dumps().await?.into_iter().map(|(node, page)| (node.clone(), read(&node, page))).collect())
    }

    /// Policies with their conditions, in the order of kinds and names.
    ///
    /// # Errors
    /// When the control plane, or the API server, cannot be asked.
    pub(crate) async fn policies(&self) -> Result<Vec<Policy>> {
        match self {
            Self::Lab(mesh) => mesh.policies().await,
            Self::Cluster(mesh) => mesh.policies().await,
        }
    }

    /// Routes of waypoints. In a cluster they are compiled here, by the control plane's code, from the objects of the API
    /// server.
    ///
    /// # Errors
    /// When the control plane, or the API server, cannot be asked.
    pub(crate) async fn routes(&self) -> Result<Vec<Route>> {
        match self {
            Self::Lab(mesh) => mesh.routes().await,
            Self::Cluster(mesh) => crate::analyze::routes_of_cluster(mesh.server()).await,
        }
    }

    /// Findings about all objects. In a cluster they are made here, by the control plane's code, from the objects of the API
    /// server.
    ///
    /// # Errors
    /// When the control plane, or the API server, cannot be asked.
    pub(crate) async fn findings(&self) -> Result<Vec<Finding>> {
        match self {
            Self::Lab(mesh) => mesh.findings().await,
            Self::Cluster(mesh) => Ok(crate::analyze::of_cluster(mesh.server(), None).await?.findings),
        }
    }
}
