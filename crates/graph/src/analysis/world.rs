//! Names that exist: namespaces, service accounts, labels of pods. Names in policies are looked up here.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use contract::labels::{JOB_UID_LABEL, POD_INDEX_LABEL, STATEFUL_SET_POD_NAME_LABEL};
use kube_types::StringMap;

/// Namespaces that every cluster has.
const BUILT_IN: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// Labels whose values are made for one pod or one revision: nobody writes them into a policy by hand.
const GENERATED: [&str; 8] = [
    "pod-template-hash",
    "rollouts-pod-template-hash",
    "controller-revision-hash",
    STATEFUL_SET_POD_NAME_LABEL,
    POD_INDEX_LABEL,
    JOB_UID_LABEL,
    "controller-uid",
    "pod-template-generation",
];

/// Number of objects that use each value of a label, by name of the label.
type Labels = BTreeMap<String, BTreeMap<String, usize>>;

/// Names that one object brings into existence.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names<'a> {
    pub(crate) namespace: &'a str,
    /// Name of a ServiceAccount, or of that of the pods that the object is or makes.
    pub(crate) account: Option<&'a str>,
    /// Labels of the pods that the object is or makes.
    pub(crate) labels: Option<&'a StringMap>,
}

/// Changes of names since the last call.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changed {
    /// A namespace or a service account came or went.
    pub(crate) names: bool,
    /// Namespaces in which a label came or went.
    pub(crate) labels: BTreeSet<String>,
}

/// Every name is counted, so that each change costs what changed.
#[derive(Debug)]
pub(crate) struct World {
    root_namespace: String,
    pub(crate) trust_domain: String,
    namespaces: BTreeMap<String, usize>,
    accounts: BTreeMap<String, BTreeMap<String, usize>>,
    labels: HashMap<String, Labels>,
    changed: Changed,
}

impl World {
    pub(crate) fn new(root_namespace: &str, trust_domain: &str) -> Self {
        Self {
            root_namespace: root_namespace.to_owned(),
            trust_domain: trust_domain.to_owned(),
            namespaces: BTreeMap::new(),
            accounts: BTreeMap::new(),
            labels: HashMap::new(),
            changed: Changed::default(),
        }
    }

    /// Exchanges the names of an object as it was for those that it has now. What both have is not touched.
    pub(crate) fn exchange(&mut self, old: Option<Names<'_>>, new: Option<Names<'_>>) {
        let same = |of: fn(&Names<'_>) -> Option<String>| old.as_ref().and_then(of) == new.as_ref().and_then(of);
        let same_account = same(|names| Some(format!("{}/{}", names.namespace, names.account?)));
        let same_namespace = old.map(|names| names.namespace) == new.map(|names| names.namespace);
        let same_labels = same_namespace && old.map(|names| names.labels) == new.map(|names| names.labels);
        // New names first: a name that both have never drops to zero in between, which would count as a change.
        for (names, add) in new.iter().map(|names| (names, true)).chain(old.iter().map(|names| (names, false))) {
            if !same_namespace {
                self.changed.names |= count(&mut self.namespaces, names.namespace, add);
            }
            if let (false, Some(account)) = (same_account, names.account) {
                let accounts = self.accounts.entry(names.namespace.to_owned()).or_default();
                self.changed.names |= count(accounts, account, add);
                if accounts.is_empty() {
                    self.accounts.remove(names.namespace);
                }
            }
            if let (false, Some(labels)) = (same_labels, names.labels) {
                self.count_labels(names.namespace, labels, add);
            }
        }
    }

    fn count_labels(&mut self, namespace: &str, labels: &StringMap, add: bool) {
        let kept = self.labels.entry(namespace.to_owned()).or_default();
        let mut changed = false;
        // A hash for each revision would count as a change of labels at every rollout.
        for (label, value) in labels.iter().filter(|(label, _)| !is_generated(label)) {
            let values = kept.entry(label.clone()).or_default();
            changed |= count(values, value, add);
            if values.is_empty() {
                kept.remove(label);
            }
        }
        if kept.is_empty() {
            self.labels.remove(namespace);
        }
        if changed {
            self.changed.labels.insert(namespace.to_owned());
        }
    }

    /// Returns the changes since the last call.
    pub(crate) fn take_changed(&mut self) -> Changed {
        std::mem::take(&mut self.changed)
    }

    pub(crate) fn has_namespace(&self, name: &str) -> bool {
        name == self.root_namespace || BUILT_IN.contains(&name) || self.namespaces.contains_key(name)
    }

    pub(crate) fn namespaces(&self) -> impl Iterator<Item = &str> {
        let fixed = BUILT_IN.into_iter().chain([self.root_namespace.as_str()]);
        self.namespaces.keys().map(String::as_str).chain(fixed.filter(|name| !self.namespaces.contains_key(*name)))
    }

    /// Every namespace has the account `default`.
    pub(crate) fn has_account(&self, namespace: &str, name: &str) -> bool {
        (name == "default" && self.has_namespace(namespace))
            || self.accounts.get(namespace).is_some_and(|accounts| accounts.contains_key(name))
    }

    /// Accounts of one namespace, `default` included.
    pub(crate) fn accounts_in(&self, namespace: &str) -> impl Iterator<Item = &str> {
        let named = self.accounts.get(namespace).into_iter().flat_map(BTreeMap::keys).map(String::as_str);
        named.filter(|name| *name != "default").chain(["default"])
    }

    /// Namespace and name of every account.
    pub(crate) fn accounts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.namespaces().flat_map(|namespace| self.accounts_in(namespace).map(move |name| (namespace, name)))
    }

    /// Labels of pods in a namespace, and how many pods and pod templates have each value.
    pub(crate) fn labels_in(&self, namespace: &str) -> Option<&Labels> {
        self.labels.get(namespace)
    }

    /// Namespaces that have labels.
    pub(crate) fn labelled(&self) -> impl Iterator<Item = &str> {
        self.labels.keys().map(String::as_str)
    }

    pub(crate) fn is_root(&self, namespace: &str) -> bool {
        namespace == self.root_namespace
    }
}

/// Returns true if values of the label are generated for one pod or one revision.
pub(crate) fn is_generated(label: &str) -> bool {
    GENERATED.contains(&label)
}

/// Counts one more or one less; true when it is the first or the last.
fn count(counts: &mut BTreeMap<String, usize>, name: &str, add: bool) -> bool {
    if let Some(number) = counts.get_mut(name) {
        // An object is removed as it was applied, so that the count cannot fall below zero but by a mistake here.
        *number = if add { *number + 1 } else { number.saturating_sub(1) };
        let is_last = *number == 0;
        if is_last {
            counts.remove(name);
        }
        return is_last;
    }
    if add {
        counts.insert(name.to_owned(), 1);
    }
    add
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names<'a>(namespace: &'a str, account: &'a str, labels: &'a StringMap) -> Option<Names<'a>> {
        Some(Names { namespace, account: Some(account), labels: Some(labels) })
    }

    #[test]
    fn names_exist_while_something_has_them() {
        let (web, db) =
            (StringMap::from([("app".into(), "web".into())]), StringMap::from([("app".into(), "db".into())]));
        let mut world = World::new("istio-system", "cluster.local");
        assert!(!world.has_namespace("shop") && world.has_namespace("default") && world.has_namespace("istio-system"));

        world.exchange(None, names("shop", "cart", &web));
        world.exchange(None, names("shop", "cart", &db));
        assert!(world.take_changed().names);
        assert!(world.has_account("shop", "cart") && world.has_account("shop", "default"));
        world.exchange(names("shop", "cart", &web), names("shop", "cart", &db));
        let changed = world.take_changed();
        assert!(!changed.names && changed.labels.contains("shop"), "{changed:?}");
        world.exchange(names("shop", "cart", &db), names("shop", "cart", &db));
        assert_eq!(world.take_changed(), Changed::default());
        world.exchange(names("shop", "cart", &db), None);
        assert!(world.has_account("shop", "cart"));
        world.exchange(names("shop", "cart", &db), None);

        assert!(world.take_changed().names);
        assert!(!world.has_account("shop", "cart") && !world.has_namespace("shop"));
        assert!(world.labels.is_empty() && world.accounts.is_empty() && world.namespaces.is_empty());
    }
}
