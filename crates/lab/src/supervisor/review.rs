//! Reviews the manifests as a whole whenever they change: objects that are refused, pods that cannot be
//! run here, settings that are not supported. Everything has its file and line.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use kube_types::{Kind, ObjectRef, Resource};

use super::unsupported;
use crate::{
    validate,
    workloads::{self, Objects},
};

/// The outcome of a review.
#[derive(Debug, Default)]
pub(super) struct Review {
    /// Mistakes because of which an object is not run.
    pub(super) problems: Vec<String>,
    pub(super) notes: Vec<String>,
    /// Objects that are not run.
    pub(super) refused: BTreeSet<ObjectRef>,
}

/// Looks at every object.
pub(super) fn review(objects: &Objects, manifests: &[PathBuf]) -> Review {
    let mut review = Review::default();
    let mut problems: Vec<(&ObjectRef, String)> = Vec::new();
    let mut notes: Vec<(&ObjectRef, String)> = Vec::new();
    for (key, resource) in objects {
        let mistakes = validate::mistakes(resource);
        let account = missing_account(resource, objects);
        if !mistakes.is_empty() || account.is_some() {
            review.refused.insert(key.clone());
        }
        problems.extend(mistakes.into_iter().chain(account).map(|mistake| (key, mistake)));
        notes.extend(unsupported::about(resource, objects).into_iter().map(|note| (key, note)));
        if let Some(container) = workloads::pod_spec(resource).and_then(workloads::without_command) {
            notes.push((key, format!("container {container:?} needs a container image: give it a `command`")));
        }
    }
    if problems.is_empty() && notes.is_empty() {
        return review;
    }
    // The files are read a second time only when there is something to say: objects do not carry their place with them.
    let places = places(manifests);
    let place = |key: &ObjectRef| places.get(key).map(String::as_str).unwrap_or_default().to_owned();
    let lines = |found: Vec<(&ObjectRef, String)>| {
        found.into_iter().map(|(key, text)| format!("{}{key}: {text}", place(key))).collect()
    };
    review.problems = lines(problems);
    review.notes = lines(notes);
    review
}

/// That the pods' service account is not there, as the API server says it. `default` is in every namespace.
fn missing_account(resource: &Resource, objects: &Objects) -> Option<String> {
    let spec = workloads::pod_spec(resource)?.clone();
    let account = kube_types::core::Pod { spec, ..Default::default() }.service_account().to_owned();
    let namespace = &resource.meta().namespace;
    let key = ObjectRef::new(Kind::ServiceAccount, namespace, &account);
    (account != "default" && !objects.contains_key(&key)).then(|| {
        format!("its pods are not created: error looking up service account {namespace}/{account}: serviceaccount {account:?} not found")
    })
}

/// `FILE:LINE: ` of every object.
fn places(manifests: &[PathBuf]) -> BTreeMap<ObjectRef, String> {
    let loaded = manifests.iter().filter_map(|path| manifests::load_directory(path).ok());
    loaded
        .flat_map(|loaded| loaded.objects)
        .map(|object| (object.resource.key(), format!("{}:{}: ", object.file.display(), object.line)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Review {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("web.yaml"), text).unwrap();
        let loaded = manifests::load_directory(dir.path()).unwrap();
        assert_eq!(loaded.problems, []);
        let objects = loaded.objects.into_iter().map(|object| (object.resource.key(), object.resource)).collect();
        review(&objects, &[dir.path().to_owned()])
    }

    #[test]
    fn a_refused_object_is_named_with_its_line_and_not_run() {
        let found =
            of("# one\napiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  containers:\n  - name: c\n    \
                        command: [x]\n    livenessProbe: {periodSeconds: 1}\n");

        assert_eq!(found.problems.len(), 1);
        let says = |text: &str| found.problems[0].contains(text);
        assert!(says("web.yaml:2: Pod default/p: spec.containers[0].livenessProbe: "), "{:?}", found.problems);
        assert!(found.refused.contains(&ObjectRef::new(Kind::Pod, "default", "p")));
    }

    #[test]
    fn a_service_account_has_to_be_there() {
        let pod = |account: &str| {
            format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec:\n  serviceAccountName: {account}\n  containers: \
                 [{{name: c, command: [x]}}]\n"
            )
        };
        let account = "---\napiVersion: v1\nkind: ServiceAccount\nmetadata: {name: robot}\n";

        assert!(of(&pod("robot")).problems[0].contains("serviceaccount \"robot\" not found"));
        assert_eq!(of(&(pod("robot") + account)).problems, Vec::<String>::new());
        assert_eq!(of(&pod("default")).problems, Vec::<String>::new());
    }

    #[test]
    fn a_container_without_a_command_is_a_note() {
        let found = of("apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c, image: x}]}\n");

        assert_eq!(found.problems, Vec::<String>::new());
        let note = "web.yaml:1: Pod default/p: container \"c\" needs a container image: give it a `command`";
        assert!(found.notes[0].ends_with(note), "{:?}", found.notes);
    }
}
