//! One client's stream: applies its requests, sends the resources that it does not have yet.

use std::sync::Arc;
use std::time::Duration;

use identity::Caller;
use prost_types::value::Kind;
use proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource};
use proto::{ADDRESS_TYPE_URL, AUTHORIZATION_TYPE_URL};
use tls::control_plane::ShownCredential;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tonic::{Status, Streaming};

use crate::age::{Reason, Watch, random};
use crate::cache::{Batch, Cache};
use crate::report::{Peer, Report};
use crate::scope;
use crate::service::Options;
use crate::subscriptions::{Gate, Request};
use proto::snapshot;

/// Time that the first addresses wait for the client to ask for policies too, and removals of policies for it to ask for
/// addresses. Node proxies ask for both at once, but the second request may be lost and sent again by TCP, which takes
/// 200 ms and more. A waypoint, which never asks for policies, should not wait for long.
const NODE_PROXY_PATIENCE: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_millis(250);

/// Key of the name of a client's node in its metadata.
const NODE_NAME: &str = "NODE_NAME";
/// Key of a client's version in its metadata.
const VERSION: &str = "ISTIO_VERSION";

/// Start of a node proxy's id.
const NODE_PROXY: &str = "ztunnel~";

pub(crate) type Outbound = mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>;

pub(crate) struct Conversation {
    cache: Cache,
    options: Options,
    wake: Arc<Notify>,
    peer: Peer,
    watch: Watch,
    /// The client has sent a request.
    greeted: bool,
    asked: Asked,
    /// Time at which the stream ends, once the drain has started.
    leaves: Option<Instant>,
    /// Deadline until which one of the two types waits for the other; see [`Gate`].
    patience: Option<Instant>,
}

/// Types that the client has asked for.
#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    policies: bool,
    addresses: bool,
}

impl Asked {
    const fn gate(self) -> Gate {
        Gate { hold_addresses: self.addresses && !self.policies, hold_removals: self.policies && !self.addresses }
    }
}

/// Event of one turn of the loop.
enum Next {
    Continue,
    End(Result<(), Status>),
}

impl Conversation {
    pub(crate) fn new(cache: Cache, options: Options, caller: Caller, credential: Option<ShownCredential>) -> Self {
        let (connection, wake) = cache.connect();
        let peer = Peer { connection, caller, node_id: String::new(), version: String::new() };
        let watch = Watch::new(options.ages, credential);
        Self {
            cache,
            options,
            wake,
            peer,
            watch,
            greeted: false,
            asked: Asked::default(),
            leaves: None,
            patience: None,
        }
    }

    /// Serves the stream until the client leaves or violates the protocol, or the drain begins.
    pub(crate) async fn run(mut self, mut inbound: Streaming<DeltaDiscoveryRequest>, outbound: Outbound) {
        // Requests wait until then: what a client holds can only be compared with all there is.
        tokio::select! {
            () = self.cache.synced() => {}
            () = outbound.closed() => return,
            _ = self.options.drain.started() => return,
        }
        loop {
            match self.advance(&mut inbound, &outbound).await {
                Next::Continue => {}
                Next::End(Ok(())) => return,
                Next::End(Err(status)) => {
                    tracing::info!(connection = self.peer.connection, %status, "discovery stream refused");
                    // A client that has left needs no farewell.
                    drop(outbound.send(Err(status)).await);
                    return;
                }
            }
        }
    }

    async fn advance(&mut self, inbound: &mut Streaming<DeltaDiscoveryRequest>, outbound: &Outbound) -> Next {
        let gate = self.patience.map_or_else(Gate::default, |_| self.asked.gate());
        // Before the wait: a wake-up that came while the last response was made is stored, and found here.
        let work = self.cache.has_work(self.peer.connection, gate);
        let patience = self.patience.unwrap_or_else(Instant::now);
        let leaves = self.leaves.unwrap_or_else(Instant::now);
        // Every arm may be dropped: requests stay in the stream, a permit goes back, and a wake-up
        // that is lost with `notified` was stored before and is only a hint to look again.
        tokio::select! {
            request = inbound.message() => match request {
                Ok(Some(request)) => self.on_request(request),
                Ok(None) => Next::End(Ok(())),
                Err(status) => {
                    tracing::debug!(connection = self.peer.connection, %status, "discovery stream broke");
                    Next::End(Ok(()))
                }
            },
            // The batch is made only once the client can take it: until then changes of one name replace each other.
            permit = outbound.reserve(), if work => {
                let Ok(permit) = permit else { return Next::End(Ok(())) };
                if let Some(batch) = self.cache.next_batch(self.peer.connection, gate) {
                    self.report(sent(&self.peer, &batch));
                    permit.send(Ok(response(batch)));
                }
                Next::Continue
            }
            () = self.wake.notified(), if !work => Next::Continue,
            () = tokio::time::sleep_until(patience), if self.patience.is_some() => {
                self.patience = None;
                Next::Continue
            }
            // A check that is dropped half-way is begun again at the next turn.
            reason = self.watch.ended() => self.end(reason),
            _ = self.options.drain.started(), if self.leaves.is_none() => {
                self.leaves = Some(Instant::now() + self.options.spread.mul_f64(random()));
                Next::Continue
            }
            () = tokio::time::sleep_until(leaves), if self.leaves.is_some() => Next::End(Ok(())),
        }
    }

    fn end(&self, reason: Reason) -> Next {
        let (connection, node) = (self.peer.connection, &self.peer.caller.node);
        match reason {
            Reason::Age => {
                tracing::debug!(connection, node, "discovery stream has reached its maximum age");
                Next::End(Ok(()))
            }
            Reason::Token(reason) => {
                tracing::warn!(
                    connection,
                    node,
                    reason,
                    code = "token_revoked",
                    "discovery stream ended: its token is no longer valid"
                );
                // The client gets a new token with its next attempt, or is refused for good.
                Next::End(Err(Status::unauthenticated("request authenticate failure")))
            }
        }
    }

    fn on_request(&mut self, request: DeltaDiscoveryRequest) -> Next {
        let mut node_name = String::new();
        if let Some(node) = request.node {
            self.peer.node_id = node.id;
            let metadata = node.metadata.unwrap_or_default();
            node_name = text(&metadata, NODE_NAME);
            self.peer.version = text(&metadata, VERSION);
            if node.client_features.iter().any(|feature| feature == snapshot::FEATURE) {
                self.cache.reads_marks(self.peer.connection);
            }
        }
        // The first request names the node (`node.id`); a connection that sends none is not reported.
        if !self.greeted {
            self.greeted = true;
            self.report(Report::Connected { peer: self.peer.clone() });
        }
        if request.type_url.is_empty() {
            return Next::End(Err(Status::invalid_argument("request without a type")));
        }
        let Some(type_of_cache) = scope::of_caller(&request.type_url, &self.peer.caller) else {
            return Next::End(Err(Status::invalid_argument("invalid type")));
        };
        self.note_type(&request.type_url);
        if !request.response_nonce.is_empty() {
            self.cache.answered(self.peer.connection, &type_of_cache, &request.response_nonce);
            let (peer, type_url, nonce) = (self.peer.clone(), request.type_url.clone(), request.response_nonce);
            self.report(match request.error_detail {
                None => Report::Acked { peer, type_url, nonce },
                Some(error) => Report::Nacked { peer, type_url, nonce, error: error.message },
            });
        }
        // Only the first request of a type has these: resources of an earlier connection, which count as acknowledged.
        let held = self.cache.held(&type_of_cache, &request.initial_resource_versions);
        if !held.is_empty() {
            let (peer, type_url) = (self.peer.clone(), request.type_url.clone());
            self.report(Report::Holds { peer, type_url, resources: held });
        }
        let subscription = Request {
            subscribe: request.resource_names_subscribe,
            unsubscribe: request.resource_names_unsubscribe,
            initial_versions: request.initial_resource_versions,
            node: node_name,
        };
        if self.cache.subscribe(self.peer.connection, &type_of_cache, subscription) {
            Next::Continue
        } else {
            Next::End(Err(Status::resource_exhausted("too many resource names")))
        }
    }

    /// Notes what is asked for. From the first request on, one type waits for the other for a while.
    fn note_type(&mut self, type_url: &str) {
        let is_first = !self.asked.policies && !self.asked.addresses;
        match type_url {
            AUTHORIZATION_TYPE_URL => self.asked.policies = true,
            ADDRESS_TYPE_URL => self.asked.addresses = true,
            _ => return,
        }
        if is_first {
            let is_node_proxy = self.peer.node_id.starts_with(NODE_PROXY);
            self.patience = Some(Instant::now() + if is_node_proxy { NODE_PROXY_PATIENCE } else { PATIENCE });
        } else if self.asked.policies && self.asked.addresses {
            self.patience = None;
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

fn sent(peer: &Peer, batch: &Batch) -> Report {
    let version = |(name, entry): &(Arc<str>, crate::cache::Entry)| (Arc::clone(name), Arc::clone(&entry.version));
    Report::Sent {
        peer: peer.clone(),
        type_url: scope::public(&batch.type_url).to_owned(),
        nonce: batch.nonce.to_string(),
        resources: batch.upserts.iter().map(version).collect(),
        removed: batch.removed.clone(),
    }
}

/// Text in a client's metadata; empty if there is none.
fn text(metadata: &prost_types::Struct, key: &str) -> String {
    match metadata.fields.get(key).and_then(|value| value.kind.as_ref()) {
        Some(Kind::StringValue(text)) => text.clone(),
        Some(_) | None => String::new(),
    }
}

fn response(mut batch: Batch) -> DeltaDiscoveryResponse {
    let mut aliases = std::mem::take(&mut batch.aliases);
    let type_url = scope::public(&batch.type_url).to_owned();
    let resource = |(name, entry): (Arc<str>, crate::cache::Entry)| Resource {
        aliases: aliases.remove(&name).unwrap_or_default().iter().map(ToString::to_string).collect(),
        name: name.to_string(),
        version: entry.version.to_string(),
        resource: Some(prost_types::Any { type_url: type_url.clone(), value: entry.value.into() }),
        ..Resource::default()
    };
    DeltaDiscoveryResponse {
        resources: batch.upserts.into_iter().map(resource).collect(),
        removed_resources: batch.removed.iter().map(ToString::to_string).collect(),
        type_url,
        nonce: batch.nonce.to_string(),
        system_version_info: batch.mark.map(|mark| mark.to_string()).unwrap_or_default(),
    }
}
