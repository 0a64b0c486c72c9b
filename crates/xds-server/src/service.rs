//! The gRPC service. Each call becomes a task of its own: see `stream`.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use identity::Caller;
use proto::discovery::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use runtime::drain;
use tls::control_plane::ShownCredential;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::age::Ages;
use crate::cache::Cache;
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
}

impl Options {
    /// Makes options with the usual ages.
    pub fn new(report: Arc<dyn Fn(Report) + Send + Sync>, drain: drain::Watch) -> Self {
        Self { report, drain, ages: Ages::default() }
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

#[tonic::async_trait]
impl AggregatedDiscoveryService for Discovery {
    type DeltaAggregatedResourcesStream = Pin<Box<dyn Stream<Item = Result<DeltaDiscoveryResponse, Status>> + Send>>;

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let caller = request.extensions().get::<Caller>().cloned();
        // Istio's text, which clients log.
        let caller = caller.ok_or_else(|| Status::unauthenticated("request authenticate failure"))?;
        // UNAVAILABLE makes a client try again, at another replica.
        if self.options.drain.is_draining() {
            return Err(Status::unavailable("the server is about to end"));
        }
        let (sender, receiver) = mpsc::channel(RESPONSES_IN_FLIGHT);
        let credential = request.extensions().get::<ShownCredential>().cloned();
        let conversation = Conversation::new(self.cache.clone(), self.options.clone(), caller, credential);
        // A task of its own: the answer to this call is only the beginning of the stream.
        tokio::spawn(conversation.run(request.into_inner(), sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}
