//! Overlays: partial objects that programs write about the user's objects, and how they are laid over them.
//!
//! An overlay with `preconditions: {uid: U}` beside its patch, which is Kubernetes' word for it, is about the object with
//! that uid and no other of the same name: [`kube_types::Status::apply_to`] writes it. Where the object's uid is another, or
//! there is none, the overlay is not applied, so that a pod does not inherit what was found of its predecessor. The uid
//! is the base's or comes from an overlay without precondition; one with a precondition names it and does not give it.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::file::Object;
use crate::decode;
use crate::document::display_path;
use crate::merge::merge;
use kube_types::{Code, ObjectRef, Resource, SourceProblem, Subject};

/// An overlay of one writer for one object.
#[derive(Debug)]
pub(super) struct Overlay {
    file: PathBuf,
    /// The only object it is about; `None`: whichever has the key.
    uid: Option<String>,
    value: Value,
}

impl Overlay {
    /// Takes the precondition out of the contents of a file.
    pub(super) fn new(file: &Path, mut value: Value) -> Result<Self, Box<SourceProblem>> {
        let mut uid = None;
        if let Some(preconditions) = value.as_object_mut().and_then(|map| map.remove("preconditions")) {
            match preconditions.get("uid").and_then(Value::as_str).filter(|uid| !uid.is_empty()) {
                Some(named) => uid = Some(named.to_owned()),
                None => {
                    let problem = SourceProblem::of_file(file, Code::InvalidOverlay, "expected the uid of an object");
                    return Err(Box::new(SourceProblem { field: "preconditions.uid".to_owned(), ..problem }));
                }
            }
        }
        Ok(Self { file: file.to_owned(), uid, value })
    }

    fn is_about(&self, resource: &Resource) -> bool {
        self.uid.as_ref().is_none_or(|uid| *uid == resource.meta().uid)
    }
}

/// The object with its overlays, in their order. One that leaves nothing valid is left out and named.
pub(super) fn apply<'a>(
    key: &ObjectRef,
    base: &Object,
    overlays: impl Iterator<Item = &'a Overlay> + Clone,
) -> (Resource, Vec<SourceProblem>) {
    // The uid itself may come from an overlay (the lab gives pods theirs), so those without a precondition come first.
    let (own, problems) = apply_all(key, base, overlays.clone().filter(|overlay| overlay.uid.is_none()));
    if overlays.clone().any(|overlay| overlay.uid.is_some() && overlay.is_about(&own)) {
        return apply_all(key, base, overlays.filter(|overlay| overlay.is_about(&own)));
    }
    (own, problems)
}

fn apply_all<'a>(
    key: &ObjectRef,
    base: &Object,
    overlays: impl Iterator<Item = &'a Overlay>,
) -> (Resource, Vec<SourceProblem>) {
    let mut merged: Option<(Value, Resource)> = None;
    let mut problems = Vec::new();
    for overlay in overlays {
        // Each overlay is laid over the result of the ones before it.
        let value = merged.as_ref().map_or(&base.value, |(value, _)| value);
        match apply_one(key, value, overlay) {
            Ok(applied) => merged = Some(applied),
            Err(problem) => problems.push(*problem),
        }
    }
    (merged.map_or_else(|| base.resource.clone(), |(_, resource)| resource), problems)
}

fn apply_one(key: &ObjectRef, base: &Value, overlay: &Overlay) -> Result<(Value, Resource), Box<SourceProblem>> {
    // A copy: an overlay that makes the object invalid is left out, and the base is needed as it was.
    let mut merged = base.clone();
    merge(&mut merged, &overlay.value);
    if let Some(uid) = &overlay.uid {
        // The patch cannot change the uid that it is about.
        merged["metadata"]["uid"] = uid.as_str().into();
    }
    // An overlay says something about an object, never which object it is.
    merged["metadata"]["name"] = key.name.as_str().into();
    if key.kind.is_namespaced() {
        merged["metadata"]["namespace"] = key.namespace.as_str().into();
    }
    match decode::object(key.kind, &merged) {
        Ok(decoded) => Ok((merged, decoded.resource)),
        Err(mistakes) => {
            // One is enough: the writer is a program, which does not correct a file mistake by mistake.
            let first = mistakes.into_iter().next();
            let (field, message) =
                first.map_or_else(Default::default, |mistake| (display_path(&mistake.path), mistake.message));
            let problem = SourceProblem::of_file(&overlay.file, Code::InvalidOverlay, message);
            Err(Box::new(SourceProblem { field, subject: Subject::from(key), ..problem }))
        }
    }
}
