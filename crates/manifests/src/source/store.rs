//! Objects of all files, with overlays, and which changes of them were reported. It reads no files.
//!
//! The unit is the object: one whose document has a mistake keeps its last good state, the others of its file are in
//! force as they are. A document that does not tell which object it is may be any that the file had: then all that are
//! not in the file any more stay.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::Value;

use super::file::{Contents, Object};
use super::last_good::Copy;
use super::ledger::Ledger;
use super::overlay::{self, Overlay};
use crate::decode;
use crate::document::display_path;
use kube_types::{ClusterId, Code, Event, InForce, Kind, ObjectRef, Resource, Severity, SourceProblem, Subject};

/// Source of a whole object. The user's own manifest wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tier {
    User,
    Derived,
}

/// An object of one file.
#[derive(Debug)]
struct Base {
    object: Object,
    /// Time when it was first read in this form.
    since: SystemTime,
    /// Its document has a mistake now, or cannot be found.
    is_stale: bool,
}

/// A file of manifests.
#[derive(Debug)]
struct Manifest {
    tier: Tier,
    /// Objects that are in force, stale ones too.
    keys: BTreeSet<ObjectRef>,
}

/// A file with an overlay as last read.
#[derive(Debug)]
struct OverlayFile {
    key: ObjectRef,
    writer: String,
    since: SystemTime,
}

/// Contents of all files.
#[derive(Debug, Default)]
pub(super) struct Store {
    bases: BTreeMap<ObjectRef, BTreeMap<(Tier, PathBuf), Base>>,
    files: HashMap<PathBuf, Manifest>,
    /// Per object by the name of the writer.
    overlays: BTreeMap<ObjectRef, BTreeMap<String, Overlay>>,
    overlay_files: HashMap<PathBuf, OverlayFile>,
    reported: BTreeMap<ObjectRef, Resource>,
    ledger: Ledger,
    dirty: BTreeSet<ObjectRef>,
}

impl Store {
    /// Was this file read before?
    pub(super) fn knows(&self, path: &Path) -> bool {
        self.files.contains_key(path)
    }

    /// Returns true if these contents would remove an object that is in force.
    pub(super) fn would_remove(&self, path: &Path, contents: &Contents) -> bool {
        let new: BTreeSet<_> = contents.objects.iter().map(|object| &object.key).collect();
        let old = self.files.get(path).into_iter().flat_map(|manifest| &manifest.keys);
        old.into_iter().any(|key| !new.contains(key) && !contents.may_have(key))
    }

    /// Takes the contents of a file of manifests as read at `now`. `copies` are its good objects of an earlier process,
    /// for a file that is read for the first time. Returns problems of copies that cannot be used.
    pub(super) fn put_file(
        &mut self,
        path: &Path,
        tier: Tier,
        contents: Contents,
        copies: Vec<Copy>,
        now: SystemTime,
    ) -> Vec<SourceProblem> {
        // A copy whose key cannot be read is one of another version; it is left alone.
        let mut copies: BTreeMap<ObjectRef, Copy> =
            copies.into_iter().filter_map(|copy| Some((key_of(&copy.object)?, copy))).collect();
        let before = self.files.remove(path).map(|manifest| manifest.keys).unwrap_or_default();
        let place = (tier, path.to_owned());
        let mut keys = BTreeSet::new();
        let Contents { objects, mut problems, refused, has_unknown } = contents;
        for object in objects {
            let key = object.key.clone();
            let bases = self.bases.entry(key.clone()).or_default();
            let known = bases.get(&place).map(|base| (&base.object.value, base.since));
            let known = known.or_else(|| copies.get(&key).map(|copy| (&copy.object, copy.since)));
            // The time of the last good state is that of the first reading in this form, also by an earlier process.
            let since = known.filter(|(value, _)| **value == object.value).map_or(now, |(_, since)| since);
            bases.insert(place.clone(), Base { object, since, is_stale: false });
            // The manifest has the object itself: its copy is not needed.
            copies.remove(&key);
            self.dirty.insert(key.clone());
            keys.insert(key);
        }
        let may_have = |key: &ObjectRef| has_unknown || refused.contains(key);
        // A list of its own: the loop changes `keys`.
        for key in before.difference(&keys).cloned().collect::<Vec<_>>() {
            copies.remove(&key);
            // The object may be in a document that cannot be read: its last good state stays in force. Only an object
            // that is certainly gone is removed.
            if may_have(&key) {
                if let Some(base) = self.bases.get_mut(&key).and_then(|bases| bases.get_mut(&place)) {
                    base.is_stale = true;
                }
                self.dirty.insert(key.clone());
                keys.insert(key);
            } else {
                self.remove_base(&key, &place);
            }
        }
        let mut unusable = Vec::new();
        for (key, copy) in copies.into_iter().filter(|(key, _)| may_have(key)) {
            match decode::object(key.kind, &copy.object) {
                Ok(decoded) => {
                    let Copy { since, line, object: value } = copy;
                    let object = Object { key: key.clone(), value, resource: decoded.resource, line };
                    self.bases
                        .entry(key.clone())
                        .or_default()
                        // Stale: it gives way to a good definition of the same object in another file.
                        .insert(place.clone(), Base { object, since, is_stale: true });
                    self.dirty.insert(key.clone());
                    keys.insert(key);
                }
                // It was good for an earlier version of this program.
                Err(mistakes) => unusable.extend(mistakes.into_iter().map(|mistake| SourceProblem {
                    subject: Subject::from(&key),
                    field: display_path(&mistake.path),
                    ..SourceProblem::of_file(path, Code::LastGoodInvalid, mistake.message)
                })),
            }
        }
        // Last, because what is in force is known only now: each error of the file says what holds in its place.
        self.set_in_force(&place, &keys, &mut problems);
        self.ledger.set_own(path, problems);
        self.files.insert(path.to_owned(), Manifest { tier, keys });
        unusable
    }

    /// Adds to each error what is in force instead.
    fn set_in_force(&self, place: &(Tier, PathBuf), keys: &BTreeSet<ObjectRef>, problems: &mut [SourceProblem]) {
        let stale = |key: &ObjectRef| {
            let base = self.bases.get(key)?.get(place)?;
            base.is_stale.then_some(base.since)
        };
        // For a document that does not name its object: the state that is in force is at least this old.
        let oldest = keys.iter().filter_map(stale).min();
        let is_refusal =
            |problem: &&mut SourceProblem| problem.severity == Severity::Error && problem.code != Code::Duplicate;
        for problem in problems.iter_mut().filter(is_refusal) {
            let since = match subject_key(&problem.subject) {
                Some(key) => stale(&key),
                // Which object the document is cannot be told.
                None => oldest,
            };
            problem.in_force = Some(since.map_or(InForce::Nothing, |since| InForce::LastGood { since }));
        }
    }

    /// The objects of a file that are in force, for the next process.
    pub(super) fn copies(&self, path: &Path) -> Vec<Copy> {
        let Some(manifest) = self.files.get(path) else {
            return Vec::new();
        };
        let place = (manifest.tier, path.to_owned());
        let bases = manifest.keys.iter().filter_map(|key| self.bases.get(key)?.get(&place));
        let copy = |base: &Base| Copy { since: base.since, line: base.object.line, object: base.object.value.clone() };
        bases.map(copy).collect()
    }

    /// Takes the contents of an overlay of `writer` for `key`, first read in this form at `since`.
    pub(super) fn put_overlay(
        &mut self,
        path: &Path,
        (writer, key): (String, ObjectRef),
        contents: Result<Value, Box<SourceProblem>>,
        since: SystemTime,
    ) {
        match contents.and_then(|value| Overlay::new(path, value)) {
            Ok(overlay) => {
                self.ledger.set_own(path, Vec::new());
                self.dirty.insert(key.clone());
                let file = OverlayFile { key: key.clone(), writer: writer.clone(), since };
                self.overlay_files.insert(path.to_owned(), file);
                self.overlays.entry(key).or_default().insert(writer, overlay);
            }
            // An invalid overlay leaves the last good one in place.
            Err(mut problem) => {
                let since = self.overlay_files.get(path).map(|file| file.since);
                problem.in_force = Some(since.map_or(InForce::Nothing, |since| InForce::LastGood { since }));
                self.ledger.set_own(path, vec![*problem]);
            }
        }
    }

    /// Replaces the problems of a path that is not a manifest: a directory, a copy, something that is not read.
    pub(super) fn put_problems(&mut self, path: &Path, problems: Vec<SourceProblem>) {
        self.ledger.set_own(path, problems);
    }

    /// The problems of a path by itself are over.
    pub(super) fn solve(&mut self, path: &Path) {
        if self.ledger.has_own(path) {
            self.ledger.set_own(path, Vec::new());
        }
    }

    /// The file is gone.
    pub(super) fn remove(&mut self, path: &Path) {
        self.ledger.set_own(path, Vec::new());
        if let Some(Manifest { tier, keys }) = self.files.remove(path) {
            let place = (tier, path.to_owned());
            keys.iter().for_each(|key| self.remove_base(key, &place));
        }
        if let Some(OverlayFile { key, writer, .. }) = self.overlay_files.remove(path) {
            if let Some(overlays) = self.overlays.get_mut(&key) {
                overlays.remove(&writer);
                if overlays.is_empty() {
                    self.overlays.remove(&key);
                }
            }
            self.dirty.insert(key);
        }
    }

    fn remove_base(&mut self, key: &ObjectRef, place: &(Tier, PathBuf)) {
        if let Some(bases) = self.bases.get_mut(key) {
            bases.remove(place);
            if bases.is_empty() {
                self.bases.remove(key);
            }
        }
        self.dirty.insert(key.clone());
    }

    /// Changes since the last call: removals, then what applies, both in the order of keys, then problems.
    pub(super) fn changes(&mut self, cluster: &ClusterId) -> Vec<Event> {
        let mut removed = Vec::new();
        let mut applied = Vec::new();
        for key in std::mem::take(&mut self.dirty) {
            let (resource, problems) = self.effective(&key);
            self.ledger.set_joint(&key, problems);
            match resource {
                None => {
                    if self.reported.remove(&key).is_some() {
                        let cluster = cluster.clone();
                        removed.push(Event::Removed { cluster, key });
                    }
                }
                Some(resource) if self.reported.get(&key) != Some(&resource) => {
                    self.reported.insert(key, resource.clone());
                    let cluster = cluster.clone();
                    applied.push(Event::Applied { cluster, resource });
                }
                // An edit of a comment or of a field that is not read: no event.
                Some(_) => {}
            }
        }
        // Removals first: a name, an address or a port that moves from one object to another is free before it is taken
        // again.
        removed.append(&mut applied);
        removed.append(&mut self.ledger.changes());
        removed
    }

    /// The object with its overlays, and the problems of its files taken together. Of several definitions of one tier the
    /// first by path is in force, a good one before a stale one.
    fn effective(&self, key: &ObjectRef) -> (Option<Resource>, Vec<SourceProblem>) {
        let Some(bases) = self.bases.get(key) else {
            return (None, Vec::new());
        };
        // Never by time: two readers of the same files, or one before and after a restart, must come to the same
        // result.
        let winner = bases.iter().min_by_key(|((tier, path), base)| (*tier, base.is_stale, path));
        let Some(((tier, winner), base)) = winner else {
            return (None, Vec::new());
        };
        let others = bases.iter().filter(|((other, path), base)| other == tier && path != winner && !base.is_stale);
        let mut problems: Vec<_> = others
            .map(|((_, file), object)| {
                let message = format!(
                    "is already defined in {}:{}, which is in force; this second definition is not",
                    winner.display(),
                    base.object.line
                );
                SourceProblem {
                    line: object.object.line,
                    field: "metadata.name".to_owned(),
                    subject: Subject::from(key),
                    ..SourceProblem::of_file(file, Code::Duplicate, message)
                }
            })
            .collect();
        let overlays = self.overlays.get(key).into_iter().flat_map(BTreeMap::values);
        let (resource, mut joint) = overlay::apply(key, &base.object, overlays);
        problems.append(&mut joint);
        (Some(resource), problems)
    }
}

/// Key of an object that was good.
fn key_of(object: &Value) -> Option<ObjectRef> {
    let kind = object.get("kind")?.as_str()?.parse::<Kind>().ok()?;
    decode::key(kind, &mut object.clone()).ok()
}

/// Key of the object that a problem is about, if it is known.
fn subject_key(subject: &Subject) -> Option<ObjectRef> {
    let kind = subject.kind.parse::<Kind>().ok()?;
    let namespace = match (kind.is_namespaced(), subject.namespace.as_str()) {
        (false, _) => "",
        // As `decode::key` completes it.
        (true, "") => "default",
        (true, namespace) => namespace,
    };
    (!subject.name.is_empty()).then(|| ObjectRef::new(kind, namespace, subject.name.as_str()))
}
