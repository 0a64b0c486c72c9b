//! Policies in front of requests and connections.

use crate::common::client::{post, request};
use crate::common::server::Server;
use crate::common::{HOST, Lab, default_route, test};
use http::Method;
use model::NamespacedHostname;
use policy::http::HttpPolicy;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use waypoint_config::{AppProtocol, GatewayConfig, Policies};

fn policy(text: serde_json::Value) -> HttpPolicy {
    serde_json::from_value(text).unwrap()
}

/// Denies what begins with `/admin`.
fn deny_admin() -> HttpPolicy {
    policy(serde_json::json!({
        "namespace": "shop", "name": "no-admin", "action": "deny",
        "rules": [{"to": [{"paths": {"anyOf": [{"text": {"Prefix": "/admin"}}]}}]}],
    }))
}

impl Lab {
    fn guard_service(&self, http: Vec<HttpPolicy>) {
        self.change(|all| {
            let name = NamespacedHostname::new("shop", HOST);
            let mut service = (*all.services[&name]).clone();
            service.policies.http.clone_from(&http);
            all.services.insert(name, Arc::new(service));
        });
    }

    fn guard_all(&self, http: Vec<HttpPolicy>) {
        self.change(|all| {
            let policies = Policies { http: http.clone(), ..Policies::default() };
            all.gateway = Arc::new(GatewayConfig { policies, ..GatewayConfig::default() });
        });
    }
}

#[test]
fn a_denied_path_is_denied_however_it_is_written() {
    test(async {
        let (lab, server) = (Lab::start(vec![default_route()]).await, Server::named("one").await);
        lab.add_endpoint("web-1", "web", server.address);
        lab.guard_service(vec![deny_admin()]);
        let client = lab.client().await;

        for (count, path) in (1..).zip(["/admin", "/a/../admin/x", "/%61dmin", "/x/%2e%2e/admin", "/x\\..\\admin"]) {
            let answer = client.raw(&format!("GET {path} HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n")).await;
            assert!(answer.starts_with("HTTP/1.1 403 "), "{path}: {answer}");
            assert!(answer.ends_with("RBAC: access denied"), "{path}: {answer}");
            let expected = "403 - rbac_access_denied_matched_policy[ns[shop]-policy[no-admin]-rule[0]]";
            assert_eq!(lab.outcome(count).await, expected);
        }
        assert_eq!(server.count(), 0);
        assert_eq!(client.get("/other").await.status, 200);
    });
}

#[test]
fn a_policy_of_the_waypoint_is_for_all_and_decides_before_any_route() {
    test(async {
        let lab = Lab::start(vec![]).await;
        lab.guard_all(vec![policy(serde_json::json!({"namespace": "shop", "name": "none", "action": "allow"}))]);

        let answer = lab.client().await.get("/").await;

        // Without the policy there would be no route.
        assert_eq!((answer.status, answer.body.as_str()), (403, "RBAC: access denied"));
        assert_eq!(lab.outcome(1).await, "403 - rbac_access_denied_matched_policy[none]");
    });
}

#[test]
fn what_an_external_authorizer_would_decide_is_denied() {
    test(async {
        let (lab, server) = (Lab::start(vec![default_route()]).await, Server::named("one").await);
        lab.add_endpoint("web-1", "web", server.address);
        let action = serde_json::json!({"custom": {"provider": "opa"}});
        let custom = serde_json::json!({"namespace": "shop", "name": "ask", "action": action, "rules": [{}]});
        lab.guard_service(vec![policy(custom)]);

        let mut sender = lab.client().await.http1().await;
        let answer = sender.send_request(request(Method::GET, "/")).await.unwrap();

        assert_eq!((answer.status().as_u16(), server.count()), (403, 0));
        assert_eq!(lab.outcome(1).await, "403 UAEX ext_authz_error");
    });
}

#[test]
fn a_connection_of_another_protocol_cannot_get_around_a_denial() {
    test(async {
        let server = Server::raw(|mut socket, _| async move {
            let _ = socket.write_all(b"220 ready\r\n").await;
        })
        .await;
        let lab = Lab::with(1, AppProtocol::Tcp, vec![]).await;
        lab.add_endpoint("web-1", "web", server.address);
        lab.guard_service(vec![deny_admin()]);
        let mut stream = lab.client().await.open().await;

        assert!(stream.read_to_end(&mut Vec::new()).await.is_err());

        assert_eq!(server.connections.get(), 0);
        let line = lab.lines(1).await.remove(0);
        assert!(line.contains(" 0 - rbac_access_denied_matched_policy[ns[shop]-policy[no-admin]-rule[0]] "), "{line}");
    });
}

#[test]
fn a_change_of_policies_holds_for_the_next_request_of_an_open_connection() {
    test(async {
        let (lab, server) = (Lab::start(vec![default_route()]).await, Server::named("one").await);
        lab.add_endpoint("web-1", "web", server.address);
        let mut sender = lab.client().await.http1().await;
        assert_eq!(sender.send_request(post("/admin", "x")).await.unwrap().status(), 200);

        lab.guard_service(vec![deny_admin()]);

        sender.ready().await.unwrap();
        assert_eq!(sender.send_request(post("/admin", "x")).await.unwrap().status(), 403);
    });
}
