//! Clients that ask for addresses one by one: by the name of a resource, or by an address.

mod common;

use std::collections::BTreeMap;

use common::{Raw, ask, names, raw, serve, soon};
use prost::Message as _;
use prost_types::value::Kind;
use proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node};
use proto::workload::address::Type;
use proto::workload::{Address, NetworkAddress, PortList, Service, Workload};
use proto::{ADDRESS_TYPE_URL as ADDRESS, Change};
use xds_server::Cache;

fn change(name: &str, version: &str, resource: Type) -> Change {
    let value = Address { r#type: Some(resource) }.encode_to_vec().into();
    Change::Upsert { name: name.to_owned(), version: version.to_owned(), value }
}

fn pod(name: &str, version: &str, ip: u8, node: &str, service: Option<&str>) -> Change {
    let services = service.into_iter().map(|service| (service.to_owned(), PortList::default())).collect();
    let workload = Workload {
        uid: name.to_owned(),
        addresses: vec![vec![10, 0, 0, ip]],
        node: node.to_owned(),
        services,
        ..Workload::default()
    };
    change(name, version, Type::Workload(workload))
}

fn service(name: &str, ip: u8) -> Change {
    let address = NetworkAddress { address: vec![10, 96, 0, ip], ..NetworkAddress::default() };
    change(name, "1", Type::Service(Service { addresses: vec![address], ..Service::default() }))
}

/// Two pods behind `app/web` on node n1, and one alone on n2.
fn cache() -> Cache {
    let cache = Cache::new();
    cache.apply(
        ADDRESS,
        vec![
            service("app/web", 1),
            pod("web-1", "1", 1, "n1", Some("app/web")),
            pod("web-2", "1", 2, "n1", Some("app/web")),
            pod("alone", "1", 3, "n2", None),
        ],
    );
    cache.mark_synced();
    cache
}

fn on_node(node: &str, wanted: &[&str]) -> DeltaDiscoveryRequest {
    let node = prost_types::Value { kind: Some(Kind::StringValue(node.to_owned())) };
    let metadata = prost_types::Struct { fields: BTreeMap::from([("NODE_NAME".to_owned(), node)]) };
    let node = Node { metadata: Some(metadata), ..Node::default() };
    DeltaDiscoveryRequest { node: Some(node), resource_names_subscribe: names(wanted), ..ask(ADDRESS) }
}

/// Names of a response with their aliases, and names that are gone.
struct Answer {
    resources: Vec<(String, Vec<String>)>,
    removed: Vec<String>,
}

async fn next(raw: &mut Raw) -> Answer {
    let response = soon(raw.responses.message()).await.unwrap().unwrap();
    let DeltaDiscoveryResponse { resources, removed_resources: removed, nonce, .. } = response;
    raw.send(DeltaDiscoveryRequest { response_nonce: nonce, ..ask(ADDRESS) }).await;
    Answer { resources: resources.into_iter().map(|one| (one.name, one.aliases)).collect(), removed }
}

fn known(resources: &[(&str, &[&str])]) -> Vec<(String, Vec<String>)> {
    resources.iter().map(|(name, aliases)| ((*name).to_owned(), names(aliases))).collect()
}

const WEB: &[(&str, &[&str])] = &[("app/web", &["/10.96.0.1"]), ("web-1", &["/10.0.0.1"]), ("web-2", &["/10.0.0.2"])];

#[tokio::test]
async fn an_address_or_name_of_a_service_brings_the_service_and_its_workloads() {
    for wanted in ["/10.96.0.1", "app/web"] {
        let served = serve(cache(), true).await;
        let mut raw = raw(served.address).await.unwrap();

        raw.send(on_node("n3", &[wanted])).await;

        let answer = next(&mut raw).await;
        assert_eq!(answer.resources, known(WEB), "{wanted}");
        assert!(answer.removed.is_empty());
    }
}

#[tokio::test]
async fn a_pod_comes_alone_and_an_unknown_name_is_answered_as_removed() {
    let served = serve(cache(), true).await;
    let mut raw = raw(served.address).await.unwrap();

    raw.send(on_node("n3", &["/10.0.0.1", "/10.9.9.9"])).await;

    let answer = next(&mut raw).await;
    assert_eq!(answer.resources, known(&[("web-1", &["/10.0.0.1"])]));
    assert_eq!(answer.removed, names(&["/10.9.9.9"]));
}

#[tokio::test]
async fn whoever_asks_gets_the_workloads_of_the_own_node_once() {
    let served = serve(cache(), true).await;
    let mut raw = raw(served.address).await.unwrap();

    raw.send(on_node("n2", &["/10.9.9.9"])).await;
    let answer = next(&mut raw).await;
    assert_eq!(answer.resources, known(&[("alone", &["/10.0.0.3"])]));

    raw.send(DeltaDiscoveryRequest { resource_names_subscribe: names(&["web-2"]), ..ask(ADDRESS) }).await;
    assert_eq!(next(&mut raw).await.resources, known(&[("web-2", &["/10.0.0.2"])]));
    served.cache.apply(ADDRESS, vec![pod("near", "1", 9, "n2", None), pod("far", "1", 8, "n1", None)]);
    assert_eq!(next(&mut raw).await.resources, known(&[("near", &["/10.0.0.9"])]));
}

#[tokio::test]
async fn what_is_asked_for_follows_when_it_comes_changes_and_goes() {
    let served = serve(cache(), true).await;
    let mut raw = raw(served.address).await.unwrap();
    raw.send(on_node("n3", &["app/web", "/10.0.0.7", "/10.96.0.9"])).await;
    assert_eq!(next(&mut raw).await.removed, names(&["/10.0.0.7", "/10.96.0.9"]));

    served.cache.apply(ADDRESS, vec![pod("web-3", "1", 4, "n1", Some("app/web")), pod("other", "1", 5, "n1", None)]);
    assert_eq!(next(&mut raw).await.resources, known(&[("web-3", &["/10.0.0.4"])]), "a new workload of the service");

    served.cache.apply(ADDRESS, vec![pod("late", "1", 7, "n1", None)]);
    assert_eq!(next(&mut raw).await.resources, known(&[("late", &["/10.0.0.7"])]), "an address that was unknown");

    served.cache.apply(ADDRESS, vec![pod("db-1", "1", 6, "n1", Some("app/db"))]);
    served.cache.apply(ADDRESS, vec![service("app/db", 9)]);
    let expected = known(&[("app/db", &["/10.96.0.9"]), ("db-1", &["/10.0.0.6"])]);
    assert_eq!(next(&mut raw).await.resources, expected, "a service brings workloads that were there before it");

    served.cache.apply(ADDRESS, vec![Change::Remove { name: "web-1".to_owned() }]);
    assert_eq!(next(&mut raw).await.removed, names(&["web-1"]));
}

#[tokio::test]
async fn what_nobody_asks_for_any_more_is_not_sent() {
    let served = serve(cache(), true).await;
    let mut raw = raw(served.address).await.unwrap();
    raw.send(on_node("n3", &["/10.96.0.1", "alone"])).await;
    next(&mut raw).await;

    raw.send(DeltaDiscoveryRequest {
        resource_names_unsubscribe: names(&["/10.96.0.1"]),
        resource_names_subscribe: names(&["/10.9.9.9"]),
        ..ask(ADDRESS)
    })
    .await;
    next(&mut raw).await;
    served.cache.apply(ADDRESS, vec![pod("web-1", "2", 1, "n1", Some("app/web")), pod("alone", "2", 3, "n2", None)]);

    assert_eq!(next(&mut raw).await.resources, known(&[("alone", &["/10.0.0.3"])]));
}

#[tokio::test]
async fn a_client_that_comes_back_hears_what_differs_and_what_is_gone() {
    let served = serve(cache(), true).await;
    let mut raw = raw(served.address).await.unwrap();
    let held = [("app/web", "1"), ("web-1", "0"), ("web-2", "1"), ("gone", "1")];
    let held = held.map(|(name, version)| (name.to_owned(), version.to_owned()));

    raw.send(DeltaDiscoveryRequest { initial_resource_versions: held.into(), ..on_node("n3", &["/10.96.0.1"]) }).await;

    let answer = next(&mut raw).await;
    assert_eq!(answer.resources, known(&[("web-1", &["/10.0.0.1"])]));
    assert_eq!(answer.removed, names(&["gone"]));
}

#[tokio::test]
async fn a_client_that_wants_everything_gets_no_aliases() {
    let served = serve(cache(), true).await;
    let mut one_by_one = raw(served.address).await.unwrap();
    one_by_one.send(on_node("n3", &["alone"])).await;
    next(&mut one_by_one).await;
    let mut everything = raw(served.address).await.unwrap();

    everything.send(ask(ADDRESS)).await;

    let answer = next(&mut everything).await;
    assert!(answer.resources.len() == 4 && answer.resources.iter().all(|(_, aliases)| aliases.is_empty()));
}
