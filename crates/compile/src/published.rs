//! Resources as they were sent last, so that only differences are sent.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use graph::{Mesh, Resolved};
use kube_types::{Kind, ObjectRef};
use proto::Change;

use crate::encode::{self, Encoded};
use crate::{authorization, endpoints, entry, entry_workload, service, workload};

/// Resources of an object by name; `None` is one to remove.
type Changed = BTreeMap<String, Option<Encoded>>;

/// Differences of both types of resources, each in the order of names.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub(crate) authorizations: Vec<Change>,
    pub(crate) addresses: Vec<Change>,
}

#[derive(Debug, Default)]
pub(crate) struct Published {
    /// Names of the resources that an object became.
    names: HashMap<ObjectRef, BTreeSet<String>>,
    addresses: Versions,
    authorizations: Versions,
}

/// Hash of the content of each resource that was sent, by name.
#[derive(Debug, Default)]
struct Versions(HashMap<String, u64>);

impl Published {
    /// Replaces the resources of these objects, and returns the differences.
    pub(crate) fn replace(&mut self, mesh: &Mesh, objects: &[(ObjectRef, Resolved)]) -> Changes {
        // Both are by name, so that a name which one object loses and another gets in the same batch is one change.
        let (mut addresses, mut authorizations) = (Changed::new(), Changed::new());
        for (key, resolved) in objects {
            // Discovery has no type for a PeerAuthentication: it becomes an Authorization.
            let is_policy = matches!(key.kind, Kind::AuthorizationPolicy | Kind::PeerAuthentication);
            let changed = if is_policy { &mut authorizations } else { &mut addresses };
            self.replace_one(changed, key, resources(mesh, resolved));
        }
        Changes {
            authorizations: self.authorizations.replace(authorizations),
            addresses: self.addresses.replace(addresses),
        }
    }

    fn replace_one(&mut self, changed: &mut Changed, key: &ObjectRef, resources: Vec<(String, Encoded)>) {
        let names: BTreeSet<_> = resources.iter().map(|(name, _)| name.clone()).collect();
        let old = if names.is_empty() { self.names.remove(key) } else { self.names.insert(key.clone(), names) };
        for name in old.into_iter().flatten() {
            // Not over a content that another object of this batch has given the name.
            changed.entry(name).or_insert(None);
        }
        // After the old names, so that a name which stays is no removal.
        changed.extend(resources.into_iter().map(|(name, encoded)| (name, Some(encoded))));
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.names.is_empty() && self.addresses.0.is_empty() && self.authorizations.0.is_empty()
    }
}

impl Versions {
    fn replace(&mut self, changed: Changed) -> Vec<Change> {
        let changes = changed.into_iter().filter_map(|(name, encoded)| match encoded {
            None => self.0.remove(&name).map(|_| Change::Remove { name }),
            // The old content is not kept: a hash of eight bytes for each resource tells that it has changed.
            Some(Encoded { bytes, hash }) => (self.0.insert(name.clone(), hash) != Some(hash))
                .then(|| Change::Upsert { name, version: encode::version(hash), value: bytes.into() }),
        });
        changes.collect()
    }
}

/// Resources of an object, by name.
fn resources(mesh: &Mesh, resolved: &Resolved) -> Vec<(String, Encoded)> {
    match resolved {
        Resolved::Workload(pod) => {
            let workload = workload::convert(mesh, pod);
            // Without a valid address there is nothing that a peer could connect to.
            let is_reachable = !workload.addresses.is_empty();
            is_reachable.then(|| (workload.uid.clone(), encode::workload(workload))).into_iter().collect()
        }
        Resolved::Service(resolved) => {
            let meta = &resolved.service.metadata;
            let name = mesh.service_key(&meta.namespace, &meta.name);
            vec![(name, encode::service(&service::convert(mesh, resolved)))]
        }
        Resolved::Endpoints(resolved) => {
            let workloads = endpoints::convert(mesh, resolved).into_iter();
            workloads.map(|workload| (workload.uid.clone(), encode::workload(workload))).collect()
        }
        Resolved::Entry(resolved) => {
            let services = entry::services(mesh, resolved)
                .into_iter()
                .map(|service| (entry::service_key(&service.namespace, &service.hostname), encode::service(&service)));
            let endpoints = entry_workload::endpoints(mesh, resolved).into_iter();
            services.chain(endpoints.map(|workload| (workload.uid.clone(), encode::workload(workload)))).collect()
        }
        Resolved::EntryWorkload(resolved) => {
            let workload = entry_workload::convert(mesh, resolved).into_iter();
            workload.map(|workload| (workload.uid.clone(), encode::workload(workload))).collect()
        }
        Resolved::Policy(policy) => {
            vec![(policy.resource_name(), encode::authorization(&authorization::convert(policy)))]
        }
        // For waypoints alone.
        Resolved::Routing(_) | Resolved::Nothing => Vec::new(),
    }
}
