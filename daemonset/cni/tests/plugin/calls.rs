//! Calls that need no agent, and the protocol of the CNI specification.

use serde_json::{Value, json};

use crate::agent::{Behaviour, serve};
use crate::{ARGS, Plugin, previous, run};

#[test]
fn versions_are_those_that_have_a_previous_result() {
    let answer = Plugin::new().run("VERSION");

    let versions: Value = serde_json::from_str(&answer.stdout).unwrap();
    assert_eq!(versions["supportedVersions"], json!(["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]));
    assert_eq!(versions["cniVersion"], "1.0.0");
}

#[test]
fn a_pod_can_be_deleted_whatever_the_configuration_says() {
    for input in ["", "{", "{\"cniVersion\": \"9.9.9\"}", &Plugin::new().network.to_string()] {
        for command in ["DEL", "GC"] {
            let answer = run(command, ARGS, input.as_bytes());

            assert!(answer.is_success && answer.stdout.is_empty(), "{command} {input}: {answer:?}");
        }
    }
}

#[test]
fn excluded_namespaces_and_sandboxes_without_a_pod_start_without_asking() {
    let plugin = Plugin::new().with("agent_down", "refuse-all");

    for args in ["K8S_POD_NAMESPACE=kube-system;K8S_POD_NAME=coredns", "IgnoreUnknown=1", ""] {
        assert!(plugin.run_with("ADD", args).starts(), "{args}");
    }
}

#[test]
fn the_result_before_is_passed_on_in_every_version() {
    for version in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let mut result = previous();
        result["cniVersion"] = version.into();
        result["ips"][0]["version"] = "4".into();
        let plugin = Plugin::new().with("cniVersion", version).with("prevResult", result.clone());

        let answer = plugin.run_with("ADD", "");

        assert_eq!(serde_json::from_str::<Value>(&answer.stdout).unwrap(), result);
    }
}

#[test]
fn mistakes_have_the_codes_of_the_specification() {
    assert_eq!(run("ADD", ARGS, b"{").error().0, 6);
    assert_eq!(Plugin::new().with("cniVersion", "0.2.0").run("ADD").error().0, 1);
    assert_eq!(Plugin::new().with("prevResult", Value::Null).run("ADD").error().0, 7);
    assert_eq!(Plugin::new().with("agent_down", "refuse").run("ADD").error().0, 7);
    assert_eq!(Plugin::new().run("add").error().0, 4);
}

#[test]
fn a_node_without_an_agent_is_not_ready_only_where_no_pod_may_start() {
    for policy in ["refuse-selected", "allow-all"] {
        assert!(Plugin::new().with("agent_down", policy).run("STATUS").is_success);
    }
    let plugin = Plugin::new().with("agent_down", "refuse-all");
    let (code, message) = plugin.run("STATUS").error();
    assert_eq!(code, 50);
    assert!(message.contains("cannot reach the node agent"), "{message}");

    let agent = serve(&plugin.socket(), Behaviour::Answers("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nalive\n"));
    assert!(plugin.run("STATUS").is_success);
    assert!(agent.join().unwrap().0.starts_with("GET /alive HTTP/1.1\r\n"));
}
