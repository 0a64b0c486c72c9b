//! An API server for tests: lists in pages, watches with bookmarks, patches, server-side
//! apply, Leases, RBAC, and scripted faults.
// Tests of other crates include this module, and each uses other parts of it.
#![allow(dead_code, unreachable_pub)]

mod answer;
mod apply;
mod fault;
mod request;
mod state;
mod transport;
mod watch;
mod write;

use std::sync::Arc;

use http::Method;
use kube_cluster::{ApiServer, Rule, Verb};
use kube_types::{Kind, ObjectRef};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch as channel;

pub use fault::{Fault, When};
pub use request::{Asked, Resource};
use state::State;

/// The API server. Clones share it.
#[derive(Clone)]
pub struct Fake {
    state: Arc<Mutex<State>>,
    /// Counts changes of any kind, for open watches.
    changed: Arc<channel::Sender<u64>>,
}

impl Default for Fake {
    /// Serves every kind that is read, without objects, to anybody.
    fn default() -> Self {
        Self { state: Arc::default(), changed: Arc::new(channel::Sender::new(0)) }
    }
}

impl Fake {
    /// A client of it.
    pub fn server(&self) -> ApiServer {
        ApiServer::with_client(transport::client(self.clone()))
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state.lock());
        self.changed.send_modify(|count| *count += 1);
        result
    }

    /// Makes an object or replaces its content; its uid stays. Returns the uid.
    pub fn put(&self, kind: Kind, namespace: &str, name: &str, content: Value) -> String {
        let resource = Resource::of(kind);
        self.change(|state| state.put(&resource, namespace, name, content))
    }

    /// Deletes an object; it need not be there.
    pub fn delete(&self, kind: Kind, namespace: &str, name: &str) {
        let resource = Resource::of(kind);
        self.change(|state| state.delete(&resource, namespace, name));
    }

    pub fn object(&self, kind: Kind, namespace: &str, name: &str) -> Option<Value> {
        self.state.lock().get(&Resource::of(kind), namespace, name).cloned()
    }

    pub fn lease(&self, namespace: &str, name: &str) -> Option<Value> {
        self.state.lock().get(&Resource::leases(), namespace, name).cloned()
    }

    pub fn put_lease(&self, namespace: &str, name: &str, lease: Value) {
        self.change(|state| state.put(&Resource::leases(), namespace, name, lease));
    }

    /// Makes or replaces an object of a kind that no source reads.
    pub fn put_other(&self, resource: &Resource, namespace: &str, name: &str, content: Value) -> String {
        self.change(|state| state.put(resource, namespace, name, content))
    }

    pub fn delete_other(&self, resource: &Resource, namespace: &str, name: &str) {
        self.change(|state| state.delete(resource, namespace, name));
    }

    pub fn other(&self, resource: &Resource, namespace: &str, name: &str) -> Option<Value> {
        self.state.lock().get(resource, namespace, name).cloned()
    }

    /// Keys and objects of all kinds.
    pub fn objects(&self) -> Vec<(ObjectRef, Value)> {
        let state = self.state.lock();
        let of_kind = |kind: Kind| {
            let objects = state.all(&Resource::of(kind));
            objects.map(move |(namespace, name, object)| (ObjectRef::new(kind, namespace, name), object.clone()))
        };
        Kind::ALL.iter().flat_map(|kind| of_kind(*kind)).collect()
    }

    /// Forgets the history: every watch and list that wants to continue from the past is told so.
    pub fn compact(&self) {
        self.change(State::compact);
    }

    /// Installs or removes the definition of a kind, in one version. Its objects stay, and are not served.
    pub fn serve(&self, kind: Kind, version: &'static str, is_served: bool) {
        self.change(|state| state.serve(&Resource::of(kind), version, is_served));
    }

    /// Makes the next requests fail.
    pub fn fail(&self, when: When, fault: Fault) {
        self.change(|state| state.faults.push((when, fault)));
    }

    /// Makes the client panic in this many of the next requests of a method.
    pub fn panic(&self, method: Method, times: usize) {
        self.state.lock().panics = Some((method, times));
    }

    fn panics(&self, method: &Method) -> bool {
        match &mut self.state.lock().panics {
            Some((of, times)) if of == method && *times > 0 => {
                *times -= 1;
                true
            }
            Some(_) | None => false,
        }
    }

    /// Ends all faults, and the connections that they keep busy.
    pub fn heal(&self) {
        self.change(|state| {
            state.faults.clear();
            state.generation += 1;
        });
    }

    /// Cuts every open watch.
    pub fn cut_watches(&self) {
        self.change(|state| state.generation += 1);
    }

    /// Sends a bookmark on every open watch.
    pub fn bookmark(&self) {
        self.change(|state| state.bookmarks += 1);
    }

    /// From now on only these rules allow anything.
    pub fn allow(&self, rules: Vec<Rule>) {
        self.change(|state| state.rules = Some(rules));
    }

    /// Requests so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.state.lock().asked.clone()
    }

    /// Number of requests of a verb so far.
    pub fn count(&self, verb: Verb) -> usize {
        self.state.lock().asked.iter().filter(|asked| asked.verb == Some(verb)).count()
    }

    /// Number of watches that are open.
    pub fn watches(&self) -> usize {
        self.state.lock().open_watches
    }
}

/// A pod of a node.
pub fn pod(node: &str) -> Value {
    json!({"metadata": {}, "spec": {"nodeName": node}, "status": {"phase": "Running"}})
}
