//! A control plane that speaks TLS well and everything else badly: a ztunnel refuses what makes no sense, says so to the
//! control plane, and keeps the rest.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr},
    os::unix::net::UnixListener,
    pin::Pin,
    sync::mpsc::{self, Receiver, Sender},
    thread,
};

use prost::Message as _;
use proto::{
    ADDRESS_TYPE_URL, AUTHORIZATION_TYPE_URL,
    discovery::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
        aggregated_discovery_service_server::{AggregatedDiscoveryService, AggregatedDiscoveryServiceServer},
    },
    workload::{Address, Workload, address::Type},
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use testkit::{
    eventually,
    labs::{self, TAKES_EFFECT},
    pki::{Authority, Leaf},
};
use tls::control_plane::{Acceptor, Limits, ServingCertificate};
use tokio::{io::AsyncWriteExt as _, net::TcpListener};
use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};

use crate::nonsense::{AGAIN, Ztunnel, is_ready, own_netns, page, seqpacket};

/// Address of the control plane, in the ztunnel's network namespace.
const CONTROL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 15012);
/// `SnapshotSent`: there are no pods.
const NO_PODS: [u8; 2] = [0x1a, 0x00];

fn acceptor(leaf: &Leaf) -> Acceptor {
    let chain = vec![CertificateDer::from_pem_slice(leaf.cert_pem.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(leaf.key_pem.as_bytes()).unwrap();
    Acceptor::new(ServingCertificate::new(chain, &key).unwrap()).unwrap()
}

/// Runs a server on a thread of its own until the test process ends.
fn serve<F: Future<Output = ()>>(netns: &runtime::sys::Netns, work: impl FnOnce(TcpListener) -> F + Send + 'static) {
    let netns = netns.try_clone().unwrap();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let listener = netns.run(|| std::net::TcpListener::bind(CONTROL)).unwrap();
        listener.set_nonblocking(true).unwrap();
        runtime.block_on(async { work(TcpListener::from_std(listener).unwrap()).await });
    });
}

/// An agent of a node without pods. The connection stays open.
fn agent_without_pods(socket: &std::path::Path) {
    let listener: UnixListener = seqpacket(socket);
    thread::spawn(move || {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept() {
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(&NO_PODS);
            open.push(stream);
        }
    });
}

#[test]
fn garbage_behind_good_tls_is_left_and_tried_again_and_is_no_readiness() {
    labs::run(async || {
        let dir = tempfile::tempdir().unwrap();
        let (socket, root) = (dir.path().join("zds.sock"), Authority::new("cluster.local").unwrap());
        let acceptor = acceptor(&root.issue_for_ip(CONTROL.ip()).unwrap());
        let netns = own_netns();
        let (seen, connections) = mpsc::channel();
        agent_without_pods(&socket);
        serve(&netns, async move |listener| {
            let mut incoming = acceptor.incoming(listener, Limits::with_descriptors(None));
            while let Some(stream) = incoming.recv().await {
                let Ok(mut stream) = stream else { continue };
                let _ = stream.write_all(b"this is no HTTP/2, and a lot of it\r\n").await;
                let _ = stream.shutdown().await;
                if seen.send(()).is_err() {
                    return;
                }
            }
        });

        let address = format!("https://{CONTROL}");
        let mut ztunnel = netns.run(|| Ok(Ztunnel::start(dir.path(), &socket, Some((&address, &root))))).unwrap();

        for _ in 0..3 {
            connections.recv_timeout(AGAIN).expect("it tries again");
        }
        ztunnel.assert_alive();
        assert!(!is_ready(&netns), "ready without a word of discovery");
        ztunnel.says(&["discovery"]);
    });
}

/// Answers the first request of each type with resources of which one is good, after an answer that nobody asked for.
struct Nonsense(Sender<DeltaDiscoveryRequest>);

type Answers = Pin<Box<dyn Stream<Item = Result<DeltaDiscoveryResponse, Status>> + Send>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for Nonsense {
    type StreamAggregatedResourcesStream = Pin<Box<dyn Stream<Item = Result<DiscoveryResponse, Status>> + Send>>;
    type DeltaAggregatedResourcesStream = Answers;

    async fn stream_aggregated_resources(
        &self,
        _: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("no proxy asks so"))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let (answers, stream) = tokio::sync::mpsc::channel(8);
        let (mut requests, seen) = (request.into_inner(), self.0.clone());
        tokio::spawn(async move {
            while let Some(Ok(request)) = requests.next().await {
                if request.response_nonce.is_empty() {
                    for answer in answers_to(&request.type_url) {
                        let _ = answers.send(Ok(answer)).await;
                    }
                }
                let _ = seen.send(request);
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

fn answers_to(type_url: &str) -> Vec<DeltaDiscoveryResponse> {
    let answer = |type_url: &str, resources| DeltaDiscoveryResponse {
        type_url: type_url.to_owned(),
        nonce: format!("nonce of {type_url}"),
        resources,
        ..DeltaDiscoveryResponse::default()
    };
    if type_url != ADDRESS_TYPE_URL {
        return vec![answer(type_url, Vec::new())];
    }
    let unasked = "type.googleapis.com/nobody.asked.for.This";
    let resources = vec![
        resource("good", ADDRESS_TYPE_URL, good().encode_to_vec()),
        resource("undecodable", ADDRESS_TYPE_URL, vec![0xff; 64]),
        resource("other-type", AUTHORIZATION_TYPE_URL, good().encode_to_vec()),
    ];
    vec![answer(unasked, vec![resource("x", unasked, vec![1, 2, 3])]), answer(type_url, resources)]
}

fn resource(name: &str, type_url: &str, value: Vec<u8>) -> Resource {
    let any = prost_types::Any { type_url: type_url.to_owned(), value };
    Resource { name: name.to_owned(), resource: Some(any), ..Resource::default() }
}

fn good() -> Address {
    let workload = Workload {
        uid: "Kubernetes//Pod/shop/good".into(),
        name: "good".into(),
        namespace: "shop".into(),
        addresses: vec![vec![10, 0, 0, 9]],
        ..Workload::default()
    };
    Address { r#type: Some(Type::Workload(workload)) }
}

#[test]
fn what_cannot_be_read_is_refused_by_name_and_the_rest_is_kept() {
    labs::run(async || {
        let dir = tempfile::tempdir().unwrap();
        let (socket, root) = (dir.path().join("zds.sock"), Authority::new("cluster.local").unwrap());
        let acceptor = acceptor(&root.issue_for_ip(CONTROL.ip()).unwrap());
        let netns = own_netns();
        let (seen, requests) = mpsc::channel();
        agent_without_pods(&socket);
        serve(&netns, async move |listener| {
            let service = AggregatedDiscoveryServiceServer::new(Nonsense(seen));
            let connections = xds_server::incoming(acceptor, listener, Limits::with_descriptors(None));
            tonic::transport::Server::builder().add_service(service).serve_with_incoming(connections).await.unwrap();
        });

        let address = format!("https://{CONTROL}");
        let mut ztunnel = netns.run(|| Ok(Ztunnel::start(dir.path(), &socket, Some((&address, &root))))).unwrap();

        let refusal = nack(&requests);
        assert!(refusal.contains("undecodable") && refusal.contains("other-type"), "{refusal}");
        assert!(!refusal.contains("good:"), "the good one was refused too: {refusal}");
        eventually("what can be read is known", TAKES_EFFECT, async || {
            let dump = page(&netns, 15000, "/config_dump")?;
            if dump.contains("Kubernetes//Pod/shop/good") { Ok(()) } else { Err(io::Error::other(dump)) }
        })
        .await;
        ztunnel.says(&["error", "resources rejected", "undecodable"]);
        ztunnel.assert_alive();
    });
}

/// The first refusal of an address; fails when none comes.
fn nack(requests: &Receiver<DeltaDiscoveryRequest>) -> String {
    loop {
        let request = requests.recv_timeout(AGAIN).expect("a refusal");
        match request.error_detail {
            Some(detail) if request.type_url == ADDRESS_TYPE_URL => return detail.message,
            _ => {}
        }
    }
}
