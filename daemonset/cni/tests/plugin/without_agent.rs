//! Pods that start while no agent answers.

use cni::Kubeconfig;
use serde_json::{Value, json};

use crate::Plugin;
use crate::api::{Objects, with_api, with_kubeconfig};

fn label(mode: &str) -> Value {
    json!({"istio.io/dataplane-mode": mode})
}

#[test]
fn selected_pods_are_refused_with_what_to_do() {
    for objects in [
        Objects { namespace_labels: label("ambient"), ..Objects::default() },
        Objects { pod_labels: label("ambient"), ..Objects::default() },
    ] {
        let plugin = with_api(Plugin::new(), objects);

        let (code, message) = plugin.run("ADD").error();

        assert_eq!(code, 11);
        assert!(message.starts_with("cannot reach the node agent: "), "{message}");
        assert!(message.contains("pod shop/web is selected for the mesh"), "{message}");
        assert!(message.contains("kubectl --namespace istio-system get pods --selector app=strake-agent"), "{message}");
        assert!(plugin.log().contains("refused pod=shop/web"), "{}", plugin.log());
    }
}

#[test]
fn other_pods_start_and_a_line_says_so() {
    for objects in [
        Objects::default(),
        Objects { namespace_labels: label("ambient"), pod_labels: label("none"), ..Objects::default() },
    ] {
        let plugin = with_api(Plugin::new(), objects);

        let answer = plugin.run("ADD");

        assert!(answer.starts(), "{answer:?} {}", plugin.log());
        assert!(plugin.log().contains("starts unasked pod=shop/web"), "{}", plugin.log());
    }
}

#[test]
fn what_cannot_be_known_is_refused() {
    let nowhere = Kubeconfig { authority: "127.0.0.1:1".to_owned(), certificates: Vec::new(), token: "t".to_owned() };
    let untrusted = |plugin: Plugin| {
        let path = plugin.network["kubeconfig"].as_str().unwrap().to_owned();
        let known = Kubeconfig::parse(&std::fs::read(path).unwrap()).unwrap_or_else(|_| panic!("a kubeconfig"));
        with_kubeconfig(plugin, &Kubeconfig { certificates: Vec::new(), ..known })
    };
    for (plugin, reason) in [
        (Plugin::new(), "names no kubeconfig"),
        (Plugin::new().with("kubeconfig", "/nowhere/kubeconfig"), "failed to read kubeconfig /nowhere/kubeconfig"),
        (with_kubeconfig(Plugin::new(), &nowhere), "127.0.0.1:1"),
        (with_api(Plugin::new(), Objects { refused: Some(403), ..Objects::default() }), "403: said the API server"),
        (with_api(Plugin::new(), Objects { pod_uid: "u2", ..Objects::default() }), "has another pod called shop/web"),
        (untrusted(with_api(Plugin::new(), Objects::default())), "certificate"),
    ] {
        let (code, message) = plugin.run("ADD").error();

        assert_eq!(code, 11);
        assert!(message.contains("nothing tells whether it is selected"), "{message}");
        assert!(message.contains(reason), "{message}");
        assert!(!message.contains("the-plugins-token") && !plugin.log().contains("the-plugins-token"), "{message}");
    }
}

#[test]
fn the_other_policies_ask_nobody() {
    let refused = Plugin::new().with("agent_down", "refuse-all").run("ADD").error();
    assert!(refused.1.contains("agent_down is refuse-all"), "{}", refused.1);

    let plugin = Plugin::new().with("agent_down", "allow-all");
    assert!(plugin.run("ADD").starts());
    assert!(plugin.log().contains("plaintext"), "{}", plugin.log());
}
