//! Commands that say what the mesh knows and decides: their answers beside what happens to real connections.

use std::process::{Command, Output};

use serde_json::Value;
use testkit::{
    TestLab, eventually, labs,
    labs::TAKES_EFFECT,
    manifests::{app, idle, namespace, service},
    prerequisites,
};

/// Clients in the mesh, of which the policy allows one, and one outside of it.
const CLIENTS: [&str; 3] = ["mesh/client", "mesh/other", "outside/stranger"];

/// Allows one service account and one port of the pods.
const POLICY: &str = "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: server, namespace: \
                      mesh}\nspec:\n  selector: {matchLabels: {app: server}}\n  rules:\n  - from:\n    - source: \
                      {principals: [cluster.local/ns/mesh/sa/client]}\n    to:\n    - operation: {ports: [\"8080\"]}\n";

fn manifests() -> String {
    namespace("mesh", true)
        + &namespace("outside", false)
        + &idle("mesh", "client", "node-1")
        + &idle("mesh", "other", "node-1")
        + &idle("outside", "stranger", "node-2")
        + &app("mesh", "server", "node-2")
        + &service("mesh", "server")
}

fn strake(lab: &TestLab, args: &[&str]) -> Output {
    let program = prerequisites::bin_dir().join("strake");
    Command::new(program).args(args).args(["--lab", lab.lab().name()]).output().expect("strake starts")
}

/// Standard output of a command that succeeds.
fn said(lab: &TestLab, args: &[&str]) -> String {
    let output = strake(lab, args);
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "strake {}: {stdout}{stderr}", args.join(" "));
    stdout.into_owned()
}

fn json(lab: &TestLab, args: &[&str]) -> Value {
    serde_json::from_str(&said(lab, &[args, &["-o", "json"]].concat())).unwrap()
}

/// Compares each explanation with a connection, until they agree: what a file changes takes effect after a while.
async fn explanations_agree(lab: &TestLab, allowed: [bool; 3]) {
    for (client, expected) in CLIENTS.iter().zip(allowed) {
        eventually(&format!("{client}: allowed is {expected}"), TAKES_EFFECT, async || {
            let explanation = json(lab, &["explain", client, "svc/mesh/server:80"]);
            let report = lab.client(client, &["http", "server.mesh:80"]).await;
            let answered = report["status"] == 200;
            let said = explanation["paths"][0]["allowed"].as_bool();
            if (answered, said) == (expected, Some(expected)) { Ok(()) } else { Err(format!("{report} {explanation}")) }
        })
        .await;
    }
}

#[test]
fn an_explanation_says_what_happens_to_a_connection() {
    labs::run_alone("explain", &manifests(), async |lab| {
        lab.meshed(&["mesh/client", "mesh/other", "mesh/server"]).await;
        explanations_agree(lab, [true; 3]).await;

        lab.write("policy.yaml", POLICY).unwrap();
        explanations_agree(lab, [true, false, false]).await;

        let text = said(lab, &["explain", "mesh/other", "mesh/server:80"]);
        assert!(text.contains("REFUSED  mesh/server") && text.contains("ALLOW mesh/server: does not match"), "{text}");
        assert!(text.contains("the client's identity is not cluster.local/ns/mesh/sa/client"), "{text}");
        let check = strake(lab, &["explain", "mesh/other", "mesh/server:80", "--check"]);
        assert_eq!(check.status.code(), Some(3));
        assert!(
            said(lab, &["explain", "mesh/client", "pod/mesh/server:7000"]).contains("the endpoint's port is not 8080")
        );

        let service = said(lab, &["describe", "service", "server", "-n", "mesh"]);
        assert!(service.contains("allowed  mesh/client (by mesh/server)"), "{service}");
        assert!(service.contains("policies     ALLOW mesh/server"), "{service}");
        let pod = said(lab, &["describe", "pod", "mesh/server"]);
        assert!(pod.contains("enrolled;") && pod.contains("/sa/server") && pod.contains("Available, expires"), "{pod}");
    });
}

#[test]
fn lists_show_what_every_proxy_knows() {
    labs::run_alone("lists", &(manifests() + &POLICY.replace("8080", "7000")), async |lab| {
        lab.meshed(&["mesh/client", "mesh/other", "mesh/server"]).await;
        let nodes = serde_json::json!(["node-1", "node-2"]);
        eventually("both proxies know the Service", TAKES_EFFECT, async || {
            let listing = json(lab, &["get", "services", "-n", "mesh"]);
            let service = &listing["services"][0];
            let endpoint = service["endpoints"][0]["workload"] == "mesh/server";
            if service["knownOn"] == nodes && endpoint { Ok(()) } else { Err(listing.to_string()) }
        })
        .await;
        eventually("the policy is enforced", TAKES_EFFECT, async || {
            let listing = json(lab, &["get", "policies", "-n", "mesh"]);
            if listing["policies"][0]["enforced"] == "True" { Ok(()) } else { Err(listing.to_string()) }
        })
        .await;

        let workloads = json(lab, &["get", "workloads", "server", "-n", "mesh"]);
        assert_eq!(workloads["workloads"][0]["protocol"], "HBONE", "{workloads}");
        assert_eq!(workloads["workloads"][0]["policies"], serde_json::json!(["mesh/server"]), "{workloads}");
        let certificates = json(lab, &["get", "certificates", "server", "--node", "node-2"]);
        assert_eq!(certificates["certificates"][0]["state"], "Available", "{certificates}");
        let load = lab.load("mesh/client", &["hold", "server:7000", "--every-ms", "20"]).await;
        eventually("the connection is listed at both ends", TAKES_EFFECT, async || {
            let listing = json(lab, &["get", "connections", "-n", "mesh"]);
            let of = |direction: &str| {
                let all = listing["connections"].as_array().unwrap().iter();
                all.filter(|one| one["direction"] == direction && one["protocol"] == "HBONE").count()
            };
            if of("inbound") > 0 && of("outbound") > 0 { Ok(()) } else { Err(listing.to_string()) }
        })
        .await;
        load.stop().await;

        let status = said(lab, &["status"]);
        assert!(status.contains("PODS SELECTED") && status.contains("node-2"), "{status}");
        let check = said(lab, &["check"]);
        assert!(check.contains("the mesh is in order (0 errors"), "{check}");
        assert!(said(lab, &["analyze", "-A"]).contains("0 errors"));
        assert!(said(lab, &["logs", "ztunnel", "--node", "node-1", "--tail", "1"]).lines().count() == 1);
        let unknown = strake(lab, &["get", "services", "sevrer", "-n", "mesh"]);
        assert_eq!(unknown.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&unknown.stderr).contains("sevrer not found among the services"));
    });
}

#[test]
fn a_program_that_is_gone_is_named_by_every_command_and_makes_a_check_fail() {
    labs::run_alone("silent", &manifests(), async |lab| {
        lab.meshed(&["mesh/client", "mesh/other", "mesh/server"]).await;
        lab.lab().pause_restarts("istio-system/ztunnel-node-2", true).await.unwrap();
        lab.lab().kill("istio-system/ztunnel-node-2", 9).await.unwrap();

        let check = strake(lab, &["check"]);
        assert_eq!(check.status.code(), Some(3), "{}", String::from_utf8_lossy(&check.stdout));
        assert!(String::from_utf8_lossy(&check.stdout).contains("ERROR    ztunnel of node-2"));
        let list = strake(lab, &["get", "services", "-A"]);
        assert_eq!(list.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&list.stderr).contains("what node-2 knows"));
        assert!(String::from_utf8_lossy(&list.stdout).contains("server"), "the rest is shown");
        let explained = said(lab, &["explain", "mesh/client", "mesh/server:80"]);
        assert!(explained.contains("UNKNOWN  mesh/server") && explained.contains("note: not seen"), "{explained}");
    });
}
