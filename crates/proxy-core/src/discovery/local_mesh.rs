//! A fixed mesh from a YAML file: `workloads`, `services`, `policies`. Parses only; `file` reads and applies it.

use std::collections::HashSet;

use model::{Address, Authorization, Change, Service, Text, Workload};
use serde::Deserialize;

/// Text that is not such a file.
#[derive(Debug, thiserror::Error)]
#[error("local discovery file: {0}")]
pub struct LocalMeshError(String);

/// The content of a file.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LocalMesh {
    /// Endpoints; without `uid` they get `cluster//v1/Pod/namespace/name`.
    workloads: Vec<Workload>,
    /// Services.
    services: Vec<Service>,
    /// Policies.
    policies: Vec<Authorization>,
}

/// A parsed file as changes against what was read before.
#[derive(Debug, Default)]
pub struct LocalChanges {
    /// Policies, to be applied first.
    pub policies: Vec<Change<Authorization>>,
    /// Workloads and services.
    pub addresses: Vec<Change<Address>>,
}

/// Names of what a file brought, so that the next reading can remove what is gone.
#[derive(Debug, Default)]
pub struct KnownNames {
    addresses: HashSet<Text>,
    policies: HashSet<Text>,
}

impl LocalMesh {
    /// # Errors
    /// With line and column of the first mistake.
    pub fn parse(yaml: &str) -> Result<Self, LocalMeshError> {
        // A large mesh is far beyond the limits that are meant for documents of strangers.
        let options = serde_saphyr::options! { budget: None };
        let mut mesh: Self =
            serde_saphyr::from_str_with_options(yaml, options).map_err(|error| LocalMeshError(error.to_string()))?;
        for workload in &mut mesh.workloads {
            if workload.uid.is_empty() {
                let uid = format!("{}//v1/Pod/{}/{}", workload.cluster_id, workload.namespace, workload.name);
                workload.uid = Text::unique(&uid);
            }
        }
        Ok(mesh)
    }

    /// Returns the changes since a file with the names `known`, which is brought up to date.
    #[must_use]
    pub fn into_changes(self, known: &mut KnownNames) -> LocalChanges {
        let services = self.services.into_iter().map(|s| (Text::from(s.key().to_string()), Address::Service(s)));
        let workloads = self.workloads.into_iter().map(|w| (w.uid.clone(), Address::Workload(w)));
        let policies = self.policies.into_iter().map(|p| (p.key(), p));
        LocalChanges {
            policies: changes(policies, &mut known.policies),
            addresses: changes(services.chain(workloads), &mut known.addresses),
        }
    }
}

fn changes<T>(new: impl Iterator<Item = (Text, T)>, known: &mut HashSet<Text>) -> Vec<Change<T>> {
    let mut names = HashSet::new();
    let mut changes = Vec::new();
    for (name, resource) in new {
        // What is left in `known` at the end is no longer in the file.
        known.remove(&name);
        names.insert(name);
        changes.push(Change::Upsert(resource));
    }
    changes.extend(std::mem::replace(known, names).into_iter().map(Change::Remove));
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
workloads:
- uid: Kubernetes//Pod/ns/a
  name: a
  namespace: ns
  serviceAccount: sa
  trustDomain: cluster.local
  workloadIps: ["10.0.0.1"]
  protocol: HBONE
  node: node-1
  network: ""
  clusterId: Kubernetes
  workloadName: a
  workloadType: deployment
  canonicalName: a
  canonicalRevision: v1
  services:
    "ns/a.ns.svc.cluster.local":
      80: 8080
- name: b
  namespace: ns
policies: []
services:
- name: a
  namespace: ns
  hostname: a.ns.svc.cluster.local
  vips:
  - /10.98.255.1
  ports:
    80: 8080
"#;

    #[test]
    fn a_file_brings_workloads_services_and_policies() {
        let mesh = LocalMesh::parse(FILE).unwrap();

        assert_eq!(mesh.workloads[0].services.iter().next().unwrap().ports.target(80), Some(8080));
        assert_eq!(mesh.workloads[0].identity().unwrap().to_string(), "spiffe://cluster.local/ns/ns/sa/sa");
        assert_eq!(mesh.workloads[1].uid, "Kubernetes//v1/Pod/ns/b");
        assert_eq!(mesh.services[0].vips[0].to_string(), "/10.98.255.1");
        assert_eq!(mesh.services[0].ports.target(80), Some(8080));
    }

    #[test]
    fn policies_have_the_shape_of_the_dump() {
        let file = r#"
policies:
- name: deny
  namespace: ns
  scope: WorkloadSelector
  action: Deny
  rules:
  - - - notPrincipals:
        - Presence: []
      - destinationPorts: [80]
        principals:
        - Exact: cluster.local/ns/ns/sa/a
"#;

        let mesh = LocalMesh::parse(file).unwrap();

        assert_eq!(mesh.policies[0].rules[0][0].len(), 2);
        assert_eq!(mesh.policies[0].rules[0][0][1].destination_ports, [80]);
    }

    #[test]
    fn an_unknown_field_is_an_error_with_its_place() {
        let error = LocalMesh::parse("workloads:\n- name: a\n  namespace: b\n  wrong: 1\n").unwrap_err();

        assert!(error.to_string().contains("wrong"), "{error}");
    }

    #[test]
    fn what_is_no_longer_in_the_file_is_removed() {
        let mut known = KnownNames::default();
        let first = LocalMesh::parse(FILE).unwrap().into_changes(&mut known);
        assert_eq!(first.addresses.len(), 3);

        let second = LocalMesh::parse("workloads: [{name: b, namespace: ns}]").unwrap().into_changes(&mut known);

        let removed = second.addresses.iter().filter(|c| matches!(c, Change::Remove(_))).count();
        assert_eq!((second.addresses.len(), removed), (3, 2));
    }
}
