//! A waypoint between two nodes: rules about requests, as users write them for Istio, proved from outside.

use serde_json::Value;
use testkit::{
    Shared, TestLab, eventually,
    labs::TAKES_EFFECT,
    manifests::{app, idle, namespace},
};

static LAB: Shared = Shared::new("waypoint", manifests);

const CLIENT: &str = "shop/client";
const TESTER: &str = "shop/tester";
const WEB: &str = "web.shop:80";

/// A server of the service `web` with a label for its version. It has the service account of its name.
fn version(name: &str, node: &str) -> String {
    app("shop", name, node).replace(&format!("app: {name}\n"), &format!("app: web\n    version: {name}\n"))
}

fn manifests() -> String {
    let servers = namespace("shop", true).replace("labels:\n", "labels:\n    istio.io/use-waypoint: waypoint\n")
        + &idle("shop", "client", "node-1")
        + &idle("shop", "tester", "node-1")
        + &version("v1", "node-1")
        + &version("v2", "node-2");
    servers + RULES
}

/// `web` has a rule for each test.
const RULES: &str = r#"
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: shop}
spec:
  gatewayClassName: strake-waypoint
  listeners:
  - {name: mesh, port: 15008, protocol: HBONE}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  selector: {app: web}
  ports:
  - {name: http, port: 80, targetPort: 8080}
---
apiVersion: v1
kind: Service
metadata: {name: web-v1, namespace: shop}
spec:
  selector: {version: v1}
  ports:
  - {name: http, port: 80, targetPort: 8080}
---
apiVersion: v1
kind: Service
metadata: {name: web-v2, namespace: shop}
spec:
  selector: {version: v2}
  ports:
  - {name: http, port: 80, targetPort: 8080}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: shop}
spec:
  hosts: [web]
  http:
  - match:
    - headers: {x-user: {exact: tester}}
    route:
    - destination: {host: web-v2}
  - match:
    - uri: {prefix: /broken}
    fault:
      abort: {httpStatus: 418, percentage: {value: 100}}
    route:
    - destination: {host: web-v1}
  - match:
    - uri: {exact: /old}
    redirect: {uri: /new}
  - match:
    - uri: {prefix: /canary}
    route:
    - {destination: {host: web-v1}, weight: 80}
    - {destination: {host: web-v2}, weight: 20}
  - route:
    - destination: {host: web-v1}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-admin, namespace: shop}
spec:
  targetRefs: [{kind: Service, group: "", name: web}]
  action: DENY
  rules:
  - to: [{operation: {paths: ["/admin*"]}}]
    from: [{source: {notPrincipals: ["cluster.local/ns/shop/sa/tester"]}}]
"#;

async fn get(lab: &TestLab, from: &str, path: &str, more: &[&str]) -> Value {
    lab.client(from, &[&["http", WEB, "--text", path], more].concat()).await
}

/// Version of the server that answered.
async fn answered_by(lab: &TestLab, report: &Value) -> &'static str {
    assert_eq!(report["status"], 200, "{report}");
    for name in ["v1", "v2"] {
        let ips = lab.pod(&format!("shop/{name}")).await.ips;
        if ips.iter().any(|ip| report["body"].as_str().is_some_and(|body| body.contains(&format!("local={ip} ")))) {
            return name;
        }
    }
    panic!("answered by nobody: {report}")
}

/// Until the mesh stands, and requests come through the waypoint: an answer of its own says so.
async fn ready(lab: &TestLab) {
    lab.meshed(&[CLIENT, TESTER, "shop/v1", "shop/v2"]).await;
    eventually("requests go through the waypoint", TAKES_EFFECT, async || {
        let report = get(lab, CLIENT, "/broken", &[]).await;
        if report["status"] == 418 { Ok(()) } else { Err(report) }
    })
    .await;
}

#[test]
fn a_request_takes_the_route_of_its_header_and_else_the_last_one() {
    LAB.run(async |lab| {
        ready(lab).await;

        for _ in 0..5 {
            let tester = get(lab, CLIENT, "/", &["--header", "x-user: tester"]).await;
            assert_eq!(answered_by(lab, &tester).await, "v2");
            let anyone = get(lab, CLIENT, "/", &[]).await;
            assert_eq!(answered_by(lab, &anyone).await, "v1");
        }
    });
}

#[test]
fn weights_share_requests() {
    LAB.run(async |lab| {
        ready(lab).await;

        let mut canary = 0;
        for _ in 0..100 {
            let report = get(lab, CLIENT, "/canary", &[]).await;
            canary += usize::from(answered_by(lab, &report).await == "v2");
        }

        // 20 of 100 are expected; beyond these bounds once in a million runs.
        assert!((4..=42).contains(&canary), "{canary} of 100");
    });
}

#[test]
fn a_redirect_and_a_fault_are_answered_by_the_waypoint() {
    LAB.run(async |lab| {
        ready(lab).await;

        assert_eq!(get(lab, CLIENT, "/old", &[]).await["status"], 301);
        let aborted = get(lab, CLIENT, "/broken/x", &[]).await;
        assert_eq!((&aborted["status"], &aborted["body"]), (&418.into(), &"fault filter abort".into()));
    });
}

#[test]
fn a_policy_for_requests_denies_by_path_and_by_the_client_s_identity() {
    LAB.run(async |lab| {
        ready(lab).await;

        for path in ["/admin", "/admin/x", "/x/../admin", "/%61dmin"] {
            let denied = get(lab, CLIENT, path, &[]).await;
            assert_eq!((&denied["status"], &denied["body"]), (&403.into(), &"RBAC: access denied".into()), "{path}");
        }
        // Another path for the policy, as it is for the server.
        assert_eq!(get(lab, CLIENT, "//admin", &[]).await["status"], 200);
        assert_eq!(get(lab, TESTER, "/admin", &[]).await["status"], 200);
        assert_eq!(get(lab, CLIENT, "/", &[]).await["status"], 200);
    });
}

#[test]
fn nothing_of_a_request_is_readable_between_the_nodes() {
    LAB.run(async |lab| {
        ready(lab).await;

        let (report, frames) = lab
            .captured("node-1", async {
                get(lab, CLIENT, "/x-marker-of-this-request", &["--header", "x-user: tester"]).await
            })
            .await;

        assert_eq!(answered_by(lab, &report).await, "v2");
        let bytes = || frames.iter().map(|frame| frame.bytes.as_slice());
        assert_eq!(capture::occurrences(bytes(), b"x-marker-of-this-request"), 0);
        assert!(!frames.is_empty(), "the request crossed the wire");
    });
}
