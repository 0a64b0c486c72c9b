//! The seam between control plane and proxy: the server's order and the proxy's state together never let a connection in
//! that every version of the mesh refuses, whatever happens to messages on the way.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ca_client::{CertificateManager, CertificateSource};
use futures::future::BoxFuture;
use identity::Identity;
use model::{State, StateConfig};
use parking_lot::Mutex;
use policy::{Connection, ConnectionRegistry, Decision, Logging};
use prost::Message as _;
use proto::Change;
use proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use proto::{ADDRESS_TYPE_URL, AUTHORIZATION_TYPE_URL, security, workload};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use runtime::drain;
use tls::control_plane::{RootSource, Token};
use tokio::sync::watch;
use xds_client::{Client, Handler, Interest, Node, Rejection, Resource};
use xds_server::Cache;
use xds_server::testing::{Faults, Passed, Pieces, Relay};

use super::Updates;
use super::apply::Policies;

const UID: &str = "Kubernetes//Pod/ns/a";
const NAMES: [&str; 4] = ["p0", "p1", "p2", "p3"];
const DEADLINE: Duration = Duration::from_secs(30);

/// Never has a certificate.
struct Nothing;
impl CertificateSource for Nothing {
    fn fetch(&self, _: &Identity) -> BoxFuture<'_, Result<tls::WorkloadCertificate, ca_client::SourceError>> {
        Box::pin(std::future::pending())
    }
}

/// Policies of one version of the mesh. Each denies everything, so every version refuses every connection.
#[derive(Clone, Debug, Default, PartialEq)]
struct Mesh {
    /// Policies that the workload names; when there are none, one for the whole namespace.
    named: BTreeSet<&'static str>,
    number: u32,
}

impl Mesh {
    fn random(number: u32, rng: &mut SmallRng) -> Self {
        Self { named: NAMES.into_iter().filter(|_| rng.random_bool(0.3)).collect(), number }
    }

    fn policies(&self) -> BTreeSet<&'static str> {
        if self.named.is_empty() { BTreeSet::from(["wide"]) } else { self.named.clone() }
    }

    fn workload(&self) -> Change {
        let message = workload::Workload {
            uid: UID.to_owned(),
            name: "a".to_owned(),
            namespace: "ns".to_owned(),
            node: "node-1".to_owned(),
            addresses: vec![vec![10, 0, 0, 1]],
            authorization_policies: self.named.iter().map(|name| format!("ns/{name}")).collect(),
            ..workload::Workload::default()
        };
        let address = workload::Address { r#type: Some(workload::address::Type::Workload(message)) };
        let (name, version) = (UID.to_owned(), self.number.to_string());
        Change::Upsert { name, version, value: address.encode_to_vec().into() }
    }

    fn policy(name: &str) -> Change {
        let scope = if name == "wide" { security::Scope::Namespace } else { security::Scope::WorkloadSelector };
        let message = security::Authorization {
            name: name.to_owned(),
            namespace: "ns".to_owned(),
            scope: scope.into(),
            action: security::Action::Deny.into(),
            rules: vec![security::Rule::default()],
            ..security::Authorization::default()
        };
        let value = message.encode_to_vec().into();
        Change::Upsert { name: format!("ns/{name}"), version: "1".to_owned(), value }
    }

    /// Puts this version in the place of another one, as the control plane does.
    fn publish(&self, before: &Self, cache: &Cache) {
        let (old, new) = (before.policies(), self.policies());
        cache.apply(AUTHORIZATION_TYPE_URL, new.difference(&old).map(|name| Self::policy(name)).collect());
        cache.apply(ADDRESS_TYPE_URL, vec![self.workload()]);
        let gone = old.difference(&new).map(|name| Change::Remove { name: format!("ns/{name}") });
        cache.apply(AUTHORIZATION_TYPE_URL, gone.collect());
    }
}

/// Repeats, splits and cuts at random, until it is told to be calm. It need not reorder: each step of the server waits for
/// the answer to the one before.
struct Random {
    rng: SmallRng,
    calm: watch::Receiver<bool>,
    pieces: Pieces,
}

impl Faults for Random {
    fn request(&mut self, stream: usize, request: DeltaDiscoveryRequest) -> Vec<DeltaDiscoveryRequest> {
        self.pieces.request(stream, request)
    }

    fn response(&mut self, stream: usize, response: DeltaDiscoveryResponse) -> Vec<Passed> {
        let mut passed = Vec::new();
        for piece in self.pieces.response(stream, response) {
            let fate = if *self.calm.borrow() { 0 } else { self.rng.random_range(0..10) };
            match (fate, piece) {
                (1, Passed::Response(piece)) => passed.extend([piece.clone(), piece].map(Passed::Response)),
                (2, piece) => passed.extend([piece, Passed::Cut]),
                (3, _) => passed.push(Passed::Cut),
                (_, piece) => passed.push(piece),
            }
        }
        passed
    }
}

/// The proxy's side: its state, and what was found after each response.
#[derive(Clone)]
struct Proxy {
    updates: Updates,
    findings: Arc<Mutex<Vec<String>>>,
    applied: watch::Sender<usize>,
}

impl Proxy {
    fn new() -> Self {
        let state = State::new(StateConfig { network: "".into(), node: Some("node-1".into()) });
        let policies = ConnectionRegistry::new(state.clone(), Logging::Debug);
        let updates = Updates::new(state, CertificateManager::spawn(Arc::new(Nothing)), policies);
        Self { updates, findings: Arc::default(), applied: watch::channel(0).0 }
    }

    /// Notes when a new connection to the workload would be let in at this moment.
    fn check(&self) {
        if let Some(workload) = self.updates.state.workload(UID) {
            let (source, destination) = ("10.0.0.9".parse().unwrap(), "10.0.0.1:80".parse().unwrap());
            let connection = Connection { source, destination, identity: None };
            let decision = self.updates.policies.register(connection, workload.clone()).evaluate();
            if decision.is_allowed() {
                let policies = &workload.authorization_policies;
                self.findings.lock().push(format!("{decision:?} while the workload names {policies:?}"));
            }
        }
        self.applied.send_modify(|count| *count += 1);
    }

    /// Is the state that of this version, and is it decided by its policies?
    fn has(&self, mesh: &Mesh) -> bool {
        let Some(workload) = self.updates.state.workload(UID) else { return false };
        let named: BTreeSet<String> = workload.authorization_policies.iter().map(ToString::to_string).collect();
        let expected: BTreeSet<String> = mesh.named.iter().map(|name| format!("ns/{name}")).collect();
        let set = self.updates.state.policies_of(&workload);
        let policies: BTreeSet<String> = set.policies.iter().map(|policy| policy.name.to_string()).collect();
        let wanted = mesh.policies().into_iter().map(str::to_owned).collect();
        named == expected && set.unknown.is_empty() && policies == wanted && self.updates.state.retained_policies() == 0
    }

    fn client(&self, port: u16) -> Client {
        let config = xds_client::Config {
            address: format!("http://127.0.0.1:{port}").parse().unwrap(),
            roots: RootSource::System,
            alternative_host: None,
            token: Token::None,
            headers: Vec::new(),
            node: Node::ztunnel("10.0.0.7", "ztunnel-a", "istio-system"),
        };
        let addresses = self.clone();
        Client::new(config)
            .with(AUTHORIZATION_TYPE_URL, Interest::All, Checked(Policies(self.updates.clone()), self.clone()))
            .with(ADDRESS_TYPE_URL, Interest::All, move |resources, removed| {
                let rejected = addresses.updates.address_response(resources, removed);
                addresses.check();
                rejected
            })
    }
}

/// A handler after whose every response the proxy is checked.
struct Checked(Policies, Proxy);

impl Handler<security::Authorization> for Checked {
    fn apply(&mut self, resources: Vec<Resource<security::Authorization>>, removed: Vec<String>) -> Vec<Rejection> {
        let rejected = self.0.apply(resources, removed);
        self.1.check();
        rejected
    }

    fn complete(&mut self) {
        self.0.complete();
        self.1.check();
    }
}

#[tokio::test]
async fn no_delivery_of_a_mesh_that_refuses_everything_lets_a_connection_in() {
    for seed in 0..12 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let (mut mesh, cache, proxy) = (Mesh::random(0, &mut rng), Cache::new(), Proxy::new());
        cache.apply(AUTHORIZATION_TYPE_URL, mesh.policies().into_iter().map(Mesh::policy).collect());
        cache.apply(ADDRESS_TYPE_URL, vec![mesh.workload()]);
        cache.mark_synced();
        let server = xds_server::testing::serve(cache.clone()).await.unwrap();
        let (calm, is_calm) = watch::channel(false);
        let faults = Random { rng: SmallRng::seed_from_u64(seed), calm: is_calm, pieces: Pieces::of(1) };
        let relay = Relay::new(format!("http://{server}").parse().unwrap(), RootSource::System, faults);
        let port = relay.listen().await.unwrap().port();
        let (_trigger, drain) = drain::channel();
        tokio::spawn(proxy.client(port).run(drain));
        let mut applied = proxy.applied.subscribe();

        for number in 1..=30 {
            let next = Mesh::random(number, &mut rng);
            next.publish(&mesh, &cache);
            mesh = next;
            // some changes meet a proxy that is still busy with the one before
            if rng.random_bool(0.5) {
                let _ = tokio::time::timeout(Duration::from_millis(20), applied.changed()).await;
            }
        }
        calm.send_replace(true);
        let last = Mesh { number: 1000, ..mesh.clone() };
        last.publish(&mesh, &cache);

        let done = tokio::time::timeout(DEADLINE, applied.wait_for(|_| proxy.has(&last))).await;
        assert!(done.is_ok(), "seed {seed}: the proxy does not arrive at {last:?}");
        let findings = proxy.findings.lock().clone();
        assert!(findings.is_empty(), "seed {seed}: {findings:?}");
    }
}

#[tokio::test]
async fn the_check_of_this_test_finds_a_connection_that_is_let_in() {
    let proxy = Proxy::new();
    let mesh = Mesh { number: 1, ..Mesh::default() };
    let Change::Upsert { value, .. } = mesh.workload() else { panic!() };
    let message = workload::Address::decode(value).unwrap();

    proxy.updates.address_response(vec![Resource { name: UID.into(), version: String::new(), message }], vec![]);
    proxy.check();

    let destination = proxy.updates.state.workload(UID).unwrap();
    let connection =
        Connection { source: "10.0.0.9".parse().unwrap(), destination: "10.0.0.1:80".parse().unwrap(), identity: None };
    let decision = proxy.updates.policies.register(connection, destination).evaluate();
    assert!(matches!(decision, Decision::Allow { .. }));
    assert_eq!(proxy.findings.lock().len(), 1);
}
