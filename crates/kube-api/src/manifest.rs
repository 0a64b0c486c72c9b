//! Manifests as text: reading a directory once, and changing a label without touching the rest.
//! Following changes is the business of [`crate::Source`].

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::decode::{self, Head};
use crate::document::{self, Node};
use crate::event::{Severity, SourceProblem};
use crate::kind::ObjectRef;
use crate::label;
use crate::resource::Resource;
use crate::source::{file, walk};
use crate::state;

/// One object of a manifest.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub resource: Resource,
    pub file: PathBuf,
    /// Line where the document begins, from 1.
    pub line: usize,
}

/// What a directory of manifests says, in the order of files and of documents in them. A file with a
/// problem that refuses it has no objects here.
#[derive(Clone, Debug, Default)]
pub struct Manifests {
    pub objects: Vec<Loaded>,
    pub problems: Vec<SourceProblem>,
}

/// A label to set, or to remove with `value: None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelChange {
    pub label: String,
    pub value: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum LabelError {
    #[error("no manifest of {0}")]
    NoManifest(ObjectRef),
    #[error("{0:?} is not a valid label")]
    Invalid(String),
    #[error("label {label} is already {value:?}")]
    Exists { label: String, value: String },
    #[error("{path}: not edited: {reason}")]
    Unsafe { path: PathBuf, reason: String },
    /// The file as a whole would not be read, so the label would have no effect.
    #[error("not edited, the file has a mistake: {0}")]
    Refused(SourceProblem),
    #[error("{path}: not readable or writable")]
    Io { path: PathBuf, source: io::Error },
}

/// Reads every manifest below `path` (a directory or one file) once.
pub fn load_directory(path: &Path) -> io::Result<Manifests> {
    let mut manifests = Manifests::default();
    for file in walk::manifests(path, None)? {
        let contents = match fs::read_to_string(&file) {
            Ok(text) => file::parse(&file, &text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                manifests.problems.push(SourceProblem {
                    file,
                    line: 0,
                    field: String::new(),
                    message: format!("not readable: {error}"),
                    severity: Severity::Refused,
                    in_force: None,
                });
                continue;
            }
        };
        if !contents.is_refused() {
            manifests.objects.extend(contents.objects.into_iter().map(|object| Loaded {
                resource: object.resource,
                file: file.clone(),
                line: object.line,
            }));
        }
        manifests.problems.extend(contents.problems);
    }
    Ok(manifests)
}

/// Changes labels of `key` in the manifest below `path` that defines it, and returns that file. Only
/// the text of `metadata.labels` changes: comments, order and everything else stay. The file is
/// replaced as a whole, and only after reading the new text has shown that nothing else differs and that
/// the file has no mistake elsewhere that refuses it.
/// Without `overwrite` a label that has another value already is an error.
pub fn set_label(
    path: &Path,
    key: &ObjectRef,
    changes: &[LabelChange],
    overwrite: bool,
) -> Result<PathBuf, LabelError> {
    for change in changes {
        check_label(change)?;
    }
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| LabelError::Io { path, source }
    };
    for file in walk::manifests(path, None).map_err(failed(path))? {
        let text = fs::read_to_string(&file).map_err(failed(&file))?;
        let edited = set_label_in(&text, key, changes, overwrite);
        let edited = edited.map_err(|error| error.at(&file))?;
        if let Some(edited) = &edited {
            let problems = file::parse(&file, edited).problems;
            if let Some(problem) = problems.into_iter().find(|problem| problem.severity == Severity::Refused) {
                return Err(LabelError::Refused(problem));
            }
        }
        match edited {
            Some(edited) if edited == text => return Ok(file),
            Some(edited) => {
                let target = file.canonicalize().map_err(failed(&file))?;
                state::write_atomically(&target, edited.as_bytes()).map_err(failed(&file))?;
                return Ok(file);
            }
            None => {}
        }
    }
    Err(LabelError::NoManifest(key.clone()))
}

enum TextError {
    Unsafe(String),
    Exists { label: String, value: String },
}

impl TextError {
    fn at(self, path: &Path) -> LabelError {
        match self {
            Self::Exists { label, value } => LabelError::Exists { label, value },
            Self::Unsafe(reason) => LabelError::Unsafe { path: path.to_owned(), reason },
        }
    }
}

/// The text of a file with the labels changed; `None` when it does not define the object.
fn set_label_in(
    file: &str,
    key: &ObjectRef,
    changes: &[LabelChange],
    overwrite: bool,
) -> Result<Option<String>, TextError> {
    for chunk in document::split(file) {
        let Some(mut expected) = object_of(chunk.text, key) else {
            continue;
        };
        let mut text = chunk.text.to_owned();
        for change in changes {
            let value = change.value.as_deref();
            let old = expected["metadata"]["labels"].get(&change.label).cloned();
            if let (Some(old), Some(value), false) = (old.as_ref().and_then(Value::as_str), value, overwrite)
                && old != value
            {
                return Err(TextError::Exists { label: change.label.clone(), value: old.to_owned() });
            }
            text = label::edit(&text, &change.label, value).map_err(|error| TextError::Unsafe(error.to_string()))?;
            expect(&mut expected, change);
        }
        prove(&text, expected)?;
        let mut edited = file.to_owned();
        edited.replace_range(chunk.offset..chunk.offset + chunk.text.len(), &text);
        return Ok(Some(edited));
    }
    Ok(None)
}

/// The document as a value when it is the object that is looked for.
fn object_of(text: &str, wanted: &ObjectRef) -> Option<Value> {
    let node = Node::parse(text).ok()?;
    let Ok(Head::Object(kind)) = decode::head(&node) else {
        return None;
    };
    let value = node.to_value();
    let key = decode::key(kind, &mut value.clone()).ok()?;
    (key == *wanted).then_some(value)
}

fn expect(value: &mut Value, change: &LabelChange) {
    let labels = &mut value["metadata"]["labels"];
    if !labels.is_object() {
        *labels = Value::Object(serde_json::Map::new());
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

/// Reads the new text: it must be one document and say what is expected.
fn prove(text: &str, mut expected: Value) -> Result<(), TextError> {
    let differs = || TextError::Unsafe("the change would touch more than labels".to_owned());
    if document::split(text).len() != 1 {
        return Err(differs());
    }
    let mut found = Node::parse(text).map_err(|error| TextError::Unsafe(error.message))?.to_value();
    for value in [&mut found, &mut expected] {
        let labels = &mut value["metadata"]["labels"];
        if labels.is_null() {
            *labels = Value::Object(serde_json::Map::new());
        }
    }
    if found == expected { Ok(()) } else { Err(differs()) }
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
        return Err(LabelError::Invalid(change.label.clone()));
    }
    match &change.value {
        Some(value) if !value.is_empty() && !word(value) => Err(LabelError::Invalid(value.clone())),
        Some(_) | None => Ok(()),
    }
}
