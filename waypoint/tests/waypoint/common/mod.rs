//! A waypoint in this process, between real peers on loopback: clients that open tunnels over TLS, servers of plain TCP, and
//! node proxies that take tunnels. Each test has a waypoint of its own.
#![allow(dead_code, unreachable_pub)]

pub mod client;
pub mod node_proxy;
pub mod server;

use ca_client::CertificateManager;
use ca_server::testing::FixedRoot;
use identity::Identity;
use model::{Address, Change, NamespacedHostname, Service, State, StateConfig, Text, Workload};
use parking_lot::Mutex;
use proxy_core::budget::{Budgets, Usage};
use route::retry::RetryPolicy;
use route::{Action, Destination, Forward, Origin, PortRoutes, Route, RouteTable, Rule, Target, Weighted};
use runtime::drain::{Trigger, channel};
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::task::LocalSet;
use waypoint::context::Shared;
use waypoint::report::AccessLog;
use waypoint::workers::WaypointWorkers;
use waypoint_config::{AppProtocol, Config, Handle, PortConfig, ServiceConfig};

pub const PATIENCE: Duration = Duration::from_secs(20);
/// Address of the service `web`.
pub const WEB: &str = "10.96.0.1:80";
pub const HOST: &str = "web.shop.svc.cluster.local";

/// Runs a test as a peer of the waypoint, whose own threads are others.
pub fn test(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async { tokio::time::timeout(PATIENCE, test).await.expect("in time") });
}

pub fn identity(account: &str) -> Identity {
    format!("spiffe://cluster.local/ns/shop/sa/{account}").parse().unwrap()
}

pub fn root() -> FixedRoot {
    FixedRoot::new(identity::TrustDomain::default(), Duration::from_secs(3600)).unwrap()
}

/// An address of loopback that no other test of this machine uses at the moment.
pub fn own_address() -> IpAddr {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    // 127.0.x.y is left to others.
    Ipv4Addr::new(127, high | 1, low, NEXT.fetch_add(1, Ordering::Relaxed) as u8).into()
}

/// A waypoint and its mesh: the service `web` in `shop`, without endpoints.
pub struct Lab {
    pub shared: Arc<Shared>,
    pub workers: WaypointWorkers,
    pub address: SocketAddr,
    pub drain: Trigger,
    pub log: Arc<Mutex<Vec<String>>>,
}

impl Lab {
    /// With one worker, and `web` served by HTTP routes.
    pub async fn start(routes: Vec<Route>) -> Self {
        Self::with(1, AppProtocol::Http1, routes).await
    }

    pub async fn with(workers: usize, protocol: AppProtocol, routes: Vec<Route>) -> Self {
        let state = State::new(StateConfig::default());
        let (drain, watch) = channel();
        let log = Arc::<Mutex<Vec<String>>>::default();
        let lines = log.clone();
        let shared = Arc::new(Shared {
            identity: identity("waypoint"),
            certificates: CertificateManager::spawn(Arc::new(root())),
            state,
            tunnels: hbone::Settings::default(),
            pool_limits: hbone::pool::Limits::default(),
            budgets: Arc::new(Budgets::new(None)),
            usage: Arc::new(Usage::new("shop", "waypoint-1")),
            drain: watch,
            config: Handle::default(),
            keys: jwt::KeyStore::new(
                Arc::new(waypoint::keys::HttpFetcher::default()),
                tokio::runtime::Handle::current(),
            ),
            access_log: Some(AccessLog::new(move |line| lines.lock().push(line))),
        });
        let workers = WaypointWorkers::start(workers, &shared).unwrap();
        let address = workers.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let lab = Self { shared, workers, address, drain, log };
        lab.apply(Address::Service(service("web", "10.96.0.1")));
        lab.configure(HOST, protocol, routes);
        lab
    }

    fn apply(&self, address: Address) {
        self.shared.state.apply_addresses(vec![Change::Upsert(address)]);
    }

    /// Another service, without routes.
    pub fn add_service(&self, name: &str, vip: &str) {
        self.apply(Address::Service(service(name, vip)));
    }

    /// Replaces the routes of port 80 of a service.
    pub fn configure(&self, host: &str, protocol: AppProtocol, routes: Vec<Route>) {
        let routes = PortRoutes { routes: RouteTable::new(routes), ..PortRoutes::default() };
        let config = ServiceConfig { ports: [(80, PortConfig { protocol, routes })].into(), ..Default::default() };
        let config = Arc::new(config);
        self.change(|all| {
            all.services.insert(NamespacedHostname::new("shop", host), config.clone());
        });
    }

    pub fn change(&self, change: impl Fn(&mut Config)) {
        let mut next = Config::clone(&self.shared.config.load());
        change(&mut next);
        self.shared.config.store(next);
    }

    /// An endpoint of a service in plain TCP.
    pub fn add_endpoint(&self, name: &str, service: &str, to: SocketAddr) {
        self.add_workload(name, service, to, "TCP");
    }

    pub fn add_workload(&self, name: &str, service: &str, to: SocketAddr, protocol: &str) {
        let text = serde_json::json!({
            "uid": format!("Kubernetes//Pod/shop/{name}"), "name": name, "namespace": "shop",
            "serviceAccount": name, "workloadIps": [to.ip()], "protocol": protocol, "workloadName": name,
            "services": {format!("shop/{}", host(service)): {"80": to.port()}},
        });
        self.apply(Address::Workload(serde_json::from_value::<Workload>(text).unwrap()));
    }

    pub fn remove_workload(&self, name: &str) {
        let uid = Text::from(format!("Kubernetes//Pod/shop/{name}"));
        self.shared.state.apply_addresses(vec![Change::Remove(uid)]);
    }

    /// The access log, once it has `count` lines.
    pub async fn lines(&self, count: usize) -> Vec<String> {
        loop {
            let lines = self.log.lock().clone();
            if lines.len() >= count {
                return lines;
            }
            tokio::task::yield_now().await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Status, flags and details of the last of `count` lines.
    pub async fn outcome(&self, count: usize) -> String {
        let lines = self.lines(count).await;
        let line = lines.last().unwrap();
        line.split("\" ").nth(1).unwrap().split(' ').take(3).collect::<Vec<_>>().join(" ")
    }
}

pub fn host(service: &str) -> String {
    format!("{service}.shop.svc.cluster.local")
}

fn service(name: &str, vip: &str) -> Service {
    let text = serde_json::json!({
        "name": name, "namespace": "shop", "hostname": host(name), "vips": [format!("/{vip}")], "ports": {"80": 0},
    });
    serde_json::from_value(text).unwrap()
}

/// Port 80 of a service as a destination.
pub fn to(service: &str) -> Weighted {
    weighted(service, 1)
}

pub fn weighted(service: &str, weight: u32) -> Weighted {
    Weighted::new(Target::Service(Destination { host: host(service), port: 80, subset: None }), weight)
}

/// A route for everything that forwards to `web`, with Istio's default retries, as a service without routes has it.
pub fn default_route() -> Route {
    forward(|_| {})
}

pub fn forward(change: impl FnOnce(&mut Forward)) -> Route {
    let retry = RetryPolicy { base_pause: Duration::from_millis(1), ..RetryPolicy::default() };
    let mut forward = Forward { destinations: vec![to("web")], retry: Some(retry), ..Forward::default() };
    change(&mut forward);
    rule(Rule { action: Action::Forward(forward), ..Rule::default() })
}

pub fn rule(rule: Rule) -> Route {
    let (origin, conditions) = (Origin::default(), route::Conditions::default());
    Route { origin, name: "default".to_owned(), conditions, rule: Arc::new(rule) }
}

/// The same route, only for paths that begin so.
pub fn below(prefix: &str, mut route: Route) -> Route {
    route.conditions.path = route::PathMatch::Prefix(prefix.to_owned());
    route
}
