//! One client's stream: takes its requests, sends what it has not heard yet.

use std::sync::Arc;
use std::time::Duration;

use identity::Caller;
use proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource};
use proto::{ADDRESS_TYPE_URL, AUTHORIZATION_TYPE_URL};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tonic::{Status, Streaming};

use super::cache::{Batch, Cache};
use super::report::{Peer, Report};
use super::service::Options;
use super::subscription::Request;

/// How long the first addresses wait for the client to ask for policies too. Clients ask for all types at once;
/// one that never asks for policies gets its addresses after this.
const POLICY_GRACE: Duration = Duration::from_millis(250);

pub(super) type Outbound = mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>;

pub(super) struct Conversation {
    cache: Cache,
    options: Options,
    wake: Arc<Notify>,
    peer: Peer,
    /// The client has sent a request.
    greeted: bool,
    /// The order of the first answers is decided: nothing more is held back.
    order_known: bool,
    /// Addresses are held back until then, unless policies are asked for.
    hold_until: Option<Instant>,
    last_nonce: u64,
}

/// What one turn of the loop brought.
enum Turn {
    Go,
    End(Result<(), Status>),
}

impl Conversation {
    pub(super) fn new(cache: Cache, options: Options, caller: Caller) -> Self {
        let (connection, wake) = cache.connect();
        let peer = Peer { connection, caller, node_id: String::new() };
        let (greeted, order_known, hold_until, last_nonce) = (false, false, None, 0);
        Self { cache, options, wake, peer, greeted, order_known, hold_until, last_nonce }
    }

    /// Until the client leaves, does something impossible, or the drain begins.
    pub(super) async fn run(mut self, mut inbound: Streaming<DeltaDiscoveryRequest>, outbound: Outbound) {
        // Requests wait until then: what a client holds can only be compared with all there is.
        tokio::select! {
            () = self.cache.synced() => {}
            () = outbound.closed() => return,
            _ = self.options.drain.started() => return,
        }
        loop {
            match self.turn(&mut inbound, &outbound).await {
                Turn::Go => {}
                Turn::End(Ok(())) => return,
                Turn::End(Err(status)) => {
                    tracing::info!(connection = self.peer.connection, %status, "discovery stream refused");
                    // A client that has left needs no farewell.
                    drop(outbound.send(Err(status)).await);
                    return;
                }
            }
        }
    }

    async fn turn(&mut self, inbound: &mut Streaming<DeltaDiscoveryRequest>, outbound: &Outbound) -> Turn {
        let held = self.hold_until.map(|_| ADDRESS_TYPE_URL);
        let work = self.cache.has_work(self.peer.connection, held);
        let hold_until = self.hold_until.unwrap_or_else(Instant::now);
        // Every arm may be dropped: requests stay in the stream, a permit goes back, and a wake-up
        // that is lost with `notified` was stored before and is only a hint to look again.
        tokio::select! {
            request = inbound.message() => match request {
                Ok(Some(request)) => self.take(request),
                Ok(None) => Turn::End(Ok(())),
                Err(status) => {
                    tracing::debug!(connection = self.peer.connection, %status, "discovery stream broke");
                    Turn::End(Ok(()))
                }
            },
            permit = outbound.reserve(), if work => {
                let Ok(permit) = permit else { return Turn::End(Ok(())) };
                if let Some(batch) = self.cache.next_batch(self.peer.connection, held) {
                    self.last_nonce += 1;
                    self.report(sent(&self.peer, &batch, self.last_nonce));
                    permit.send(Ok(response(batch, self.last_nonce)));
                }
                Turn::Go
            }
            () = self.wake.notified(), if !work => Turn::Go,
            () = tokio::time::sleep_until(hold_until), if self.hold_until.is_some() => {
                self.hold_until = None;
                Turn::Go
            }
            _ = self.options.drain.started() => Turn::End(Ok(())),
        }
    }

    fn take(&mut self, request: DeltaDiscoveryRequest) -> Turn {
        if let Some(node) = request.node {
            self.peer.node_id = node.id;
        }
        if !self.greeted {
            self.greeted = true;
            self.report(Report::Connected { peer: self.peer.clone() });
        }
        if request.type_url.is_empty() {
            return Turn::End(Err(Status::invalid_argument("request without a type")));
        }
        self.order(&request.type_url);
        if !request.response_nonce.is_empty() {
            let (peer, type_url, nonce) = (self.peer.clone(), request.type_url.clone(), request.response_nonce);
            self.report(match request.error_detail {
                None => Report::Acked { peer, type_url, nonce },
                Some(error) => Report::Nacked { peer, type_url, nonce, error: error.message },
            });
        }
        let held = self.cache.held(&request.type_url, &request.initial_resource_versions);
        if !held.is_empty() {
            let (peer, type_url) = (self.peer.clone(), request.type_url.clone());
            self.report(Report::Holds { peer, type_url, resources: held });
        }
        let subscription = Request {
            subscribe: request.resource_names_subscribe,
            unsubscribe: request.resource_names_unsubscribe,
            initial_versions: request.initial_resource_versions,
        };
        if self.cache.subscribe(self.peer.connection, &request.type_url, subscription) {
            Turn::Go
        } else {
            Turn::End(Err(Status::resource_exhausted("too many resource names")))
        }
    }

    /// Holds the first addresses back until policies were asked for.
    fn order(&mut self, type_url: &str) {
        if type_url == AUTHORIZATION_TYPE_URL {
            self.order_known = true;
            self.hold_until = None;
        } else if type_url == ADDRESS_TYPE_URL && !self.order_known {
            self.order_known = true;
            self.hold_until = Some(Instant::now() + POLICY_GRACE);
        }
    }

    fn report(&self, report: Report) {
        (self.options.report)(report);
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        self.cache.disconnect(self.peer.connection);
        if self.greeted {
            self.report(Report::Disconnected { peer: self.peer.clone() });
        }
    }
}

fn sent(peer: &Peer, batch: &Batch, nonce: u64) -> Report {
    let version = |(name, entry): &(Arc<str>, super::cache::Entry)| (Arc::clone(name), Arc::clone(&entry.version));
    Report::Sent {
        peer: peer.clone(),
        type_url: batch.type_url.clone(),
        nonce: nonce.to_string(),
        resources: batch.upserts.iter().map(version).collect(),
        removed: batch.removed.clone(),
    }
}

fn response(batch: Batch, nonce: u64) -> DeltaDiscoveryResponse {
    let resource = |(name, entry): (Arc<str>, super::cache::Entry)| Resource {
        name: name.to_string(),
        version: entry.version.to_string(),
        resource: Some(prost_types::Any { type_url: batch.type_url.clone(), value: entry.value.into() }),
        ..Resource::default()
    };
    DeltaDiscoveryResponse {
        resources: batch.upserts.into_iter().map(resource).collect(),
        removed_resources: batch.removed.iter().map(ToString::to_string).collect(),
        type_url: batch.type_url.clone(),
        nonce: nonce.to_string(),
        ..DeltaDiscoveryResponse::default()
    }
}
