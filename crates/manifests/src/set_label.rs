//! Changes labels of one object in the text of its manifest. Comments, order and style of everything else stay.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::chunk::{self, Chunk};
use crate::decode::{self, ObjectNode};
use crate::document::Step;
use crate::label;
use crate::locate::Place;
use crate::source::file;
use crate::source::read_file::{self, ReadError};
use crate::{load, state};
use kube_types::{Kind, ObjectRef, Resource, Severity, SourceProblem, similar};

/// A label to set, or to remove with `value: None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelChange {
    pub label: String,
    pub value: Option<String>,
}

/// Result of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Labelled {
    /// The manifest of the object has the labels now.
    Changed(PathBuf),
    /// The manifest had the labels already.
    Unchanged(PathBuf),
    /// This file, which defines the namespace now: no manifest did, though others have objects in it.
    Added(PathBuf),
}

impl Labelled {
    /// The file that defines the object.
    pub fn file(&self) -> &Path {
        match self {
            Self::Changed(file) | Self::Unchanged(file) | Self::Added(file) => file,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum LabelError {
    #[error("no manifest defines {0}")]
    NoManifest(ObjectRef),
    /// The labels of a pod that is made from a template are those of the template.
    #[error("{pod} is made by {maker} ({place}): set the label in spec.template.metadata.labels there")]
    MadeBy { pod: String, maker: String, place: Place },
    #[error("namespace {name:?} does not exist: no manifest defines it or has an object in it{hint}")]
    NoNamespace { name: String, hint: String },
    #[error(
        "invalid label {0:?}: expected [prefix/]name with letters, digits, '-', '_' and '.', at most 63 characters"
    )]
    InvalidKey(String),
    #[error("invalid label value {0:?}: expected letters, digits, '-', '_' and '.', at most 63 characters")]
    InvalidValue(String),
    #[error("label {label} is already {value:?}")]
    Exists { label: String, value: String },
    #[error("{path}: not edited: {reason}; edit the file by hand")]
    Unsafe { path: PathBuf, reason: String },
    /// The object would not be in force, so the label would have no effect.
    #[error("not edited, the object has a mistake: {0}")]
    Refused(Box<SourceProblem>),
    #[error("failed to read or write {path}")]
    Io { path: PathBuf, source: io::Error },
}

/// Changes labels of `key` in the manifest that defines it, below one of the `paths` (directories or files). Only the text
/// of `metadata.labels` changes: comments, order and everything else stay. The file is replaced as a whole, and only after
/// reading the new text has shown that nothing else differs and that the object is in force with it. Without `overwrite` a
/// label that has another value already is an error.
///
/// A Namespace that no manifest defines although objects are in it (`default` always exists) is added: to a path that is
/// a file, else to `namespace-<name>.yaml` in the first directory.
pub fn set_label(
    paths: &[PathBuf],
    key: &ObjectRef,
    changes: &[LabelChange],
    overwrite: bool,
) -> Result<Labelled, LabelError> {
    changes.iter().try_for_each(check_label)?;
    for path in paths {
        let (files, _) = load::texts(path).map_err(failed(path))?;
        for (file, text) in files {
            // An unreadable file defines nothing; `lab status` names it.
            let Ok(text) = text else { continue };
            if let Some(edited) = set_label_in(&file, &text, key, changes, overwrite)? {
                if edited == text {
                    // The file is not touched, so that no reader is woken and its time stays.
                    return Ok(Labelled::Unchanged(file));
                }
                // Before the file is touched: an edit that breaks the manifest would take its objects out of force at
                // the next start.
                prove_in_force(&file, &edited, key)?;
                replace(&file, &edited)?;
                return Ok(Labelled::Changed(file));
            }
        }
    }
    if key.kind == Kind::Namespace {
        return add_namespace(paths, &key.name, changes);
    }
    Err(maker_of(paths, key).unwrap_or_else(|| LabelError::NoManifest(key.clone())))
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> LabelError {
    let path = path.to_owned();
    move |source| LabelError::Io { path, source }
}

fn replace(file: &Path, text: &str) -> Result<(), LabelError> {
    // A link stays one: what it leads to is replaced.
    // `rename` would replace the link itself.
    let target = if file.exists() { file.canonicalize().map_err(failed(file))? } else { file.to_owned() };
    state::write_atomically(&target, text.as_bytes()).map_err(failed(file))
}

/// Reads the new text of a file: the object must be in force with it.
fn prove_in_force(file: &Path, text: &str, key: &ObjectRef) -> Result<(), LabelError> {
    let contents = file::parse(file, text);
    if contents.objects.iter().any(|object| object.key == *key) {
        return Ok(());
    }
    let errors = || contents.problems.iter().filter(|problem| problem.severity == Severity::Error);
    // The problem of the object itself explains more than another one of its file.
    let own = errors().find(|problem| problem.subject.kind == key.kind.name() && problem.subject.name == key.name);
    match own.or_else(|| errors().next()) {
        Some(problem) => Err(LabelError::Refused(Box::new(problem.clone()))),
        None => Err(LabelError::NoManifest(key.clone())),
    }
}

/// The text of a file with the labels changed; `None` when it does not define the object.
fn set_label_in(
    path: &Path,
    file: &str,
    key: &ObjectRef,
    changes: &[LabelChange],
    overwrite: bool,
) -> Result<Option<String>, LabelError> {
    let refused = |reason: String| LabelError::Unsafe { path: path.to_owned(), reason };
    for chunk in chunk::split(file) {
        let Some((place, mut expected)) = object_in(&chunk, key) else {
            continue;
        };
        let mut text = chunk.text.to_owned();
        for change in changes {
            let value = change.value.as_deref();
            let labels = object_at(&mut expected, &place).map(|object| &object["metadata"]["labels"]);
            let old = labels.and_then(|labels| labels.get(&change.label)).and_then(Value::as_str);
            if let (Some(old), Some(value), false) = (old, value, overwrite)
                && old != value
            {
                return Err(LabelError::Exists { label: change.label.clone(), value: old.to_owned() });
            }
            // The text is edited, and the value beside it; `prove` compares both, so an error of the editor cannot
            // reach the file.
            text = label::edit(&text, &place, &change.label, value).map_err(|error| refused(error.to_string()))?;
            if let Some(object) = object_at(&mut expected, &place) {
                expect(object, change);
            }
        }
        prove(Chunk { text: &text, ..chunk }, &place, expected).map_err(refused)?;
        let mut edited = file.to_owned();
        edited.replace_range(chunk.offset..chunk.offset + chunk.text.len(), &text);
        return Ok(Some(edited));
    }
    Ok(None)
}

/// The object in a document: its place, empty when it is the document itself, and the document as a value.
fn object_in(chunk: &Chunk<'_>, wanted: &ObjectRef) -> Option<(Vec<Step>, Value)> {
    let document = chunk.parse().ok()?;
    let is_wanted =
        |object: &ObjectNode<'_>| decode::key(object.kind, &mut object.node.to_value()).is_ok_and(|key| key == *wanted);
    let object = decode::objects(&document).into_iter().find(is_wanted)?;
    Some((object.path, document.to_value()))
}

fn object_at<'a>(document: &'a mut Value, place: &[Step]) -> Option<&'a mut Value> {
    place.iter().try_fold(document, |value, step| match step {
        Step::Field(name) => value.get_mut(name),
        Step::Index(index) => value.get_mut(index),
    })
}

fn expect(object: &mut Value, change: &LabelChange) {
    let labels = &mut object["metadata"]["labels"];
    if !labels.is_object() {
        *labels = Value::Object(Map::new());
    }
    if let Value::Object(labels) = labels {
        match &change.value {
            Some(value) => {
                labels.insert(change.label.clone(), value.as_str().into());
            }
            None => {
                labels.remove(&change.label);
            }
        }
    }
}

/// Reads the new text: it must be one document and have the expected value.
fn prove(chunk: Chunk<'_>, place: &[Step], mut expected: Value) -> Result<(), String> {
    let differs = || "the change would touch more than labels".to_owned();
    let one = chunk::split(chunk.text);
    if one.len() != 1 {
        return Err(differs());
    }
    let mut found = chunk.parse().map_err(|_| differs())?.to_value();
    for value in [&mut found, &mut expected] {
        let object = object_at(value, place).ok_or_else(differs)?;
        let labels = &mut object["metadata"]["labels"];
        // `labels:` without a value and no labels are the same.
        if labels.is_null() {
            *labels = Value::Object(Map::new());
        }
    }
    if found == expected { Ok(()) } else { Err(differs()) }
}

/// Adds a manifest of a namespace that exists because objects are in it.
fn add_namespace(paths: &[PathBuf], name: &str, changes: &[LabelChange]) -> Result<Labelled, LabelError> {
    let mut namespaces = vec!["default".to_owned()];
    for path in paths {
        let loaded = load::load_directory(path).map_err(failed(path))?;
        namespaces.extend(loaded.objects.iter().map(|object| object.resource.meta().namespace.clone()));
    }
    namespaces.retain(|namespace| !namespace.is_empty());
    namespaces.sort();
    namespaces.dedup();
    if !namespaces.iter().any(|namespace| namespace == name) {
        let hint = similar::hint(name, namespaces.iter().map(String::as_str));
        return Err(LabelError::NoNamespace { name: name.to_owned(), hint });
    }
    let missing = || LabelError::NoNamespace { name: name.to_owned(), hint: String::new() };
    let first = paths.first().ok_or_else(missing)?;
    let file = if first.is_dir() { first.join(format!("namespace-{name}.yaml")) } else { first.clone() };
    let labels: Vec<_> = changes
        .iter()
        .filter_map(|change| Some(format!("    {}: {}\n", change.label, label::scalar(change.value.as_deref()?))))
        .collect();
    if labels.is_empty() {
        return Ok(Labelled::Unchanged(file));
    }
    let document =
        format!("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n  labels:\n{}", labels.concat());
    let text = match read_file::read(&file) {
        Ok(old) => append(&old.text, &document),
        Err(ReadError::Io(error)) if error.kind() == io::ErrorKind::NotFound => document,
        Err(error) => return Err(LabelError::Io { path: file.clone(), source: io::Error::other(error) }),
    };
    // Before it is written, as for an edit.
    prove_in_force(&file, &text, &ObjectRef::new(Kind::Namespace, "", name))?;
    replace(&file, &text)?;
    Ok(Labelled::Added(file))
}

fn append(old: &str, document: &str) -> String {
    if chunk::split(old).is_empty() {
        return format!("{old}{document}");
    }
    let newline = if old.ends_with('\n') { "" } else { "\n" };
    format!("{old}{newline}---\n{document}")
}

/// The object that makes a pod of this name.
fn maker_of(paths: &[PathBuf], pod: &ObjectRef) -> Option<LabelError> {
    if pod.kind != Kind::Pod {
        return None;
    }
    let loaded = paths.iter().filter_map(|path| load::load_directory(path).ok()).flat_map(|loaded| loaded.objects);
    // The longest name: of `web` and `web-db` the second makes `web-db-0`.
    // By its name only: no manifest has the ReplicaSet between a Deployment and its pod.
    let makers = loaded.filter(|object| makes(&object.resource, pod));
    let maker = makers.max_by_key(|object| object.resource.meta().name.len())?;
    let place = Place { file: maker.file, line: maker.line };
    Some(LabelError::MadeBy { pod: pod.to_string(), maker: maker.resource.key().to_string(), place })
}

fn makes(resource: &Resource, pod: &ObjectRef) -> bool {
    let kind = resource.kind();
    let meta = resource.meta();
    let rest = pod.name.strip_prefix(meta.name.as_str()).and_then(|rest| rest.strip_prefix('-'));
    let Some(rest) = rest.filter(|rest| !rest.is_empty()) else {
        return false;
    };
    let is_made = match kind {
        Kind::StatefulSet => rest.bytes().all(|byte| byte.is_ascii_digit()),
        Kind::Pod => false,
        _ => kind.pod_spec().is_some() && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'),
    };
    meta.namespace == pod.namespace && is_made
}

/// Kubernetes' rules for labels: `[prefix/]name`, 63 characters, letters and digits at the ends.
fn check_label(change: &LabelChange) -> Result<(), LabelError> {
    let word = |text: &str| {
        text.len() <= 63
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.ends_with(|c: char| c.is_ascii_alphanumeric())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    let prefix = |text: &str| {
        !text.is_empty()
            && text.len() <= 253
            && text.split('.').all(|part| word(part) && part == part.to_ascii_lowercase())
    };
    let name_is_valid = match change.label.split_once('/') {
        Some((before, name)) => prefix(before) && word(name),
        None => word(&change.label),
    };
    if !name_is_valid {
        return Err(LabelError::InvalidKey(change.label.clone()));
    }
    match &change.value {
        Some(value) if !value.is_empty() && !word(value) => Err(LabelError::InvalidValue(value.clone())),
        Some(_) | None => Ok(()),
    }
}
