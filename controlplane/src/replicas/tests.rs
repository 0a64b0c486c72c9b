//! Two replicas: the stream between them when messages are late, lost or not understood, and the way over TLS.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ca_server::{Authenticator, Issuer, Unauthenticated};
use compile::Compiler;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use graph::Mesh;
use identity::{Caller, TrustDomain};
use kube_types::Resource;
use kube_types::core::Pod;
use proto::replica::{self, FollowResponse};
use proto::{ADDRESS_TYPE_URL, AUTHORIZATION_TYPE_URL, Change};
use runtime::drain;
use tls::control_plane::{Acceptor, Limits};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::Server;
use xds_server::Report;

use super::follow::{FollowError, Known, receive};
use super::wire::{from_message, to_message};
use super::*;
use crate::acks::tests::{allow, peer, pod, web};
use crate::acks::{Action, Event, Type};
use crate::conditions::StatusUpdate;
use crate::events::Events;
use crate::reports::Reports;

const NAMESPACE: &str = "istio-system";
const TOKEN: &str = "of the control plane";
const STRANGER: &str = "of something else there";
const DEADLINE: Duration = Duration::from_secs(20);

/// A replica without discovery: it serves a policy for a pod of n1.
struct Replica {
    acks: Acks,
    compiler: Compiler,
    resources: Vec<(&'static str, String, String)>,
    conditions: mpsc::Receiver<StatusUpdate>,
}

impl Replica {
    fn new(pods: &[Pod]) -> Self {
        let acks = Acks::new(&[(NAMESPACE.to_owned(), "ztunnel".to_owned())]);
        let mut compiler = Compiler::new(Mesh::default());
        let pods = pods.iter().map(|pod| Resource::Pod(Arc::new(pod.clone())));
        [web(), allow("one", Some("web"))].into_iter().chain(pods).for_each(|resource| compiler.apply(resource));
        let update = compiler.settle();
        compiler.publish_pods();
        acks.on_update(&update, &HashMap::new());
        let mut resources = Vec::new();
        for (kind, changes) in [(AUTHORIZATION_TYPE_URL, update.authorizations), (ADDRESS_TYPE_URL, update.addresses)] {
            for change in changes {
                if let Change::Upsert { name, version, .. } = change {
                    resources.push((kind, name, version));
                }
            }
        }
        let (sender, conditions) = mpsc::channel(64);
        tokio::spawn(acks.clone().run(Reports::default(), Events::default(), sender));
        Self { acks, compiler, resources, conditions }
    }

    /// The proxy of n1 connects, and holds everything.
    fn connect_n1(&self) -> Report {
        let peer = peer("n1", 1, "ztunnel");
        self.acks.on_report(&Report::Connected { peer: peer.clone() });
        for (kind, name, version) in &self.resources {
            let resources = vec![(name.as_str().into(), version.as_str().into())];
            self.acks.on_report(&Report::Holds { peer: peer.clone(), type_url: (*kind).to_owned(), resources });
        }
        Report::Disconnected { peer }
    }

    /// Waits until `Enforced` of the policy has this reason.
    async fn enforced(&mut self, wanted: &str) {
        let is_wanted = |update: &StatusUpdate| {
            let mut conditions = update.status.conditions.iter();
            conditions.any(|condition| condition.r#type == "Enforced" && condition.reason.as_deref() == Some(wanted))
        };
        let wait = async { while !is_wanted(&self.conditions.recv().await.unwrap()) {} };
        assert!(timeout(DEADLINE, wait).await.is_ok(), "not {wanted} in time");
    }

    fn events(&self) -> Vec<replica::Event> {
        self.acks.follow().0.into_iter().map(to_message).collect()
    }
}

fn known(replica: &Replica) -> Known {
    Known::new(&replica.acks, &Arc::from("b"))
}

#[test]
fn events_are_the_same_after_the_wire() {
    let versions = vec![(Arc::from("app/one"), Arc::from("1"))];
    let (kind, nonce) = (Type::Address, "7".to_owned());
    let actions = [
        Action::Connected,
        Action::Holds { kind: Type::Authorization, resources: versions.clone() },
        Action::Sent { kind, nonce: nonce.clone(), resources: versions, removed: vec!["app/two".into()] },
        Action::Acked { kind, nonce: nonce.clone() },
        Action::Nacked { kind, nonce, error: "no".to_owned() },
        Action::Disconnected,
    ];

    for action in actions {
        let event = Event { node: "n1".to_owned(), connection: 3, action };
        assert_eq!(from_message(to_message(event.clone())), Ok(event));
    }
}

#[tokio::test(start_paused = true)]
async fn a_replica_is_known_as_long_as_it_is_heard_and_no_longer() {
    let (there, mut here) = (Replica::new(&[]), Replica::new(&[]));
    there.connect_n1();
    let (sender, stream) = mpsc::channel::<Result<FollowResponse, Status>>(8);
    let link = known(&here);
    let following = tokio::spawn(async move { receive(ReceiverStream::new(stream), &link).await });

    here.enforced("ProxyGone").await;
    sender.send(Ok(FollowResponse { events: there.events() })).await.unwrap();
    here.enforced("Enforced").await;
    for _ in 0..3 {
        // One in two is lost.
        sleep(HEARTBEAT * 2).await;
        sender.send(Ok(FollowResponse::default())).await.unwrap();
    }
    assert!(here.conditions.is_empty() && !following.is_finished());

    here.enforced("ProxyGone").await;
    assert!(matches!(following.await.unwrap(), FollowError::Silent));
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_not_understood_or_an_end_leaves_nothing_known() {
    let unknown = replica::Event { node: "n1".to_owned(), connection: 1, action: None };
    let holds = replica::Holds { r#type: 77, resources: Vec::new() };
    let of_type = replica::Event { action: Some(replica::event::Action::Holds(holds)), ..unknown.clone() };
    let ends = [
        (Some(Ok(FollowResponse { events: vec![unknown] })), "event of a known kind"),
        (Some(Ok(FollowResponse { events: vec![of_type] })), "found 77"),
        (Some(Err(Status::unavailable("cut off"))), "cut off"),
        (None, "ended the stream"),
    ];
    for (end, text) in ends {
        let (there, mut here) = (Replica::new(&[]), Replica::new(&[]));
        there.connect_n1();
        let (sender, stream) = mpsc::channel::<Result<FollowResponse, Status>>(8);
        let link = known(&here);
        let following = tokio::spawn(async move { receive(ReceiverStream::new(stream), &link).await.to_string() });
        sender.send(Ok(FollowResponse { events: there.events() })).await.unwrap();
        here.enforced("Enforced").await;

        if let Some(message) = end {
            sender.send(message).await.unwrap();
        }
        drop(sender);

        here.enforced("ProxyGone").await;
        assert!(following.await.unwrap().contains(text));
    }
}

/// Tokens of two ServiceAccounts of the namespace.
struct Tokens;

impl Authenticator for Tokens {
    fn authenticate<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Caller, Unauthenticated>> {
        let account = match token {
            TOKEN => Ok("strake-control"),
            STRANGER => Ok("other"),
            _ => Err(Unauthenticated::Invalid("unknown".to_owned())),
        };
        let caller = account.map(|account| Caller {
            node: "n1".to_owned(),
            identity: format!("spiffe://cluster.local/ns/{NAMESPACE}/sa/{account}").parse().unwrap(),
        });
        futures::future::ready(caller).boxed()
    }
}

fn control_pod(name: &str, ip: &str) -> Pod {
    let mut pod = pod(name, "n1");
    pod.metadata.namespace = NAMESPACE.to_owned();
    pod.spec.service_account_name = Some("strake-control".to_owned());
    pod.status.pod_ip = Some(ip.to_owned());
    pod
}

#[tokio::test]
async fn replicas_find_each_other_by_their_pods_and_tell_only_each_other() {
    let pods = [control_pod("a", "127.0.0.1"), control_pod("b", "127.0.0.2")];
    let (there, mut here) = (Replica::new(&pods), Replica::new(&pods));
    let directory = tempfile::tempdir().unwrap();
    let issuer = Issuer::open_or_create(directory.path(), TrustDomain::default()).unwrap();
    let host = "strake-control.istio-system.svc".to_owned();
    let acceptor = Acceptor::new(issuer.serving_certificate(std::slice::from_ref(&host)).unwrap()).unwrap();
    let issuer = CurrentIssuer::from(issuer);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let replica = |name: &str, token: &str, of: &Replica| Replicas {
        pods: of.compiler.pods(),
        namespace: NAMESPACE.to_owned(),
        name: name.to_owned(),
        port,
        host: host.clone(),
        token: Token::Literal(token.to_owned()),
        issuer: issuer.clone(),
    };
    let (trigger, watch) = drain::channel();
    let router = Server::builder().layer(ca_server::authenticate(Arc::new(Tokens))).add_service(service(
        replica("a", TOKEN, &there),
        there.acks.clone(),
        watch,
    ));
    let incoming = xds_server::incoming(acceptor, listener, Limits::with_descriptors(None));
    let serving = tokio::spawn(router.serve_with_incoming(incoming));

    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let refused = follow::connect(&replica("b", STRANGER, &here), address).await;
    assert!(matches!(refused, Err(FollowError::Refused(status)) if status.code() == tonic::Code::PermissionDenied));
    let following = tokio::spawn(replica("b", TOKEN, &here).run(here.acks.clone()));
    here.enforced("ProxyGone").await;
    let disconnected = there.connect_n1();
    here.enforced("Enforced").await;
    there.acks.on_report(&disconnected);
    here.enforced("ProxyGone").await;
    there.connect_n1();
    here.enforced("Enforced").await;

    // A replica that ends says so; what it said is not good for longer.
    trigger.start(Duration::from_secs(5));
    here.enforced("ProxyGone").await;
    following.abort();
    serving.abort();
}
