//! Lookups with our client and our server; between them a relay that holds, repeats, splits, drops and cuts what passes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ca_client::{CertificateManager, CertificateSource};
use futures::future::{BoxFuture, join_all};
use identity::Identity;
use model::{InboundProtocol, StateConfig};
use parking_lot::Mutex;
use policy::{ConnectionRegistry, Logging};
use prost::Message as _;
use proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use proto::workload::address::Type;
use runtime::drain::{self, Trigger};
use tls::control_plane::{RootSource, Token};
use tokio::time::Instant;
use xds_client::Node;
use xds_server::Cache;
use xds_server::testing::{Faults, LikeIstiod, Passed, Pieces, Relay, Twice};

use super::super::Updates;
use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

/// Never has a certificate.
struct Nothing;
impl CertificateSource for Nothing {
    fn fetch(&self, _: &Identity) -> BoxFuture<'_, Result<tls::WorkloadCertificate, ca_client::SourceError>> {
        Box::pin(std::future::pending())
    }
}

/// Behaviour of the relay from now on.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Mode {
    #[default]
    Pass,
    /// Only answers to questions arrive.
    HoldPushes,
    /// Questions do not arrive.
    DropQuestions,
    /// As [`Mode::HoldPushes`], and the stream breaks instead of the next answer.
    CutNext,
}

#[derive(Clone, Default)]
struct Script {
    mode: Arc<Mutex<Mode>>,
    /// Names of all questions.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Faults for Script {
    fn request(&mut self, _: usize, request: DeltaDiscoveryRequest) -> Vec<DeltaDiscoveryRequest> {
        self.asked.lock().extend(request.resource_names_subscribe.iter().cloned());
        let is_question = !request.resource_names_subscribe.is_empty();
        if is_question && *self.mode.lock() == Mode::DropQuestions { Vec::new() } else { vec![request] }
    }

    fn response(&mut self, _: usize, mut response: DeltaDiscoveryResponse) -> Vec<Passed> {
        let is_answer = response.resources.iter().any(|resource| !resource.aliases.is_empty())
            || response.removed_resources.iter().any(|name| name.starts_with("/10."));
        let mut mode = self.mode.lock();
        match *mode {
            Mode::CutNext if is_answer => {
                *mode = Mode::HoldPushes;
                return vec![Passed::Cut];
            }
            Mode::HoldPushes | Mode::CutNext => response.resources.retain(|resource| !resource.aliases.is_empty()),
            Mode::Pass | Mode::DropQuestions => {}
        }
        vec![response.into()]
    }
}

/// A proxy that is in sync with a mesh of nobody but the client.
struct Rig {
    cache: Cache,
    updates: Updates,
    script: Script,
    client: Workload,
    _running: Trigger,
}

impl Rig {
    /// One whose questions are answered in the end.
    async fn start() -> Self {
        let script = Script::default();
        Self::with(script.clone(), script, Lookups::with_deadline(PATIENCE)).await
    }

    async fn with(script: Script, faults: impl Faults, lookups: Lookups) -> Self {
        let cache = Cache::new();
        cache.apply(ADDRESS_TYPE_URL, vec![pod("client", 9, 1)]);
        cache.mark_synced();
        let server = xds_server::testing::serve(cache.clone()).await.unwrap();
        let relay = Relay::new(format!("http://{server}").parse().unwrap(), RootSource::System, faults);
        let relay = relay.listen().await.unwrap();
        let (updates, running) = proxy(relay, lookups);
        let mut synced = running.1;
        tokio::time::timeout(PATIENCE, synced.wait_for(|synced| *synced)).await.unwrap().unwrap();
        let client = (*updates.state.workload(&uid("client")).unwrap()).clone();
        Self { cache, updates, script, client, _running: running.0 }
    }

    fn set(&self, mode: Mode) {
        *self.script.mode.lock() = mode;
    }

    fn asked(&self) -> Vec<String> {
        self.script.asked.lock().clone()
    }

    fn first(&self, ip: u8) -> Result<Route, RouteError> {
        view::outbound(&self.updates.state, &self.client, destination(ip))
    }

    /// The route of a connection whose destination was unknown at first.
    async fn route(&self, ip: u8) -> Result<RouteKind, LookupError> {
        let first = self.first(ip);
        assert!(is_unsettled(&first), "{first:?}");
        self.route_after(ip, first).await
    }

    async fn route_after(&self, ip: u8, first: Result<Route, RouteError>) -> Result<RouteKind, LookupError> {
        let Updates { state, lookups, .. } = &self.updates;
        let route = lookups.route(state, &self.client, destination(ip), first);
        tokio::time::timeout(PATIENCE, route).await.unwrap().map(|route| route.kind)
    }

    /// Until a push has brought this, or taken it away.
    async fn reaches(&self, name: &str, protocol: Option<InboundProtocol>) {
        let arrived = async {
            while self.updates.state.workload(&uid(name)).map(|workload| workload.protocol) != protocol {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, arrived).await.unwrap();
    }
}

/// A proxy with discovery from this address; the trigger keeps it running.
fn proxy(discovery: SocketAddr, lookups: Lookups) -> (Updates, (Trigger, watch::Receiver<bool>)) {
    let state = State::new(StateConfig::default());
    let policies = ConnectionRegistry::new(state.clone(), Logging::Debug);
    let mut updates = Updates::new(state, CertificateManager::spawn(Arc::new(Nothing)), policies);
    updates.lookups = lookups;
    let client = updates.handlers(Client::new(xds_client::Config {
        address: format!("http://{discovery}").parse().unwrap(),
        roots: RootSource::System,
        alternative_host: None,
        token: Token::None,
        headers: Vec::new(),
        node: Node::ztunnel("10.0.0.99", "ztunnel", "istio-system"),
    }));
    let (trigger, drain) = drain::channel();
    let synced = client.synced();
    tokio::spawn(client.run(drain));
    (updates, (trigger, synced))
}

fn uid(name: &str) -> String {
    format!("Kubernetes//Pod/ns/{name}")
}

/// A pod of the mesh at `10.0.0.<ip>`; `tunnel` is its tunnel protocol.
fn pod(name: &str, ip: u8, tunnel: i32) -> proto::Change {
    let message = proto::workload::Workload {
        uid: uid(name),
        name: name.to_owned(),
        namespace: "ns".to_owned(),
        service_account: name.to_owned(),
        addresses: vec![vec![10, 0, 0, ip]],
        tunnel_protocol: tunnel,
        ..Default::default()
    };
    let value = proto::workload::Address { r#type: Some(Type::Workload(message)) }.encode_to_vec().into();
    proto::Change::Upsert { name: uid(name), version: format!("{ip}-{tunnel}"), value }
}

fn destination(ip: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, ip], 80))
}

fn is_hbone(kind: &RouteKind) -> bool {
    matches!(kind, RouteKind::Hbone(hbone) if hbone.expected.len() == 1)
}

#[tokio::test]
async fn a_pod_that_was_not_announced_is_reached_over_hbone() {
    let rig = Rig::start().await;
    rig.set(Mode::HoldPushes);
    rig.cache.apply(ADDRESS_TYPE_URL, vec![pod("new", 1, 1)]);

    let kind = rig.route(1).await.unwrap();

    assert!(is_hbone(&kind), "{kind:?}");
    assert_eq!(rig.asked(), ["/10.0.0.1"]);
}

#[tokio::test]
async fn connections_to_one_address_are_one_question_and_the_answer_that_nobody_has_it_is_remembered() {
    let rig = Rig::start().await;

    let kinds = join_all((0..100).map(|_| rig.route(1))).await;

    assert!(kinds.iter().all(|kind| *kind == Ok(RouteKind::Passthrough)), "{kinds:?}");
    assert_eq!(rig.route(1).await, Ok(RouteKind::Passthrough));
    let asked = rig.asked();
    // One, or two if the first was answered before the last connection was there.
    assert!((1..=2).contains(&asked.len()) && asked.iter().all(|name| name == "/10.0.0.1"), "{asked:?}");
}

#[tokio::test]
async fn what_is_announced_later_counts_at_once_whatever_was_remembered() {
    let rig = Rig::start().await;
    assert_eq!(rig.route(1).await, Ok(RouteKind::Passthrough));

    rig.cache.apply(ADDRESS_TYPE_URL, vec![pod("new", 1, 1)]);
    rig.reaches("new", Some(InboundProtocol::HBONE)).await;
    assert!(is_hbone(&rig.first(1).unwrap().kind));

    // Not in the mesh, gone, and then another pod that is: each time what was remembered is out of date.
    rig.cache.apply(ADDRESS_TYPE_URL, vec![pod("new", 1, 0)]);
    rig.reaches("new", Some(InboundProtocol::TCP)).await;
    rig.cache.apply(ADDRESS_TYPE_URL, vec![proto::Change::Remove { name: uid("new") }]);
    rig.reaches("new", None).await;
    rig.set(Mode::HoldPushes);
    rig.cache.apply(ADDRESS_TYPE_URL, vec![pod("next", 1, 1)]);
    assert!(is_hbone(&rig.route(1).await.unwrap()));
}

#[tokio::test]
async fn a_pod_that_has_departed_is_asked_about_and_stays_refused_until_it_is_there_again() {
    let rig = Rig::start().await;
    rig.cache.apply(ADDRESS_TYPE_URL, vec![pod("server", 1, 1)]);
    rig.reaches("server", Some(InboundProtocol::HBONE)).await;
    rig.cache.apply(ADDRESS_TYPE_URL, vec![proto::Change::Remove { name: uid("server") }]);
    rig.reaches("server", None).await;
    let departed = Err(LookupError::Route(RouteError::Departed(destination(1))));
    assert_eq!(rig.route(1).await, departed);

    rig.set(Mode::HoldPushes);
    rig.cache.apply(ADDRESS_TYPE_URL, vec![pod("server", 1, 1)]);

    assert!(is_hbone(&rig.route(1).await.unwrap()));
}

#[tokio::test]
async fn a_description_that_cannot_be_read_is_no_answer_that_there_is_no_pod() {
    let rig = Rig::start().await;
    // 2: a tunnel protocol that this proxy does not have.
    rig.cache.apply(ADDRESS_TYPE_URL, vec![pod("odd", 1, 2)]);

    assert_eq!(rig.route(1).await, Err(UnreadableAddress(destination(1)).into()));
}

#[tokio::test]
async fn an_answer_that_comes_twice_or_in_pieces_is_one() {
    let lookups = || Lookups::with_deadline(PATIENCE);
    for rig in [
        Rig::with(Script::default(), Twice, lookups()).await,
        Rig::with(Script::default(), Pieces::of(1), lookups()).await,
    ] {
        rig.cache.apply(ADDRESS_TYPE_URL, vec![pod("a", 1, 1), pod("b", 2, 1)]);

        let (a, b, nobody) =
            tokio::join!(rig.route_after(1, Ok(unknown(1))), rig.route_after(2, Ok(unknown(2))), rig.route(3));

        assert!(is_hbone(&a.unwrap()) && is_hbone(&b.unwrap()));
        assert_eq!(nobody, Ok(RouteKind::Passthrough));
    }
}

#[tokio::test]
async fn a_question_survives_the_end_of_its_stream() {
    let rig = Rig::start().await;
    rig.set(Mode::CutNext);
    rig.cache.apply(ADDRESS_TYPE_URL, vec![pod("new", 1, 1)]);

    let kind = rig.route(1).await.unwrap();

    assert!(is_hbone(&kind), "{kind:?}");
    assert_eq!(rig.asked(), ["/10.0.0.1", "/10.0.0.1"], "once on each stream");
}

#[tokio::test]
async fn one_silence_is_waited_for_and_the_next_connections_are_not_held_until_there_are_answers_again() {
    let script = Script::default();
    let rig = Rig::with(script.clone(), script, Lookups::default()).await;
    rig.set(Mode::DropQuestions);
    let begun = Instant::now();
    assert_eq!(rig.route(1).await, Ok(RouteKind::Passthrough));
    assert!(begun.elapsed() >= DEADLINE);

    let begun = Instant::now();
    for ip in 10..60 {
        assert_eq!(rig.route(ip).await, Ok(RouteKind::Passthrough));
    }
    assert!(begun.elapsed() < DEADLINE, "fifty connections were held for {:?}", begun.elapsed());
    // One question at a time finds out whether the silence has ended.
    assert!(rig.asked().len() <= 4, "{:?}", rig.asked());

    rig.set(Mode::HoldPushes);
    rig.cache.apply(ADDRESS_TYPE_URL, vec![pod("new", 100, 1)]);
    let heard = async {
        while !is_hbone(&rig.route_after(100, Ok(unknown(100))).await.unwrap()) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, heard).await.unwrap();
}

fn unknown(ip: u8) -> Route {
    Route { kind: RouteKind::Unknown, dial: view::Dial::Address(destination(ip)), workload: None, service: None }
}

#[tokio::test]
async fn without_a_control_plane_nothing_waits_after_the_first_moment() {
    // Nobody listens there.
    let (updates, _running) = proxy(SocketAddr::from(([127, 0, 0, 1], 1)), Lookups::default());
    let client: Workload = serde_json::from_value(serde_json::json!({
        "uid": uid("client"), "name": "client", "namespace": "ns", "workloadIps": ["10.0.0.9"],
    }))
    .unwrap();
    let Updates { state, lookups, .. } = &updates;
    let route = |ip| lookups.route(state, &client, destination(ip), Ok(unknown(ip)));
    let begun = Instant::now();
    assert_eq!(route(1).await.map(|route| route.kind), Ok(RouteKind::Passthrough));
    assert!(begun.elapsed() < 2 * DEADLINE);

    let begun = Instant::now();
    for ip in 2..100 {
        assert_eq!(route(ip).await.map(|route| route.kind), Ok(RouteKind::Passthrough));
    }
    assert!(begun.elapsed() < DEADLINE, "connections were held for {:?}", begun.elapsed());
}

#[tokio::test]
async fn a_control_plane_like_istios_is_not_asked_and_nothing_waits() {
    let asked = Script::default();
    let rig =
        Rig::with(asked.clone(), Istiod { script: asked, istiod: LikeIstiod::default() }, Lookups::default()).await;

    for ip in 10..60 {
        assert_eq!(rig.route(ip).await, Ok(RouteKind::Passthrough));
    }

    assert!(rig.asked().is_empty(), "{:?}", rig.asked());
}

/// As Istio's control plane, and notes what it is asked.
struct Istiod {
    script: Script,
    istiod: LikeIstiod,
}

impl Faults for Istiod {
    fn request(&mut self, stream: usize, request: DeltaDiscoveryRequest) -> Vec<DeltaDiscoveryRequest> {
        let requests = self.script.request(stream, request);
        requests.into_iter().flat_map(|request| self.istiod.request(stream, request)).collect()
    }

    fn response(&mut self, stream: usize, response: DeltaDiscoveryResponse) -> Vec<Passed> {
        self.istiod.response(stream, response)
    }

    fn idle(&mut self, stream: usize) -> Vec<Passed> {
        self.istiod.idle(stream)
    }
}

#[tokio::test]
async fn the_answer_takes_about_a_millisecond() {
    let rig = Rig::start().await;
    rig.route(1).await.unwrap();

    let mut waits = Vec::new();
    for ip in 20..220 {
        let begun = Instant::now();
        assert_eq!(rig.route(ip).await, Ok(RouteKind::Passthrough));
        waits.push(begun.elapsed());
    }

    waits.sort_unstable();
    println!(
        "waited for an answer: median {:.0?}, 99th of 100 {:.0?}",
        waits[waits.len() / 2],
        waits[waits.len() * 99 / 100]
    );
    assert!(waits[waits.len() / 2] < DEADLINE / 5, "{waits:?}");
}
