//! Objects that one reader knows: of each its version and a fingerprint, so that a list tells exactly the differences. The
//! objects themselves are the consumer's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kube_types::{InForce, ObjectRef, Resource};
use parking_lot::{Mutex, MutexGuard};

use crate::changes::Changes;
use crate::decode::{Head, Mistake};

/// An object as it was last read.
#[derive(Debug)]
struct Seen {
    /// resourceVersion, also of a form that cannot be decoded.
    version: Box<str>,
    in_force: Option<Delivered>,
    is_broken: bool,
}

/// The form of an object that the consumer has.
#[derive(Clone, Copy, Debug)]
struct Delivered {
    fingerprint: u64,
    /// Seconds since 1970 at which it was first read.
    since: u64,
}

impl Delivered {
    fn in_force(self) -> InForce {
        InForce::LastGood { since: UNIX_EPOCH + Duration::from_secs(self.since) }
    }
}

/// All objects of a reader.
#[derive(Debug, Default)]
pub(crate) struct Known {
    objects: BTreeMap<ObjectRef, Seen>,
    /// Number of objects that the consumer has.
    in_force: usize,
    /// Number of objects whose newest form cannot be decoded.
    unreadable: usize,
}

/// The objects of a reader, which a writer of statuses looks into. Clones share them; they are locked for moments.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shared(Arc<Mutex<Known>>);

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock()
    }
}

/// Versions of objects as the readers of a source last saw them, for a writer of statuses in the same program: see
/// [`crate::StatusConfig`]. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Versions(Arc<Mutex<Vec<Shared>>>);

impl Versions {
    /// The objects of a further reader.
    pub(crate) fn add(&self) -> Shared {
        let known = Shared::default();
        self.0.lock().push(known.clone());
        known
    }

    /// resourceVersion of an object as it was last read; `None`: it is not read, or there is none.
    pub(crate) fn of(&self, key: &ObjectRef) -> Option<String> {
        let readers = self.0.lock();
        // One kind may have several readers, each of a namespace; an object is in one of them.
        readers.iter().find_map(|known| known.lock().version(key).map(str::to_owned))
    }
}

/// A complete list.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// Position of the list: a watch continues here.
    pub(crate) position: String,
    /// Every object of the list.
    pub(crate) keys: BTreeSet<ObjectRef>,
    /// Objects whose version is not the known one.
    pub(crate) changed: Vec<(Head, Result<Resource, Mistake>)>,
}

impl Known {
    /// Returns true if this version of the object was read before.
    pub(crate) fn has(&self, head: &Head) -> bool {
        self.objects.get(&head.key).is_some_and(|seen| *seen.version == *head.version)
    }

    /// resourceVersion of an object as it was last read.
    pub(crate) fn version(&self, key: &ObjectRef) -> Option<&str> {
        self.objects.get(key).map(|seen| &*seen.version)
    }

    /// Number of objects that the consumer has.
    pub(crate) const fn in_force(&self) -> usize {
        self.in_force
    }

    /// Number of objects whose newest form cannot be decoded.
    pub(crate) const fn unreadable(&self) -> usize {
        self.unreadable
    }

    fn insert(&mut self, key: ObjectRef, seen: Seen) {
        self.in_force += usize::from(seen.in_force.is_some());
        self.unreadable += usize::from(seen.is_broken);
        self.objects.insert(key, seen);
    }

    fn take(&mut self, key: &ObjectRef) -> Option<Seen> {
        let seen = self.objects.remove(key)?;
        self.in_force -= usize::from(seen.in_force.is_some());
        self.unreadable -= usize::from(seen.is_broken);
        Some(seen)
    }

    /// Takes a complete list: what is not in it is gone.
    pub(crate) fn on_list(&mut self, listing: Listing, now: SystemTime, changes: &mut Changes) {
        // Only a complete list comes here: of a part nothing could be concluded.
        let gone: Vec<_> = self.objects.keys().filter(|key| !listing.keys.contains(key)).cloned().collect();
        for key in gone {
            self.on_removed(&key, changes);
        }
        for (head, read) in listing.changed {
            self.on_read(head, read, now, changes);
        }
    }

    /// Takes a version of an object. One that cannot be decoded leaves in force what is.
    pub(crate) fn on_read(
        &mut self,
        head: Head,
        read: Result<Resource, Mistake>,
        now: SystemTime,
        changes: &mut Changes,
    ) {
        let Head { key, version } = head;
        let before = self.take(&key);
        let delivered = before.as_ref().and_then(|seen| seen.in_force);
        let was_broken = before.is_some_and(|seen| seen.is_broken);
        let (in_force, is_broken) = match read {
            Ok(resource) => {
                let fingerprint = resource.fingerprint();
                // Most new versions change fields that nobody here reads: heartbeats, managed fields.
                let is_same = delivered.is_some_and(|delivered| delivered.fingerprint == fingerprint);
                if !is_same {
                    changes.apply(key.clone(), resource, delivered.is_none());
                }
                if was_broken {
                    changes.solved(&key);
                }
                // The time is only shown, so a clock before 1970 is no error.
                let since = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
                // The time is that of the form: an update without a difference does not make it younger.
                (delivered.filter(|_| is_same).or(Some(Delivered { fingerprint, since })), false)
            }
            Err(mistake) => {
                changes.broken(&key, mistake, delivered.map_or(InForce::Nothing, Delivered::in_force));
                (delivered, true)
            }
        };
        self.insert(key, Seen { version: version.into(), in_force, is_broken });
    }

    /// Takes a removal; the object need not be known.
    pub(crate) fn on_removed(&mut self, key: &ObjectRef, changes: &mut Changes) {
        let Some(seen) = self.take(key) else { return };
        if seen.in_force.is_some() {
            changes.remove(key);
        }
        if seen.is_broken {
            changes.solved(key);
        }
    }
}

/// Versions of one resource grow. One that does not is of a change that came before, for instance sent twice.
pub(crate) fn is_after(version: &str, position: &str) -> bool {
    match (version.parse::<u64>(), position.parse::<u64>()) {
        (Ok(version), Ok(position)) => version > position,
        // An aggregated API server may have versions of another form: then only equal ones are told apart.
        _ => version != position,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_numbers_where_they_can_be() {
        assert!(is_after("10", "9") && !is_after("9", "10") && !is_after("9", "9"));
        assert!(is_after("b", "a") && is_after("a", "b") && !is_after("a", "a"));
    }
}
