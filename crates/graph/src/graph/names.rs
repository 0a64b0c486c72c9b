//! Names that resources bring into existence, with which those in policies are compared: see [`crate::analysis`].

use kube_types::core::{Pod, PodTemplate};
use kube_types::{ObjectRef, StringMap};

use super::Graph;
use super::objects::Name;
use crate::analysis::Names;

/// Pods that a workload kind makes, or would make if it were scaled up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Template {
    account: String,
    pub(super) labels: StringMap,
}

impl Template {
    fn of(template: &PodTemplate) -> Self {
        // A whole pod, so that the default of the service account is decided in one place.
        let pod = Pod { spec: template.spec.clone(), ..Pod::default() };
        Self { account: pod.service_account().to_owned(), labels: template.metadata.labels.clone() }
    }

    fn names<'a>(&'a self, namespace: &'a str) -> Names<'a> {
        Names { namespace, account: Some(&self.account), labels: Some(&self.labels) }
    }
}

/// Names of a pod.
pub(super) fn of_pod(pod: &Pod) -> Names<'_> {
    let meta = &pod.metadata;
    Names { namespace: &meta.namespace, account: Some(pod.service_account()), labels: Some(&meta.labels) }
}

/// The namespace alone.
pub(super) const fn of_namespace(namespace: &str) -> Names<'_> {
    Names { namespace, account: None, labels: None }
}

impl Graph {
    pub(super) fn set_account(&mut self, name: Name, exists: bool) {
        let changed =
            if exists { self.objects.accounts.insert(name.clone()) } else { self.objects.accounts.remove(&name) };
        if changed {
            let names = Some(Names { account: Some(&name.1), ..of_namespace(&name.0) });
            let (old, new) = if exists { (None, names) } else { (names, None) };
            self.world.exchange(old, new);
        }
    }

    pub(super) fn set_template(&mut self, key: &ObjectRef, new: Option<&PodTemplate>) {
        let new = new.map(Template::of);
        // `exchange` needs the old and the new form at once, and the map owns one of them.
        let old = match new.clone() {
            Some(new) => self.objects.templates.insert(key.clone(), new),
            None => self.objects.templates.remove(key),
        };
        let (old, new) = (old.as_ref(), new.as_ref());
        let old = old.map(|template| template.names(&key.namespace));
        let new = new.map(|template| template.names(&key.namespace));
        self.world.exchange(old, new);
    }
}
