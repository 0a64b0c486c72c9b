//! Objects of the API server, their history, and what it is told to do.

use std::collections::{BTreeMap, HashMap, HashSet};

use kube_cluster::{Rule, Verb};
use kube_types::Kind;
use serde_json::{Value, json};

use super::fault::{Fault, When};
use super::request::{Asked, Resource};

/// Namespace and name.
type Name = (String, String);

/// A change of an object.
#[derive(Clone, Debug)]
pub struct Change {
    pub version: u64,
    pub resource: Resource,
    pub namespace: String,
    pub name: String,
    /// The object before and after; `None` when there was or is none.
    pub before: Option<Value>,
    pub after: Option<Value>,
}

#[derive(Debug)]
pub struct State {
    pub version: u64,
    objects: HashMap<Resource, BTreeMap<Name, Value>>,
    pub history: Vec<Change>,
    /// Versions before this one are forgotten.
    pub compacted: u64,
    served: HashSet<(Resource, String)>,
    pub faults: Vec<(When, Fault)>,
    /// Method of the requests in which the client panics, and how many of them.
    pub panics: Option<(http::Method, usize)>,
    /// A watch ends when this number is not that of its beginning.
    pub generation: u64,
    pub bookmarks: u64,
    pub rules: Option<Vec<Rule>>,
    pub asked: Vec<Asked>,
    pub open_watches: usize,
}

impl Default for State {
    fn default() -> Self {
        let served = Kind::ALL.iter().map(|kind| (Resource::of(*kind), "v1".to_owned()));
        let others = [
            (Resource::leases(), "v1"),
            (Resource::named("policy", "poddisruptionbudgets"), "v1"),
            (Resource::named("autoscaling", "horizontalpodautoscalers"), "v2"),
        ];
        let served = served.chain(others.map(|(resource, version)| (resource, version.to_owned()))).collect();
        Self {
            version: 100,
            objects: HashMap::new(),
            history: Vec::new(),
            compacted: 0,
            served,
            faults: Vec::new(),
            panics: None,
            generation: 0,
            bookmarks: 0,
            rules: None,
            asked: Vec::new(),
            open_watches: 0,
        }
    }
}

impl State {
    pub fn get(&self, resource: &Resource, namespace: &str, name: &str) -> Option<&Value> {
        self.objects.get(resource)?.get(&(namespace.to_owned(), name.to_owned()))
    }

    pub fn all<'a>(&'a self, resource: &Resource) -> impl Iterator<Item = (&'a str, &'a str, &'a Value)> + use<'a> {
        let objects = self.objects.get(resource).into_iter().flatten();
        objects.map(|((namespace, name), object)| (namespace.as_str(), name.as_str(), object))
    }

    /// Objects as they were at a version, in the order of the API: that of `namespace/name`.
    pub fn at(&self, resource: &Resource, version: u64) -> BTreeMap<String, Value> {
        let mut objects: BTreeMap<String, Value> = self
            .all(resource)
            .map(|(namespace, name, object)| (format!("{namespace}/{name}"), object.clone()))
            .collect();
        for change in self.history.iter().rev().filter(|change| change.resource == *resource) {
            if change.version <= version {
                break;
            }
            let key = format!("{}/{}", change.namespace, change.name);
            match &change.before {
                Some(before) => objects.insert(key, before.clone()),
                None => objects.remove(&key),
            };
        }
        objects
    }

    pub fn put(&mut self, resource: &Resource, namespace: &str, name: &str, mut object: Value) -> String {
        let before = self.get(resource, namespace, name).cloned();
        self.version += 1;
        let uid = match &before {
            Some(before) => before["metadata"]["uid"].as_str().unwrap().to_owned(),
            None => format!("uid-{}", self.version),
        };
        let metadata = &mut object["metadata"];
        metadata["name"] = name.into();
        if !namespace.is_empty() {
            metadata["namespace"] = namespace.into();
        }
        metadata["uid"] = uid.as_str().into();
        metadata["resourceVersion"] = self.version.to_string().into();
        self.record(resource, (namespace, name), before, Some(object));
        uid
    }

    pub fn delete(&mut self, resource: &Resource, namespace: &str, name: &str) {
        if let Some(before) = self.get(resource, namespace, name).cloned() {
            self.version += 1;
            self.record(resource, (namespace, name), Some(before), None);
        }
    }

    fn record(
        &mut self,
        resource: &Resource,
        (namespace, name): (&str, &str),
        before: Option<Value>,
        after: Option<Value>,
    ) {
        let key = (namespace.to_owned(), name.to_owned());
        let objects = self.objects.entry(resource.clone()).or_default();
        match &after {
            Some(object) => objects.insert(key, object.clone()),
            None => objects.remove(&key),
        };
        self.history.push(Change {
            version: self.version,
            resource: resource.clone(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            before,
            after,
        });
    }

    /// Versions that are not the newest are too old from now on.
    pub fn compact(&mut self) {
        self.version += 1;
        self.compacted = self.version;
    }

    pub fn serve(&mut self, resource: &Resource, version: &str, is_served: bool) {
        let entry = (resource.clone(), version.to_owned());
        if is_served {
            self.served.insert(entry);
        } else {
            self.served.remove(&entry);
        }
    }

    pub fn is_served(&self, resource: &Resource, version: &str) -> bool {
        self.served.contains(&(resource.clone(), version.to_owned()))
    }

    /// The list of resources of a version of a group; `None` when there is none.
    pub fn discover(&self, group: &str, version: &str) -> Option<Value> {
        let served = self.served.iter().filter(|(resource, served)| resource.group == group && served == version);
        let names: Vec<_> = served.map(|(resource, _)| json!({ "name": resource.plural })).collect();
        (!names.is_empty()).then(|| json!({ "kind": "APIResourceList", "resources": names }))
    }

    /// Notes a request, and returns the fault that it meets.
    pub fn on_request(&mut self, asked: &Asked) -> Option<Fault> {
        self.asked.push(asked.clone());
        let mut faults = self.faults.iter_mut();
        faults.find_map(|(when, fault)| when.meets(asked).then(|| fault.clone()))
    }

    /// Does a rule allow the request? Discovery always is.
    pub fn allows(&self, asked: &Asked) -> bool {
        let (Some(rules), Some(verb)) = (&self.rules, asked.verb) else { return true };
        rules.iter().any(|rule| {
            rule.api_group == asked.resource.group
                && rule.resource == asked.rule_resource()
                && rule.verbs.contains(&verb)
                && rule.namespace.as_ref().is_none_or(|namespace| *namespace == asked.namespace)
                && (rule.names.is_empty() || rule.names.contains(&asked.name))
        })
    }
}

/// Does the object match the selectors of a request?
pub fn is_selected(object: &Value, asked: &Asked) -> bool {
    let in_namespace = asked.namespace.is_empty() || object["metadata"]["namespace"] == asked.namespace.as_str();
    let matches = |selector: Option<&String>, value: &dyn Fn(&str) -> Value| {
        let mut terms = selector.into_iter().flat_map(|selector| selector.split(','));
        terms.all(|term| match term.split_once('=') {
            Some((field, wanted)) => value(field) == wanted,
            // A label of any value.
            None => !value(term).is_null(),
        })
    };
    let field = |path: &str| object.pointer(&format!("/{}", path.replace('.', "/"))).cloned().unwrap_or_default();
    let label = |name: &str| object["metadata"]["labels"][name].clone();
    in_namespace
        && matches(asked.query.get("fieldSelector"), &field)
        && matches(asked.query.get("labelSelector"), &label)
}

/// The name of a verb in a refusal.
pub fn forbidden(asked: &Asked, verb: Verb) -> String {
    format!(
        "{} is forbidden: User \"system:serviceaccount:mesh:test\" cannot {verb} resource \"{}\" in API group \"{}\"",
        asked.resource.plural,
        asked.rule_resource(),
        asked.resource.group
    )
}
