//! Ports on which a pod's own spec has it probed by the kubelet: only there, the kubelet's connections bypass the proxy.
//!
//! The kubelet connects wherever a probe of any pod says (`host`), and where it is one process with the API server (k3s) also
//! where users of `pods/proxy` say. A connection is the pod's own probe only if the pod declares it for itself.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ebpf_common::PROBES_PER_POD;
use kube_types::core::{Container, IntOrString, LifecycleHandler, Pod, Probe};

/// Probes that a pod declares.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Declared {
    /// Ports of the pod itself, at most [`PROBES_PER_POD`].
    pub ports: Vec<u16>,
    /// Probes that do not bypass the proxy, each with the reason.
    pub notes: Vec<String>,
}

/// Startup, liveness and readiness probes and lifecycle hooks of all containers, init containers included: those that keep
/// running have probes too. `ips` are the pod's own addresses: a `host` that is one of them is the pod itself.
pub fn declared(pod: &Pod, ips: &[IpAddr]) -> Declared {
    let mut declared = Declared::default();
    let mut ports = BTreeSet::new();
    for container in pod.spec.init_containers.iter().chain(&pod.spec.containers) {
        for (name, target) in targets(container) {
            match target.port_of(container, ips) {
                Ok(port) => drop(ports.insert(port)),
                Err(why) => declared.notes.push(format!("{name} of container {}: {why}", container.name)),
            }
        }
    }
    if ports.len() > PROBES_PER_POD {
        let kept = format!("{} ports are probed; probes of {PROBES_PER_POD} of them bypass the proxy", ports.len());
        declared.notes.push(kept);
    }
    // The entry of the kernel's map has room for so many; in the order of their numbers, so that it is the same ones
    // each time.
    declared.ports = ports.into_iter().take(PROBES_PER_POD).collect();
    declared
}

/// Destination of a probe.
struct Target<'a> {
    host: Option<&'a str>,
    port: IntOrString,
}

impl Target<'_> {
    /// The port of the pod itself, or why it is not one.
    fn port_of(&self, container: &Container, ips: &[IpAddr]) -> Result<u16, String> {
        let own = |host: &str| host.parse().is_ok_and(|host: IpAddr| ips.contains(&host));
        if let Some(host) = self.host.filter(|host| !host.is_empty() && !own(host)) {
            return Err(format!(
                "host {host:?} is not this pod: the connection goes through the proxy of whoever has it"
            ));
        }
        match &self.port {
            IntOrString::Int(port) => Ok(*port),
            // By name first; the API also allows a number in quotes.
            IntOrString::String(text) => {
                let named = container.ports.iter().find(|port| port.name == *text).map(|port| port.container_port);
                named.or_else(|| text.parse().ok()).ok_or_else(|| format!("the container has no port {text:?}"))
            }
        }
    }
}

fn targets(container: &Container) -> impl Iterator<Item = (&'static str, Target<'_>)> {
    let probes = [
        ("startupProbe", &container.startup_probe),
        ("livenessProbe", &container.liveness_probe),
        ("readinessProbe", &container.readiness_probe),
    ];
    let lifecycle = container
        .lifecycle
        .iter()
        .flat_map(|hooks| [("lifecycle.postStart", &hooks.post_start), ("lifecycle.preStop", &hooks.pre_stop)]);
    let probed = probes.into_iter().filter_map(|(name, probe)| Some((name, of_probe(probe.as_ref()?)?)));
    probed.chain(lifecycle.filter_map(|(name, hook)| Some((name, of_hook(hook.as_ref()?)?))))
}

fn of_probe(probe: &Probe) -> Option<Target<'_>> {
    // An `exec` probe runs inside of the container and needs no exemption.
    let http = probe.http_get.as_ref().map(|get| Target { host: get.host.as_deref(), port: get.port.clone() });
    let tcp = || probe.tcp_socket.as_ref().map(|tcp| Target { host: tcp.host.as_deref(), port: tcp.port.clone() });
    let grpc = || probe.grpc.as_ref().map(|grpc| Target { host: None, port: IntOrString::Int(grpc.port) });
    http.or_else(tcp).or_else(grpc)
}

fn of_hook(hook: &LifecycleHandler) -> Option<Target<'_>> {
    let http = hook.http_get.as_ref().map(|get| Target { host: get.host.as_deref(), port: get.port.clone() });
    http.or_else(|| hook.tcp_socket.as_ref().map(|tcp| Target { host: tcp.host.as_deref(), port: tcp.port.clone() }))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn declared_by(containers: &Value, init: &Value) -> Declared {
        let pod: Pod =
            serde_json::from_value(json!({"spec": {"containers": containers, "initContainers": init}})).unwrap();
        declared(&pod, &["10.244.1.7".parse().unwrap(), "fd00::7".parse().unwrap()])
    }

    #[test]
    fn every_kind_of_probe_counts_and_names_are_ports_of_the_same_container() {
        let app = json!({
            "name": "app", "ports": [{"name": "http", "containerPort": 8080}],
            "startupProbe": {"tcpSocket": {"port": 1000}},
            "livenessProbe": {"grpc": {"port": 1001}},
            "readinessProbe": {"httpGet": {"path": "/", "port": "http"}},
            "lifecycle": {"postStart": {"httpGet": {"path": "/", "port": 1002}}, "preStop": {"tcpSocket": {"port": 1003}}},
        });
        let sidecar =
            json!({"name": "side", "restartPolicy": "Always", "readinessProbe": {"tcpSocket": {"port": "1004"}}});

        let declared = declared_by(&json!([app, {"name": "plain"}]), &json!([sidecar]));

        assert_eq!(declared.ports, [1000, 1001, 1002, 1003, 1004, 8080]);
        assert!(declared.notes.is_empty(), "{declared:?}");
    }

    #[test]
    fn a_probe_of_another_host_is_not_the_pods_and_is_told() {
        let get = |host: &str| json!({"httpGet": {"path": "/", "port": 80, "host": host}});
        let app = json!({"name": "app", "readinessProbe": get("10.244.1.9"), "livenessProbe": get("db.shop"),
            "startupProbe": {"exec": {"command": ["true"]}}});
        let other = json!({"name": "other", "readinessProbe": get("fd00::7"), "livenessProbe": get(""),
            "startupProbe": {"tcpSocket": {"port": "nowhere"}}});

        let declared = declared_by(&json!([app, other]), &json!([]));

        assert_eq!(declared.ports, [80]);
        let expected =
            ["livenessProbe of container app: host \"db.shop\"", "readinessProbe of container app: host", "no port"];
        assert_eq!(declared.notes.len(), 3, "{declared:?}");
        assert!(expected.iter().all(|text| declared.notes.iter().any(|note| note.contains(text))), "{declared:?}");
    }

    #[test]
    fn a_pod_with_more_probed_ports_than_there_is_room_for_is_told() {
        let many: Vec<Value> = (1..=40)
            .map(|port| json!({"name": format!("c{port}"), "livenessProbe": {"tcpSocket": {"port": port}}}))
            .collect();

        let declared = declared_by(&json!(many), &json!([]));

        assert_eq!(declared.ports.len(), PROBES_PER_POD);
        assert!(declared.notes[0].contains("40 ports"), "{declared:?}");
    }
}
