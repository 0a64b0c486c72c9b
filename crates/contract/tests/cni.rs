//! Bodies as they are on the wire. A change of a golden file is a change of the contract with plugins that are installed.

use std::net::IpAddr;

use contract::cni::{AddRequest, AddResponse, IpConfig, IpNet, Outcome};

const ISTIO: &str = include_str!("golden/istio-plugin.json");
const ISTIO_NIL: &str = include_str!("golden/istio-plugin-nil.json");
const OURS: &str = include_str!("golden/strake.json");

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn read(text: &str) -> AddRequest {
    serde_json::from_str(text).unwrap()
}

#[test]
fn a_request_of_istios_plugin_is_read_and_written_byte_for_byte() {
    let request = read(ISTIO);

    assert_eq!(request.netns, "/var/run/netns/cni-5a0bb2a4-6a07-28b4-7f24-7d2a9b6c5d1e");
    assert_eq!((request.pod_namespace.as_str(), request.pod_name.as_str()), ("shop", "web-7d9c6b5f4d-x2x9p"));
    assert_eq!(request.pod_uid, None);
    let ips: Vec<IpAddr> = request.ips.iter().map(|one| one.address.ip).collect();
    assert_eq!(ips, [ip("10.244.1.7"), ip("fd00:10:244:1::7")]);
    assert_eq!(request.ips[0].gateway, Some(ip("10.244.1.1")));
    assert_eq!(serde_json::to_string(&request).unwrap(), ISTIO.trim_end());
}

#[test]
fn what_go_writes_for_nil_is_absent() {
    let request = read(ISTIO_NIL);

    let address = IpNet { ip: ip("10.244.1.7"), mask: Some("/////w==".to_owned()) };
    assert_eq!(request.ips, [IpConfig { interface: None, address, gateway: None }]);
    assert_eq!(serde_json::to_string(&request).unwrap(), ISTIO_NIL.trim_end());
    assert!(read(r#"{"Netns":"/n","PodName":"p","PodNamespace":"s","IPs":null}"#).ips.is_empty());
    assert!(read(r#"{"Netns":"/n","PodName":"p","PodNamespace":"s"}"#).ips.is_empty());
}

#[test]
fn our_request_is_istios_with_the_uid() {
    let request = AddRequest {
        netns: "/proc/7/fd/12".to_owned(),
        pod_name: "web".to_owned(),
        pod_namespace: "shop".to_owned(),
        pod_uid: Some("0c7f2a0e-5b7e-4b53-9a55-1c1a2f3b4c5d".to_owned()),
        ips: vec![IpConfig::host(ip("10.244.1.7")), IpConfig::host(ip("fd00:10:244:1::7"))],
    };

    assert_eq!(serde_json::to_string(&request).unwrap(), OURS.trim_end());
    assert_eq!(read(OURS), request);
}

#[test]
fn fields_of_a_later_version_are_ignored_and_wrong_ones_are_refused() {
    let later = r#"{"Netns":"/n","PodName":"p","PodNamespace":"s","IPs":[],"Sandbox":{"a":1}}"#;
    assert_eq!(read(later).pod_name, "p");

    for wrong in [
        "",
        "[]",
        r#"{"PodName":"p","PodNamespace":"s","IPs":[]}"#,
        r#"{"Netns":"/n","PodName":"p","PodNamespace":"s","IPs":[{"Address":{"IP":"10.0.0"}}]}"#,
        r#"{"Netns":"/n","PodName":"p","PodNamespace":"s","IPs":[{"Address":{"IP":"10.0.0.1"},"Gateway":"x"}]}"#,
    ] {
        assert!(serde_json::from_str::<AddRequest>(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn only_a_pod_that_is_enrolled_may_start() {
    for (outcome, name, status) in [
        (Outcome::Enrolled, "enrolled", 200),
        (Outcome::NotSelected, "notSelected", 500),
        (Outcome::Invalid, "invalid", 400),
        (Outcome::Failed, "failed", 500),
    ] {
        let response = AddResponse { outcome, reason: "why".to_owned() };

        let text = serde_json::to_string(&response).unwrap();

        assert_eq!(text, format!(r#"{{"outcome":"{name}","reason":"why"}}"#));
        assert_eq!(serde_json::from_str::<AddResponse>(&text).unwrap(), response);
        assert_eq!(outcome.status(), status);
    }
}
