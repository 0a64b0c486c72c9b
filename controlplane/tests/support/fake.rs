//! A node proxy that speaks delta xDS as the test has it speak, over the control plane's own TLS.

use std::collections::{BTreeSet, HashMap};

use proto::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Status};
use proto::{ADDRESS_TYPE_URL, AUTHORIZATION_TYPE_URL};
use tls::control_plane::{Connector, RootSource};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;
use tonic::{Request, Streaming};

use super::DEADLINE;

/// Dropped, it disconnects.
pub(crate) struct FakeProxy {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
    /// Versions by type and name, as they came.
    heard: HashMap<(String, String), String>,
}

impl FakeProxy {
    pub(super) async fn connect(uri: http::Uri, roots: RootSource, token: &str) -> Self {
        let channel = Endpoint::from(uri).connect_with_connector(Connector::new(roots, None)).await.unwrap();
        let (requests, receiver) = mpsc::channel(64);
        let mut request = Request::new(ReceiverStream::new(receiver));
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        let mut client = AggregatedDiscoveryServiceClient::new(channel);
        let responses = client.delta_aggregated_resources(request).await.unwrap().into_inner();
        Self { requests, responses, heard: HashMap::new() }
    }

    /// Asks for both types, and says that it holds this already.
    pub(crate) async fn ask(&self, held: &HashMap<(String, String), String>) {
        for type_url in [AUTHORIZATION_TYPE_URL, ADDRESS_TYPE_URL] {
            let held = held.iter().filter(|((held, _), _)| held == type_url);
            let versions = held.map(|((_, name), version)| (name.clone(), version.clone()));
            let request = DeltaDiscoveryRequest { initial_resource_versions: versions.collect(), ..request(type_url) };
            self.requests.send(request).await.unwrap();
        }
    }

    /// Receives responses until all of these names were in one; returns the responses. It answers only policies that more
    /// of the names must follow: addresses are sent after that.
    pub(crate) async fn hear(&mut self, names: &[&str]) -> Vec<DeltaDiscoveryResponse> {
        let mut missing: BTreeSet<_> = names.iter().copied().map(str::to_owned).collect();
        let mut responses = Vec::new();
        while !missing.is_empty() {
            let response = tokio::time::timeout(DEADLINE, self.responses.message()).await.expect("in time");
            let response = response.unwrap().expect("a response");
            for resource in &response.resources {
                missing.remove(&resource.name);
                let key = (response.type_url.clone(), resource.name.clone());
                self.heard.insert(key, resource.version.clone());
            }
            if response.type_url == AUTHORIZATION_TYPE_URL && !missing.is_empty() {
                self.ack(std::slice::from_ref(&response)).await;
            }
            responses.push(response);
        }
        responses
    }

    pub(crate) async fn ack(&self, responses: &[DeltaDiscoveryResponse]) {
        for response in responses {
            let response_nonce = response.nonce.clone();
            let ack = DeltaDiscoveryRequest { response_nonce, ..request(&response.type_url) };
            self.requests.send(ack).await.unwrap();
        }
    }

    pub(crate) async fn nack(&self, responses: &[DeltaDiscoveryResponse], message: &str) {
        for response in responses {
            let error_detail = Some(Status { message: message.to_owned(), ..Status::default() });
            let response_nonce = response.nonce.clone();
            let nack = DeltaDiscoveryRequest { response_nonce, error_detail, ..request(&response.type_url) };
            self.requests.send(nack).await.unwrap();
        }
    }

    /// Waits until the control plane has ended the stream, for at most so long, and returns how.
    pub(crate) async fn ended(&mut self, within: std::time::Duration) -> Result<(), tonic::Status> {
        let end = async {
            while self.responses.message().await?.is_some() {}
            Ok(())
        };
        tokio::time::timeout(within, end).await.expect("in time")
    }

    /// Versions by type and name, of everything that it heard.
    pub(crate) fn heard(&self) -> &HashMap<(String, String), String> {
        &self.heard
    }
}

fn request(type_url: &str) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest { type_url: type_url.to_owned(), ..DeltaDiscoveryRequest::default() }
}
