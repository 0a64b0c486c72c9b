//! Connected proxies, and the resources that each was sent and has acknowledged.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use contract::admin::control::{Progress, Proxy};
use parking_lot::Mutex;
use xds_server::{Peer, Report};

/// Connected proxies by the number of their connection. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Proxies(Arc<Mutex<BTreeMap<u64, Connected>>>);

/// A connected proxy.
#[derive(Clone, Debug)]
pub(crate) struct Connected {
    pub(crate) page: Proxy,
    /// Version that it gives itself.
    pub(crate) version: String,
    pub(crate) since: SystemTime,
    /// By type URL; none for a type of which nothing was sent and nothing is held.
    pub(crate) types: BTreeMap<String, TypeState>,
}

/// State of one type of resources at a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TypeState {
    pub(crate) state: State,
    /// Time of the last change of the state.
    pub(crate) at: SystemTime,
}

/// State of the last response of one type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Sent, not answered.
    Sent,
    /// Accepted, or held since an earlier connection.
    Synced,
    Rejected,
}

impl Proxies {
    /// Takes a report. Must not block.
    pub(crate) fn take(&self, report: Report) {
        match report {
            Report::Connected { peer } => {
                tracing::info!(
                    connection = peer.connection, node = peer.caller.node,
                    identity = %peer.caller.identity, node_id = peer.node_id, "proxy connected",
                );
                let count = {
                    let mut proxies = self.0.lock();
                    proxies.insert(peer.connection, connected(&peer));
                    proxies.len()
                };
                gauge(count);
            }
            Report::Holds { peer, type_url, resources } => {
                self.set(&peer, &type_url, State::Synced);
                tracing::debug!(connection = peer.connection, type_url, resources = resources.len(), "holds already");
            }
            Report::Sent { peer, type_url, nonce, .. } => {
                self.set(&peer, &type_url, State::Sent);
                tracing::debug!(connection = peer.connection, type_url, nonce, "sent");
            }
            Report::Acked { peer, type_url, nonce } => {
                tracing::debug!(connection = peer.connection, type_url, nonce, "accepted");
                self.set(&peer, &type_url, State::Synced);
                self.update(&peer, &type_url, |progress| {
                    progress.acked += 1;
                    progress.last_acked_nonce = nonce;
                    progress.error = None;
                });
                metrics::counter!("strake_control_responses_total", "outcome" => "acked").increment(1);
            }
            Report::Nacked { peer, type_url, nonce, error } => {
                tracing::warn!(
                    connection = peer.connection,
                    node = peer.caller.node,
                    type_url,
                    nonce,
                    error,
                    code = "response_refused",
                    "proxy rejected resources (NACK); it keeps their previous versions",
                );
                self.set(&peer, &type_url, State::Rejected);
                self.update(&peer, &type_url, |progress| {
                    progress.nacked += 1;
                    progress.error = Some(error);
                });
                metrics::counter!("strake_control_responses_total", "outcome" => "nacked").increment(1);
            }
            Report::Disconnected { peer } => {
                tracing::info!(connection = peer.connection, node = peer.caller.node, "proxy disconnected");
                let count = {
                    let mut proxies = self.0.lock();
                    proxies.remove(&peer.connection);
                    proxies.len()
                };
                gauge(count);
            }
        }
    }

    pub(crate) fn snapshot(&self) -> Vec<Proxy> {
        self.0.lock().values().map(|proxy| proxy.page.clone()).collect()
    }

    /// All that is known of the connected proxies, in the order of connections.
    pub(crate) fn all(&self) -> Vec<Connected> {
        self.0.lock().values().cloned().collect()
    }

    fn set(&self, peer: &Peer, type_url: &str, state: State) {
        let mut proxies = self.0.lock();
        let proxy = proxies.entry(peer.connection).or_insert_with(|| connected(peer));
        proxy.types.insert(type_url.to_owned(), TypeState { state, at: SystemTime::now() });
    }

    fn update(&self, peer: &Peer, type_url: &str, change: impl FnOnce(&mut Progress)) {
        let mut proxies = self.0.lock();
        let proxy = proxies.entry(peer.connection).or_insert_with(|| connected(peer));
        change(proxy.page.types.entry(type_url.to_owned()).or_default());
    }
}

/// A proxy that has not answered anything yet.
fn connected(peer: &Peer) -> Connected {
    let page = Proxy {
        connection: peer.connection,
        node: peer.caller.node.clone(),
        identity: peer.caller.identity.to_string(),
        node_id: peer.node_id.clone(),
        types: BTreeMap::new(),
    };
    Connected { page, version: peer.version.clone(), since: SystemTime::now(), types: BTreeMap::new() }
}

fn gauge(count: usize) {
    metrics::gauge!("strake_control_proxies").set(count as f64);
}
