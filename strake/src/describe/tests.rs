use super::*;
use crate::{explain::world::World, get::testing};

fn asked() -> Asked {
    let finding = serde_json::json!([
        {"object": "AuthorizationPolicy shop/db", "severity": "info", "reason": "undeclared_port", "message": "m"},
        {"object": "AuthorizationPolicy shop/other", "severity": "info", "reason": "x", "message": "another object's"},
    ]);
    let policies = serde_json::json!([{"object": "AuthorizationPolicy shop/db", "conditions": [
        {"type": "Enforced", "status": "Unknown", "reason": "ProxyGone", "message": "no connection to node-3"}]}]);
    Asked {
        world: World::new(testing::raw_dumps()),
        policies: serde_json::from_value(policies).unwrap(),
        findings: serde_json::from_value(finding).unwrap(),
        notes: vec!["not seen: x".to_owned()],
    }
}

#[test]
fn a_service_names_its_callers_by_what_the_endpoint_s_proxy_decides() {
    let view = ServiceView::new("shop", "db", &asked()).unwrap();

    insta::assert_snapshot!(service_text(&view), @r"
    service      shop/db (db.shop.svc.cluster.local)
    addresses    10.96.0.7
    endpoints    shop/db-0 on node-2 by HBONE, Healthy
    policies     DENY istio-system/istio_converted_static_strict
                 ALLOW shop/db; Enforced is Unknown: no connection to node-3 (ProxyGone)
    callers of port 80 (of pods 8080)
      allowed  shop/cart (by shop/db)
      refused  shop/db (allow policies exist, but none allowed)
      refused  plaintext (explicitly denied by: istio-system/istio_converted_static_strict)
    info: AuthorizationPolicy shop/db: m (undeclared_port)
    note: not seen: x
    ");
    assert!(ServiceView::new("shop", "nope", &asked()).unwrap_err().to_string().contains("shop/nope not found"));
}

#[test]
fn a_pod_has_identity_certificate_policies_and_callers() {
    let row = |name: &str| {
        let pod = testing::pods().into_iter().find(|pod| pod.name == name).unwrap();
        pods::unknown(pod)
    };

    insta::assert_snapshot!(pod_text(&PodView::new(row("db-0"), &asked())), @r"
    pod          shop/db-0 on node-2
    addresses    10.244.2.3
    mesh         unknown: unknown to the agent; 0 of 0 checks hold
    identity     spiffe://cluster.local/ns/shop/sa/db
    services     shop/db.shop.svc.cluster.local (80:8080)
    connections  none
    policies     DENY istio-system/istio_converted_static_strict
                 ALLOW shop/db; Enforced is Unknown: no connection to node-3 (ProxyGone)
    callers of port 8080
      allowed  shop/cart (by shop/db)
      refused  shop/db (allow policies exist, but none allowed)
      refused  plaintext (explicitly denied by: istio-system/istio_converted_static_strict)
    info: AuthorizationPolicy shop/db: m (undeclared_port)
    note: not seen: x
    ");
    let cart = PodView::new(row("cart"), &asked());
    assert_eq!(cart.certificate.unwrap().state, "Available");
    assert_eq!(cart.connections, ["1 outbound HBONE", "1 outbound TCP"]);
    let log = PodView::new(row("log"), &asked());
    assert_eq!(log.ports[0].allowed.keys().next().unwrap(), "not in the mesh: everybody who reaches it may call it");
}
