//! A waypoint on a directory: its status, the services that it is announced for, and its certificate.

mod support;

use proto::workload::address::Type;
use proto::workload::gateway_address::Destination;
use support::manifests::NAMESPACE;
use support::{Running, Seen};

const GATEWAY: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: door, namespace: app}
spec: {gatewayClassName: strake-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
";

/// What the lab makes for the Gateway.
const MADE: &str = "apiVersion: v1
kind: Service
metadata: {name: door, namespace: app, labels: {gateway.networking.k8s.io/gateway-name: door, gateway.istio.io/managed: istio.io-mesh-controller}}
spec: {clusterIP: 10.1.0.9, selector: {gateway.networking.k8s.io/gateway-name: door}, ports: [{name: mesh, port: 15008}]}
---
apiVersion: v1
kind: Pod
metadata: {name: door-1, namespace: app, labels: {gateway.networking.k8s.io/gateway-name: door, gateway.istio.io/managed: istio.io-mesh-controller, istio.io/dataplane-mode: none}}
spec: {nodeName: n1, serviceAccountName: door, containers: [{name: waypoint}]}
status: {phase: Running, podIP: 10.0.0.7, podIPs: [{ip: 10.0.0.7}], conditions: [{type: Ready, status: 'READY'}]}
";

const WEB: &str = "apiVersion: v1
kind: Service
metadata: {name: web, namespace: app, labels: {istio.io/use-waypoint: door}}
spec: {clusterIP: 10.1.0.1, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
";

/// Host name of the waypoint of the Service `web`.
fn waypoint(seen: &Seen) -> Option<String> {
    let Type::Service(service) = seen.addresses.get("app/web.app.svc.cluster.local")?.r#type.as_ref()? else {
        return None;
    };
    match service.waypoint.as_ref()?.destination.as_ref()? {
        Destination::Hostname(name) => Some(name.hostname.clone()),
        Destination::Address(_) => None,
    }
}

#[tokio::test]
async fn a_service_is_bound_to_a_waypoint_once_it_is_ready_and_stays_bound() {
    let made = |ready: &str| MADE.replace("READY", ready);
    let (unready, web) = (made("False"), WEB.to_owned());
    let files = [("ns.yaml", NAMESPACE), ("door.yaml", GATEWAY), ("made.yaml", &unready), ("web.yaml", &web)];
    let running = Running::start(&files).await;
    let mut proxy = running.subscribe("token of n1", None);
    let status = "state/status/waypoints/Gateway/app/door.yaml";

    let text = running.file_when(status, |text| text.contains("0 of 1 pods are ready")).await;
    assert!(text.contains("reason: Accepted") && !text.contains("addresses"), "{text}");
    proxy.holds(|seen| seen.addresses.len() >= 3 && waypoint(seen).is_none()).await;

    running.write("made.yaml", &made("True"));
    proxy.holds(|seen| waypoint(seen).as_deref() == Some("door.app.svc.cluster.local")).await;
    let text = running.file_when(status, |text| text.contains("1 of 1 pods are ready")).await;
    assert!(text.contains("10.1.0.9"), "{text}");

    running.write("made.yaml", &made("False"));
    running.file_when(status, |text| text.contains("0 of 1 pods are ready") && text.contains("10.1.0.9")).await;
    // Asked for after the status: the binding has had the same time to change.
    running.write(
        "web.yaml",
        &WEB.replace("use-waypoint: door", "use-waypoint: door, strake.io/waypoint-failure-mode: open"),
    );
    proxy.holds(|seen| waypoint(seen).is_none()).await;
    running.write(
        "web.yaml",
        &WEB.replace("use-waypoint: door", "use-waypoint: gone, strake.io/waypoint-failure-mode: closed"),
    );
    proxy.holds(|seen| waypoint(seen).as_deref() == Some("gone.app.waypoint.invalid")).await;
    running.end().await;
}

#[tokio::test]
async fn a_waypoint_gets_its_own_identity_and_no_other() {
    let ready = MADE.replace("READY", "True");
    let running = Running::start(&[("ns.yaml", NAMESPACE), ("door.yaml", GATEWAY), ("made.yaml", &ready)]).await;
    running.page_when("/debug/dump", |page| page["inSync"] == true).await;
    running.add_token("app", "door", "token of door");
    const OWN: &str = "spiffe://cluster.local/ns/app/sa/door";

    let certificate = running.certificate("token of door", OWN).await.unwrap();

    assert_eq!(certificate.identity().to_string(), OWN);
    for other in [
        "spiffe://cluster.local/ns/app/sa/web",
        "spiffe://cluster.local/ns/other/sa/door",
        "spiffe://cluster.local/ns/istio-system/sa/ztunnel",
        "spiffe://elsewhere/ns/app/sa/door",
    ] {
        let refusal = running.certificate("token of door", other).await.unwrap_err();
        assert!(refusal.contains("authentica"), "{other}: {refusal}");
    }
    // Nor does a node proxy get the waypoint's: its pod is not in the mesh.
    assert!(running.certificate("token of n1", OWN).await.is_err());
    running.end().await;
}
