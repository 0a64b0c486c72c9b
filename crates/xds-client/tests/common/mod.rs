//! Our client and the handlers that note what arrives, over plain TCP: TLS has its own tests. `xds-server` includes this file.
#![allow(dead_code, unreachable_pub)]

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use proto::workload::{Address, Workload, address};
use proto::{ADDRESS_TYPE_URL, AUTHORIZATION_TYPE_URL};
use runtime::drain;
use tls::control_plane::{RootSource, Token};
use tokio::sync::watch;
use xds_client::{Client, Config, Handler, Interest, Node, Rejection, Resource};

/// No step of a test takes this long.
const DEADLINE: Duration = Duration::from_secs(20);

pub async fn soon<T>(step: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, step).await.expect("the step took too long")
}

pub fn workload(uid: &str, name: &str) -> Address {
    let workload = Workload { uid: uid.to_owned(), name: name.to_owned(), ..Workload::default() };
    Address { r#type: Some(address::Type::Workload(workload)) }
}

/// Resources that a client's handlers have accepted: name to version, for all types, and the order in which names came.
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

pub fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}
