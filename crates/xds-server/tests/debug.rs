//! Pages for tools: who gets them, and what else is not served the same way.

use std::net::SocketAddr;
use std::sync::Arc;

use identity::Caller;
use prost_types::Any;
use proto::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use proto::discovery::{DeltaDiscoveryRequest, DiscoveryRequest, DiscoveryResponse};
use runtime::drain;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Server};
use tonic::{Code, Status};
use xds_server::{Cache, Debug, Options, Question};

/// A tool: its token is held by no pod.
fn caller() -> Caller {
    let identity = "spiffe://cluster.local/ns/istio-system/sa/default".parse().unwrap();
    Caller { node: String::new(), identity }
}

/// A server that is not in sync yet, with pages or without.
async fn serve(has_pages: bool) -> (SocketAddr, drain::Trigger) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (drain, watch) = drain::channel();
    let pages = |caller: &Caller, question: Question<'_>| match question {
        Question::Typed("syncz") => {
            let value = format!("typed for {}", caller.identity.service_account()).into_bytes();
            Ok(vec![Any { type_url: "t".to_owned(), value }])
        }
        Question::Named(name) => Ok(vec![Any { type_url: "t".to_owned(), value: name.as_bytes().to_vec() }]),
        Question::Typed(_) => Err(Status::not_found("no such page")),
    };
    let debug = Debug { pages: Arc::new(pages), control_plane: "me".to_owned() };
    let options = Options { debug: has_pages.then_some(debug), ..Options::new(Arc::new(drop), watch) };
    let identify = |mut request: tonic::Request<()>| {
        request.extensions_mut().insert(caller());
        Ok(request)
    };
    let layer = tonic::service::InterceptorLayer::new(identify);
    let server = Server::builder().layer(layer).add_service(xds_server::service(Cache::new(), options));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    (address, drain)
}

async fn client(address: SocketAddr) -> AggregatedDiscoveryServiceClient<Channel> {
    let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    AggregatedDiscoveryServiceClient::new(channel)
}

fn asks(type_url: &str, names: &[&str]) -> DiscoveryRequest {
    let resource_names = names.iter().map(|name| (*name).to_owned()).collect();
    DiscoveryRequest { type_url: type_url.to_owned(), resource_names, ..DiscoveryRequest::default() }
}

/// Answers to requests on one stream, up to the first error.
async fn answers(address: SocketAddr, requests: Vec<DiscoveryRequest>) -> Result<Vec<DiscoveryResponse>, Status> {
    let wanted = requests.iter().filter(|request| request.response_nonce.is_empty()).count();
    // The stream stays open, as that of a tool that waits.
    let requests = futures::StreamExt::chain(tokio_stream::iter(requests), futures::stream::pending());
    let mut stream = client(address).await.stream_aggregated_resources(requests).await?.into_inner();
    let mut answers = Vec::new();
    while answers.len() < wanted {
        answers.push(stream.message().await?.expect("an answer"));
    }
    Ok(answers)
}

fn text(response: &DiscoveryResponse) -> String {
    String::from_utf8(response.resources[0].value.clone()).unwrap()
}

#[tokio::test]
async fn a_tool_gets_a_page_for_each_request_and_none_for_an_acknowledgement() {
    let (address, _drain) = serve(true).await;
    let ack = DiscoveryRequest { response_nonce: "1".to_owned(), ..asks("istio.io/debug/syncz", &[]) };

    let requests = vec![asks("istio.io/debug/syncz", &[]), ack, asks("istio.io/debug", &["connections"])];
    let answers = answers(address, requests).await.unwrap();

    assert_eq!(answers.iter().map(text).collect::<Vec<_>>(), ["typed for default", "connections"]);
    assert_eq!(answers[0].type_url, "istio.io/debug/syncz");
    assert_eq!(answers[0].control_plane.as_ref().unwrap().identifier, "me");
    assert_ne!(answers[0].nonce, answers[1].nonce);
}

#[tokio::test]
async fn other_types_and_pages_are_refused() {
    let (address, _drain) = serve(true).await;
    let refusal = async |type_url: &str| answers(address, vec![asks(type_url, &[])]).await.unwrap_err().code();

    assert_eq!(refusal("type.googleapis.com/envoy.config.cluster.v3.Cluster").await, Code::Unimplemented);
    assert_eq!(refusal("istio.io/debug").await, Code::Unimplemented, "no name");
    assert_eq!(refusal("istio.io/debugger").await, Code::Unimplemented);
    assert_eq!(refusal("istio.io/debug/config_dump").await, Code::NotFound);
    let (without, _drain) = serve(false).await;
    let refused = answers(without, vec![asks("istio.io/debug/syncz", &[])]).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
}

#[tokio::test]
async fn a_token_without_a_node_gets_no_discovery() {
    let (address, _drain) = serve(true).await;

    let requests = futures::stream::pending::<DeltaDiscoveryRequest>();
    let refused = client(address).await.delta_aggregated_resources(requests).await.unwrap_err();

    assert_eq!(refused.code(), Code::PermissionDenied);
}
