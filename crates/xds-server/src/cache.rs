//! Resources by type and name, and the changes that each connection has yet to receive.
//! It sends nothing: see `stream`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::addresses::{self, Addresses};
use crate::index::Index;
use crate::report::Versions;
use crate::scope;
use crate::subscription::{Due, Tables};
use crate::subscriptions::{Gate, Request, Subscriptions};
use proto::snapshot::Mark;
use proto::{ADDRESS_TYPE_URL, Change, MAX_MESSAGE_BYTES};

/// Stop filling a response beyond this size of its resources, in bytes; one resource is never split.
const RESPONSE_BYTES: usize = 1024 * 1024;
/// Names in one response, removals included.
const RESPONSE_NAMES: usize = 16 * 1024;
/// Size of the resources in the first response to a client that treats it as complete, in bytes. Leaves room for names
/// and framing within what such a client takes; a larger mesh is split all the same, and the log says so.
const WHOLE_BYTES: usize = MAX_MESSAGE_BYTES / 10 * 9;

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) version: Arc<str>,
    pub(crate) value: Bytes,
}

/// Resources of one type, ordered by name.
pub(crate) type Entries = BTreeMap<Arc<str>, Entry>;

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
    /// Addresses by name, while a client asks for them one by one and for nothing else.
    index: Option<Index>,
    addresses: Addresses,
    last_id: u64,
}

#[derive(Debug)]
struct Subscriber {
    subscriptions: Subscriptions,
    wake: Arc<Notify>,
    last_nonce: u64,
    /// The client understands the marks of a snapshot's parts.
    reads_marks: bool,
}

/// Contents of one response.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) type_url: String,
    pub(crate) upserts: Vec<(Arc<str>, Entry)>,
    /// Other names of the resources, for a client that has asked for them by name or address.
    pub(crate) aliases: HashMap<Arc<str>, Vec<Arc<str>>>,
    pub(crate) removed: Vec<Arc<str>>,
    pub(crate) nonce: u64,
    /// Position in a snapshot, for clients that understand it.
    pub(crate) mark: Option<Mark>,
}

/// Limits of a response: bytes of its resources, and names.
struct Limits {
    bytes: usize,
    names: usize,
}

impl Cache {
    /// An empty cache that is not in sync yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes changes of one type over, in order and without those whose version is served already, and wakes the connections that want them. Readers see all of them or none.
    pub fn apply(&self, type_url: &str, changes: Vec<Change>) {
        let mut guard = self.0.state.lock();
        let state = &mut *guard;
        // Looked up first: `entry` would need a copy of the URL at each call.
        let entries = match state.types.get_mut(type_url) {
            Some(entries) => entries,
            None => state.types.entry(type_url.to_owned()).or_default(),
        };
        let mut addresses = (type_url == ADDRESS_TYPE_URL).then_some(&mut state.addresses);
        let changed: Vec<(Arc<str>, bool)> =
            changes.into_iter().filter_map(|change| apply_change(entries, change, addresses.as_deref_mut())).collect();
        // Equal versions are equal contents: nobody is woken for them.
        if changed.is_empty() {
            return;
        }
        let index = state.index.as_mut().filter(|_| type_url == ADDRESS_TYPE_URL);
        let index = index.map(|index| {
            for (name, _) in &changed {
                index.set(name, entries.get(name).map(|entry| &*entry.value));
            }
            &*index
        });
        // Under the lock, but only names are noted; the contents are read when a client can take them.
        for subscriber in state.subscribers.values_mut() {
            if subscriber.subscriptions.touch(type_url, &changed, index) {
                // `notify_one` stores the wake-up for a stream that is not waiting at this moment.
                subscriber.wake.notify_one();
            }
        }
    }

    /// Marks that all objects which exist by now have been applied: connections get their first answers.
    pub fn mark_synced(&self) {
        self.0.synced.send_replace(true);
    }

    /// Was [`Cache::mark_synced`] called?
    pub fn is_synced(&self) -> bool {
        *self.0.synced.borrow()
    }

    /// Waits until [`Cache::mark_synced`] was called.
    pub(crate) async fn synced(&self) {
        // The sender lives as long as the cache, so this cannot fail.
        let _ = self.0.synced.subscribe().wait_for(|synced| *synced).await;
    }

    /// Number of resources of this type.
    pub fn len(&self, type_url: &str) -> usize {
        self.0.state.lock().types.get(type_url).map_or(0, BTreeMap::len)
    }

    /// Name and version of every resource of this type, for debug pages.
    pub fn versions(&self, type_url: &str) -> Vec<(Arc<str>, Arc<str>)> {
        let state = self.0.state.lock();
        let entries = state.types.get(type_url).into_iter().flatten();
        entries.map(|(name, entry)| (Arc::clone(name), Arc::clone(&entry.version))).collect()
    }

    /// Resources of all gateways for their waypoints: gateway (`NAMESPACE/NAME`), name and content, for debug pages.
    pub fn of_waypoints(&self) -> Vec<(String, Arc<str>, Bytes)> {
        let state = self.0.state.lock();
        let mut all = Vec::new();
        for (type_of_cache, entries) in &state.types {
            let Some(gateway) = scope::gateway(type_of_cache) else { continue };
            all.extend(entries.iter().map(|(name, entry)| (gateway.to_owned(), Arc::clone(name), entry.value.clone())));
        }
        drop(state);
        all.sort();
        all
    }

    /// Returns those of a client's resources, by name and version, that are served in just this version.
    pub(crate) fn held(&self, type_url: &str, versions: &HashMap<String, String>) -> Versions {
        if versions.is_empty() {
            return Versions::new();
        }
        let state = self.0.state.lock();
        let Some(entries) = state.types.get(type_url) else { return Versions::new() };
        let same = versions.iter().filter_map(|(name, version)| {
            let (name, entry) = entries.get_key_value(name.as_str())?;
            (*entry.version == **version).then(|| (Arc::clone(name), Arc::clone(&entry.version)))
        });
        same.collect()
    }

    /// Number of connections.
    pub fn connections(&self) -> usize {
        self.0.state.lock().subscribers.len()
    }

    /// A new connection: its number, and what wakes it when it has something to send.
    pub(crate) fn connect(&self) -> (u64, Arc<Notify>) {
        let mut state = self.0.state.lock();
        state.last_id += 1;
        let (id, wake) = (state.last_id, Arc::new(Notify::new()));
        let (subscriptions, waker) = (Subscriptions::default(), Arc::clone(&wake));
        let subscriber = Subscriber { subscriptions, wake: waker, last_nonce: 0, reads_marks: false };
        state.subscribers.insert(id, subscriber);
        (id, wake)
    }

    pub(crate) fn disconnect(&self, id: u64) {
        let mut state = self.0.state.lock();
        state.subscribers.remove(&id);
        let is_on_demand = |subscriber: &Subscriber| subscriber.subscriptions.is_on_demand(ADDRESS_TYPE_URL);
        // The index costs memory for every address, and most meshes have no client that needs it.
        if state.index.is_some() && !state.subscribers.values().any(is_on_demand) {
            state.index = None;
        }
    }

    /// Takes a request over. False: the connection has subscribed to too many names.
    pub(crate) fn subscribe(&self, id: u64, type_url: &str, request: Request) -> bool {
        let mut guard = self.0.state.lock();
        let state = &mut *guard;
        let none = Entries::new();
        let entries = state.types.get(type_url).unwrap_or(&none);
        let is_address = type_url == ADDRESS_TYPE_URL;
        let Some(subscriber) = state.subscribers.get_mut(&id) else { return true };
        // A client that has everything finds its answers in the addresses alone.
        let has_all = subscriber.subscriptions.has_all(type_url) && !request.changes_wildcard();
        if is_address && request.names_some() && !has_all && state.index.is_none() {
            // Built under the lock: a change in between would be missing from it.
            state.index = Some(Index::of(entries));
        }
        let index = state.index.as_ref().filter(|_| is_address);
        let tables = Tables { entries, index, addresses: is_address.then_some(&state.addresses) };
        subscriber.subscriptions.request(type_url, request, tables)
    }

    /// Notes that the client understands the marks of a snapshot's parts.
    pub(crate) fn reads_marks(&self, id: u64) {
        if let Some(subscriber) = self.0.state.lock().subscribers.get_mut(&id) {
            subscriber.reads_marks = true;
        }
    }

    /// Notes that the client has answered a response.
    pub(crate) fn answered(&self, id: u64, type_url: &str, nonce: &str) {
        // Nonces of this server are numbers; another one is not an answer to it.
        let Ok(nonce) = nonce.parse() else { return };
        if let Some(subscriber) = self.0.state.lock().subscribers.get_mut(&id) {
            subscriber.subscriptions.answered(type_url, nonce);
        }
    }

    /// Returns true if something is to be sent on this connection now.
    pub(crate) fn has_work(&self, id: u64, gate: Gate) -> bool {
        let state = self.0.state.lock();
        let subscriber = state.subscribers.get(&id);
        subscriber.is_some_and(|subscriber| subscriber.subscriptions.next(gate).is_some())
    }

    /// The next response of this connection. About 1 MiB at most, but for a snapshot that the client cannot take in parts.
    pub(crate) fn next_batch(&self, id: u64, gate: Gate) -> Option<Batch> {
        let mut guard = self.0.state.lock();
        let state = &mut *guard;
        let subscriber = state.subscribers.get_mut(&id)?;
        let subscriptions = &mut subscriber.subscriptions;
        // Also before: what an answer has released since the last response may be due now.
        subscriptions.release_removals(gate);
        let step = subscriptions.next(gate)?;
        // A client without the feature deletes what its first response lacks, so it must get all of it at once.
        let is_whole = subscriptions.is_snapshot(&step) && !subscriber.reads_marks;
        let limits = if is_whole {
            Limits { bytes: WHOLE_BYTES, names: usize::MAX }
        } else {
            Limits { bytes: RESPONSE_BYTES, names: RESPONSE_NAMES }
        };
        subscriber.last_nonce += 1;
        let type_url = step.type_url().to_owned();
        let nonce = subscriber.last_nonce;
        let none = Entries::new();
        let entries = state.types.get(&type_url).unwrap_or(&none);
        let mut batch =
            Batch { type_url, upserts: Vec::new(), aliases: HashMap::new(), removed: Vec::new(), nonce, mark: None };
        subscriptions.find_answers(&step, entries, &state.addresses);
        fill(&mut batch, entries, limits, || subscriptions.take_due(&step));
        let is_address = batch.type_url == ADDRESS_TYPE_URL;
        if let Some(index) = state.index.as_ref().filter(|_| is_address && subscriptions.is_on_demand(ADDRESS_TYPE_URL))
        {
            let names = batch.upserts.iter().map(|(name, _)| name);
            batch.aliases = names.map(|name| (Arc::clone(name), index.aliases(name).to_vec())).collect();
        }
        let mark = subscriptions.end_response(&step);
        subscriptions.sent(&step, nonce);
        // Now, before another change makes addresses wait again.
        subscriptions.release_removals(gate);
        batch.mark = mark.filter(|_| subscriber.reads_marks);
        if is_whole && mark.is_some_and(|mark| !mark.is_last) {
            tracing::error!(
                connection = id,
                type_url = batch.type_url,
                code = "snapshot_too_large",
                "the mesh does not fit into one message of {MAX_MESSAGE_BYTES} bytes: \
                 this client treats the first part as complete",
            );
        }
        Some(batch)
    }
}

/// Moves names and contents into the response until it is full or nothing is left.
fn fill(batch: &mut Batch, entries: &Entries, limits: Limits, mut take_due: impl FnMut() -> Option<Due>) {
    let (mut bytes, mut names) = (0, 0);
    // The limit may be passed by one resource, as a resource is never split.
    while bytes < limits.bytes && names < limits.names {
        let Some(Due { name, is_answer }) = take_due() else { return };
        bytes += name.len();
        names += 1;
        match entries.get(&name) {
            Some(entry) => {
                bytes += entry.value.len();
                if is_answer {
                    batch.aliases.insert(Arc::clone(&name), addresses::read(&entry.value));
                }
                batch.upserts.push((name, entry.clone()));
            }
            None => batch.removed.push(name),
        }
    }
}

/// The name and whether the resource exists now, when the change changed something.
fn apply_change(entries: &mut Entries, change: Change, addresses: Option<&mut Addresses>) -> Option<(Arc<str>, bool)> {
    let (name, before, after) = match change {
        Change::Upsert { name, version, value } => {
            if entries.get(name.as_str()).is_some_and(|entry| *entry.version == *version) {
                return None;
            }
            let name: Arc<str> = name.into();
            let before = entries.insert(Arc::clone(&name), Entry { version: version.into(), value: value.clone() });
            (name, before, Some(value))
        }
        Change::Remove { name } => {
            let (name, before) = entries.remove_entry(name.as_str())?;
            (name, Some(before), None)
        }
    };
    if let Some(addresses) = addresses {
        addresses.replace(&name, before.as_ref().map(|entry| &*entry.value), after.as_deref());
    }
    Some((name, after.is_some()))
}
