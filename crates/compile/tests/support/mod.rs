//! Runs a case: objects in, discovery resources out, compared as canonical protobuf JSON.

pub(crate) mod json;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use compile::{Compiler, Update};
use graph::Mesh;
use kube_types::{Kind, Resource};
use proto::Change;
use serde_json::{Value, json};

/// Annotation of a step that deletes instead of applying.
const DELETE: [&str; 2] = ["case/delete", "held/delete"];

/// State of a subscriber.
#[derive(Default)]
pub(crate) struct Subscriber {
    addresses: BTreeMap<String, Vec<u8>>,
    authorizations: BTreeMap<String, Vec<u8>>,
    pub(crate) conditions: BTreeMap<String, Value>,
    pub(crate) findings: BTreeMap<String, Vec<String>>,
    /// Statuses of objects that are no policies.
    pub(crate) statuses: BTreeMap<String, Value>,
}

impl Subscriber {
    pub(crate) fn take(&mut self, update: Update) {
        for (mine, changes) in
            [(&mut self.addresses, update.addresses), (&mut self.authorizations, update.authorizations)]
        {
            for change in changes {
                match change {
                    Change::Upsert { name, value, .. } => mine.insert(name, value.into()),
                    Change::Remove { name } => mine.remove(&name),
                };
            }
        }
        for (key, state) in update.policies {
            let conditions = state.map(|state| state.conditions(None)).unwrap_or_default();
            self.conditions.insert(key.to_string(), serde_json::to_value(conditions).unwrap());
        }
        for (key, status) in update.statuses {
            let mut fields = serde_json::Map::new();
            if !status.conditions.is_empty() {
                fields.insert("conditions".to_owned(), serde_json::to_value(status.conditions).unwrap());
            }
            if !status.addresses.is_empty() {
                fields.insert("addresses".to_owned(), serde_json::to_value(status.addresses).unwrap());
            }
            if fields.is_empty() {
                self.statuses.remove(&key.to_string());
            } else {
                self.statuses.insert(key.to_string(), Value::Object(fields));
            }
        }
        for (key, findings) in update.findings {
            let codes: Vec<_> = findings.iter().map(|finding| finding.reason.code().to_owned()).collect();
            if codes.is_empty() {
                self.findings.remove(&key.to_string());
            } else {
                self.findings.insert(key.to_string(), codes);
            }
        }
    }

    pub(crate) fn to_json(&self) -> Value {
        let list = |mine: &BTreeMap<String, Vec<u8>>, read: fn(&[u8]) -> Value| -> Value {
            mine.iter().map(|(name, bytes)| json!({"name": name, "resource": read(bytes)})).collect()
        };
        json!({
            "addresses": list(&self.addresses, json::address),
            "authorizations": list(&self.authorizations, json::authorization),
        })
    }
}

pub(crate) fn read_json(path: &Path) -> Option<Value> {
    let text = fs::read_to_string(path).ok()?;
    Some(serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

/// The objects of `objects.json` when there is one, else of `input.yaml`.
pub(crate) fn objects(case: &Path) -> Vec<Resource> {
    let Some(Value::Array(objects)) = read_json(&case.join("objects.json")) else {
        return manifests(&case.join("input.yaml"));
    };
    objects
        .into_iter()
        .filter_map(|object| {
            let kind: Kind = object["kind"].as_str()?.parse().ok()?;
            let name = object["metadata"]["name"].clone();
            Some(Resource::from_value(kind, object).unwrap_or_else(|e| panic!("{name}: {e}")))
        })
        .collect()
}

pub(crate) fn manifests(file: &Path) -> Vec<Resource> {
    let loaded = manifests::load_directory(file).unwrap();
    let refused: Vec<_> = loaded
        .problems
        .iter()
        .filter(|problem| problem.severity == kube_types::Severity::Error)
        .map(ToString::to_string)
        .collect();
    assert!(refused.is_empty(), "{refused:?}");
    loaded.objects.into_iter().map(|object| object.resource).collect()
}

pub(crate) struct Outcome {
    pub(crate) wds: Value,
    pub(crate) sequence: Vec<Value>,
    pub(crate) conditions: BTreeMap<String, Value>,
    pub(crate) findings: BTreeMap<String, Vec<String>>,
    pub(crate) statuses: BTreeMap<String, Value>,
}

/// Applies the objects in any order, then the steps.
pub(crate) fn run(case: &Path, mesh: Mesh) -> Outcome {
    let mut compiler = Compiler::new(mesh);
    let mut subscriber = Subscriber::default();
    for resource in objects(case) {
        compiler.apply(resource);
    }
    subscriber.take(compiler.settle());
    let mut sequence = Vec::new();
    for step in steps(case) {
        for resource in manifests(&step) {
            let annotations = &resource.meta().annotations;
            if DELETE.iter().any(|name| annotations.contains_key(*name)) {
                compiler.remove(&resource.key());
            } else {
                compiler.apply(resource);
            }
        }
        let update = compiler.settle();
        sequence.push(json!({
            "step": step.file_name().unwrap().to_str().unwrap(),
            "addresses": names(&update.addresses),
            "authorizations": names(&update.authorizations),
        }));
        subscriber.take(update);
    }
    // What is told step by step and what is told at once are the same.
    assert!(compiler.settle().is_empty());
    Outcome {
        wds: subscriber.to_json(),
        sequence,
        conditions: subscriber.conditions,
        findings: subscriber.findings,
        statuses: subscriber.statuses,
    }
}

fn names(changes: &[Change]) -> Value {
    let (mut updated, mut removed) = (BTreeSet::new(), BTreeSet::new());
    for change in changes {
        match change {
            Change::Upsert { name, .. } => updated.insert(name),
            Change::Remove { name } => removed.insert(name),
        };
    }
    json!({"updated": updated, "removed": removed})
}

fn steps(case: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(case.join("steps")) else {
        return Vec::new();
    };
    let mut steps: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    steps.sort();
    steps
}

/// Folders of cases, sorted.
pub(crate) fn cases(root: &Path) -> Vec<PathBuf> {
    let mut cases: Vec<_> =
        fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
    cases.sort();
    cases
}

/// Kinds in a case that are not read.
pub(crate) fn unread_kinds(case: &Path) -> BTreeSet<String> {
    let Some(Value::Array(objects)) = read_json(&case.join("objects.json")) else {
        return BTreeSet::new();
    };
    objects
        .iter()
        .filter_map(|object| object["kind"].as_str())
        .filter(|kind| kind.parse::<Kind>().is_err())
        .map(str::to_owned)
        .collect()
}
