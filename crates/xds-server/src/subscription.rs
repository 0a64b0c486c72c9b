//! Resources that one connection wants and that were not sent to it yet. Names only; contents stay in the cache.
//!
//! The order on the wire is: policies that are new or changed, then addresses, then policies that are gone. Each step waits
//! for the client's answers to the one before, because an answer says that a response is applied. So a client never has a
//! workload that refers to a policy it does not know, nor one whose old policies are gone and whose new ones are not there
//! yet, however responses are split and whatever becomes of them on the way. See [`Withdrawals`] for the last step.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use proto::{ADDRESS_TYPE_URL, AUTHORIZATION_TYPE_URL};

use crate::cache::Entries;
use crate::withdrawals::{Answers, Withdrawals};
use proto::snapshot::Mark;

/// Number of names that one connection may subscribe to one by one; a whole type counts as none.
const MAX_NAMES: usize = 1_000_000;
const WILDCARD: &str = "*";

/// The part of a discovery request that changes subscriptions.
#[derive(Debug, Default)]
pub(crate) struct Request {
    pub(crate) subscribe: Vec<String>,
    pub(crate) unsubscribe: Vec<String>,
    /// Versions that the client holds; used in the first request of a type only.
    pub(crate) initial_versions: HashMap<String, String>,
}

/// Responses that have to wait, besides those that wait for an answer of the client.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Gate {
    /// Addresses wait: the client has not asked for policies yet.
    pub(crate) hold_addresses: bool,
    /// Removals of policies wait: the client has not asked for addresses yet.
    pub(crate) hold_removals: bool,
}

/// Response to send next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Resources of this type, new, changed or gone.
    Resources(String),
    /// Policies that are gone.
    Withdrawal,
}

impl Step {
    /// The type of its resources.
    pub(crate) fn type_url(&self) -> &str {
        match self {
            Self::Resources(url) => url,
            Self::Withdrawal => AUTHORIZATION_TYPE_URL,
        }
    }
}

/// The subscriptions of one connection, by type.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    types: BTreeMap<TypeKey, Subscription>,
    withdrawals: Withdrawals,
    /// Responses with policies that are new or changed.
    policies: Answers,
}

#[derive(Debug, Default)]
struct Subscription {
    wildcard: bool,
    names: BTreeSet<Arc<str>>,
    /// The first answer, until all of it was sent.
    snapshot: Option<Snapshot>,
    /// Names to send after the snapshot: the newest contents, or the removal when there are none.
    dirty: BTreeSet<Arc<str>>,
}

/// The first answer to a subscription. It is owed even when it is empty: clients wait for it to become ready.
#[derive(Debug, Default)]
struct Snapshot {
    names: BTreeSet<Arc<str>>,
    /// Number of parts that were sent.
    parts: u32,
}

/// Orders policies before everything else: a workload must not arrive before the policies it names.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct TypeKey {
    rank: u8,
    url: String,
}

impl TypeKey {
    fn new(url: &str) -> Self {
        Self { rank: u8::from(!is_policy(url)), url: url.to_owned() }
    }
}

fn is_policy(type_url: &str) -> bool {
    type_url == AUTHORIZATION_TYPE_URL
}

impl Subscriptions {
    /// Applies a request; false when it asks for too many names.
    pub(crate) fn request(&mut self, type_url: &str, request: Request, entries: &Entries) -> bool {
        let key = TypeKey::new(type_url);
        let known = self.types.remove(&key);
        let is_first = known.is_none();
        let mut subscription = known.unwrap_or_else(Subscription::with_snapshot);
        // Versions that a client claims later in a stream are not believed: by then the server knows what it sent.
        let versions = if is_first { request.initial_versions } else { HashMap::new() };
        // An empty list means everything, in the first request of a type only.
        let everything = [WILDCARD.to_owned()];
        let names = match request.subscribe.as_slice() {
            [] if is_first => &everything[..],
            names => names,
        };
        for name in names {
            subscription.subscribe(name, entries, &versions);
        }
        subscription.unsubscribe(&request.unsubscribe);
        // A policy that the client holds and that no longer exists must not be removed before the addresses that refer
        // to it.
        if is_policy(type_url) {
            let gone = subscription.take_unknown(entries);
            self.withdrawals.add(gone);
        }
        let within = subscription.names.len() <= MAX_NAMES;
        self.types.insert(key, subscription);
        within
    }

    /// Notes changed names, each with whether the resource exists; true when this connection wants one of them.
    pub(crate) fn touch(&mut self, type_url: &str, changed: &[(Arc<str>, bool)]) -> bool {
        let Some(subscription) = self.types.get_mut(&TypeKey::new(type_url)) else { return false };
        let mut wanted = false;
        for (name, exists) in changed {
            if !subscription.wants(name) {
                continue;
            }
            wanted = true;
            if !is_policy(type_url) {
                subscription.touch(name);
                continue;
            }
            // A policy that comes back keeps its place at the proxy: only its new contents are sent.
            self.withdrawals.forget(name);
            if *exists {
                subscription.touch(name);
            } else {
                subscription.forget(name);
                self.withdrawals.add([Arc::clone(name)]);
            }
        }
        wanted
    }

    /// Notes that the client has answered a response, with an ACK or a NACK.
    pub(crate) fn answered(&mut self, type_url: &str, nonce: u64) {
        match type_url {
            ADDRESS_TYPE_URL => self.withdrawals.answered(nonce),
            AUTHORIZATION_TYPE_URL => self.policies.answered(nonce),
            _ => {}
        }
    }

    /// Notes the nonce of a response that is about to be sent.
    pub(crate) fn sent(&mut self, step: &Step, nonce: u64) {
        match step {
            Step::Resources(url) if url == ADDRESS_TYPE_URL => self.withdrawals.sent(nonce),
            Step::Resources(url) if is_policy(url) => self.policies.sent(nonce),
            // Nothing waits for the answer.
            Step::Resources(_) | Step::Withdrawal => {}
        }
    }

    /// Lets the removals that wait go, after the answers to the addresses sent so far, when no address waits to be sent.
    pub(crate) fn release_removals(&mut self, gate: Gate) {
        if self.addresses_are_sent(gate) {
            self.withdrawals.addresses_are_sent();
        }
    }

    /// The response to send next, if there is one.
    pub(crate) fn next(&self, gate: Gate) -> Option<Step> {
        // A workload that refers to an unknown policy denies every connection, so addresses wait for the answer to the
        // policies.
        let hold_addresses = gate.hold_addresses || !self.policies.are_all_answered();
        let is_held = |url: &str| hold_addresses && url == ADDRESS_TYPE_URL;
        let due = self.types.iter().find(|(key, subscription)| subscription.is_due() && !is_held(&key.url));
        match due {
            Some((key, _)) => Some(Step::Resources(key.url.clone())),
            None => self.withdrawals.is_ready(self.addresses_are_sent(gate)).then_some(Step::Withdrawal),
        }
    }

    /// Returns true if every address has been sent that may refer to policies in another way than before.
    fn addresses_are_sent(&self, gate: Gate) -> bool {
        match self.types.get(&TypeKey::new(ADDRESS_TYPE_URL)) {
            Some(addresses) => !addresses.is_due(),
            None => !gate.hold_removals,
        }
    }

    /// Takes out one name that is to be sent.
    pub(crate) fn take_name(&mut self, step: &Step) -> Option<Arc<str>> {
        match step {
            Step::Resources(url) => self.types.get_mut(&TypeKey::new(url))?.due().pop_first(),
            Step::Withdrawal => self.withdrawals.take_name(),
        }
    }

    /// Ends a response: its mark, when it is a part of a snapshot.
    pub(crate) fn end_response(&mut self, step: &Step) -> Option<Mark> {
        let Step::Resources(url) = step else { return None };
        let subscription = self.types.get_mut(&TypeKey::new(url))?;
        let snapshot = subscription.snapshot.as_mut()?;
        snapshot.parts += 1;
        let mark = Mark { part: snapshot.parts, is_last: snapshot.names.is_empty() };
        if mark.is_last {
            subscription.snapshot = None;
        }
        Some(mark)
    }

    /// Returns true if the next response of this step is a part of a snapshot.
    pub(crate) fn is_snapshot(&self, step: &Step) -> bool {
        let Step::Resources(url) = step else { return false };
        self.types.get(&TypeKey::new(url)).is_some_and(|subscription| subscription.snapshot.is_some())
    }
}

impl Subscription {
    /// One whose first answer is still owed.
    fn with_snapshot() -> Self {
        Self { snapshot: Some(Snapshot::default()), ..Self::default() }
    }

    fn wants(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }

    fn is_due(&self) -> bool {
        self.snapshot.is_some() || !self.dirty.is_empty()
    }

    /// Names of the response to send next.
    fn due(&mut self) -> &mut BTreeSet<Arc<str>> {
        match &mut self.snapshot {
            Some(snapshot) => &mut snapshot.names,
            None => &mut self.dirty,
        }
    }

    /// A change of a name that the snapshot still has to send goes out with the snapshot. Others wait for its end, so that
    /// a mesh that changes all the time does not keep a snapshot from ending.
    fn touch(&mut self, name: &Arc<str>) {
        let waits = self.snapshot.as_ref().is_some_and(|snapshot| snapshot.names.contains(name));
        if !waits {
            self.dirty.insert(Arc::clone(name));
        }
    }

    fn forget(&mut self, name: &str) {
        self.dirty.remove(name);
        if let Some(snapshot) = &mut self.snapshot {
            snapshot.names.remove(name);
        }
    }

    /// Takes out the names that have no resource.
    fn take_unknown(&mut self, entries: &Entries) -> Vec<Arc<str>> {
        let names = self.snapshot.iter().flat_map(|snapshot| &snapshot.names).chain(&self.dirty);
        let unknown: Vec<_> = names.filter(|name| !entries.contains_key(&***name)).cloned().collect();
        for name in &unknown {
            self.forget(name);
        }
        unknown
    }

    fn subscribe(&mut self, name: &str, entries: &Entries, held: &HashMap<String, String>) {
        if name == WILDCARD {
            self.wildcard = true;
            let differs = |entry_name: &Arc<str>, version: &str| held.get(&**entry_name).is_none_or(|h| h != version);
            let changed = entries.iter().filter(|(name, entry)| differs(name, &entry.version));
            let gone = held.keys().filter(|name| !entries.contains_key(name.as_str()));
            let due = self.due();
            due.extend(changed.map(|(name, _)| Arc::clone(name)));
            due.extend(gone.map(|name| Arc::from(name.as_str())));
            return;
        }
        let name: Arc<str> = name.into();
        let unchanged = match (entries.get(&name), held.get(&*name)) {
            (Some(entry), Some(version)) => *entry.version == **version,
            (Some(_) | None, _) => false,
        };
        if !unchanged {
            self.due().insert(Arc::clone(&name));
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
            let Self { names, dirty, snapshot, .. } = self;
            dirty.retain(|name| names.contains(name));
            if let Some(snapshot) = snapshot {
                snapshot.names.retain(|name| names.contains(name));
            }
        }
    }
}
