//! Objects of waypoints, as they were reviewed: a difference in a snapshot is a rollout of every waypoint of every cluster.

use kube_types::core::ConfigMap;
use kube_types::gateway::Gateway;
use serde_json::{Value, json};
use waypoint_manifests::{Overlays, Part, PartKind, ProblemReason, Settings, render};

fn settings() -> Settings {
    Settings {
        image: "localhost/waypoint:0.1.0".to_owned(),
        image_pull_policy: "IfNotPresent".to_owned(),
        image_pull_secrets: Vec::new(),
        control_address: "https://strake-control.istio-system.svc:15012".to_owned(),
        cluster_id: "Kubernetes".to_owned(),
        trust_domain: "cluster.local".to_owned(),
        env: Vec::new(),
    }
}

fn gateway(change: impl FnOnce(&mut Value)) -> Gateway {
    let mut value = json!({
        "metadata": {"name": "waypoint", "namespace": "shop", "uid": "0001", "generation": 1},
        "spec": {
            "gatewayClassName": "strake-waypoint",
            "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}],
        },
    });
    change(&mut value);
    serde_json::from_value(value).unwrap()
}

fn overlays(data: Value) -> Overlays {
    let map: ConfigMap =
        serde_json::from_value(json!({"metadata": {"name": "more", "namespace": "shop"}, "data": data})).unwrap();
    let mut overlays = Overlays::default();
    overlays.add(&map).unwrap();
    overlays
}

fn yaml(parts: &[Part]) -> String {
    let texts: Vec<_> = parts.iter().map(|part| serde_saphyr::to_string(&part.object).unwrap()).collect();
    texts.join("---\n")
}

fn part(parts: &[Part], kind: PartKind) -> &Value {
    &parts.iter().find(|part| part.kind == kind).expect("the part").object
}

/// Reason and text of each problem.
fn problems(gateway: &Gateway, overlays: &Overlays) -> Vec<(ProblemReason, String)> {
    let problems = render(gateway, overlays, &settings()).unwrap_err();
    problems.iter().map(|problem| (problem.reason, problem.to_string())).collect()
}

#[test]
fn a_plain_gateway() {
    let parts = render(&gateway(|_| {}), &Overlays::default(), &settings()).unwrap();

    insta::assert_snapshot!(yaml(&parts));
}

#[test]
fn a_gateway_with_everything() {
    let gateway = gateway(|value| {
        value["metadata"]["annotations"] = json!({
            "gateway.istio.io/name-override": "front", "networking.istio.io/service-type": "NodePort",
        });
        value["spec"]["infrastructure"] = json!({
            "labels": {"team": "shop"}, "annotations": {"note": "ours"},
            "parametersRef": {"group": "", "kind": "ConfigMap", "name": "more"},
        });
    });
    let overlays = overlays(json!({
        "deployment": "spec:\n  replicas: 3\n  template:\n    spec:\n      terminationGracePeriodSeconds: 60\n      containers:\n      - name: waypoint\n        resources:\n          limits: null\n          requests: {cpu: 500m}\n",
        "service": "spec: {ports: [{port: 15021, nodePort: 31021}]}",
        "horizontalPodAutoscaler": "spec: {minReplicas: 2, maxReplicas: 5}",
        "podDisruptionBudget": "spec: {maxUnavailable: 50%}",
    }));
    let settings = Settings {
        image_pull_secrets: vec!["regcred".to_owned()],
        env: vec![("NETWORK".to_owned(), "east".to_owned()), ("TRUST_DOMAIN".to_owned(), "example.org".to_owned())],
        ..settings()
    };

    let parts = render(&gateway, &overlays, &settings).unwrap();

    insta::assert_snapshot!(yaml(&parts));
}

#[test]
fn a_manifest_without_uid_owns_nothing() {
    let gateway = gateway(|value| value["metadata"]["uid"] = json!(""));

    let parts = render(&gateway, &Overlays::default(), &settings()).unwrap();

    assert!(parts.iter().all(|part| part.object["metadata"].get("ownerReferences").is_none()));
}

#[test]
fn an_autoscaler_exists_only_with_its_overlay_and_sets_the_number_of_pods() {
    let plain = render(&gateway(|_| {}), &Overlays::default(), &settings()).unwrap();
    assert!(plain.iter().all(|part| part.kind != PartKind::HorizontalPodAutoscaler));
    let both = overlays(json!({
        "deployment": "spec: {replicas: 3}", "horizontalPodAutoscaler": "spec: {maxReplicas: 5}",
    }));

    let parts = render(&gateway(|_| {}), &both, &settings()).unwrap();

    assert_eq!(part(&parts, PartKind::Deployment)["spec"].get("replicas"), None);
    assert_eq!(
        part(&parts, PartKind::HorizontalPodAutoscaler)["spec"]["scaleTargetRef"],
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "waypoint"})
    );
    let unbounded = overlays(json!({"horizontalPodAutoscaler": ""}));
    assert!(problems(&gateway(|_| {}), &unbounded)[0].1.contains("spec.maxReplicas is missing"));
}

#[test]
fn later_overlays_win_over_earlier_ones() {
    let map = |name: &str, replicas: u32| -> ConfigMap {
        let data = json!({"deployment": format!("spec: {{replicas: {replicas}, minReadySeconds: {replicas}}}")});
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": "shop"}, "data": data})).unwrap()
    };
    let mut both = Overlays::default();
    both.add(&map("defaults", 2)).unwrap();
    both.add(&map("own", 4)).unwrap();

    let parts = render(&gateway(|_| {}), &both, &settings()).unwrap();

    assert_eq!(part(&parts, PartKind::Deployment)["spec"]["replicas"], 4);
}

#[test]
fn other_listeners_are_refused() {
    for (listeners, found) in [
        (json!([]), "found 0 listeners"),
        (json!([{"name": "a", "port": 80, "protocol": "HTTP"}]), "found HTTP/80, expected HBONE/15008"),
        (
            json!([{"name": "a", "port": 15008, "protocol": "HBONE"}, {"name": "b", "port": 80, "protocol": "TCP"}]),
            "2 listeners",
        ),
    ] {
        let problems = problems(&gateway(|value| value["spec"]["listeners"] = listeners), &Overlays::default());

        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].0, ProblemReason::Listeners);
        assert!(problems[0].1.contains(found), "{problems:?}");
    }
}

#[test]
fn names_that_no_service_can_have_are_refused() {
    let name = |name: String| gateway(|value| value["metadata"]["name"] = json!(name));
    for bad in ["a".repeat(64), "a.b".to_owned(), "1a".to_owned()] {
        let problems = problems(&name(bad), &Overlays::default());

        assert_eq!(problems.iter().map(|(reason, _)| *reason).collect::<Vec<_>>(), [ProblemReason::Invalid]);
    }
    let renamed = gateway(|value| {
        value["metadata"]["name"] = json!("a.b");
        value["metadata"]["annotations"] = json!({"gateway.istio.io/name-override": "ab"});
    });
    assert!(render(&renamed, &Overlays::default(), &settings()).is_ok());
}

#[test]
fn another_service_account_is_refused() {
    let account = |name: &str| {
        gateway(|value| value["metadata"]["annotations"] = json!({"gateway.istio.io/service-account": name}))
    };
    assert!(render(&account("waypoint"), &Overlays::default(), &settings()).is_ok());

    let annotated = problems(&account("admin"), &Overlays::default());
    let overlaid = overlays(json!({"deployment": "spec: {template: {spec: {serviceAccountName: admin}}}"}));
    let overlaid = problems(&gateway(|_| {}), &overlaid);

    assert!(annotated[0].1.contains("found \"admin\", expected \"waypoint\""), "{annotated:?}");
    assert!(overlaid[0].1.contains("spec.template.spec.serviceAccountName: is the controller's"), "{overlaid:?}");
}

#[test]
fn an_overlay_cannot_take_an_object_away_from_its_gateway() {
    let gateway =
        gateway(|value| value["spec"]["infrastructure"] = json!({"labels": {"gateway.istio.io/managed": "me"}}));
    let overlays = overlays(json!({
        "service": "metadata: {name: other}",
        "deployment": "spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {istio.io/dataplane-mode: ambient}}}}",
        "serviceAccount": "metadata: {labels: {gateway.networking.k8s.io/gateway-name: null}, ownerReferences: null}",
    }));

    let problems = problems(&gateway, &overlays);

    assert!(problems.iter().all(|(reason, _)| *reason == ProblemReason::Parameters));
    let texts: Vec<_> = problems.into_iter().map(|(_, text)| text).collect();
    let expected = [
        "spec.infrastructure.labels[\"gateway.istio.io/managed\"]: ",
        "ConfigMap shop/more: serviceAccount: metadata.ownerReferences: ",
        "ConfigMap shop/more: serviceAccount: metadata.labels.gateway.networking.k8s.io/gateway-name: ",
        "ConfigMap shop/more: service: metadata.name: ",
        "ConfigMap shop/more: deployment: spec.selector: ",
        "ConfigMap shop/more: deployment: spec.template.metadata.labels.istio.io/dataplane-mode: ",
    ];
    assert_eq!(texts.len(), expected.len(), "{texts:#?}");
    for (text, expected) in texts.iter().zip(expected) {
        assert!(text.starts_with(expected) && text.contains("is the controller's"), "{text}");
    }
}

#[test]
fn a_config_map_with_another_key_or_no_yaml_is_refused() {
    let map: ConfigMap = serde_json::from_value(json!({
        "metadata": {"name": "more", "namespace": "shop"},
        "data": {"deploymint": "{}", "service": "[1]", "deployment": "spec: {", "serviceAccount": ""},
    }))
    .unwrap();

    let problems = Overlays::default().add(&map).unwrap_err();

    let texts: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert!(texts[0].starts_with("ConfigMap shop/more: deployment: expected YAML"), "{texts:?}");
    assert!(
        texts[1].starts_with("ConfigMap shop/more: deploymint: unknown key, expected one of deployment"),
        "{texts:?}"
    );
    assert_eq!(texts[2], "ConfigMap shop/more: service: expected a YAML map of fields");
    assert_eq!(texts.len(), 3);
}

#[test]
fn overlays_are_those_of_the_class_and_then_the_gateways_own() {
    let map = |name: &str, class: Option<&str>, seconds: u32| -> ConfigMap {
        let labels = class.map(|class| json!({"gateway.istio.io/defaults-for-class": class})).unwrap_or(json!({}));
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "x", "labels": labels},
            "data": {"deployment": format!("spec: {{minReadySeconds: {seconds}, {name}: true}}")},
        }))
        .unwrap()
    };
    let defaults =
        [map("b", Some("strake-waypoint"), 2), map("a", Some("strake-waypoint"), 1), map("c", Some("other"), 3)];
    let own = map("own", None, 4);
    let with_reference = |name: &str, kind: &str| {
        gateway(|value| {
            value["spec"]["infrastructure"] = json!({"parametersRef": {"group": "", "kind": kind, "name": name}})
        })
    };
    let spec = |gateway: &Gateway| {
        let overlays = Overlays::of(gateway, &defaults, |name| (name == "own").then_some(&own))?;
        let parts = render(gateway, &overlays, &settings())?;
        Ok::<_, Vec<waypoint_manifests::Problem>>(part(&parts, PartKind::Deployment)["spec"].clone())
    };

    let plain = spec(&gateway(|_| {})).unwrap();
    let both = spec(&with_reference("own", "ConfigMap")).unwrap();
    let missing = spec(&with_reference("gone", "ConfigMap")).unwrap_err();
    let other = spec(&with_reference("own", "Secret")).unwrap_err();

    assert_eq!((&plain["minReadySeconds"], &plain["a"], &plain["c"]), (&json!(2), &json!(true), &Value::Null));
    assert_eq!((&both["minReadySeconds"], &both["b"], &both["own"]), (&json!(4), &json!(true), &json!(true)));
    assert_eq!(missing[0].to_string(), "spec.infrastructure.parametersRef: ConfigMap shop/gone not found");
    assert!(other[0].to_string().contains("found Secret own, expected the name of a ConfigMap"), "{}", other[0]);
}
