//! Decisions of a node proxy, given the resources that follow from some manifests.

use std::collections::BTreeMap;
use std::sync::Arc;

use compile::{Compiler, Update};
use graph::{Finding, Mesh};
use kube_types::Resource;
use model::{Address, Authorization, Change as Applied, State, StateConfig};
use policy::{Connection, Decision, Logging};
use prost::Message;
use proto::Change;

/// Manifests of a text; a mistake fails the test.
pub(crate) fn resources(yaml: &str) -> Vec<Resource> {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("all.yaml"), yaml).unwrap();
    let loaded = manifests::load_directory(directory.path()).unwrap();
    let is_error = |problem: &&kube_types::SourceProblem| problem.severity == kube_types::Severity::Error;
    let errors: Vec<_> = loaded.problems.iter().filter(is_error).map(ToString::to_string).collect();
    assert!(errors.is_empty(), "{errors:?}\n{yaml}");
    loaded.objects.into_iter().map(|object| object.resource).collect()
}

/// A compiler, its reports, and a proxy that has all of its resources.
pub(crate) struct Told {
    pub(crate) compiler: Compiler,
    state: State,
    findings: BTreeMap<String, Vec<Finding>>,
    /// Status, reason and message of the condition `Enforced`.
    enforced: BTreeMap<String, (String, String, String)>,
}

impl Told {
    pub(crate) fn new() -> Self {
        let state = State::new(StateConfig::default());
        state.set_policies_synced();
        let compiler = Compiler::new(Mesh::default());
        Self { compiler, state, findings: BTreeMap::new(), enforced: BTreeMap::new() }
    }

    /// Applies manifests, and what follows from them.
    pub(crate) fn apply(&mut self, yaml: &str) {
        resources(yaml).into_iter().for_each(|resource| self.compiler.apply(resource));
        self.settle();
    }

    /// Removes what the manifests name.
    pub(crate) fn remove(&mut self, yaml: &str) {
        resources(yaml).iter().for_each(|resource| self.compiler.remove(&resource.key()));
        self.settle();
    }

    pub(crate) fn settle(&mut self) {
        let Update { authorizations, addresses, findings, policies: states, .. } = self.compiler.settle();
        let policies = authorizations.into_iter().map(|change| match change {
            Change::Upsert { value, .. } => {
                let message = proto::security::Authorization::decode(value).unwrap();
                Applied::Upsert(Authorization::try_from(message).unwrap())
            }
            Change::Remove { name } => Applied::Remove(name.as_str().into()),
        });
        self.state.apply_authorizations(policies.collect());
        let addresses = addresses.into_iter().map(|change| match change {
            Change::Upsert { value, .. } => {
                let message = proto::workload::Address::decode(value).unwrap();
                Applied::<Address>::Upsert(model::convert::address(message).unwrap())
            }
            Change::Remove { name } => Applied::Remove(name.as_str().into()),
        });
        self.state.apply_addresses(addresses.collect());
        for (key, found) in findings {
            self.findings.insert(key.to_string(), found);
        }
        for (key, state) in states {
            let conditions = state.map(|state| state.conditions(None)).unwrap_or_default();
            match conditions.into_iter().find(|condition| condition.r#type == graph::ENFORCED) {
                Some(one) => {
                    let told =
                        (one.status.to_string(), one.reason.unwrap_or_default(), one.message.unwrap_or_default());
                    self.enforced.insert(key.to_string(), told);
                }
                None => drop(self.enforced.remove(&key.to_string())),
            }
        }
    }

    /// Decides about a connection to `namespace/pod`; the client is `namespace/account`, or an address without identity.
    pub(crate) fn admits(&self, client: &str, pod: &str, port: u16) -> bool {
        let uid = format!("Kubernetes//Pod/{pod}");
        let workload = self.state.workload(&uid).unwrap_or_else(|| panic!("no pod {pod}"));
        let identity = client
            .split_once('/')
            .map(|(namespace, account)| format!("spiffe://cluster.local/ns/{namespace}/sa/{account}").parse().unwrap());
        let source = if identity.is_some() { "10.9.9.9" } else { client };
        let connection = Connection {
            source: source.parse().unwrap(),
            destination: (workload.workload_ips[0], port).into(),
            identity,
        };
        let set = self.state.policies_of(&Arc::clone(&workload));
        assert!(set.unknown.is_empty() && set.refused.is_empty(), "{set:?}");
        matches!(policy::decide(&set, &connection, Logging::Debug), Decision::Allow { .. })
    }

    /// Code and field of each finding about an object.
    pub(crate) fn findings(&self, object: &str) -> Vec<(&'static str, &str)> {
        let found = self.findings.get(object).into_iter().flatten();
        found.map(|finding| (finding.reason.code(), finding.field.as_str())).collect()
    }

    /// Messages of the findings about an object.
    pub(crate) fn messages(&self, object: &str) -> Vec<&str> {
        self.findings.get(object).into_iter().flatten().map(|finding| finding.message.as_str()).collect()
    }

    /// Status and reason of the condition `Enforced`.
    pub(crate) fn enforced(&self, object: &str) -> String {
        let (status, reason, _) = &self.enforced[object];
        format!("{status} {reason}")
    }

    /// Message of the condition `Enforced`.
    pub(crate) fn message(&self, object: &str) -> &str {
        &self.enforced[object].2
    }
}
