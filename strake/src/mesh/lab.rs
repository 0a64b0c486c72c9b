//! The mesh of a lab: its programs answer on unix sockets, and its pods are in the manifests.

use std::path::PathBuf;

use anyhow::Result;
use bytes::Bytes;
use contract::admin::agent::PODS_PATH;
use contract::admin::control::{FINDINGS_PATH, Finding, POLICIES_PATH, Policy, ROUTES_PATH, Route};
use lab::{Lab, PodInfo};
use tokio::sync::Mutex;

use super::{ByNode, PodFacts};
use crate::{
    admin,
    intent::{Intent, Selection},
    target::Target,
};

/// A running lab.
#[derive(Debug)]
pub(crate) struct LabMesh {
    pub(crate) lab: Lab,
    intent: Mutex<Intent>,
}

impl PodFacts {
    pub(crate) fn of_lab(pod: PodInfo, selection: &Selection) -> Self {
        let selected = selection.selects(&pod.namespace, &pod.name);
        let phase = if pod.terminating { "Terminating" } else { pod.phase.as_str() }.to_owned();
        let PodInfo { namespace, name, uid, node, ips, ready, .. } = pod;
        Self { namespace, name, uid, node, ips, phase, ready, selected }
    }
}

impl LabMesh {
    /// Attaches to the lab.
    ///
    /// # Errors
    /// When it does not run, with those that do.
    pub(crate) async fn attach(target: Target) -> Result<Self> {
        Ok(Self { lab: target.attach().await?, intent: Mutex::new(Intent::of(&target)) })
    }

    pub(super) async fn pods(&self) -> Result<Vec<PodFacts>> {
        let pods = self.lab.pods().await?;
        let mut intent = self.intent.lock().await;
        let selection = intent.current().await?;
        Ok(pods.into_iter().map(|pod| PodFacts::of_lab(pod, selection)).collect())
    }

    pub(super) async fn agents(&self) -> Result<ByNode<Bytes>> {
        agents(&self.lab).await
    }

    pub(super) async fn proxies(&self) -> Result<ByNode<Bytes>> {
        pages(&self.lab, |node| admin::ztunnel(&self.lab, node), admin::CONFIG_DUMP_PATH).await
    }

    pub(super) async fn policies(&self) -> Result<Vec<Policy>> {
        self.control(POLICIES_PATH).await
    }

    pub(super) async fn routes(&self) -> Result<Vec<Route>> {
        self.control(ROUTES_PATH).await
    }

    pub(crate) async fn findings(&self) -> Result<Vec<Finding>> {
        self.control(FINDINGS_PATH).await
    }

    /// Number of objects in the manifests, and of those that the lab derives.
    pub(crate) async fn objects(&self) -> Result<usize> {
        self.intent.lock().await.objects().await
    }

    pub(super) async fn control_page(&self, path: &str) -> Result<Bytes> {
        admin::get(&admin::control(&self.lab), path).await
    }

    async fn control<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T> {
        Ok(serde_json::from_slice(&self.control_page(path).await?)?)
    }
}

/// Page of the agent of each node.
pub(crate) async fn agents(lab: &Lab) -> Result<ByNode<Bytes>> {
    pages(lab, |node| admin::agent(lab, node), PODS_PATH).await
}

async fn pages(lab: &Lab, socket: impl Fn(&str) -> PathBuf, path: &str) -> Result<ByNode<Bytes>> {
    let mut pages = Vec::new();
    for node in lab.nodes().await? {
        let page = admin::get(&socket(&node.name), path).await;
        pages.push((node.name, page));
    }
    Ok(pages)
}
