//! A node proxy that counts what it gets.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use prost::Message as _;
use proto::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use proto::{ADDRESS_TYPE_URL, AUTHORIZATION_TYPE_URL, MAX_MESSAGE_BYTES};
use tls::control_plane::{Connector, RootSource};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;
use tonic::{Request, Streaming};

use crate::mesh::Mesh;
use crate::support::TOKENS;

/// Silence after which nothing more comes.
const QUIET: Duration = Duration::from_secs(5);

/// Versions by type and name.
pub(crate) type Held = HashMap<&'static str, HashMap<String, String>>;

pub(crate) struct Proxy {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
    held: Held,
}

impl Proxy {
    pub(crate) async fn connect(port: u16, directory: &Path) -> Self {
        let endpoint = Endpoint::from_shared(format!("https://localhost:{port}")).unwrap();
        let roots = RootSource::Path(directory.join("ca/root-cert.pem"));
        let channel = endpoint.connect_with_connector(Connector::new(roots, None)).await.unwrap();
        let (requests, receiver) = mpsc::channel(64);
        let mut request = Request::new(ReceiverStream::new(receiver));
        request.metadata_mut().insert("authorization", format!("Bearer {}", TOKENS[0].1).parse().unwrap());
        let mut client = AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let responses = client.delta_aggregated_resources(request).await.unwrap().into_inner();
        Self { requests, responses, held: Held::new() }
    }

    /// Subscribes to everything, and waits until all of the mesh is there. Returns bytes.
    pub(crate) async fn hear_all(&mut self, mesh: &Mesh) -> usize {
        self.ask(&Held::new()).await;
        let mut bytes = 0;
        let count = |held: &Held, type_url| held.get(type_url).map_or(0, HashMap::len);
        while count(&self.held, ADDRESS_TYPE_URL) < mesh.addresses()
            || count(&self.held, AUTHORIZATION_TYPE_URL) < mesh.policies()
        {
            bytes += self.next().await.encoded_len();
        }
        bytes
    }

    /// Waits for a resource.
    pub(crate) async fn hear(&mut self, name: &str) {
        while !self.next().await.resources.iter().any(|resource| resource.name == name) {}
    }

    /// Subscribes with what it holds, and returns the number of resources that it is sent until it is quiet.
    pub(crate) async fn resume(&mut self, held: Held) -> usize {
        self.ask(&held).await;
        self.held = held;
        let mut sent = 0;
        while let Ok(response) = tokio::time::timeout(QUIET, self.next()).await {
            sent += response.resources.len() + response.removed_resources.len();
        }
        sent
    }

    pub(crate) fn held(&self) -> &Held {
        &self.held
    }

    async fn ask(&self, held: &Held) {
        for type_url in [AUTHORIZATION_TYPE_URL, ADDRESS_TYPE_URL] {
            let initial_resource_versions = held.get(type_url).cloned().unwrap_or_default();
            let request = DeltaDiscoveryRequest { initial_resource_versions, ..of(type_url) };
            self.requests.send(request).await.unwrap();
        }
    }

    /// The next response, which it accepts.
    async fn next(&mut self) -> DeltaDiscoveryResponse {
        let response = self.responses.message().await.unwrap().expect("the stream is open");
        let types = [AUTHORIZATION_TYPE_URL, ADDRESS_TYPE_URL];
        let type_url = types.into_iter().find(|known| *known == response.type_url).unwrap();
        let versions = response.resources.iter().map(|resource| (resource.name.clone(), resource.version.clone()));
        self.held.entry(type_url).or_default().extend(versions);
        let ack = DeltaDiscoveryRequest { response_nonce: response.nonce.clone(), ..of(type_url) };
        self.requests.send(ack).await.unwrap();
        response
    }
}

fn of(type_url: &str) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest { type_url: type_url.to_owned(), ..DeltaDiscoveryRequest::default() }
}
