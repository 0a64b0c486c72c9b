//! Our server and a client that says everything itself, beside the client half of `xds-client`'s tests.
#![allow(dead_code, unreachable_pub, unused_imports)]

#[path = "../../../xds-client/tests/common/mod.rs"]
mod client_side;

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
pub use client_side::{Seen, client, names, run, soon, workload};
use identity::Caller;
use prost::Message as _;
use proto::Change;
use proto::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use runtime::drain;
use tls::control_plane::ShownCredential;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::Streaming;
use tonic::transport::{Channel, Server};
use xds_server::{Ages, Cache, Options, Report};

pub fn upsert(name: &str, version: &str) -> Change {
    let value = Bytes::from(workload(name, version).encode_to_vec());
    Change::Upsert { name: name.to_owned(), version: version.to_owned(), value }
}

pub fn policy(name: &str, version: &str) -> Change {
    let message = proto::security::Authorization { name: name.to_owned(), ..Default::default() };
    Change::Upsert { name: name.to_owned(), version: version.to_owned(), value: message.encode_to_vec().into() }
}

pub fn remove(name: &str) -> Change {
    Change::Remove { name: name.to_owned() }
}

pub fn caller() -> Caller {
    let identity = "spiffe://cluster.local/ns/istio-system/sa/ztunnel".parse().unwrap();
    Caller { node: "node-1".to_owned(), identity }
}

/// Our server.
pub struct Served {
    pub address: SocketAddr,
    pub cache: Cache,
    pub reports: mpsc::UnboundedReceiver<Report>,
    pub drain: drain::Trigger,
}

pub async fn serve(cache: Cache, authenticated: bool) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    serve_on(listener, cache, authenticated)
}

pub fn serve_on(listener: TcpListener, cache: Cache, authenticated: bool) -> Served {
    serve_with(listener, cache, authenticated, Ages::default(), None)
}

/// Streams begin with a credential, and end at some age.
pub fn serve_with(
    listener: TcpListener,
    cache: Cache,
    authenticated: bool,
    ages: Ages,
    credential: Option<ShownCredential>,
) -> Served {
    let address = listener.local_addr().unwrap();
    let (sender, reports) = mpsc::unbounded_channel();
    let (drain, watch) = drain::channel();
    let report = Arc::new(move |report| drop(sender.send(report)));
    let service = xds_server::service(cache.clone(), Options { ages, ..Options::new(report, watch) });
    let identify = move |mut request: tonic::Request<()>| {
        if authenticated {
            request.extensions_mut().insert(caller());
            if let Some(credential) = credential.clone() {
                request.extensions_mut().insert(credential);
            }
        }
        Ok(request)
    };
    let layer = tonic::service::InterceptorLayer::new(identify);
    let server = Server::builder().layer(layer).add_service(service);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    Served { address, cache, reports, drain }
}

/// A stream to our server on which the test says everything itself.
pub struct Raw {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    pub responses: Streaming<DeltaDiscoveryResponse>,
}

pub async fn raw(address: SocketAddr) -> Result<Raw, tonic::Status> {
    let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    let mut client = AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(proto::MAX_MESSAGE_BYTES);
    let (requests, receiver) = mpsc::channel(64);
    let responses = client.delta_aggregated_resources(ReceiverStream::new(receiver)).await?.into_inner();
    Ok(Raw { requests, responses })
}

impl Raw {
    pub async fn send(&self, request: DeltaDiscoveryRequest) {
        self.requests.send(request).await.unwrap();
    }

    pub async fn next(&mut self) -> Result<Option<Heard>, tonic::Status> {
        Ok(soon(self.responses.message()).await?.map(Heard::from))
    }

    pub async fn hear(&mut self) -> Heard {
        self.next().await.unwrap().unwrap()
    }

    /// Accepts a response.
    pub async fn answer(&self, heard: &Heard) {
        let response_nonce = heard.nonce.clone();
        self.send(DeltaDiscoveryRequest { response_nonce, ..ask(&heard.type_url) }).await;
    }

    /// Hears a response of a type and accepts it.
    pub async fn ack(&mut self, type_url: &str) -> Heard {
        let heard = self.hear().await;
        assert_eq!(heard.type_url, type_url);
        self.answer(&heard).await;
        heard
    }
}

/// A response in short.
#[derive(Debug, PartialEq)]
pub struct Heard {
    pub type_url: String,
    /// `name@version`.
    pub resources: Vec<String>,
    pub removed: Vec<String>,
    pub nonce: String,
    pub version_info: String,
    pub bytes: usize,
}

impl From<DeltaDiscoveryResponse> for Heard {
    fn from(response: DeltaDiscoveryResponse) -> Self {
        let bytes = response.encoded_len();
        let resources = response.resources.iter().map(|r| format!("{}@{}", r.name, r.version)).collect();
        let DeltaDiscoveryResponse { type_url, nonce, removed_resources: removed, system_version_info, .. } = response;
        Self { type_url, resources, removed, nonce, version_info: system_version_info, bytes }
    }
}

pub fn ask(type_url: &str) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest { type_url: type_url.to_owned(), ..DeltaDiscoveryRequest::default() }
}

pub fn holding(type_url: &str, held: &[(&str, &str)]) -> DeltaDiscoveryRequest {
    let held = held.iter().map(|(name, version)| ((*name).to_owned(), (*version).to_owned()));
    DeltaDiscoveryRequest { initial_resource_versions: held.collect(), ..ask(type_url) }
}
