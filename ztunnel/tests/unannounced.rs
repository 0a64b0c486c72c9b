//! The whole path of a connection to a pod that discovery has not announced: the proxy asks, and a server that refuses
//! plaintext answers.

mod pods;

use pods::{Pod, Proxy, echo_server, exchange, state, two_pods};
use prost::Message as _;
use proto::discovery::DeltaDiscoveryResponse;
use proto::workload::{self, TunnelProtocol, address::Type};
use proto::{ADDRESS_TYPE_URL, Change};
use proxy_core::config::{Config, Environment, Reader, ThreadKeys};
use proxy_core::discovery::{self, Discovery, Updates};
use runtime::drain;
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;
use telemetry::readiness::Readiness;
use tls::control_plane::RootSource;
use tokio::runtime::Handle;
use xds_server::Cache;
use xds_server::testing::{Passed, Relay};
use ztunnel::proxy::Shared;

/// Holds back what nobody has asked for.
fn hold_pushes(_: usize, mut response: DeltaDiscoveryResponse) -> Vec<Passed> {
    // Only an answer says by which other names the resource can be found.
    response.resources.retain(|resource| !resource.aliases.is_empty());
    vec![response.into()]
}

/// A control plane and the way to it; discovery ends with it.
struct Mesh {
    cache: Cache,
    _discovery: Discovery,
    _drain: drain::Trigger,
}

impl Mesh {
    /// Gives the proxy discovery. Within its runtime.
    fn of(shared: &mut Shared) -> Self {
        let cache = Cache::new();
        cache.mark_synced();
        let updates = Updates::new(shared.state.clone(), shared.certificates.clone(), shared.policies.clone());
        shared.lookups = updates.lookups.clone();
        let (trigger, drain) = drain::channel();
        let served = cache.clone();
        let discovery = Handle::current().block_on(async move {
            let server = xds_server::testing::serve(served).await.unwrap();
            let relay = Relay::new(format!("http://{server}").parse().unwrap(), RootSource::System, hold_pushes);
            let config = config(relay.listen().await.unwrap());
            let task = Readiness::new().task("state manager");
            let discovery = discovery::start("ztunnel", &config, updates, task, drain).await.unwrap();
            discovery::reached(&mut discovery.synced()).await;
            discovery
        });
        Self { cache, _discovery: discovery, _drain: trigger }
    }
}

fn config(discovery: SocketAddr) -> Config {
    let variables = [("XDS_ADDRESS".to_owned(), format!("http://{discovery}"))];
    let environment = Environment { variables: variables.into_iter().collect(), mesh_config: None, processors: 1 };
    let keys = ThreadKeys { threads: "T", cpu_limit: "C", resource_cpu_limit: "L", resource_cpu_request: "R" };
    Config::parse(&mut Reader::new(&environment), &keys)
}

fn announcement(pod: &Pod) -> Change {
    let uid = format!("Kubernetes//Pod/test/{}", pod.name);
    let message = workload::Workload {
        uid: uid.clone(),
        name: pod.name.to_owned(),
        namespace: "test".to_owned(),
        service_account: format!("sa-{}", pod.name),
        addresses: vec![pod.ip.parse::<Ipv4Addr>().unwrap().octets().to_vec()],
        tunnel_protocol: TunnelProtocol::Hbone.into(),
        ..workload::Workload::default()
    };
    let value = workload::Address { r#type: Some(Type::Workload(message)) }.encode_to_vec().into();
    Change::Upsert { name: uid, version: "1".to_owned(), value }
}

#[test]
fn a_pod_that_is_not_announced_gets_its_first_connection_through_a_tunnel_and_all_others_stay_reachable() {
    let Some((client, server)) = two_pods("unannounced") else { return };
    let state = state(&client, &server, "HBONE");
    state.apply_addresses(vec![model::Change::Remove("Kubernetes//Pod/test/server".into())]);
    let mut mesh = None;
    let proxy = Proxy::start_with(state, &[&client, &server], |shared| mesh = Some(Mesh::of(shared)));
    let mesh = mesh.unwrap();
    // A server that refuses plaintext, which shows no identity: an answer of it came through a tunnel.
    proxy.apply_policy(serde_json::json!({
        "name": "strict", "namespace": "test", "scope": "Namespace", "action": "Allow",
        "rules": [[[{ "principals": [{ "Exact": "cluster.local/ns/test/sa/sa-client" }] }]]],
    }));
    echo_server(server.listen("0.0.0.0:8080"));
    mesh.cache.apply(ADDRESS_TYPE_URL, vec![announcement(&server)]);

    let begun = Instant::now();
    let first = exchange(client.connect("10.77.0.2:8080").unwrap(), 100_000);
    println!("first connection, tunnel included: {:.1?}", begun.elapsed());

    assert_eq!(first, (client.ip.to_owned(), 100_000));
    assert!(proxy.state.workload("Kubernetes//Pod/test/server").is_some(), "learnt from the answer");
    // Nobody has this address: the connection is let out, and the wire says that there is nobody.
    let mut nobody = client.connect("10.77.0.3:8080").unwrap();
    assert!(nobody.read(&mut [0]).is_err());
}
