//! What the control plane has to say, by type and name, and which connection still has to hear what.
//! It sends nothing: see `stream`.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, watch};

use super::report::Versions;
use super::subscription::{Request, Subscriptions};

/// Stop filling a response beyond this size of its resources, in bytes; one resource is never split.
const RESPONSE_BYTES: usize = 1024 * 1024;
/// Names in one response, removals included.
const RESPONSE_NAMES: usize = 16 * 1024;

/// One difference to what the cache held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// `value` is the encoded message; equal versions mean equal contents, so such a change is dropped.
    Upsert { name: String, version: String, value: Bytes },
    /// The resource is gone.
    Remove { name: String },
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) version: Arc<str>,
    pub(super) value: Bytes,
}

/// Resources of one type, ordered by name.
pub(super) type Entries = BTreeMap<Arc<str>, Entry>;

/// The resources of all types. Cheap to clone; every clone is the same cache.
///
/// Nothing is sent before [`Cache::mark_synced`], for a client takes what is missing from a first answer for deleted.
/// A connection that is slower than the changes gets the newest state of each changed name, not every step: what waits
/// for it is a set of names, never longer than there are names.
#[derive(Clone, Debug, Default)]
pub struct Cache(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    synced: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    types: HashMap<String, Entries>,
    subscribers: HashMap<u64, Subscriber>,
    last_id: u64,
}

#[derive(Debug)]
struct Subscriber {
    subscriptions: Subscriptions,
    wake: Arc<Notify>,
}

/// What one response tells.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) type_url: String,
    pub(super) upserts: Vec<(Arc<str>, Entry)>,
    pub(super) removed: Vec<Arc<str>>,
}

impl Cache {
    /// An empty cache that is not in sync yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes changes of one type over, in order, and wakes the connections that want them. Readers see all of them or none.
    pub fn apply(&self, type_url: &str, changes: Vec<Change>) {
        let mut guard = self.lock();
        let state = &mut *guard;
        let entries = match state.types.get_mut(type_url) {
            Some(entries) => entries,
            None => state.types.entry(type_url.to_owned()).or_default(),
        };
        let changed: Vec<Arc<str>> = changes.into_iter().filter_map(|change| take_over(entries, change)).collect();
        if changed.is_empty() {
            return;
        }
        for subscriber in state.subscribers.values_mut() {
            if subscriber.subscriptions.touch(type_url, &changed) {
                subscriber.wake.notify_one();
            }
        }
    }

    /// Everything that exists by now has been applied: connections get their first answers.
    pub fn mark_synced(&self) {
        self.0.synced.send_replace(true);
    }

    /// Was [`Cache::mark_synced`] called?
    pub fn is_synced(&self) -> bool {
        *self.0.synced.borrow()
    }

    /// Until [`Cache::mark_synced`] was called.
    pub(super) async fn synced(&self) {
        // The sender lives as long as the cache, so this cannot fail.
        let _ = self.0.synced.subscribe().wait_for(|synced| *synced).await;
    }

    /// How many resources of this type there are.
    pub fn len(&self, type_url: &str) -> usize {
        self.lock().types.get(type_url).map_or(0, BTreeMap::len)
    }

    /// Name and version of every resource of this type, for debug pages.
    pub fn versions(&self, type_url: &str) -> Vec<(Arc<str>, Arc<str>)> {
        let state = self.lock();
        let entries = state.types.get(type_url).into_iter().flatten();
        entries.map(|(name, entry)| (Arc::clone(name), Arc::clone(&entry.version))).collect()
    }

    /// Of what a client holds by name and version, what is served in just this version.
    pub(super) fn held(&self, type_url: &str, versions: &HashMap<String, String>) -> Versions {
        if versions.is_empty() {
            return Versions::new();
        }
        let state = self.lock();
        let Some(entries) = state.types.get(type_url) else { return Versions::new() };
        let same = versions.iter().filter_map(|(name, version)| {
            let (name, entry) = entries.get_key_value(name.as_str())?;
            (*entry.version == **version).then(|| (Arc::clone(name), Arc::clone(&entry.version)))
        });
        same.collect()
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.lock().subscribers.len()
    }

    /// A new connection: its number, and what wakes it when it has something to send.
    pub(super) fn connect(&self) -> (u64, Arc<Notify>) {
        let mut state = self.lock();
        state.last_id += 1;
        let (id, wake) = (state.last_id, Arc::new(Notify::new()));
        let subscriber = Subscriber { subscriptions: Subscriptions::default(), wake: Arc::clone(&wake) };
        state.subscribers.insert(id, subscriber);
        (id, wake)
    }

    pub(super) fn disconnect(&self, id: u64) {
        self.lock().subscribers.remove(&id);
    }

    /// Takes a request over. False: the connection has subscribed to too many names.
    pub(super) fn subscribe(&self, id: u64, type_url: &str, request: Request) -> bool {
        let mut guard = self.lock();
        let state = &mut *guard;
        let none = Entries::new();
        let entries = state.types.get(type_url).unwrap_or(&none);
        match state.subscribers.get_mut(&id) {
            Some(subscriber) => subscriber.subscriptions.request(type_url, request, entries),
            None => true,
        }
    }

    /// Is anything to be sent on this connection now?
    pub(super) fn has_work(&self, id: u64, held: Option<&str>) -> bool {
        let state = self.lock();
        let subscriber = state.subscribers.get(&id);
        subscriber.is_some_and(|subscriber| subscriber.subscriptions.next_type(held).is_some())
    }

    /// The next response of this connection: policies before addresses, about 1 MiB at most.
    pub(super) fn next_batch(&self, id: u64, held: Option<&str>) -> Option<Batch> {
        let mut guard = self.lock();
        let state = &mut *guard;
        let subscriber = state.subscribers.get_mut(&id)?;
        let type_url = subscriber.subscriptions.next_type(held)?.to_owned();
        let entries = state.types.get(&type_url);
        let mut batch = Batch { type_url, upserts: Vec::new(), removed: Vec::new() };
        let (mut bytes, mut names) = (0, 0);
        while bytes < RESPONSE_BYTES && names < RESPONSE_NAMES {
            let Some(name) = subscriber.subscriptions.take_name(&batch.type_url) else { break };
            bytes += name.len();
            names += 1;
            match entries.and_then(|entries| entries.get(&name)) {
                Some(entry) => {
                    bytes += entry.value.len();
                    batch.upserts.push((name, entry.clone()));
                }
                None => batch.removed.push(name),
            }
        }
        Some(batch)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The name, when the change changed something.
fn take_over(entries: &mut Entries, change: Change) -> Option<Arc<str>> {
    match change {
        Change::Upsert { name, version, value } => {
            if entries.get(name.as_str()).is_some_and(|entry| *entry.version == *version) {
                return None;
            }
            let name: Arc<str> = name.into();
            entries.insert(Arc::clone(&name), Entry { version: version.into(), value });
            Some(name)
        }
        Change::Remove { name } => entries.remove_entry(name.as_str()).map(|(name, _)| name),
    }
}
