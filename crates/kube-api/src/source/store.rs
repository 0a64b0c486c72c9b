//! Lays what the files say over each other and tells what changed. It reads no files.
//!
//! An overlay with `preconditions: {uid: U}` beside its patch, which is Kubernetes' word for it, is about the object with
//! that uid and no other of the same name: [`crate::Status::apply_to`] writes it. Where the object's uid is another, or
//! there is none, the overlay is passed over, so that what was found of one pod is never said of its successor. The uid
//! is the base's or comes from an overlay without precondition; one with a precondition names it and does not give it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::Value;

use super::file::{Contents, Object};
use crate::decode;
use crate::document::display_path;
use crate::event::{Event, InForce, Severity, SourceProblem};
use crate::kind::{ClusterId, ObjectRef};
use crate::merge::merge;
use crate::resource::Resource;

/// Where a whole object comes from. The user's own manifest wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tier {
    User,
    Derived,
}

#[derive(Debug)]
struct Overlay {
    file: PathBuf,
    /// The only object it is about; `None`: whatever has the key.
    uid: Option<String>,
    value: Value,
}

impl Overlay {
    /// Takes the precondition out of what a file says.
    fn new(file: &Path, mut value: Value) -> Result<Self, SourceProblem> {
        let mut uid = None;
        if let Some(preconditions) = value.as_object_mut().and_then(|map| map.remove("preconditions")) {
            match preconditions.get("uid").and_then(Value::as_str).filter(|uid| !uid.is_empty()) {
                Some(named) => uid = Some(named.to_owned()),
                None => {
                    return Err(SourceProblem {
                        file: file.to_owned(),
                        line: 0,
                        field: "preconditions.uid".to_owned(),
                        message: "expected the uid of an object".to_owned(),
                        severity: Severity::Refused,
                        in_force: None,
                    });
                }
            }
        }
        Ok(Self { file: file.to_owned(), uid, value })
    }

    fn is_about(&self, resource: &Resource) -> bool {
        self.uid.as_ref().is_none_or(|uid| *uid == resource.meta().uid)
    }
}

/// A file of manifests as last understood.
#[derive(Debug)]
struct Good {
    tier: Tier,
    keys: Vec<ObjectRef>,
    /// When it was first read in this form.
    since: SystemTime,
}

/// A file with an overlay as last understood.
#[derive(Debug)]
struct GoodOverlay {
    key: ObjectRef,
    writer: String,
    since: SystemTime,
}

/// Everything that the files say, and what was told of it.
#[derive(Debug, Default)]
pub(super) struct Store {
    bases: BTreeMap<ObjectRef, BTreeMap<(Tier, PathBuf), Object>>,
    files: HashMap<PathBuf, Good>,
    /// Per object by the name of the writer.
    overlays: BTreeMap<ObjectRef, BTreeMap<String, Overlay>>,
    overlay_files: HashMap<PathBuf, GoodOverlay>,
    told: BTreeMap<ObjectRef, Resource>,
    /// Problems of a file by itself.
    own: BTreeMap<PathBuf, Vec<SourceProblem>>,
    /// Problems of an object that come from its files taken together.
    joint: BTreeMap<ObjectRef, Vec<SourceProblem>>,
    told_problems: BTreeMap<PathBuf, Vec<SourceProblem>>,
    dirty: BTreeSet<ObjectRef>,
    dirty_files: BTreeSet<PathBuf>,
}

impl Store {
    /// Is something of this file in force?
    pub(super) fn knows(&self, path: &Path) -> bool {
        self.files.contains_key(path) || self.overlay_files.contains_key(path)
    }

    /// Takes the new contents of a file of manifests, first read in this form at `since`. When they are refused, what it
    /// said before stays.
    pub(super) fn put_file(&mut self, path: &Path, tier: Tier, contents: Contents, since: SystemTime) {
        let refused = contents.is_refused();
        self.set_own(path, contents.problems);
        if refused {
            return;
        }
        self.forget_objects(path);
        let mut keys = Vec::with_capacity(contents.objects.len());
        for object in contents.objects {
            let key = object.key.clone();
            self.dirty.insert(key.clone());
            keys.push(key.clone());
            self.bases.entry(key).or_default().insert((tier, path.to_owned()), object);
        }
        self.files.insert(path.to_owned(), Good { tier, keys, since });
    }

    /// Takes the new contents of an overlay of `writer` for `key`, first read in this form at `since`.
    pub(super) fn put_overlay(
        &mut self,
        path: &Path,
        (writer, key): (String, ObjectRef),
        contents: Result<Value, SourceProblem>,
        since: SystemTime,
    ) {
        match contents.and_then(|value| Overlay::new(path, value)) {
            Ok(overlay) => {
                self.set_own(path, Vec::new());
                self.dirty.insert(key.clone());
                let good = GoodOverlay { key: key.clone(), writer: writer.clone(), since };
                self.overlay_files.insert(path.to_owned(), good);
                self.overlays.entry(key).or_default().insert(writer, overlay);
            }
            Err(problem) => self.set_own(path, vec![problem]),
        }
    }

    /// The file cannot be read or has no business where it is: what it said before stays.
    pub(super) fn put_problem(&mut self, problem: SourceProblem) {
        let file = problem.file.clone();
        self.set_own(&file, vec![problem]);
    }

    /// What is wrong with a file beside the manifests.
    pub(super) fn put_problems(&mut self, file: &Path, problems: Vec<SourceProblem>) {
        self.set_own(file, problems);
    }

    /// Something is wrong with a directory, which is said in full by the problem.
    pub(super) fn put_directory_problem(&mut self, problem: SourceProblem) {
        self.dirty_files.insert(problem.file.clone());
        self.own.insert(problem.file.clone(), vec![problem]);
    }

    /// What was told of a path as a whole no longer holds.
    pub(super) fn solve(&mut self, path: &Path) {
        if self.own.contains_key(path) {
            self.set_own(path, Vec::new());
        }
    }

    /// Replaces the problems of a file by itself; each that refuses it tells what is in force instead.
    fn set_own(&mut self, path: &Path, mut problems: Vec<SourceProblem>) {
        self.dirty_files.insert(path.to_owned());
        let since = self.files.get(path).map(|good| good.since);
        let since = since.or_else(|| self.overlay_files.get(path).map(|good| good.since));
        let in_force = since.map_or(InForce::Nothing, |since| InForce::LastGood { since });
        for problem in problems.iter_mut().filter(|problem| problem.severity == Severity::Refused) {
            problem.in_force = Some(in_force);
        }
        if problems.is_empty() {
            self.own.remove(path);
        } else {
            self.own.insert(path.to_owned(), problems);
        }
    }

    /// The file is gone.
    pub(super) fn remove(&mut self, path: &Path) {
        self.dirty_files.insert(path.to_owned());
        self.own.remove(path);
        self.forget_objects(path);
        if let Some(GoodOverlay { key, writer, .. }) = self.overlay_files.remove(path) {
            if let Some(overlays) = self.overlays.get_mut(&key) {
                overlays.remove(&writer);
                if overlays.is_empty() {
                    self.overlays.remove(&key);
                }
            }
            self.dirty.insert(key);
        }
    }

    fn forget_objects(&mut self, path: &Path) {
        let Some(Good { tier, keys, .. }) = self.files.remove(path) else {
            return;
        };
        for key in keys {
            if let Some(bases) = self.bases.get_mut(&key) {
                bases.remove(&(tier, path.to_owned()));
                if bases.is_empty() {
                    self.bases.remove(&key);
                }
            }
            self.dirty.insert(key);
        }
    }

    /// What changed since the last call: removals, then what applies, both in the order of keys, then
    /// problems.
    pub(super) fn settle(&mut self, cluster: &ClusterId) -> Vec<Event> {
        let mut removed = Vec::new();
        let mut applied = Vec::new();
        for key in std::mem::take(&mut self.dirty) {
            let (resource, problems) = self.effective(&key);
            self.set_joint(&key, problems);
            match resource {
                None => {
                    if self.told.remove(&key).is_some() {
                        let cluster = cluster.clone();
                        removed.push(Event::Removed { cluster, key });
                    }
                }
                Some(resource) if self.told.get(&key) != Some(&resource) => {
                    self.told.insert(key, resource.clone());
                    let cluster = cluster.clone();
                    applied.push(Event::Applied { cluster, resource });
                }
                Some(_) => {}
            }
        }
        removed.append(&mut applied);
        self.settle_problems(&mut removed);
        removed
    }

    fn set_joint(&mut self, key: &ObjectRef, problems: Vec<SourceProblem>) {
        let old = if problems.is_empty() {
            self.joint.remove(key)
        } else {
            self.dirty_files.extend(problems.iter().map(|problem| problem.file.clone()));
            self.joint.insert(key.clone(), problems)
        };
        self.dirty_files.extend(old.into_iter().flatten().map(|problem| problem.file));
    }

    fn settle_problems(&mut self, events: &mut Vec<Event>) {
        for file in std::mem::take(&mut self.dirty_files) {
            let joint = self.joint.values().flatten().filter(|p| p.file == file);
            let own = self.own.get(&file).into_iter().flatten();
            let mut now: Vec<_> = own.chain(joint).cloned().collect();
            now.sort();
            if self.told_problems.get(&file).map_or(&[][..], Vec::as_slice) == now {
                continue;
            }
            if self.told_problems.remove(&file).is_some() {
                events.push(Event::Solved { file: file.clone() });
            }
            events.extend(now.iter().cloned().map(Event::Problem));
            if !now.is_empty() {
                self.told_problems.insert(file, now);
            }
        }
    }

    /// The object with its overlays, and what is wrong with them taken together.
    fn effective(&self, key: &ObjectRef) -> (Option<Resource>, Vec<SourceProblem>) {
        let mut problems = Vec::new();
        let Some(bases) = self.bases.get(key) else {
            return (None, problems);
        };
        let mut bases = bases.iter();
        let Some(((tier, winner), base)) = bases.next() else {
            return (None, problems);
        };
        problems.extend(bases.filter(|((other, _), _)| other == tier).map(|((_, file), object)| SourceProblem {
            file: file.clone(),
            line: object.line,
            field: "metadata.name".to_owned(),
            message: format!("{key} is already in {}", winner.display()),
            severity: Severity::Ignored,
            in_force: None,
        }));
        let overlays = || self.overlays.get(key).into_iter().flat_map(BTreeMap::values);
        let (own, mut joint) = lay_all_over(key, base, overlays().filter(|overlay| overlay.uid.is_none()));
        let mut resource = own;
        if overlays().any(|overlay| overlay.uid.is_some() && overlay.is_about(&resource)) {
            (resource, joint) = lay_all_over(key, base, overlays().filter(|overlay| overlay.is_about(&resource)));
        }
        problems.append(&mut joint);
        (Some(resource), problems)
    }
}

/// The object with these overlays. One that leaves nothing valid is left out and told.
fn lay_all_over<'a>(
    key: &ObjectRef,
    base: &Object,
    overlays: impl Iterator<Item = &'a Overlay>,
) -> (Resource, Vec<SourceProblem>) {
    let (mut value, mut resource) = (base.value.clone(), base.resource.clone());
    let mut problems = Vec::new();
    for overlay in overlays {
        match lay_over(key, &value, overlay) {
            Ok((merged, typed)) => (value, resource) = (merged, typed),
            Err(problem) => problems.push(problem),
        }
    }
    (resource, problems)
}

fn lay_over(key: &ObjectRef, base: &Value, overlay: &Overlay) -> Result<(Value, Resource), SourceProblem> {
    let mut merged = base.clone();
    merge(&mut merged, &overlay.value);
    if let Some(uid) = &overlay.uid {
        merged["metadata"]["uid"] = uid.as_str().into();
    }
    // An overlay says something about an object, never which object it is.
    merged["metadata"]["name"] = key.name.as_str().into();
    if key.kind.is_namespaced() {
        merged["metadata"]["namespace"] = key.namespace.as_str().into();
    }
    match decode::object(key.kind, &merged) {
        Ok(resource) => Ok((merged, resource)),
        Err(mistakes) => {
            let first = mistakes.into_iter().next();
            let (field, message) =
                first.map_or_else(Default::default, |mistake| (display_path(&mistake.path), mistake.message));
            let file = overlay.file.clone();
            Err(SourceProblem { file, line: 0, field, message, severity: Severity::Ignored, in_force: None })
        }
    }
}
