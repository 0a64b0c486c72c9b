//! Both halves for the tests of this crate, over plain TCP: TLS has its own tests.
#![allow(dead_code, unreachable_pub)]

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use identity::Caller;
use prost::Message as _;
use proto::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use proto::workload::{Address, Workload, address};
use proto::{ADDRESS_TYPE_URL, AUTHORIZATION_TYPE_URL};
use runtime::drain;
use tls::control_plane::{RootSource, ShownCredential, Token};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::Streaming;
use tonic::transport::{Channel, Server};
use xds::client::{Client, Config, Handler, Interest, Node, Rejection, Resource};
use xds::server::{Ages, Cache, Change, Options, Report};

/// No step of a test takes this long.
const DEADLINE: Duration = Duration::from_secs(20);

pub async fn soon<T>(step: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, step).await.expect("the step took too long")
}

pub fn workload(uid: &str, name: &str) -> Address {
    let workload = Workload { uid: uid.to_owned(), name: name.to_owned(), ..Workload::default() };
    Address { r#type: Some(address::Type::Workload(workload)) }
}

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

/// What a client's handlers have taken over: name to version, for all types, and the order in which names came.
#[derive(Clone)]
pub struct Seen(watch::Sender<State>);

#[derive(Clone, Debug, Default)]
pub struct State {
    pub held: BTreeMap<String, String>,
    pub order: Vec<String>,
}

impl Seen {
    pub fn new() -> Self {
        Self(watch::channel(State::default()).0)
    }

    pub fn state(&self) -> State {
        self.0.borrow().clone()
    }

    /// Until the state is as wanted.
    pub async fn reaches(&self, wanted: impl Fn(&State) -> bool) {
        self.0.subscribe().wait_for(|state| wanted(state)).await.unwrap();
    }

    /// Until what was taken over is just this.
    pub async fn holds(&self, expected: &[(&str, &str)]) {
        let expected: BTreeMap<String, String> =
            expected.iter().map(|(name, version)| ((*name).to_owned(), (*version).to_owned())).collect();
        let mut state = self.0.subscribe();
        let reached = tokio::time::timeout(DEADLINE, state.wait_for(|state| state.held == expected)).await;
        let now = self.state().held;
        assert!(reached.is_ok(), "expected {expected:?}, found {now:?}");
    }
}

/// Takes everything over but names with `bad` in them.
impl<T: Send> Handler<T> for Seen {
    fn apply(&mut self, resources: Vec<Resource<T>>, removed: Vec<String>) -> Vec<Rejection> {
        let mut rejections = Vec::new();
        self.0.send_modify(|state| {
            for Resource { name, version, .. } in resources {
                if name.contains("bad") {
                    rejections.push(Rejection { name, reason: "is bad".to_owned() });
                } else {
                    state.order.push(name.clone());
                    state.held.insert(name, version);
                }
            }
            for name in removed {
                state.order.push(format!("-{name}"));
                state.held.remove(&name);
            }
        });
        rejections
    }
}

pub fn config(port: u16, token: Token) -> Config {
    Config {
        address: format!("http://127.0.0.1:{port}").parse().unwrap(),
        roots: RootSource::System,
        alternative_host: None,
        token,
        headers: vec![(HeaderName::from_static("clusterid"), HeaderValue::from_static("Kubernetes"))],
        node: Node::ztunnel("10.0.0.7", "ztunnel-a", "istio-system"),
    }
}

/// A client of both types, addresses first: the server must turn that round.
pub fn client(port: u16, token: Token, seen: &Seen, addresses: Interest) -> Client {
    Client::new(config(port, token))
        .with::<Address>(ADDRESS_TYPE_URL, addresses, seen.clone())
        .with::<proto::security::Authorization>(AUTHORIZATION_TYPE_URL, Interest::All, seen.clone())
}

/// Runs a client until the returned trigger is started or dropped with its runtime.
pub fn run(client: Client) -> (drain::Trigger, watch::Receiver<bool>) {
    let (trigger, drain) = drain::channel();
    let synced = client.synced();
    tokio::spawn(client.run(drain));
    (trigger, synced)
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
    let service = xds::server::service(cache.clone(), Options { ages, ..Options::new(report, watch) });
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
    let mut client = AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(xds::MAX_MESSAGE_BYTES);
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

pub fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Everything that was said, in the order of saying, by several streams.
pub type Log<T> = Arc<Mutex<Vec<T>>>;
