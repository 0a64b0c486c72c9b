//! Selection of pods for the mesh by their manifests, read as the agents read them. It shows when the report of an agent
//! is older than the manifests.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use graph::enrolment::Enablement;
use kube_types::{
    Event, Kind, ObjectRef, Resource, Source,
    core::{Namespace, Pod},
};
use manifests::DirectoryConfig;
use tokio::time::timeout;

use crate::target::Target;

/// Time to read all manifests of a lab. 20 000 objects take less than a second.
const DEADLINE: Duration = Duration::from_secs(20);

/// The manifests of a running lab, read at the first look and followed from then on.
pub(crate) struct Intent {
    target: Target,
    source: Option<Source>,
    selection: Selection,
}

impl Intent {
    /// The manifests of a mesh. Nothing is read yet.
    pub(crate) fn of(target: &Target) -> Self {
        Self { target: target.clone(), source: None, selection: Selection::default() }
    }

    /// The selection by the newest manifests. Later calls read changed files only.
    ///
    /// # Errors
    /// When the lab does not run, or its manifests cannot be read in time.
    pub(crate) async fn current(&mut self) -> Result<&Selection> {
        match &mut self.source {
            Some(source) => {
                // What has arrived is taken without waiting: between two changes there is nothing to come.
                while let Ok(Some(event)) = timeout(Duration::ZERO, source.next()).await {
                    self.selection.apply(event);
                }
            }
            None => {
                let config = DirectoryConfig::new(self.target.manifests()?, self.target.state());
                let source = self.source.insert(manifests::open(config)?);
                let read = timeout(DEADLINE, self.selection.read(source)).await;
                read.with_context(|| format!("manifests were not read within {DEADLINE:?}"))??;
            }
        }
        Ok(&self.selection)
    }
}

impl Intent {
    /// Number of objects.
    ///
    /// # Errors
    /// As [`Intent::current`].
    pub(crate) async fn objects(&mut self) -> Result<usize> {
        Ok(self.current().await?.keys.len())
    }
}

impl std::fmt::Debug for Intent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Intent").field("target", &self.target).finish_non_exhaustive()
    }
}

/// Pods as the manifests and the lab's scheduler describe them, and whether their labels select the mesh.
#[derive(Debug, Default)]
pub(crate) struct Selection {
    pods: HashMap<(String, String), Arc<Pod>>,
    namespaces: HashMap<String, Arc<Namespace>>,
    /// Objects of any kind.
    keys: HashSet<ObjectRef>,
}

impl Selection {
    /// Reads until everything that exists has arrived.
    async fn read(&mut self, source: &mut Source) -> Result<()> {
        while let Some(event) = source.next().await {
            if matches!(event, Event::InSync { .. }) {
                return Ok(());
            }
            self.apply(event);
        }
        bail!("the reader of the manifests stopped")
    }

    fn apply(&mut self, event: Event) {
        match &event {
            Event::Applied { resource, .. } => drop(self.keys.insert(resource.key())),
            Event::Removed { key, .. } => drop(self.keys.remove(key)),
            Event::Problem(_) | Event::Solved { .. } | Event::InSync { .. } => {}
        }
        match event {
            Event::Applied { resource: Resource::Pod(pod), .. } => {
                let key = (pod.metadata.namespace.clone(), pod.metadata.name.clone());
                self.pods.insert(key, pod);
            }
            Event::Applied { resource: Resource::Namespace(namespace), .. } => {
                self.namespaces.insert(namespace.metadata.name.clone(), namespace);
            }
            Event::Removed { key, .. } if key.kind == Kind::Pod => {
                self.pods.remove(&(key.namespace, key.name));
            }
            Event::Removed { key, .. } if key.kind == Kind::Namespace => {
                self.namespaces.remove(&key.name);
            }
            Event::Applied { .. }
            | Event::Removed { .. }
            | Event::Problem(_)
            | Event::Solved { .. }
            | Event::InSync { .. } => {}
        }
    }

    /// One pod, selected by its own label or not.
    #[cfg(test)]
    pub(crate) fn selecting(namespace: &str, name: &str, selects: bool) -> Self {
        let mode = if selects { "ambient" } else { "none" };
        let mut pod = Pod::default();
        pod.metadata.labels.insert(contract::labels::DATAPLANE_MODE_LABEL.to_owned(), mode.to_owned());
        let key = (namespace.to_owned(), name.to_owned());
        Self { pods: HashMap::from([(key, Arc::new(pod))]), ..Self::default() }
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
    async fn labels_of_pod_and_namespace_select_a_pod_until_its_manifest_is_gone() {
        let (manifests, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(manifests.path().join("shop.yaml"), MANIFEST).unwrap();
        let config = DirectoryConfig::new(vec![manifests.path().to_owned()], state.path().to_owned());

        let mut source = manifests::open(config).unwrap();
        let mut selection = Selection::default();
        selection.read(&mut source).await.unwrap();

        assert_eq!(selection.selects("shop", "in"), Some(true));
        assert_eq!(selection.selects("shop", "out"), Some(false));
        assert_eq!(selection.selects("shop", "other"), None);

        std::fs::remove_file(manifests.path().join("shop.yaml")).unwrap();
        while selection.selects("shop", "in").is_some() {
            selection.apply(source.next().await.unwrap());
        }
    }
}
