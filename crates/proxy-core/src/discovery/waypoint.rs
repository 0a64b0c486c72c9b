//! Configuration of a waypoint from discovery: each response is put in force as a whole, and what is not understood is refused.

use proto::{WAYPOINT_TYPE_URL, waypoint as wire};
use tracing::{debug, error};
use waypoint_config::{Applier, Handle};
use xds_client::{Client, Handler, Interest, Rejection, Resource};

/// Subscribes to the configuration of the waypoint, which goes into `handle`. For [`super::start_with`]. Which gateway it is for
/// follows from the identity of the process: the control plane sends no other.
pub fn subscribe_waypoint(client: Client, handle: Handle) -> Client {
    client.with::<wire::Resource>(WAYPOINT_TYPE_URL, Interest::All, Routes(Applier::new(handle)))
}

struct Routes(Applier);

impl Handler<wire::Resource> for Routes {
    fn apply(&mut self, resources: Vec<Resource<wire::Resource>>, removed: Vec<String>) -> Vec<Rejection> {
        debug!(resources = resources.len(), removed = removed.len(), "routes applied");
        let resources = resources.into_iter().map(|Resource { name, message, .. }| (name, message));
        let refused = self.0.apply(resources, &removed).into_iter().map(|refused| {
            let (resource, reason) = (&refused.name, &refused.reason);
            error!(resource, reason, "resource rejected; its last accepted version stays in force");
            Rejection { name: refused.name, reason: refused.reason }
        });
        refused.collect()
    }

    fn unreadable(&mut self, refused: &[Rejection]) {
        for Rejection { name, reason } in refused {
            error!(resource = name, reason, "resource unreadable; its last accepted version stays in force");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::Duration;

    use model::NamespacedHostname;
    use proto::Change;
    use proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
    use rand::rngs::SmallRng;
    use rand::{RngExt as _, SeedableRng as _};
    use route::{Origin, PortRoutes, Route, RouteTable, Rule};
    use runtime::drain;
    use tls::control_plane::{RootSource, Token};
    use tokio::sync::watch;
    use waypoint_config::{PortConfig, ServiceConfig, encode_service};
    use xds_client::Node;
    use xds_server::testing::{Faults, Passed, Pieces, Relay};
    use xds_server::{Cache, waypoint_type};

    use super::*;

    const HOSTS: [&str; 4] = ["a", "b", "c", "d"];
    const DEADLINE: Duration = Duration::from_secs(30);

    /// Number of each service's only rule.
    type Services = BTreeMap<&'static str, u32>;

    fn change(host: &str, number: u32) -> Change {
        let rule = Arc::new(Rule { name: number.to_string(), ..Rule::default() });
        let conditions = route::Conditions::default();
        let route = Route { origin: Origin::default(), name: String::new(), conditions, rule };
        let routes = PortRoutes { routes: RouteTable::new(vec![route]), ..PortRoutes::default() };
        let port = PortConfig { routes, ..PortConfig::default() };
        let config = ServiceConfig { ports: [(80, port)].into(), ..ServiceConfig::default() };
        let (name, version) = (format!("shop/{host}"), number.to_string());
        Change::Upsert { name, version, value: encode_service("shop", host, &config).into() }
    }

    fn in_force(handle: &Handle) -> BTreeMap<String, u32> {
        let config = handle.load();
        let services = config.services.iter().map(|(name, service)| {
            let rule = &service.ports[&80].routes.routes.routes()[0].rule;
            (name.hostname.to_string(), rule.name.parse().unwrap())
        });
        services.collect()
    }

    /// Repeats, splits and cuts at random, until it is told to be calm.
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
                let fate = if *self.calm.borrow() { 0 } else { self.rng.random_range(0..8) };
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

    fn client(port: u16, handle: Handle) -> Client {
        let config = xds_client::Config {
            address: format!("http://127.0.0.1:{port}").parse().unwrap(),
            roots: RootSource::System,
            alternative_host: None,
            token: Token::None,
            headers: Vec::new(),
            node: Node::new("waypoint", "10.0.0.7", "waypoint-a", "istio-system"),
        };
        subscribe_waypoint(Client::new(config), handle)
    }

    async fn arrives(handle: &Handle, expected: &Services) {
        let expected: BTreeMap<String, u32> =
            expected.iter().map(|(host, number)| ((*host).to_owned(), *number)).collect();
        let arrived = async {
            while in_force(handle) != expected {
                tokio::task::yield_now().await;
            }
        };
        let found = tokio::time::timeout(DEADLINE, arrived).await;
        assert!(found.is_ok(), "in force: {:?}, expected {expected:?}", in_force(handle));
    }

    #[tokio::test]
    async fn a_waypoint_arrives_at_the_last_state_whatever_happens_to_messages() {
        // The server of this module takes every client for the service account `ztunnel` of `istio-system`.
        let own = waypoint_type("istio-system", "ztunnel");
        for seed in 0..8 {
            let mut rng = SmallRng::seed_from_u64(seed);
            let (cache, handle, mut services) = (Cache::new(), Handle::default(), Services::new());
            cache.apply(&waypoint_type("shop", "other"), vec![change("secret", 1)]);
            cache.mark_synced();
            let server = xds_server::testing::serve(cache.clone()).await.unwrap();
            let (calm, is_calm) = watch::channel(false);
            let faults = Random { rng: SmallRng::seed_from_u64(seed), calm: is_calm, pieces: Pieces::of(1) };
            let relay = Relay::new(format!("http://{server}").parse().unwrap(), RootSource::System, faults);
            let port = relay.listen().await.unwrap().port();
            let (_trigger, drain) = drain::channel();
            tokio::spawn(client(port, handle.clone()).run(drain));

            for number in 1..=40 {
                let host = HOSTS[rng.random_range(0..HOSTS.len())];
                if rng.random_bool(0.7) {
                    services.insert(host, number);
                    cache.apply(&own, vec![change(host, number)]);
                } else if services.remove(host).is_some() {
                    cache.apply(&own, vec![Change::Remove { name: format!("shop/{host}") }]);
                }
                tokio::task::yield_now().await;
            }
            calm.send_replace(true);

            arrives(&handle, &services).await;
        }
    }

    #[tokio::test]
    async fn what_was_removed_while_a_waypoint_was_away_is_gone_when_it_is_back() {
        let own = waypoint_type("istio-system", "ztunnel");
        let (before, after, handle) = (Cache::new(), Cache::new(), Handle::default());
        before.apply(&own, vec![change("a", 1), change("b", 1)]);
        before.mark_synced();
        // Another process of the control plane, which has never known `a`.
        after.apply(&own, vec![change("b", 1), change("c", 1)]);
        let address = xds_server::testing::serve(before).await.unwrap();
        let first = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = first.local_addr().unwrap().port();
        let second = xds_server::testing::serve(after.clone()).await.unwrap();
        let (switch, target) = watch::channel(address);
        tokio::spawn(forward(first, target));
        let (_trigger, drain) = drain::channel();
        tokio::spawn(client(port, handle.clone()).run(drain));
        arrives(&handle, &[("a", 1), ("b", 1)].into()).await;

        switch.send_replace(second);
        // Until its objects are read the new process sends nothing, and nothing is forgotten.
        tokio::task::yield_now().await;
        assert_eq!(in_force(&handle).len(), 2);
        after.mark_synced();

        arrives(&handle, &[("b", 1), ("c", 1)].into()).await;
    }

    /// Copies connections to the address in force, and ends them when it changes.
    async fn forward(listener: tokio::net::TcpListener, mut target: watch::Receiver<std::net::SocketAddr>) {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut changes = target.clone();
            let address = *changes.borrow_and_update();
            target.mark_unchanged();
            tokio::spawn(async move {
                let mut server = tokio::net::TcpStream::connect(address).await.unwrap();
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                    _ = changes.changed() => {}
                }
            });
        }
    }

    #[test]
    fn a_resource_that_is_not_understood_is_named_and_the_others_are_put_in_force() {
        let handle = Handle::default();
        let mut routes = Routes(Applier::new(handle.clone()));
        let resource = |host: &str| {
            let Change::Upsert { name, value, version } = change(host, 1) else { panic!("an upsert") };
            Resource { name, version, message: prost::Message::decode(value).unwrap() }
        };
        let empty = Resource { message: wire::Resource::default(), ..resource("b") };

        let rejected = routes.apply(vec![resource("a"), empty], Vec::new());

        let reason = "content of a kind that this version does not know; keeping the last version".to_owned();
        assert_eq!(rejected, [Rejection { name: "shop/b".to_owned(), reason }]);
        assert!(handle.load().services.contains_key(&NamespacedHostname::new("shop", "a")));
    }
}
