//! Selection of pods for the mesh by their manifests, read as the agents read them. It shows when the report of an agent
//! is older than the manifests.

use std::{collections::HashMap, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail};
use graph::enrolment::Enablement;
use kube_types::core::{Namespace, Pod};
use kube_types::{Event, Resource, Source};
use manifests::DirectoryConfig;
use tokio::time::timeout;

use crate::target::Target;

/// Time to read all manifests of a lab. 20 000 objects take less than a second.
const DEADLINE: Duration = Duration::from_secs(20);

/// Pods as the manifests and the lab's scheduler describe them, and whether their labels select the mesh.
#[derive(Debug, Default)]
pub(crate) struct Intent {
    pods: HashMap<(String, String), Arc<Pod>>,
    namespaces: HashMap<String, Arc<Namespace>>,
}

impl Intent {
    /// Reads the manifests of a running lab.
    pub(crate) async fn read(target: &Target) -> Result<Self> {
        let config = DirectoryConfig::new(target.manifests()?, target.state());
        let source = manifests::open(config)?;
        timeout(DEADLINE, Self::of(source))
            .await
            .with_context(|| format!("manifests were not read within {DEADLINE:?}"))?
    }

    async fn of(mut source: Source) -> Result<Self> {
        let mut intent = Self::default();
        while let Some(event) = source.next().await {
            match event {
                Event::Applied { resource: Resource::Pod(pod), .. } => {
                    let key = (pod.metadata.namespace.clone(), pod.metadata.name.clone());
                    intent.pods.insert(key, pod);
                }
                Event::Applied { resource: Resource::Namespace(namespace), .. } => {
                    intent.namespaces.insert(namespace.metadata.name.clone(), namespace);
                }
                Event::InSync { .. } => return Ok(intent),
                Event::Applied { .. } | Event::Removed { .. } | Event::Problem(_) | Event::Solved { .. } => {}
            }
        }
        bail!("the reader of the manifests stopped")
    }

    /// One pod, selected by its own label or not.
    #[cfg(test)]
    pub(crate) fn selecting(namespace: &str, name: &str, selects: bool) -> Self {
        let mode = if selects { "ambient" } else { "none" };
        let mut pod = Pod::default();
        pod.metadata.labels.insert(contract::labels::DATAPLANE_MODE_LABEL.to_owned(), mode.to_owned());
        let key = (namespace.to_owned(), name.to_owned());
        Self { pods: HashMap::from([(key, Arc::new(pod))]), namespaces: HashMap::new() }
    }

    /// Returns true for a pod that is selected for the mesh; `None` for a pod that is not in the manifests (any more).
    pub(crate) fn selects(&self, namespace: &str, name: &str) -> Option<bool> {
        let pod = self.pods.get(&(namespace.to_owned(), name.to_owned()))?;
        let namespace = self.namespaces.get(namespace).map(Arc::as_ref);
        Some(Enablement::default().selected(pod, namespace).is_selected())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}
---
apiVersion: v1
kind: Pod
metadata: {name: in, namespace: shop}
spec: {containers: [{name: c, command: [x]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: out, namespace: shop, labels: {istio.io/dataplane-mode: none}}
spec: {containers: [{name: c, command: [x]}]}
";

    #[tokio::test]
    async fn labels_of_pod_and_namespace_say_who_belongs_into_the_mesh() {
        let (manifests, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(manifests.path().join("shop.yaml"), MANIFEST).unwrap();
        let config = DirectoryConfig::new(vec![manifests.path().to_owned()], state.path().to_owned());

        let intent = Intent::of(manifests::open(config).unwrap()).await.unwrap();

        assert_eq!(intent.selects("shop", "in"), Some(true));
        assert_eq!(intent.selects("shop", "out"), Some(false));
        assert_eq!(intent.selects("shop", "other"), None);
    }
}
