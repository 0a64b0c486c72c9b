//! A server that the test plays itself, message by message.
#![allow(dead_code, unreachable_pub)]

use std::collections::HashMap;
use std::pin::Pin;

use futures::Stream;
use prost::Message as _;
use prost_types::Any;
use proto::ADDRESS_TYPE_URL as ADDRESS;
use proto::AUTHORIZATION_TYPE_URL as POLICY;
use proto::discovery::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

use crate::common::{soon, workload};

/// One stream of the client, played by the test.
pub struct Talk {
    pub headers: http::HeaderMap,
    pub requests: Streaming<DeltaDiscoveryRequest>,
    pub responses: mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
}

impl Talk {
    pub async fn request(&mut self) -> DeltaDiscoveryRequest {
        soon(self.requests.message()).await.unwrap().unwrap()
    }

    /// The first requests of both types, addresses first.
    pub async fn greetings(&mut self) -> (DeltaDiscoveryRequest, DeltaDiscoveryRequest) {
        let (first, second) = (self.request().await, self.request().await);
        assert_eq!((first.type_url.as_str(), second.type_url.as_str()), (ADDRESS, POLICY));
        (first, second)
    }

    pub async fn say(&self, response: DeltaDiscoveryResponse) {
        self.responses.send(Ok(response)).await.unwrap();
    }

    /// Says something and returns the answer: nothing, or what was refused.
    pub async fn answer(&mut self, response: DeltaDiscoveryResponse) -> Option<String> {
        let (type_url, nonce) = (response.type_url.clone(), response.nonce.clone());
        self.say(response).await;
        let answer = self.request().await;
        assert_eq!((&answer.type_url, &answer.response_nonce), (&type_url, &nonce));
        assert_eq!(answer.node, None);
        answer.error_detail.map(|error| error.message)
    }
}

struct Server(mpsc::Sender<Talk>);

#[tonic::async_trait]
impl AggregatedDiscoveryService for Server {
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
        let (metadata, _, requests) = request.into_parts();
        let (responses, receiver) = mpsc::channel(16);
        let talk = Talk { headers: metadata.into_headers(), requests, responses };
        self.0.send(talk).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// The server's streams as they come, and its port.
pub async fn serve() -> (mpsc::Receiver<Talk>, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, talks) = mpsc::channel(16);
    let service = AggregatedDiscoveryServiceServer::new(Server(sender));
    let server = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    (talks, port)
}

pub async fn next(talks: &mut mpsc::Receiver<Talk>) -> Talk {
    soon(talks.recv()).await.unwrap()
}

pub fn resource(name: &str, version: &str) -> Resource {
    let any = Any { type_url: ADDRESS.to_owned(), value: workload(name, name).encode_to_vec() };
    Resource { name: name.to_owned(), version: version.to_owned(), resource: Some(any), ..Resource::default() }
}

pub fn response(nonce: &str, resources: Vec<Resource>) -> DeltaDiscoveryResponse {
    let (type_url, nonce) = (ADDRESS.to_owned(), nonce.to_owned());
    DeltaDiscoveryResponse { type_url, nonce, resources, ..DeltaDiscoveryResponse::default() }
}

pub fn held(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs.iter().map(|(name, version)| ((*name).to_owned(), (*version).to_owned())).collect()
}
