//! The control plane on a directory, with real TLS and a node proxy's own clients.

mod support;

use proto::workload::TunnelProtocol;
use support::manifests::{NAMESPACE, PODS, POLICY, STRICT};
use support::{Running, TOKENS};

const SERVICE: &str = "apiVersion: v1
kind: Service
metadata: {name: web, namespace: app}
spec: {clusterIP: 10.1.0.1, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
";

const WEB: &str = "Kubernetes//Pod/app/web";

fn all() -> [(&'static str, &'static str); 4] {
    [("ns.yaml", NAMESPACE), ("pods.yaml", PODS), ("service.yaml", SERVICE), ("policy.yaml", POLICY)]
}

#[tokio::test]
async fn a_proxy_gets_what_the_manifests_say_and_then_what_changes() {
    let running = Running::start(&all()).await;
    let mut proxy = running.subscribe("token of n1", None);

    let seen = proxy.holds(|seen| seen.addresses.len() == 3 && seen.policies.len() == 1).await;
    let web = seen.workload(WEB).unwrap();
    assert_eq!(web.authorization_policies, ["app/web"]);
    assert_eq!(web.services["app/web.app.svc.cluster.local"].ports[0].target_port, 8080);
    assert_eq!(web.tunnel_protocol(), TunnelProtocol::None, "nobody has confirmed the redirection");

    running.enrol("web").await;
    proxy.holds(|seen| seen.workload(WEB).is_some_and(|web| web.tunnel_protocol() == TunnelProtocol::Hbone)).await;

    running.write("service.yaml", &SERVICE.replace("8080", "9090"));
    proxy
        .holds(|seen| {
            let ports = |web: &proto::workload::Workload| web.services.values().next().map(|list| list.ports.clone());
            seen.workload(WEB).and_then(ports).is_some_and(|ports| ports[0].target_port == 9090)
        })
        .await;
    std::fs::remove_file(running.path("manifests/policy.yaml")).unwrap();
    let seen = proxy.holds(|seen| seen.policies.is_empty()).await;
    assert!(seen.workload(WEB).unwrap().authorization_policies.is_empty(), "nothing refers to what is gone");

    let page = running.page_when("/debug/proxies", |page| page[0]["types"].as_object().is_some()).await;
    assert_eq!(page[0]["node"], "n1");
    running.end().await;
}

#[tokio::test]
async fn a_proxy_that_refuses_a_resource_still_gets_the_others() {
    let running = Running::start(&all()).await;
    let mut stubborn = running.subscribe("token of n1", Some("Kubernetes//Pod/app/db"));
    let mut other = running.subscribe("token of n2", None);

    let seen = stubborn.holds(|seen| seen.addresses.len() == 2).await;
    assert!(seen.workload("Kubernetes//Pod/app/db").is_none());
    other.holds(|seen| seen.addresses.len() == 3).await;
    let refused = |page: &serde_json::Value| {
        page.as_array()
            .is_some_and(|proxies| proxies.iter().any(|proxy| proxy["types"][proto::ADDRESS_TYPE_URL]["nacked"] == 1))
    };
    running.page_when("/debug/proxies", refused).await;

    running.write("pods.yaml", &PODS.replace("10.0.0.1", "10.0.0.2"));
    stubborn.holds(|seen| seen.workload(WEB).is_some_and(|web| web.addresses[0] == [10, 0, 0, 2])).await;
}

#[tokio::test]
async fn certificates_are_given_for_pods_on_the_callers_node_only() {
    let running = Running::start(&all()).await;
    running.page_when("/debug/dump", |page| page["inSync"] == true).await;
    const IDENTITY: &str = "spiffe://cluster.local/ns/app/sa/web";

    let certificate = running.certificate("token of n1", IDENTITY).await.unwrap();
    assert_eq!(certificate.identity().to_string(), IDENTITY);
    for (token, identity) in [
        ("token of n2", IDENTITY),
        ("token of n1", "spiffe://cluster.local/ns/app/sa/db"),
        ("token of n1", "spiffe://elsewhere/ns/app/sa/web"),
        ("no token", IDENTITY),
    ] {
        let refusal = running.certificate(token, identity).await.unwrap_err();
        assert!(refusal.contains("authentica"), "{refusal}");
    }

    running.write("pods.yaml", &PODS.replace("phase: Running", "phase: Failed"));
    running.page_when("/debug/served", |page| page[proto::ADDRESS_TYPE_URL].as_object().unwrap().len() == 1).await;
    assert!(running.certificate("token of n1", IDENTITY).await.is_err(), "the pod has ended");
}

#[tokio::test]
async fn a_manifest_with_a_mistake_keeps_its_last_good_state_and_is_told() {
    let running = Running::start(&all()).await;
    let mut proxy = running.subscribe("token of n1", None);
    proxy.holds(|seen| seen.policies.len() == 1).await;
    let problem = |page: &serde_json::Value| page[0].clone();

    for (text, line, field) in [
        (POLICY.replace("rules:", "rules: ["), 7, ""),
        (POLICY.replace("namespaces:", "namespace:"), 9, "spec.rules[0].from[0].source.namespace"),
        (POLICY.replace("[app]", "app"), 9, "spec.rules[0].from[0].source.namespaces"),
    ] {
        running.write("policy.yaml", &text);
        let told = |page: &serde_json::Value| page[0]["line"] == line && page[0]["field"] == field;
        let page = running.page_when("/debug/problems", told).await;
        assert!(problem(&page)["file"].as_str().unwrap().ends_with("policy.yaml"), "{page}");
        assert_eq!(
            (&problem(&page)["severity"], &problem(&page)["inForce"]),
            (&"error".into(), &"last_good".into()),
            "{page}"
        );
        assert_eq!(
            (&problem(&page)["kind"], &problem(&page)["name"]),
            (&"AuthorizationPolicy".into(), &"web".into()),
            "{page}"
        );
        let seen = proxy.holds(|seen| seen.policies.len() == 1).await;
        assert_eq!(seen.policies["app/web"].rules.len(), 1);
    }

    running.write("policy.yaml", &POLICY.replace("[app]", "[app, other]"));
    running.page_when("/debug/problems", |page| page.as_array().is_some_and(Vec::is_empty)).await;
    let two = |seen: &support::Seen| seen.policies["app/web"].rules[0].clauses[0].matches[0].namespaces.len() == 2;
    proxy.holds(two).await;
}

#[tokio::test]
async fn a_manifest_that_is_broken_at_the_start_has_the_state_that_the_last_process_left() {
    let first = Running::start(&all()).await;
    first.subscribe("token of n1", None).holds(|seen| seen.policies.len() == 1).await;
    let broken = POLICY.replace("namespaces:", "namespace:");
    first.write("policy.yaml", &broken);
    first.write("never.yaml", &broken.replace("name: web", "name: never"));
    first.page_when("/debug/problems", |page| page.as_array().is_some_and(|page| page.len() == 2)).await;

    let second = first.restart().await;

    let seen = second.subscribe("token of n1", None).holds(|seen| seen.addresses.len() == 3).await;
    assert_eq!(seen.policies["app/web"].rules.len(), 1);
    let page = second.page_when("/debug/problems", |page| page.as_array().is_some_and(|page| page.len() == 2)).await;
    for (problem, file, since) in [(&page[0], "never.yaml", false), (&page[1], "policy.yaml", true)] {
        assert!(problem["file"].as_str().unwrap().ends_with(file), "{page}");
        assert_eq!((&problem["line"], &problem["severity"]), (&9.into(), &"error".into()), "{page}");
        assert_eq!(problem["field"], "spec.rules[0].from[0].source.namespace");
        assert_eq!(problem["lastGood"].as_str().is_some_and(|since| since.ends_with('Z')), since, "{page}");
    }
}

#[tokio::test]
async fn the_status_of_a_policy_tells_what_is_enforced() {
    let running = Running::start(&all()).await;
    const STATUS: &str = "state/status/control/AuthorizationPolicy/app/web.yaml";

    let accepted = running.file_when(STATUS, |text| text.contains("ZtunnelAccepted")).await;
    assert!(accepted.contains("Accepted") && accepted.contains("lastTransitionTime"), "{accepted}");
    const POLICY_NAME: &str = "AuthorizationPolicy app/web";
    let message = running.enforced(POLICY_NAME, "False", "NoWorkload").await;
    assert_eq!(message, "selects 1 workload, none of them in the mesh");
    let _proxies = TOKENS.map(|(_, token)| running.subscribe(token, None));
    running.enrol("web").await;
    assert_eq!(running.enforced(POLICY_NAME, "True", "Enforced").await, "enforced on 1 of 1 selected workload");
    running.file_when(STATUS, |text| text.contains("enforced on 1 of 1 selected workload")).await;
    running.write("policy.yaml", &POLICY.replace("namespaces: [app]", "requestPrincipals: ['*']"));
    let partly = running.file_when(STATUS, |text| text.contains("UnsupportedValue")).await;
    assert!(partly.contains("requestPrincipals"), "{partly}");
    running
        .page_when("/debug/findings", |page| {
            page[0]["reason"] == "http_attribute"
                && page[0]["field"] == "spec.rules[0].from[0].source.requestPrincipals"
                && page[0]["line"] == 9
        })
        .await;
    running.write("strict.yaml", STRICT);
    let told = "STRICT enforced on 1 of 2 selected workloads; 1 not in the mesh";
    running.file_when("state/status/control/PeerAuthentication/app/strict.yaml", |text| text.contains(told)).await;

    std::fs::remove_file(running.path("manifests/policy.yaml")).unwrap();
    running.page_when("/debug/findings", |page| page.as_array().is_some_and(Vec::is_empty)).await;
    assert_eq!(running.page("/readyz").await.0, 200);
    assert_eq!(running.page("/nothing").await.0, 404);
}
