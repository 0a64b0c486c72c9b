//! The gRPC service. Each call becomes a task of its own: see `stream`.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use identity::Caller;
use proto::discovery::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse};
use runtime::drain;
use tls::control_plane::ShownCredential;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::age::Ages;
use crate::cache::Cache;
use crate::debug::{self, Debug};
use crate::report::Report;
use crate::stream::Conversation;
use proto::MAX_MESSAGE_BYTES;

/// Responses that wait for the socket; what changes meanwhile waits as names in the cache.
const RESPONSES_IN_FLIGHT: usize = 1;

/// Settings of the service.
#[derive(Clone)]
pub struct Options {
    /// Receives a report of each action of a client.
    pub report: Arc<dyn Fn(Report) + Send + Sync>,
    /// Drain: when it starts, streams end in good order, and clients connect again at once, to the process that serves
    /// then.
    pub drain: drain::Watch,
    /// Ages at which streams end by themselves.
    pub ages: Ages,
    /// Pages for tools; without them nobody gets any.
    pub debug: Option<Debug>,
    /// Time over which streams end when the drain starts, at random: the clients of a mesh that came back together would
    /// all be a load of the same moment. They are served meanwhile.
    pub spread: Duration,
    /// Whether callers whose token is of no node get resources. In a cluster such tokens are those of tools; in a directory every
    /// token is a proxy's, and a waypoint may be on any node.
    pub nodeless: bool,
}

impl Options {
    /// Makes options with the usual ages, without pages for tools, for a server whose streams end together and whose
    /// clients are of nodes.
    pub fn new(report: Arc<dyn Fn(Report) + Send + Sync>, drain: drain::Watch) -> Self {
        Self { report, drain, ages: Ages::default(), debug: None, spread: Duration::ZERO, nodeless: false }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").finish_non_exhaustive()
    }
}

/// The discovery service over one cache.
#[derive(Clone, Debug)]
pub struct Discovery {
    cache: Cache,
    options: Options,
}

/// The service for tonic's router. Requests must carry a [`Caller`] as extension, which the layer that
/// checks tokens puts there; without one they are refused.
pub fn service(cache: Cache, options: Options) -> AggregatedDiscoveryServiceServer<Discovery> {
    AggregatedDiscoveryServiceServer::new(Discovery { cache, options })
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

impl Discovery {
    /// The caller of a new stream, if it has proved who it is and the server stays for a while.
    fn admit(&self, extensions: &tonic::Extensions) -> Result<Caller, Status> {
        if self.options.drain.is_draining() {
            return Err(Status::unavailable("the server is about to end"));
        }
        extensions.get::<Caller>().cloned().ok_or_else(|| Status::unauthenticated("request authenticate failure"))
    }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Discovery {
    type StreamAggregatedResourcesStream = Pin<Box<dyn Stream<Item = Result<DiscoveryResponse, Status>> + Send>>;
    type DeltaAggregatedResourcesStream = Pin<Box<dyn Stream<Item = Result<DeltaDiscoveryResponse, Status>> + Send>>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        let caller = self.admit(request.extensions())?;
        let none = || Status::unimplemented("only delta discovery is served (DeltaAggregatedResources)");
        let debug = self.options.debug.clone().ok_or_else(none)?;
        let (sender, receiver) = mpsc::channel(RESPONSES_IN_FLIGHT);
        tokio::spawn(debug::serve(debug, caller, request.into_inner(), sender, self.options.drain.clone()));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let caller = self.admit(request.extensions())?;
        // A token that no pod holds is a tool's. What a node's proxy says is taken for its node.
        if caller.node.is_empty() && !self.options.nodeless {
            return Err(Status::permission_denied("expected a token that is bound to a pod"));
        }
        let (sender, receiver) = mpsc::channel(RESPONSES_IN_FLIGHT);
        let credential = request.extensions().get::<ShownCredential>().cloned();
        let conversation = Conversation::new(self.cache.clone(), self.options.clone(), caller, credential);
        // A task of its own: the answer to this call is only the beginning of the stream.
        tokio::spawn(conversation.run(request.into_inner(), sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}
