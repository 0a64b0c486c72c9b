//! Configuration of waypoints: each sees its gateway's.

mod common;

use common::{ask, holding, raw, remove, serve};
use proto::{Change, WAYPOINT_TYPE_URL};
use tonic::Code;
use xds_server::{Cache, waypoint_type};

/// Gateway of the client: the server of these tests takes it for the service account `ztunnel` of `istio-system`.
fn own() -> String {
    waypoint_type("istio-system", "ztunnel")
}

fn routes(name: &str, version: &str) -> Change {
    Change::Upsert { name: name.to_owned(), version: version.to_owned(), value: b"routes".as_slice().into() }
}

fn cache() -> Cache {
    let cache = Cache::new();
    cache.apply(&own(), vec![routes("shop/a", "1"), routes("shop/b", "1")]);
    cache.apply(&waypoint_type("shop", "ztunnel"), vec![routes("shop/secret", "1")]);
    cache.mark_synced();
    cache
}

#[tokio::test]
async fn a_waypoint_gets_the_resources_of_its_gateway_and_of_no_other() {
    let served = serve(cache(), true).await;
    let mut client = raw(served.address).await.unwrap();

    client.send(ask(WAYPOINT_TYPE_URL)).await;
    let heard = client.ack(WAYPOINT_TYPE_URL).await;

    assert_eq!(heard.resources, ["shop/a@1", "shop/b@1"]);
    served.cache.apply(&waypoint_type("shop", "ztunnel"), vec![routes("shop/secret", "2")]);
    served.cache.apply(&own(), vec![routes("shop/b", "2"), remove("shop/a")]);
    let heard = client.ack(WAYPOINT_TYPE_URL).await;
    assert_eq!((heard.resources, heard.removed), (vec!["shop/b@2".to_owned()], vec!["shop/a".to_owned()]));
}

#[tokio::test]
async fn a_client_cannot_name_the_gateway_of_others() {
    let served = serve(cache(), true).await;
    let mut client = raw(served.address).await.unwrap();

    client.send(ask(&waypoint_type("shop", "ztunnel"))).await;

    assert_eq!(client.next().await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_name_of_another_gateway_is_unknown() {
    let served = serve(cache(), true).await;
    let mut client = raw(served.address).await.unwrap();

    let mut request = ask(WAYPOINT_TYPE_URL);
    request.resource_names_subscribe = vec!["shop/secret".to_owned()];
    client.send(request).await;

    let heard = client.hear().await;
    assert_eq!((heard.resources, heard.removed), (Vec::new(), vec!["shop/secret".to_owned()]));
}

#[tokio::test]
async fn what_a_waypoint_holds_of_an_earlier_connection_is_sent_only_where_it_differs() {
    let served = serve(cache(), true).await;
    let mut client = raw(served.address).await.unwrap();

    client.send(holding(WAYPOINT_TYPE_URL, &[("shop/a", "1"), ("shop/b", "0"), ("shop/gone", "1")])).await;

    let heard = client.ack(WAYPOINT_TYPE_URL).await;
    assert_eq!((heard.resources, heard.removed), (vec!["shop/b@1".to_owned()], vec!["shop/gone".to_owned()]));
}
