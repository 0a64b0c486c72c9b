//! Resolution of ServiceEntries and WorkloadEntries.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use contract::address::parse_address;
use kube_types::core::{Condition, ConditionStatus};
use kube_types::istio::{HostAddress, ServiceEntry, WorkloadEntry, WorkloadEntrySpec};
use kube_types::{Kind, ObjectRef, StringMap};

use super::Graph;
use super::objects::{Name, name_of};
use super::settle::Output;
use crate::allocation;
use crate::binding::Binding;
use crate::entry_findings;
use crate::resolved::{EntryEndpoint, EntryHost, EntryServices, EntryWorkload, Resolved, Visibility};
use crate::status::{ObjectStatus, WAYPOINT_MISSING};
use crate::unsupported;
use crate::waypoint::Traffic;
use crate::wish;

impl Graph {
    pub(super) fn service_entry(&self, key: &ObjectRef) -> Output {
        // It was removed; the empty output takes its resources back.
        let Some(entry) = self.objects.service_entries.get(&key.namespace, &key.name) else {
            return Output::default();
        };
        let (meta, spec) = (&entry.metadata, &entry.spec);
        let visibility = self.visibility(&meta.namespace);
        let mut binding = self.binding(meta, Traffic::Service);
        if visibility == Some(Visibility::Namespace) {
            // Only its own namespace may see the entry, so Istio refuses a waypoint elsewhere.
            binding = binding.within(&meta.namespace);
        }
        let namespace = self.index.pods.shared_namespace(&meta.namespace);
        let ingress = wish::ingress(&meta.labels, namespace.map(|namespace| &namespace.metadata.labels));
        let mut uses = binding.names();
        let hosts = self.hosts_of(entry);
        let endpoints = self.entry_endpoints(entry, &hosts, &mut uses);
        let policies =
            // Policies are carried by the workloads that the entry makes, and it makes none.
            if endpoints.is_empty() { Vec::new() } else { self.references_of(&meta.namespace, &meta.labels) };
        let mut findings = binding.findings(key);
        findings.extend(unsupported::findings(key, meta));
        findings.extend(unsupported::distribution(key, meta, None));
        findings.extend(entry_findings::of_service_entry(key, entry, &hosts, visibility));
        let mut needing = spec.hosts.iter().filter(|host| self.needs_address(entry, host));
        let exhausted = needing.find(|host| self.allocated(entry, host).is_empty());
        findings.extend(exhausted.map(|host| entry_findings::exhausted(key, host)));
        let status = self.entry_status(entry, &binding, ingress);
        let resolved = EntryServices {
            entry: Arc::clone(entry),
            namespace: namespace.cloned(),
            hosts: hosts.into_iter().map(|host| self.entry_host(entry, host)).collect(),
            waypoints: binding.waypoints(ingress),
            visibility: visibility.unwrap_or_default(),
            endpoints,
            policies,
        };
        Output { resolved: Resolved::Entry(resolved), findings, status, uses }
    }

    fn entry_host(&self, entry: &ServiceEntry, host: String) -> EntryHost {
        let is_canonical = self.is_canonical(entry, &host);
        // An address that is not in the status yet may become another one: a replica that leads may have written it.
        let written: BTreeSet<_> = read_addresses(entry, &host).collect();
        let allocated = self.allocated(entry, &host).into_iter().filter(|address| written.contains(address));
        EntryHost { allocated: allocated.collect(), host, is_canonical }
    }

    fn entry_endpoints(&self, entry: &ServiceEntry, hosts: &[String], uses: &mut BTreeSet<Name>) -> Vec<EntryEndpoint> {
        let (meta, spec) = (&entry.metadata, &entry.spec);
        // All of its hosts belong to others: its endpoints must not stay behind as workloads.
        if hosts.is_empty() {
            return Vec::new();
        }
        if spec.endpoints.is_empty() {
            // As Istio: without endpoints and selector a host that is looked up by DNS is its own endpoint.
            let is_implicit = spec.resolution.is_by_name() && spec.workload_selector.is_none();
            let named = hosts.iter().filter(|_| is_implicit).map(|host| EntryEndpoint {
                spec: WorkloadEntrySpec { address: host.clone(), ..WorkloadEntrySpec::default() },
                hosts: vec![host.clone()],
                waypoint: None,
            });
            return named.collect();
        }
        let endpoints = spec.endpoints.iter().map(|endpoint| {
            let none = StringMap::new();
            let binding = self.binding_of(&endpoint.labels, &none, &meta.namespace, Traffic::Workload);
            uses.extend(binding.names());
            EntryEndpoint { spec: endpoint.clone(), hosts: hosts.to_vec(), waypoint: binding.address().cloned() }
        });
        endpoints.collect()
    }

    fn entry_status(&self, entry: &ServiceEntry, binding: &Binding, ingress: Option<bool>) -> ObjectStatus {
        // A node proxy sees addresses, not names, and no address belongs to `*.example.com`.
        let is_wildcard = entry.spec.hosts.iter().any(|host| host.starts_with('*'));
        let missing = (is_wildcard && binding.address().is_none()).then(|| Condition {
            r#type: WAYPOINT_MISSING.to_owned(),
            status: ConditionStatus::True,
            reason: Some("NoWaypointForWildcardService".to_owned()),
            message: Some("ServiceEntry will not apply until it is bound to a valid waypoint.".to_owned()),
            observed_generation: entry.metadata.generation,
            ..Condition::default()
        });
        let addresses = entry.spec.hosts.iter().flat_map(|host| {
            let addresses = self.allocated(entry, host).into_iter();
            addresses.map(|address| HostAddress { value: address.to_string(), host: host.clone() })
        });
        ObjectStatus {
            conditions: binding.condition(ingress, entry.metadata.generation).into_iter().chain(missing).collect(),
            addresses: addresses.collect(),
        }
    }

    fn needs_address(&self, entry: &ServiceEntry, host: &str) -> bool {
        allocation::is_wanted(entry) && allocation::is_allocatable(entry, host)
    }

    fn allocated(&self, entry: &ServiceEntry, host: &str) -> Vec<IpAddr> {
        self.allocator.of(&name_of(&entry.metadata), host).collect()
    }

    /// Allocates addresses for the hosts of these entries. Those that a status has come first, whatever the order of
    /// events: an address that a client may know stays.
    pub(super) fn allocate_addresses(&mut self, marked: &BTreeSet<ObjectRef>) {
        let mut entries = Vec::new();
        for key in marked.iter().filter(|key| key.kind == Kind::ServiceEntry) {
            let name = (key.namespace.clone(), key.name.clone());
            let entry = self.objects.service_entries.get(&name.0, &name.1).cloned();
            let wanted = entry.as_ref().filter(|entry| allocation::is_wanted(entry));
            let hosts = wanted.map(|entry| {
                entry
                    .spec
                    .hosts
                    .iter()
                    .filter(|host| allocation::is_allocatable(entry, host))
                    .map(String::as_str)
                    .collect()
            });
            let hosts: Vec<_> = hosts.unwrap_or_default();
            self.allocator.retain(&name, &hosts);
            if let Some(entry) = wanted {
                // Of an address that two statuses have the older entry keeps it.
                let age = entry.metadata.creation_timestamp.clone();
                let hosts: Vec<_> = hosts.iter().map(|host| (*host).to_owned()).collect();
                entries.push((age, name, Arc::clone(entry), hosts));
            }
        }
        entries.sort_by(|left, right| (&left.0, &left.1).cmp(&(&right.0, &right.1)));
        // First all that a status has, then the new ones: else a new host could be given an address that a later one
        // already uses.
        for (_, name, entry, hosts) in &entries {
            for host in hosts {
                self.allocator.adopt(name, host, read_addresses(entry, host));
            }
        }
        for (_, name, _, hosts) in &entries {
            for host in hosts {
                self.allocator.allocate(name, host);
            }
        }
    }

    pub(super) fn workload_entry(&self, key: &ObjectRef) -> Output {
        let Some(entry) = self.objects.workload_entries.get(&key.namespace, &key.name) else {
            return Output::default();
        };
        let labels = entry.labels();
        let binding = self.binding_of(&labels, &StringMap::new(), &key.namespace, Traffic::Workload);
        let mut findings = binding.findings(key);
        findings.extend(entry_findings::of_workload_entry(key, &entry.spec));
        Output {
            resolved: Resolved::EntryWorkload(self.entry_workload(entry, labels, &binding)),
            findings,
            uses: binding.names(),
            ..Output::default()
        }
    }

    fn entry_workload(&self, entry: &Arc<WorkloadEntry>, labels: StringMap, binding: &Binding) -> EntryWorkload {
        let namespace = &entry.metadata.namespace;
        let services = self.links.services.matching(namespace, &labels).into_iter();
        let services = services.filter_map(|name| self.mesh_service(namespace, name)).cloned();
        EntryWorkload {
            entry: Arc::clone(entry),
            services: services.collect(),
            entries: self.selecting_entries(namespace, &labels),
            policies: self.references_of(namespace, &labels),
            waypoint: binding.address().cloned(),
            labels,
        }
    }
}

/// Addresses that the status of an entry has for a host.
fn read_addresses(entry: &ServiceEntry, host: &str) -> impl Iterator<Item = IpAddr> {
    let addresses = entry.status.addresses.iter().filter(move |address| address.host == host);
    addresses.filter_map(|address| parse_address(&address.value))
}
