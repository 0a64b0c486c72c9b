//! Policies that select nothing: a namespace that does not exist, a selector whose labels no pod has.

use kube_types::similar::{hint, nearest};
use kube_types::{ObjectRef, StringMap};

use super::world::{self, World};
use crate::finding::{Finding, Reason};

/// Returns the reason why a policy has no workloads when that looks like a mistake. `could_match` says whether a pod or
/// a pod template has all labels of the selector.
pub(crate) fn review(
    key: &ObjectRef,
    selector: Option<&StringMap>,
    world: &World,
    could_match: impl FnOnce() -> bool,
) -> Option<(Finding, String)> {
    // First: in a namespace that does not exist every label is missing, too.
    if !world.has_namespace(&key.namespace) {
        let why = format!("namespace {:?} not found{}", key.namespace, hint(&key.namespace, world.namespaces()));
        let finding = Finding::warning(key, Reason::UnknownNamespace, format!("selects no workload: {why}"));
        return Some((finding.at("metadata.namespace"), why));
    }
    // A policy for a whole namespace is no mistake while that has no pods.
    let selector = selector?;
    let scope = Scope { world, namespace: (!world.is_root(&key.namespace)).then_some(&key.namespace) };
    let missing = selector.iter().find(|(label, value)| !world::is_generated(label) && !scope.has(label, value));
    let (why, path) = match missing {
        Some((label, value)) => (scope.missing(label, value), format!("spec.selector.matchLabels{}", step(label))),
        // Pods with these labels exist, or would if a Deployment were scaled up: nothing looks like a mistake.
        None if could_match() => return None,
        // Its only label is generated for each pod or revision: which pods have it changes without anybody's mistake.
        None if selector.len() == 1 => return None,
        None => ("no pod has all of these labels".to_owned(), "spec.selector".to_owned()),
    };
    let finding = Finding::warning(key, Reason::SelectsNothing, format!("selects no workload: {why}"));
    Some((finding.at(path), why))
}

/// One step of a path; names with dots are quoted.
pub(super) fn step(name: &str) -> String {
    if name.contains(['.', '/', '[']) { format!("[{name:?}]") } else { format!(".{name}") }
}

/// Pods that a policy may select.
struct Scope<'a> {
    world: &'a World,
    /// Namespace of the policy; `None` stands for all.
    namespace: Option<&'a String>,
}

impl<'a> Scope<'a> {
    fn namespaces(&self) -> impl Iterator<Item = &'a str> {
        let all = self.namespace.is_none().then(|| self.world.labelled());
        self.namespace.map(String::as_str).into_iter().chain(all.into_iter().flatten())
    }

    /// Values of a label.
    fn values(&self, label: &str) -> impl Iterator<Item = &'a str> {
        let labels = self.namespaces().filter_map(|namespace| self.world.labels_in(namespace));
        labels.filter_map(move |labels| labels.get(label)).flat_map(|values| values.keys().map(String::as_str))
    }

    fn labels(&self) -> impl Iterator<Item = &'a str> {
        let labels = self.namespaces().filter_map(|namespace| self.world.labels_in(namespace));
        labels.flat_map(|labels| labels.keys().map(String::as_str))
    }

    fn has(&self, label: &str, value: &str) -> bool {
        self.values(label).any(|known| known == value)
    }

    fn missing(&self, label: &str, value: &str) -> String {
        let place = self.namespace.map(|namespace| format!(" of namespace {namespace:?}")).unwrap_or_default();
        let text = format!("no pod{place} has the label {label}={value}");
        // A misspelt value is more likely than a misspelt key, which is looked for next.
        if let Some(meant) = nearest(value, self.values(label)) {
            return format!("{text}; did you mean {label}={meant}?");
        }
        let mut with_value = self.labels().filter(|other| self.has(other, value));
        if let Some(meant) =
            nearest(label, self.labels().filter(|other| self.has(other, value))).or_else(|| with_value.next())
        {
            return format!("{text}; did you mean {meant}={value}?");
        }
        // For the policy of a root namespace this finds nothing: its scope is all namespaces.
        let elsewhere = self.world.labelled().find(|namespace| {
            let labels = self.world.labels_in(namespace);
            labels.and_then(|labels| labels.get(label)).is_some_and(|values| values.contains_key(value))
        });
        match elsewhere {
            Some(namespace) => {
                format!(
                    "{text}; pods of namespace {namespace:?} have it, but a policy selects pods of its own namespace"
                )
            }
            None => text,
        }
    }
}

#[cfg(test)]
mod tests {
    use kube_types::Kind;

    use super::super::world::Names;
    use super::*;

    fn why(namespace: &str, pairs: &[(&str, &str)]) -> Option<String> {
        let map = |pairs: &[(&str, &str)]| -> StringMap {
            pairs.iter().map(|(label, value)| ((*label).to_owned(), (*value).to_owned())).collect()
        };
        let mut world = World::new("istio-system", "cluster.local");
        for (namespace, labels) in [
            ("shop", map(&[("app", "web"), ("version", "v1")])),
            ("shop", map(&[("app", "db"), ("version", "v2")])),
            ("data", map(&[("app", "cache")])),
        ] {
            world.exchange(None, Some(Names { namespace, account: None, labels: Some(&labels) }));
        }
        let key = ObjectRef::new(Kind::AuthorizationPolicy, namespace, "p");
        review(&key, Some(&map(pairs)), &world, || false).map(|(_, why)| why)
    }

    #[test]
    fn a_selector_that_nothing_has_names_what_is_near() {
        let reason = |pairs: &[(&str, &str)]| why("shop", pairs).unwrap();
        let none = "no pod of namespace \"shop\" has the label";

        assert_eq!(reason(&[("app", "wbe")]), format!("{none} app=wbe; did you mean app=web?"));
        assert_eq!(reason(&[("apps", "web")]), format!("{none} apps=web; did you mean app=web?"));
        assert_eq!(reason(&[("name", "db")]), format!("{none} name=db; did you mean app=db?"));
        assert!(reason(&[("app", "cache")]).contains("pods of namespace \"data\" have it"));
        assert_eq!(reason(&[("app", "billing")]), format!("{none} app=billing"));
        assert!(reason(&[("app", "web"), ("version", "v2")]).contains("no pod has all of these labels"));
        assert_eq!(why("istio-system", &[("app", "cache")]), None, "the root namespace selects everywhere");
        assert_eq!(why("shpo", &[]).unwrap(), "namespace \"shpo\" not found; did you mean \"shop\"?");
    }
}
