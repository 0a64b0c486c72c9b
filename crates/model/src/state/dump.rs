//! The store as Istio's tools read it: `workloads`, `services`, `policies`, `stagedServices` of the config dump.

use std::{collections::BTreeMap, sync::Arc};

use serde::Serialize;

use super::Store;
use crate::{Authorization, HealthStatus, NamespacedHostname, Ports, Service, Text, Workload};

/// A copy of the store, sorted by key.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Dump {
    /// By uid.
    pub workloads: Vec<Arc<Workload>>,
    /// By namespace and hostname.
    pub services: Vec<ServiceDump>,
    /// By namespace and name.
    pub policies: Vec<Arc<Authorization>>,
    /// Endpoints whose service did not arrive.
    pub staged_services: BTreeMap<NamespacedHostname, BTreeMap<Text, EndpointDump>>,
}

/// A service with its endpoints.
#[derive(Debug, Clone, Serialize)]
pub struct ServiceDump {
    /// The service.
    #[serde(flatten)]
    pub service: Arc<Service>,
    /// Those that count, by uid.
    pub endpoints: BTreeMap<Text, EndpointDump>,
}

/// One endpoint of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointDump {
    /// Uid of the workload.
    pub workload_uid: Text,
    /// Its own ports.
    pub port: Ports,
    /// Its health.
    pub status: HealthStatus,
}

pub(super) fn dump(store: &Store) -> Dump {
    // Pointers are copied under the lock; the text is written after it is released.
    let mut workloads: Vec<_> = store.workloads().cloned().collect();
    workloads.sort_by(|a, b| a.uid.cmp(&b.uid));
    let mut services: Vec<_> = store.services().map(|service| with_endpoints(store, service)).collect();
    services.sort_by_cached_key(|s| s.service.key());
    let mut policies: Vec<_> = store.policies.iter().cloned().collect();
    policies.sort_by_cached_key(|policy| policy.key());
    let staged = |(key, members): (&NamespacedHostname, &super::store::Members)| {
        (key.clone(), members.values().filter_map(|w| endpoint(key, w)).collect())
    };
    Dump { workloads, services, policies, staged_services: store.staged().map(staged).collect() }
}

fn with_endpoints(store: &Store, service: &Arc<Service>) -> ServiceDump {
    let key = service.key();
    let members = store.members(&key).filter(|w| service.admits(w.status));
    ServiceDump { service: service.clone(), endpoints: members.filter_map(|w| endpoint(&key, w)).collect() }
}

fn endpoint(service: &NamespacedHostname, workload: &Workload) -> Option<(Text, EndpointDump)> {
    let port = workload.membership(service)?.ports.clone();
    Some((workload.uid.clone(), EndpointDump { workload_uid: workload.uid.clone(), port, status: workload.status }))
}
