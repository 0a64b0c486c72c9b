//! Pods by node, and namespaces: the graph keeps the one index of them, and others read snapshots of it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use kube_types::core::{Namespace, Pod};

/// Namespace and name.
type Name = (String, String);

/// The pods and namespaces of a cluster at one time. A clone costs as much as the cluster has nodes: the pods of a node are
/// shared until they change.
#[derive(Clone, Debug, Default)]
pub struct Pods {
    by_node: HashMap<Arc<str>, Arc<BTreeMap<Name, Arc<Pod>>>>,
    namespaces: Arc<BTreeMap<String, Arc<Namespace>>>,
}

impl Pods {
    /// The pods that were scheduled to a node, in the order of their names.
    pub fn on_node(&self, node: &str) -> impl Iterator<Item = &Pod> {
        self.by_node.get(node).into_iter().flat_map(|pods| pods.values()).map(AsRef::as_ref)
    }

    /// A pod by namespace and name, if it was scheduled. It costs as much as the cluster has nodes.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<&Pod> {
        let key = (namespace.to_owned(), name.to_owned());
        self.by_node.values().find_map(|pods| pods.get(&key)).map(AsRef::as_ref)
    }

    /// The scheduled pods of a namespace. It costs as much as the cluster has nodes.
    pub fn in_namespace<'a>(&'a self, namespace: &str) -> impl Iterator<Item = &'a Pod> {
        let namespace = namespace.to_owned();
        self.by_node.values().flat_map(move |pods| {
            let namespace = namespace.clone();
            let first = (namespace.clone(), String::new());
            pods.range(first..).take_while(move |((of, _), _)| *of == namespace).map(|(_, pod)| &**pod)
        })
    }

    /// All namespaces, in the order of their names.
    pub fn namespaces(&self) -> impl Iterator<Item = &Namespace> {
        self.namespaces.values().map(AsRef::as_ref)
    }

    pub fn namespace(&self, name: &str) -> Option<&Namespace> {
        self.namespaces.get(name).map(AsRef::as_ref)
    }

    pub(crate) fn shared_namespace(&self, name: &str) -> Option<&Arc<Namespace>> {
        self.namespaces.get(name)
    }

    fn set_namespace(&mut self, name: &str, new: Option<Arc<Namespace>>) -> Option<Arc<Namespace>> {
        let namespaces = Arc::make_mut(&mut self.namespaces);
        match new {
            Some(new) => namespaces.insert(name.to_owned(), new),
            None => namespaces.remove(name),
        }
    }

    fn set_pod(&mut self, name: &Name, old: Option<&Pod>, new: Option<&Arc<Pod>>) {
        let new_node = new.and_then(|pod| pod.spec.node_name.as_deref());
        if let Some(node) = old.and_then(|pod| pod.spec.node_name.as_deref())
            // A pod never moves, but one of the same name may be made on another node.
            && new_node != Some(node)
            && let Some(pods) = self.by_node.get_mut(node)
        {
            Arc::make_mut(pods).remove(name);
            // A node that is gone must not stay as an empty entry: clusters that scale make new node names forever.
            if pods.is_empty() {
                self.by_node.remove(node);
            }
        }
        if let Some((node, pod)) = new_node.zip(new) {
            let pods = self.by_node.entry(node.into()).or_default();
            // Copies the map of this node only while a reader holds it.
            Arc::make_mut(pods).insert(name.clone(), Arc::clone(pod));
        }
    }

    pub(crate) fn names_on(&self, node: &str) -> impl Iterator<Item = &Name> {
        self.by_node.get(node).into_iter().flat_map(|pods| pods.keys())
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.by_node.is_empty()
    }
}

/// The index that the graph keeps, and the snapshot of it that others read.
#[derive(Debug, Default)]
pub(crate) struct PodIndex {
    pub(crate) pods: Pods,
    /// The index has changed since it was published.
    is_unpublished: bool,
    published: PublishedPods,
}

impl PodIndex {
    /// Replaces a namespace and returns the old one.
    pub(crate) fn set_namespace(&mut self, name: &str, new: Option<Arc<Namespace>>) -> Option<Arc<Namespace>> {
        self.is_unpublished = true;
        self.pods.set_namespace(name, new)
    }

    /// Moves a pod from the node of its old state to that of its new one; it may be the same.
    pub(crate) fn set_pod(&mut self, name: &Name, old: Option<&Pod>, new: Option<&Arc<Pod>>) {
        self.is_unpublished = true;
        self.pods.set_pod(name, old, new);
    }

    /// Publishes the index if it has changed since the last time.
    pub(crate) fn publish(&mut self) {
        if std::mem::take(&mut self.is_unpublished) {
            // Copies one pointer per node, not the pods. The next change of a node then copies that node's map once.
            self.published.store(self.pods.clone());
        }
    }

    /// Reader of the snapshot that was published last.
    pub(crate) fn reader(&self) -> PublishedPods {
        self.published.clone()
    }
}

/// Reader of the snapshot that the graph published last. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct PublishedPods(Arc<ArcSwap<Pods>>);

impl PublishedPods {
    pub fn load(&self) -> Arc<Pods> {
        // A reader keeps its snapshot as long as it likes: the graph never waits for one.
        self.0.load_full()
    }

    pub(crate) fn store(&self, pods: Pods) {
        self.0.store(Arc::new(pods));
    }
}
