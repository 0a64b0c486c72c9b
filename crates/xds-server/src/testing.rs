//! A relay between a client and a server of discovery that delays, repeats, reorders, splits and cuts what passes. For
//! tests: the promises of both sides are checked where they meet.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use http::Uri;
use identity::{Caller, Identity, IdentityError};
use parking_lot::Mutex;
use proto::auth::istio_certificate_service_client::IstioCertificateServiceClient;
use proto::auth::istio_certificate_service_server::{IstioCertificateService, IstioCertificateServiceServer};
use proto::auth::{IstioCertificateRequest, IstioCertificateResponse};
use proto::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use proto::discovery::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse};
use proto::{ADDRESS_TYPE_URL, AUTHORIZATION_TYPE_URL};
use runtime::drain;
use tls::control_plane::{Connector, RootSource};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

use crate::{Cache, Options, service};
use proto::MAX_MESSAGE_BYTES;
use proto::snapshot::Mark;

/// Messages on their way through the relay, in each direction.
const IN_FLIGHT: usize = 64;

/// Pause after which a stream counts as idle.
const IDLE: Duration = Duration::from_millis(20);

/// Serves a cache over plain TCP on a port of the loopback interface, to one node proxy whatever its token, and returns the
/// address. Runs until the runtime ends.
///
/// # Errors
/// When no port is free.
pub async fn serve(cache: Cache) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let (trigger, drain) = drain::channel();
    let service = service(cache, Options::new(Arc::new(drop), drain));
    let identity: Identity = "spiffe://cluster.local/ns/istio-system/sa/ztunnel"
        .parse()
        .map_err(|error: IdentityError| io::Error::new(io::ErrorKind::InvalidData, error))?;
    let identify = move |mut request: Request<()>| {
        request.extensions_mut().insert(Caller { node: "node-1".to_owned(), identity: identity.clone() });
        Ok(request)
    };
    let layer = tonic::service::InterceptorLayer::new(identify);
    let serving = Server::builder().layer(layer).add_service(service);
    tokio::spawn(async move {
        // Held: dropping the trigger would begin the drain.
        let _never_started = trigger;
        serving.serve_with_incoming(TcpListenerStream::new(listener)).await
    });
    Ok(address)
}

/// Next event on a stream.
#[derive(Debug)]
pub enum Passed {
    /// The client receives a response.
    Response(Box<DeltaDiscoveryResponse>),
    /// The server receives a request that the client has not sent.
    Request(Box<DeltaDiscoveryRequest>),
    /// Holds responses back until the value is true: this one, and all that follow.
    Wait(watch::Receiver<bool>),
    /// The stream breaks.
    Cut,
}

impl From<DeltaDiscoveryResponse> for Passed {
    fn from(response: DeltaDiscoveryResponse) -> Self {
        Self::Response(Box::new(response))
    }
}

/// Decides what becomes of each message. Streams are numbered from 0, in the order in which the client opens them.
pub trait Faults: Send + 'static {
    /// Requests that the server receives instead of this one.
    fn request(&mut self, stream: usize, request: DeltaDiscoveryRequest) -> Vec<DeltaDiscoveryRequest> {
        let _ = stream;
        vec![request]
    }

    /// Events in place of this response.
    fn response(&mut self, stream: usize, response: DeltaDiscoveryResponse) -> Vec<Passed> {
        let _ = stream;
        vec![response.into()]
    }

    /// Events after a pause without messages.
    fn idle(&mut self, stream: usize) -> Vec<Passed> {
        let _ = stream;
        Vec::new()
    }
}

/// Changes responses only.
impl<F: FnMut(usize, DeltaDiscoveryResponse) -> Vec<Passed> + Send + 'static> Faults for F {
    fn response(&mut self, stream: usize, response: DeltaDiscoveryResponse) -> Vec<Passed> {
        self(stream, response)
    }
}

/// Passes everything.
#[derive(Debug)]
pub struct NoFaults;
impl Faults for NoFaults {}

/// Every response arrives twice.
#[derive(Debug)]
pub struct Twice;
impl Faults for Twice {
    fn response(&mut self, _: usize, response: DeltaDiscoveryResponse) -> Vec<Passed> {
        vec![response.clone().into(), response.into()]
    }
}

/// Behaves as Istio's control plane does: it knows no parts of a snapshot, and sends addresses before the policies that
/// belong to them, without waiting for answers.
#[derive(Debug, Default)]
pub struct LikeIstiod {
    late: VecDeque<(usize, DeltaDiscoveryResponse)>,
    /// Nonces of policies that were acknowledged in the client's place, by stream.
    acknowledged: HashSet<(usize, String)>,
    /// Streams whose first response with addresses is still to come.
    // However long it takes: on a busy machine the pause after which a stream counts as idle may pass before it is there.
    owed: HashSet<usize>,
    greeted: HashSet<usize>,
}

impl LikeIstiod {
    fn late(&mut self, stream: usize) -> Vec<Passed> {
        // Responses of other streams stay: the client may have opened a second one.
        let (now, later): (VecDeque<_>, VecDeque<_>) = self.late.drain(..).partition(|(of, _)| *of == stream);
        self.late = later;
        now.into_iter().map(|(_, response)| response.into()).collect()
    }
}

impl Faults for LikeIstiod {
    fn request(&mut self, stream: usize, mut request: DeltaDiscoveryRequest) -> Vec<DeltaDiscoveryRequest> {
        if request.type_url == ADDRESS_TYPE_URL && self.greeted.insert(stream) {
            self.owed.insert(stream);
        }
        if let Some(node) = &mut request.node {
            // The server then believes a client that reads no marks, as Istio's does.
            node.client_features.clear();
        }
        // The client's own answer comes later and would be a second one for the same nonce.
        let is_answered = self.acknowledged.remove(&(stream, request.response_nonce.clone()));
        if is_answered { Vec::new() } else { vec![request] }
    }

    fn response(&mut self, stream: usize, response: DeltaDiscoveryResponse) -> Vec<Passed> {
        if response.type_url != AUTHORIZATION_TYPE_URL {
            self.owed.remove(&stream);
            return std::iter::once(response.into()).chain(self.late(stream)).collect();
        }
        let ack = DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            ..DeltaDiscoveryRequest::default()
        };
        self.acknowledged.insert((stream, response.nonce.clone()));
        self.late.push_back((stream, response));
        // Answered in the client's place: this server waits for it before it sends addresses, which Istio's does not.
        vec![Passed::Request(Box::new(ack))]
    }

    fn idle(&mut self, stream: usize) -> Vec<Passed> {
        if self.owed.contains(&stream) { Vec::new() } else { self.late(stream) }
    }
}

/// Ends the nonce of a piece that is not the last one of its response.
const PIECE: &str = "~piece";

/// Every response arrives in pieces of at most so many names, with marks as a server that splits there would set them.
#[derive(Debug)]
pub struct Pieces {
    names: usize,
    /// Pieces of the snapshot so far, by stream and type.
    parts: HashMap<(usize, String), u32>,
}

impl Pieces {
    /// `names` must be greater than 0.
    #[must_use]
    pub fn of(names: usize) -> Self {
        Self { names: names.max(1), parts: HashMap::new() }
    }
}

impl Faults for Pieces {
    /// The server knows one response, so it gets one answer.
    fn request(&mut self, _: usize, request: DeltaDiscoveryRequest) -> Vec<DeltaDiscoveryRequest> {
        if request.response_nonce.ends_with(PIECE) { Vec::new() } else { vec![request] }
    }

    fn response(&mut self, stream: usize, response: DeltaDiscoveryResponse) -> Vec<Passed> {
        let mark = response.system_version_info.parse::<Mark>().ok();
        // Parts are counted over all responses of a snapshot, not within one.
        let parts = self.parts.entry((stream, response.type_url.clone())).or_default();
        let mut pieces = pieces(response, self.names);
        let last = pieces.len().saturating_sub(1);
        for (number, piece) in pieces.iter_mut().enumerate() {
            if let Some(mark) = mark {
                *parts += 1;
                let is_last = mark.is_last && number == last;
                piece.system_version_info = Mark { part: *parts, is_last }.to_string();
            }
            if number != last {
                piece.nonce.push_str(PIECE);
            }
        }
        pieces.into_iter().map(Passed::from).collect()
    }
}

fn pieces(response: DeltaDiscoveryResponse, names: usize) -> Vec<DeltaDiscoveryResponse> {
    let DeltaDiscoveryResponse { resources, removed_resources, type_url, nonce, system_version_info } = response;
    let empty = DeltaDiscoveryResponse { type_url, nonce, system_version_info, ..DeltaDiscoveryResponse::default() };
    let upserts = resources
        .chunks(names)
        .map(|resources| DeltaDiscoveryResponse { resources: resources.to_vec(), ..empty.clone() });
    let removals = removed_resources
        .chunks(names)
        .map(|removed| DeltaDiscoveryResponse { removed_resources: removed.to_vec(), ..empty.clone() });
    let pieces: Vec<_> = upserts.chain(removals).collect();
    // An empty response is one, too: the first answer to a subscription is owed.
    if pieces.is_empty() { vec![empty] } else { pieces }
}

/// A relay that runs until the runtime ends. Clones share it.
#[derive(Clone)]
pub struct Relay {
    upstream: Endpoint,
    connector: Connector,
    faults: Arc<Mutex<dyn Faults>>,
    streams: Arc<AtomicUsize>,
}

impl Relay {
    /// Relays to `upstream`; its roots count when the scheme is `https`.
    pub fn new(upstream: Uri, roots: RootSource, faults: impl Faults) -> Self {
        Self::to_host(upstream, roots, None, faults)
    }

    /// Starts as [`Relay::new`], to a server whose certificate may also be for this host name.
    pub fn to_host(upstream: Uri, roots: RootSource, host: Option<String>, faults: impl Faults) -> Self {
        let faults = Arc::new(Mutex::new(faults));
        let connector = Connector::new(roots, host);
        Self { upstream: Endpoint::from(upstream), connector, faults, streams: Arc::default() }
    }

    /// Serves plain TCP on a port of the loopback interface, and returns its address.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn listen(&self) -> io::Result<SocketAddr> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        tokio::spawn(self.service().serve_with_incoming(TcpListenerStream::new(listener)));
        Ok(address)
    }

    /// The server, for other kinds of connections. It also relays requests for certificates, without faults.
    pub fn service(&self) -> tonic::transport::server::Router {
        let service = AggregatedDiscoveryServiceServer::new(self.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        Server::builder().add_service(service).add_service(IstioCertificateServiceServer::new(self.clone()))
    }

    async fn upstream(&self) -> Result<Channel, Status> {
        let channel = self.upstream.connect_with_connector(self.connector.clone()).await;
        channel.map_err(|error| Status::unavailable(tls::causes(&error)))
    }

    /// Number of streams that clients have opened.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }

    fn with<T>(&self, decide: impl FnOnce(&mut dyn Faults) -> T) -> T {
        decide(&mut *self.faults.lock())
    }

    async fn forward(
        self,
        stream: usize,
        mut responses: Streaming<DeltaDiscoveryResponse>,
        server: mpsc::Sender<DeltaDiscoveryRequest>,
        client: mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
    ) {
        let cut = || Err(Status::unavailable("cut by the test"));
        loop {
            let next = tokio::select! {
                // Dropping `message` at the time-out loses nothing: what has arrived stays in the stream.
                next = tokio::time::timeout(IDLE, responses.message()) => next,
                () = client.closed() => return,
            };
            let passed = match next {
                Err(_) => self.with(|faults| faults.idle(stream)),
                Ok(Ok(Some(response))) => self.with(|faults| faults.response(stream, response)),
                Ok(Ok(None)) => return,
                Ok(Err(status)) => {
                    let _ = client.send(Err(status)).await;
                    return;
                }
            };
            for passed in passed {
                let sent = match passed {
                    Passed::Response(response) => client.send(Ok(*response)).await,
                    Passed::Request(request) => {
                        if server.send(*request).await.is_err() {
                            return;
                        }
                        continue;
                    }
                    Passed::Wait(mut open) => {
                        // A sender that is dropped opens the way, so that a test that ends does not leave a stream
                        // waiting.
                        let _ = open.wait_for(|open| *open).await;
                        continue;
                    }
                    Passed::Cut => {
                        let _ = client.send(cut()).await;
                        return;
                    }
                };
                if sent.is_err() {
                    return;
                }
            }
        }
    }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Relay {
    type StreamAggregatedResourcesStream = Pin<Box<dyn Stream<Item = Result<DiscoveryResponse, Status>> + Send>>;
    type DeltaAggregatedResourcesStream = Pin<Box<dyn Stream<Item = Result<DeltaDiscoveryResponse, Status>> + Send>>;

    async fn stream_aggregated_resources(
        &self,
        _: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("no proxy asks so"))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        // Before the upstream answers: attempts that fail are numbered as well.
        let stream = self.streams.fetch_add(1, Ordering::Relaxed);
        let (metadata, _, mut requests) = request.into_parts();
        let channel = self.upstream.connect_with_connector(self.connector.clone()).await;
        let channel = channel.map_err(|error| Status::unavailable(tls::causes(&error)))?;
        let mut upstream = AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let (to_server, from_client) = mpsc::channel(IN_FLIGHT);
        let (relay, server) = (self.clone(), to_server.clone());
        tokio::spawn(async move {
            while let Some(Ok(request)) = requests.next().await {
                for request in relay.with(|faults| faults.request(stream, request)) {
                    if to_server.send(request).await.is_err() {
                        return;
                    }
                }
            }
        });
        let mut call = Request::new(ReceiverStream::new(from_client));
        // With the client's token, which the server behind checks.
        *call.metadata_mut() = metadata;
        let responses = upstream.delta_aggregated_resources(call).await?.into_inner();
        let (sender, receiver) = mpsc::channel(IN_FLIGHT);
        tokio::spawn(self.clone().forward(stream, responses, server, sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

#[tonic::async_trait]
impl IstioCertificateService for Relay {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let (metadata, _, message) = request.into_parts();
        let mut call = Request::new(message);
        *call.metadata_mut() = metadata;
        IstioCertificateServiceClient::new(self.upstream().await?).create_certificate(call).await
    }
}
