//! Resources that one connection wants and that were not sent to it yet. Names only; contents stay in the cache.
//!
//! The order on the wire is: policies that are new or changed, then addresses, then policies that are gone. Each step waits
//! for the client's answers to the one before, because an answer says that a response is applied. So a client never has a
//! workload that refers to a policy it does not know, nor one whose old policies are gone and whose new ones are not there
//! yet, however responses are split and whatever becomes of them on the way. See [`Withdrawals`] for the last step.
//! Configuration of waypoints follows the addresses that are due.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use proto::{ADDRESS_TYPE_URL, AUTHORIZATION_TYPE_URL, WAYPOINT_TYPE_URL};

use crate::addresses::Addresses;
use crate::cache::Entries;
use crate::index::Index;
use crate::scope;
use crate::subscription::{Due, Subscription, Tables, WILDCARD};
use crate::withdrawals::{Answers, Withdrawals};
use proto::snapshot::Mark;

/// Number of names that one connection may subscribe to one by one; a whole type counts as none.
const MAX_NAMES: usize = 1_000_000;

/// The part of a discovery request that changes subscriptions.
#[derive(Debug, Default)]
pub(crate) struct Request {
    pub(crate) subscribe: Vec<String>,
    pub(crate) unsubscribe: Vec<String>,
    /// Versions that the client holds; used in the first request of a type only.
    pub(crate) initial_versions: HashMap<String, String>,
    /// Node of the client, as it says; empty when it does not.
    pub(crate) node: String,
}

impl Request {
    /// Returns true if it names resources one by one.
    pub(crate) fn names_some(&self) -> bool {
        self.subscribe.iter().any(|name| name != WILDCARD)
    }

    /// Returns true if it asks for everything, or no longer does.
    pub(crate) fn changes_wildcard(&self) -> bool {
        self.subscribe.iter().chain(&self.unsubscribe).any(|name| name == WILDCARD)
    }
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

/// Orders policies before everything else: a workload must not arrive before the policies it names. Configuration of
/// waypoints comes last: it names services and workloads.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct TypeKey {
    rank: u8,
    url: String,
}

impl TypeKey {
    fn new(url: &str) -> Self {
        let rank = match url {
            _ if is_policy(url) => 0,
            _ if is_of_waypoints(url) => 2,
            _ => 1,
        };
        Self { rank, url: url.to_owned() }
    }
}

fn is_policy(type_url: &str) -> bool {
    type_url == AUTHORIZATION_TYPE_URL
}

fn is_of_waypoints(type_of_cache: &str) -> bool {
    scope::public(type_of_cache) == WAYPOINT_TYPE_URL
}

impl Subscriptions {
    /// Applies a request; false when it asks for too many names.
    pub(crate) fn request(&mut self, type_url: &str, request: Request, tables: Tables<'_>) -> bool {
        let Tables { entries, index, .. } = tables;
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
        if !request.node.is_empty() {
            subscription.node = request.node;
        }
        for name in names {
            subscription.subscribe(name, tables, &versions);
        }
        // Of what a client holds by name it hears when it is gone; a client that wants everything hears it anyway.
        let gone = versions.keys().filter(|name| is_first && !entries.contains_key(name.as_str()));
        subscription.due().extend(gone.map(|name| Arc::from(name.as_str())));
        subscription.unsubscribe(&request.unsubscribe, index);
        // A policy that the client holds and that no longer exists must not be removed before the addresses that refer
        // to it.
        if is_policy(type_url) {
            let gone = subscription.take_unknown(entries);
            self.withdrawals.add(gone);
        }
        let within = subscription.asked.len() <= MAX_NAMES;
        self.types.insert(key, subscription);
        within
    }

    /// Notes changed names, each with whether the resource exists; true when this connection wants one of them.
    pub(crate) fn touch(&mut self, type_url: &str, changed: &[(Arc<str>, bool)], index: Option<&Index>) -> bool {
        let Some(subscription) = self.types.get_mut(&TypeKey::new(type_url)) else { return false };
        let mut wanted = false;
        for (name, exists) in changed {
            if !subscription.wants(name, index) {
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

    /// Returns true if the client asks for resources of this type one by one.
    pub(crate) fn is_on_demand(&self, type_url: &str) -> bool {
        self.types.get(&TypeKey::new(type_url)).is_some_and(Subscription::is_on_demand)
    }

    /// Returns true if the client gets everything of this type.
    pub(crate) fn has_all(&self, type_url: &str) -> bool {
        self.types.get(&TypeKey::new(type_url)).is_some_and(|subscription| subscription.wildcard)
    }

    /// Finds the answers to what the client has asked, for the response that is made now.
    pub(crate) fn find_answers(&mut self, step: &Step, entries: &Entries, addresses: &Addresses) {
        if let Step::Resources(url) = step
            && let Some(subscription) = self.types.get_mut(&TypeKey::new(url))
        {
            subscription.find_answers(entries, addresses);
        }
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
        let are_addresses_due = self.types.get(&TypeKey::new(ADDRESS_TYPE_URL)).is_some_and(Subscription::is_due);
        // Also while the addresses are held back: what a route names would be missing.
        let is_held =
            |url: &str| hold_addresses && url == ADDRESS_TYPE_URL || are_addresses_due && is_of_waypoints(url);
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
    pub(crate) fn take_due(&mut self, step: &Step) -> Option<Due> {
        match step {
            Step::Resources(url) => self.types.get_mut(&TypeKey::new(url))?.take_due(),
            Step::Withdrawal => self.withdrawals.take_name().map(|name| Due { name, is_answer: false }),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_wait_for_the_addresses_that_are_due_also_while_these_are_held() {
        let mut subscriptions = Subscriptions::default();
        let (entries, routes) = (Entries::new(), scope::waypoint_type("shop", "waypoint"));
        for url in [routes.as_str(), ADDRESS_TYPE_URL] {
            let tables = Tables { entries: &entries, index: None, addresses: None };
            assert!(subscriptions.request(url, Request::default(), tables));
        }

        assert_eq!(subscriptions.next(Gate { hold_addresses: true, ..Gate::default() }), None);
        let addresses = Step::Resources(ADDRESS_TYPE_URL.to_owned());
        assert_eq!(subscriptions.next(Gate::default()), Some(addresses.clone()));
        assert!(subscriptions.end_response(&addresses).is_some());
        assert_eq!(subscriptions.next(Gate::default()), Some(Step::Resources(routes)));
    }
}
