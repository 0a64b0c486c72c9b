use super::*;
use crate::get::testing;

/// The explanation of a connection in the recorded lab, as text.
fn said(from: &str, to: &str) -> String {
    render::text(&explained(from, to).unwrap())
}

fn explained(from: &str, to: &str) -> Result<Explanation> {
    let (world, pods) = (World::new(testing::raw_dumps()), testing::pods());
    let client = match from.parse().unwrap() {
        Subject::Address(address) => Client::outside(address),
        Subject::Pod(name) | Subject::Either(name) | Subject::Service(name) => {
            let (namespace, name) = name.within("shop");
            Client::of_pod(&world, pod(&pods, namespace, name)?)?
        }
    };
    Explanation::new(&world, &pods, &client, &to.parse().unwrap(), "shop")
}

#[test]
fn an_allowed_connection_names_the_policy_and_the_way() {
    insta::assert_snapshot!(said("cart", "db"), @r"
    from  shop/cart on node-1, in the mesh as spiffe://cluster.local/ns/shop/sa/cart
    to    svc/shop/db port 80

    ALLOWED  shop/db-0 (10.244.2.3:8080) on node-2, HBONE: encrypted, both sides authenticated
      decided by ztunnel of node-2: allowed by shop/db
      DENY  istio-system/istio_converted_static_strict (of a PeerAuthentication): does not match
            rule 0: does not hold: the client's identity is excluded (*)
      ALLOW shop/db: matches
            rule 0: holds
            rule 1: does not hold: the client's namespace is not monitoring
    ");
}

#[test]
fn a_client_without_proxy_is_refused_by_strict_and_each_rule_says_why() {
    insta::assert_snapshot!(said("log", "svc/db:80"), @r"
    from  shop/log on node-1, not in the mesh: no proxy takes its connections
    to    svc/shop/db port 80

    REFUSED  shop/db-0 (10.244.2.3:8080) on node-2, plaintext TCP
      decided by ztunnel of node-2: explicitly denied by: istio-system/istio_converted_static_strict (explicitly_denied)
      DENY  istio-system/istio_converted_static_strict (of a PeerAuthentication): matches
            rule 0: holds
      ALLOW shop/db: does not match
            rule 0: does not hold: the client's identity is not cluster.local/ns/shop/sa/cart
            rule 1: does not hold: the client's namespace is not monitoring
    ");
    assert!(said("192.0.2.9", "db:80").contains("REFUSED  shop/db-0"));
}

#[test]
fn what_is_not_in_the_mesh_has_nobody_who_decides() {
    let pod = said("cart", "pod/log:9000");
    assert!(pod.contains("ALLOWED  shop/log (10.244.1.9:9000) on node-1, plaintext TCP\n  decided by nobody"), "{pod}");
    let outside = said("cart", "192.0.2.1:443");
    assert!(outside.contains("the address is not one of the mesh"), "{outside}");
}

#[test]
fn a_pod_is_reached_without_the_service_and_by_the_service_s_address() {
    assert!(said("cart", "pod/db-0:8080").contains("ALLOWED  shop/db-0 (10.244.2.3:8080)"));
    let other_port = said("cart", "pod/db-0:9090");
    assert!(other_port.contains("REFUSED") && other_port.contains("the endpoint's port is not 8080"), "{other_port}");
    assert!(said("cart", "10.96.0.7:80").contains("ALLOWED  shop/db-0 (10.244.2.3:8080)"));
}

#[test]
fn names_and_ports_that_do_not_exist_are_errors() {
    for (from, to, expected) in [
        ("cart", "db:81", "Service shop/db has no port 81; it has 80"),
        ("cart", "svc/nope:80", "Service shop/nope not found in what the proxies know"),
        ("cart", "pod/db:80", "pod shop/db not found; there is shop/db-0"),
        ("nope", "db", "pod shop/nope not found"),
        ("cart", "pod/log", "a port is needed: shop/log:PORT"),
    ] {
        assert_eq!(explained(from, to).unwrap_err().to_string(), expected);
    }
}

#[test]
fn a_proxy_that_is_silent_leaves_the_decision_open() {
    let mut dumps = testing::raw_dumps();
    dumps[1].1 = Err(anyhow::anyhow!("ztunnel of node-2: cannot reach admin.sock"));
    let (world, pods) = (World::new(dumps), testing::pods());
    let client = Client::of_pod(&world, &pods[0]).unwrap();

    let explanation = Explanation::new(&world, &pods, &client, &"db".parse().unwrap(), "shop").unwrap();

    assert!(!explanation.is_allowed() && explanation.paths[0].allowed.is_none());
    assert_eq!(explanation.notes, ["not seen: ztunnel of node-2: cannot reach admin.sock"]);
    assert!(Client::of_pod(&world, &pods[1]).is_err(), "it is not known whether its connections are taken");
}
