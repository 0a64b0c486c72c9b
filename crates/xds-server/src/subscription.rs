//! Resources of one type that a connection wants and that were not sent to it yet.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::addresses::Addresses;
use crate::cache::Entries;
use crate::index::Index;

/// Name that stands for all resources of a type.
pub(crate) const WILDCARD: &str = "*";

/// Resources of a type, and the tables in which they are found by other names.
#[derive(Clone, Copy)]
pub(crate) struct Tables<'a> {
    pub(crate) entries: &'a Entries,
    /// For a client that asks one by one; addresses only.
    pub(crate) index: Option<&'a Index>,
    /// Addresses only.
    pub(crate) addresses: Option<&'a Addresses>,
}

/// A name that is due to be sent.
#[derive(Debug)]
pub(crate) struct Due {
    pub(crate) name: Arc<str>,
    /// The client waits for it: the response tells by which other names it may have asked.
    pub(crate) is_answer: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Subscription {
    pub(crate) wildcard: bool,
    /// Names that the client has asked for.
    pub(crate) asked: BTreeSet<Arc<str>>,
    /// Resources that these names stand for, and have stood for. Without an index they are the same.
    pub(crate) names: BTreeSet<Arc<str>>,
    /// Node of the client: a client that asks by name gets the workloads of it, too.
    pub(crate) node: String,
    /// The first answer, until all of it was sent.
    pub(crate) snapshot: Option<Snapshot>,
    /// Names to send after the snapshot: the newest contents, or the removal when there are none.
    pub(crate) dirty: BTreeSet<Arc<str>>,
    /// Names that a client which gets everything has asked for. A connection waits for the answer, so it goes into the
    /// next response before everything else.
    questions: BTreeSet<Arc<str>>,
    /// Resources that the questions stand for, found when the response is made: the answer is as new as can be.
    answers: BTreeSet<Arc<str>>,
}

/// The first answer to a subscription. It is owed even when it is empty: clients wait for it to become ready.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) names: BTreeSet<Arc<str>>,
    /// Number of parts that were sent.
    pub(crate) parts: u32,
}

impl Subscription {
    /// One whose first answer is still owed.
    pub(crate) fn with_snapshot() -> Self {
        Self { snapshot: Some(Snapshot::default()), ..Self::default() }
    }

    pub(crate) fn is_on_demand(&self) -> bool {
        !self.wildcard && !self.asked.is_empty()
    }

    /// Returns true if the client wants a resource that has changed. A service that it wants from now on brings its
    /// workloads.
    pub(crate) fn wants(&mut self, name: &Arc<str>, index: Option<&Index>) -> bool {
        if self.wildcard || self.names.contains(name) {
            return true;
        }
        let Some(index) = index.filter(|_| self.is_on_demand()) else { return false };
        let is_wanted = index.is_asked_for(name, &self.asked, &self.names) || index.is_on_node(name, &self.node);
        if is_wanted {
            for name in index.with_members(name) {
                if self.names.insert(Arc::clone(&name)) {
                    self.touch(&name);
                }
            }
        }
        is_wanted
    }

    pub(crate) fn is_due(&self) -> bool {
        self.snapshot.is_some() || !self.dirty.is_empty() || !self.questions.is_empty() || !self.answers.is_empty()
    }

    /// Finds the answers to what was asked. Of a name that nothing is known of the answer is its removal.
    pub(crate) fn find_answers(&mut self, entries: &Entries, addresses: &Addresses) {
        for name in std::mem::take(&mut self.questions) {
            let found = addresses.find(&name);
            if found.is_empty() || entries.contains_key(&name) {
                self.answers.insert(name);
            } else {
                self.answers.extend(found.iter().cloned());
            }
        }
    }

    /// Takes out the name to send next.
    pub(crate) fn take_due(&mut self) -> Option<Due> {
        let Some(name) = self.answers.pop_first() else {
            return self.due().pop_first().map(|name| Due { name, is_answer: false });
        };
        // What is sent now need not be sent again.
        self.forget(&name);
        Some(Due { name, is_answer: true })
    }

    /// Names of the response to send next.
    pub(crate) fn due(&mut self) -> &mut BTreeSet<Arc<str>> {
        match &mut self.snapshot {
            Some(snapshot) => &mut snapshot.names,
            None => &mut self.dirty,
        }
    }

    /// A change of a name that the snapshot still has to send goes out with the snapshot. Others wait for its end, so that
    /// a mesh that changes all the time does not keep a snapshot from ending.
    pub(crate) fn touch(&mut self, name: &Arc<str>) {
        let waits = self.snapshot.as_ref().is_some_and(|snapshot| snapshot.names.contains(name));
        if !waits {
            self.dirty.insert(Arc::clone(name));
        }
    }

    pub(crate) fn forget(&mut self, name: &str) {
        self.dirty.remove(name);
        if let Some(snapshot) = &mut self.snapshot {
            snapshot.names.remove(name);
        }
    }

    /// Takes out the names that have no resource.
    pub(crate) fn take_unknown(&mut self, entries: &Entries) -> Vec<Arc<str>> {
        let names = self.snapshot.iter().flat_map(|snapshot| &snapshot.names).chain(&self.dirty);
        let unknown: Vec<_> = names.filter(|name| !entries.contains_key(&***name)).cloned().collect();
        for name in &unknown {
            self.forget(name);
        }
        unknown
    }

    pub(crate) fn subscribe(&mut self, name: &str, tables: Tables<'_>, held: &HashMap<String, String>) {
        if name == WILDCARD {
            return self.subscribe_all(tables.entries, held);
        }
        let name: Arc<str> = name.into();
        self.asked.insert(Arc::clone(&name));
        if self.wildcard && tables.addresses.is_some() {
            // Changes of it come as all others do.
            self.questions.insert(name);
        } else {
            self.follow(&name, tables, held);
        }
    }

    fn subscribe_all(&mut self, entries: &Entries, held: &HashMap<String, String>) {
        self.wildcard = true;
        let differs = |entry_name: &Arc<str>, version: &str| held.get(&**entry_name).is_none_or(|h| h != version);
        let changed = entries.iter().filter(|(name, entry)| differs(name, &entry.version));
        let gone = held.keys().filter(|name| !entries.contains_key(name.as_str()));
        let due = self.due();
        due.extend(changed.map(|(name, _)| Arc::clone(name)));
        due.extend(gone.map(|name| Arc::from(name.as_str())));
    }

    /// Follows the resources that a name stands for.
    fn follow(&mut self, name: &Arc<str>, tables: Tables<'_>, held: &HashMap<String, String>) {
        let Tables { entries, index, .. } = tables;
        // What a client asks for is sent again, for it waits for the answer; what it gets besides is not.
        let found = self.resources_of(name, index);
        let beside = index.into_iter().flat_map(|index| index.on_node(&self.node)).cloned();
        let beside: Vec<_> = beside.filter(|name| !self.names.contains(name)).collect();
        for resource in found.into_iter().chain(beside) {
            let unchanged = match (entries.get(&resource), held.get(&*resource)) {
                (Some(entry), Some(version)) => *entry.version == **version,
                (Some(_) | None, _) => false,
            };
            if !unchanged {
                self.due().insert(Arc::clone(&resource));
            }
            self.names.insert(resource);
        }
    }

    /// The resources that a name stands for. One that nothing is known of stands for itself: the answer is its removal.
    fn resources_of(&self, name: &Arc<str>, index: Option<&Index>) -> BTreeSet<Arc<str>> {
        let found = index.map(|index| index.find(name)).unwrap_or_default();
        if found.is_empty() { BTreeSet::from([Arc::clone(name)]) } else { found }
    }

    pub(crate) fn unsubscribe(&mut self, names: &[String], index: Option<&Index>) {
        for name in names {
            if name == WILDCARD {
                self.wildcard = false;
            } else {
                self.asked.remove(name.as_str());
            }
        }
        // Of a client that gets everything, an answer that is due is sent all the same: it may have asked twice.
        if !names.is_empty() && !self.wildcard {
            let mut kept: BTreeSet<_> = self.asked.iter().flat_map(|name| self.resources_of(name, index)).collect();
            if let Some(index) = index.filter(|_| !self.asked.is_empty()) {
                kept.extend(index.on_node(&self.node).cloned());
            }
            self.names = kept;
            let Self { names, dirty, snapshot, .. } = self;
            dirty.retain(|name| names.contains(name));
            if let Some(snapshot) = snapshot {
                snapshot.names.retain(|name| names.contains(name));
            }
        }
    }
}
