//! What one connection wants and what of it was not sent yet. Names only; contents stay in the cache.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::cache::Entries;

/// Names that one connection may subscribe to one by one; a whole type counts as none.
const MAX_NAMES: usize = 1_000_000;
const WILDCARD: &str = "*";

/// The part of a discovery request that changes subscriptions.
#[derive(Debug, Default)]
pub(super) struct Request {
    pub(super) subscribe: Vec<String>,
    pub(super) unsubscribe: Vec<String>,
    /// What the client holds; counts in the first request of a type only.
    pub(super) initial_versions: HashMap<String, String>,
}

/// The subscriptions of one connection, by type.
#[derive(Debug, Default)]
pub(super) struct Subscriptions(BTreeMap<TypeKey, Subscription>);

#[derive(Debug, Default)]
struct Subscription {
    wildcard: bool,
    names: BTreeSet<Arc<str>>,
    /// To be sent: the newest contents, or the removal when there are none.
    dirty: BTreeSet<Arc<str>>,
    /// The first request is answered even when there is nothing to tell: clients wait for it to become ready.
    owes_answer: bool,
}

/// Orders policies before everything else: a workload must not arrive before the policies it names.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct TypeKey {
    rank: u8,
    url: String,
}

impl TypeKey {
    fn new(url: &str) -> Self {
        let rank = u8::from(url != proto::AUTHORIZATION_TYPE_URL);
        Self { rank, url: url.to_owned() }
    }
}

impl Subscriptions {
    /// Takes a request over; false when it asks for too many names.
    pub(super) fn request(&mut self, type_url: &str, request: Request, entries: &Entries) -> bool {
        let key = TypeKey::new(type_url);
        if let Some(subscription) = self.0.get_mut(&key) {
            for name in &request.subscribe {
                subscription.subscribe(name, entries, &HashMap::new());
            }
            subscription.unsubscribe(&request.unsubscribe);
            return subscription.names.len() <= MAX_NAMES;
        }
        let mut subscription = Subscription { owes_answer: true, ..Subscription::default() };
        if request.subscribe.is_empty() {
            subscription.subscribe(WILDCARD, entries, &request.initial_versions);
        }
        for name in &request.subscribe {
            subscription.subscribe(name, entries, &request.initial_versions);
        }
        subscription.unsubscribe(&request.unsubscribe);
        let within = subscription.names.len() <= MAX_NAMES;
        self.0.insert(key, subscription);
        within
    }

    /// Notes changed names; true when this connection wants one of them.
    pub(super) fn touch(&mut self, type_url: &str, changed: &[Arc<str>]) -> bool {
        let Some(subscription) = self.0.get_mut(&TypeKey::new(type_url)) else { return false };
        let before = subscription.dirty.len();
        for name in changed {
            if subscription.wants(name) {
                subscription.dirty.insert(Arc::clone(name));
            }
        }
        subscription.dirty.len() > before
    }

    /// The type to send next, if any, passing over `held`.
    pub(super) fn next_type(&self, held: Option<&str>) -> Option<&str> {
        let due = |subscription: &Subscription| subscription.owes_answer || !subscription.dirty.is_empty();
        self.0
            .iter()
            .find(|(key, subscription)| due(subscription) && held != Some(key.url.as_str()))
            .map(|(key, _)| key.url.as_str())
    }

    /// Takes one name that is to be sent out of the set.
    pub(super) fn take_name(&mut self, type_url: &str) -> Option<Arc<str>> {
        let subscription = self.0.get_mut(&TypeKey::new(type_url))?;
        subscription.owes_answer = false;
        subscription.dirty.pop_first()
    }
}

impl Subscription {
    fn wants(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }

    fn subscribe(&mut self, name: &str, entries: &Entries, held: &HashMap<String, String>) {
        if name == WILDCARD {
            self.wildcard = true;
            let differs = |entry_name: &Arc<str>, version: &str| held.get(&**entry_name).is_none_or(|h| h != version);
            let changed = entries.iter().filter(|(name, entry)| differs(name, &entry.version));
            self.dirty.extend(changed.map(|(name, _)| Arc::clone(name)));
            let gone = held.keys().filter(|name| !entries.contains_key(name.as_str()));
            self.dirty.extend(gone.map(|name| Arc::from(name.as_str())));
            return;
        }
        let name: Arc<str> = name.into();
        let unchanged = match (entries.get(&name), held.get(&*name)) {
            (Some(entry), Some(version)) => *entry.version == **version,
            (Some(_) | None, _) => false,
        };
        if !unchanged {
            self.dirty.insert(Arc::clone(&name));
        }
        self.names.insert(name);
    }

    fn unsubscribe(&mut self, names: &[String]) {
        for name in names {
            if name == WILDCARD {
                self.wildcard = false;
            } else {
                self.names.remove(name.as_str());
            }
        }
        if !names.is_empty() && !self.wildcard {
            let Self { names, dirty, .. } = self;
            dirty.retain(|name| names.contains(name));
        }
    }
}
