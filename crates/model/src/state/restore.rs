//! A store from its dump: for who asks, outside of the proxy, what the proxy would do. It has everything that the dump shows;
//! policies that were refused, and addresses of pods that are gone, are not in a dump.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Address, Change, State, StateConfig};
use crate::{Authorization, NamespacedHostname, Ports, Service, Text, Workload, workload::Membership};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Restored {
    workloads: Vec<Workload>,
    services: Vec<Map<String, Value>>,
    policies: Vec<Authorization>,
    #[serde(default)]
    staged_services: BTreeMap<String, BTreeMap<Text, Endpoint>>,
    #[serde(default)]
    config: Config,
}

/// The part of the proxy's configuration on which routes depend.
#[derive(Default, Deserialize)]
struct Config {
    #[serde(default)]
    node: Node,
}

#[derive(Default, Deserialize)]
struct Node {
    #[serde(default)]
    network: Text,
    #[serde(default)]
    name: Option<Text>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint {
    workload_uid: Text,
    port: Ports,
}

/// Reads a dump, as JSON.
///
/// # Errors
/// When it is none, or of a version with other fields.
pub(super) fn restore(dump: &[u8]) -> Result<State, serde_json::Error> {
    let Restored { workloads, services, policies, staged_services, config } = serde_json::from_slice(dump)?;
    let mut ports: BTreeMap<Text, Vec<Membership>> = BTreeMap::new();
    let mut changes = Vec::new();
    for mut fields in services {
        let endpoints = fields.remove("endpoints").unwrap_or_default();
        let service: Service = serde_json::from_value(Value::Object(fields))?;
        let endpoints: BTreeMap<Text, Endpoint> = serde_json::from_value(endpoints)?;
        add(&mut ports, &service.key(), endpoints);
        changes.push(Change::Upsert(Address::Service(service)));
    }
    for (key, endpoints) in staged_services {
        let key: NamespacedHostname = serde_json::from_value(Value::String(key))?;
        add(&mut ports, &key, endpoints);
    }
    for mut workload in workloads {
        // The workload's own list names its services without ports.
        let known = ports.remove(&workload.uid).unwrap_or_default();
        let unknown: Vec<_> =
            workload.services.iter().filter(|m| known.iter().all(|k| k.service != m.service)).cloned().collect();
        workload.services = known.into_iter().chain(unknown).collect();
        changes.push(Change::Upsert(Address::Workload(workload)));
    }
    let state = State::new(StateConfig { network: config.node.network, node: config.node.name });
    state.apply_authorizations(policies.into_iter().map(Change::Upsert).collect());
    state.apply_addresses(changes);
    state.set_policies_synced();
    Ok(state)
}

fn add(ports: &mut BTreeMap<Text, Vec<Membership>>, key: &NamespacedHostname, endpoints: BTreeMap<Text, Endpoint>) {
    for endpoint in endpoints.into_values() {
        let membership = Membership { service: key.clone(), ports: endpoint.port };
        ports.entry(endpoint.workload_uid).or_default().push(membership);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        let state = State::new(StateConfig::default());
        let workload = r#"{"uid": "Kubernetes//Pod/ns/a", "name": "a", "namespace": "ns", "workloadIps": ["10.0.0.1"],
            "protocol": "HBONE", "node": "n1", "authorizationPolicies": ["ns/p"],
            "services": {"ns/a.ns.svc.cluster.local": {"80": 8080}, "ns/later.ns.svc.cluster.local": {"81": 8081}}}"#;
        let service = r#"{"name": "a", "namespace": "ns", "hostname": "a.ns.svc.cluster.local", "vips": ["/10.98.0.1"],
            "ports": {"80": 8080}}"#;
        let policy = r#"{"name": "p", "namespace": "ns", "scope": "WorkloadSelector", "action": "Deny",
            "rules": [[[{"principals": [{"Exact": "cluster.local/ns/ns/sa/b"}]}]]]}"#;
        state.apply_authorizations(vec![Change::Upsert(serde_json::from_str(policy).unwrap())]);
        let addresses = vec![
            Change::Upsert(Address::Service(serde_json::from_str(service).unwrap())),
            Change::Upsert(Address::Workload(serde_json::from_str(workload).unwrap())),
        ];
        state.apply_addresses(addresses);
        state
    }

    #[test]
    fn a_store_that_is_restored_dumps_the_same() {
        let dump = serde_json::to_value(state().dump()).unwrap();

        let restored = State::from_dump(dump.to_string().as_bytes()).unwrap();

        assert_eq!(serde_json::to_value(restored.dump()).unwrap(), dump);
        let workload = restored.workload("Kubernetes//Pod/ns/a").unwrap();
        let policies = restored.policies_of(&workload);
        assert_eq!((policies.policies.len(), policies.unknown.len()), (1, 0));
        assert_eq!(workload.services, state().workload("Kubernetes//Pod/ns/a").unwrap().services);
    }

    #[test]
    fn what_is_no_dump_is_an_error() {
        assert!(State::from_dump(b"{}").is_err());
        assert!(State::from_dump(b"[]").is_err());
    }
}
