//! Lookups by address and by hostname. Holds nothing that the store does not hold.

use std::{borrow::Cow, collections::HashMap, hash::Hash, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use runtime::collections::shrink_sparse;

use crate::view::names::lowercase;
use crate::{InboundProtocol, NamespacedHostname, NetworkAddress, NetworkMode, Service, Text, Workload};

#[derive(Debug, Default)]
pub(crate) struct Index {
    workloads: HashMap<NetworkAddress, Vec<Arc<Workload>>>,
    hostnames: HashMap<Text, Vec<Arc<Service>>>,
    vips: HashMap<NetworkAddress, Vec<Arc<Service>>>,
    cidrs: Vec<(Text, IpNet, Arc<Service>)>,
}

impl Index {
    pub(super) fn insert_workload(&mut self, workload: &Arc<Workload>) {
        for address in addresses(workload) {
            // Nearly every address has one owner: `Vec`'s usual room for four would cost more than the entries.
            self.workloads.entry(address).or_insert_with(|| Vec::with_capacity(1)).push(workload.clone());
        }
    }

    pub(super) fn remove_workload(&mut self, workload: &Workload) {
        for address in addresses(workload) {
            if let Some(same) = self.workloads.get_mut(&address) {
                same.retain(|w| w.uid != workload.uid);
                if same.is_empty() {
                    self.workloads.remove(&address);
                }
            }
        }
    }

    /// Shrinks tables of which most was removed.
    pub(super) fn give_memory_back(&mut self) {
        shrink_sparse(&mut self.workloads);
        shrink_sparse(&mut self.hostnames);
        shrink_sparse(&mut self.vips);
    }

    /// Takes `before` out and `after` in. Where both have an entry its position is kept: age decides between equals.
    pub(super) fn replace_service(&mut self, before: Option<&Arc<Service>>, after: Option<&Arc<Service>>) {
        let host = |s: &Arc<Service>| vec![folded(&s.hostname)];
        replace(&mut self.hostnames, before, after, host);
        replace(&mut self.vips, before, after, |s| s.vips.clone());
        if let Some(before) = before {
            let key = before.key();
            // A list, not a tree: blocks come from ServiceEntries, and there are few of them.
            self.cidrs.retain(|(_, _, service)| service.key() != key);
        }
        if let Some(after) = after {
            self.cidrs.extend(after.cidr_vips.iter().map(|vip| (vip.network.clone(), vip.cidr, after.clone())));
        }
    }

    /// Best of the workloads with that address: pods first, then those that take HBONE, then the oldest.
    pub(crate) fn workload(&self, network: &Text, address: IpAddr) -> Option<Arc<Workload>> {
        let same = self.workloads.get(&NetworkAddress::new(network.clone(), address))?;
        let rank = |w: &Workload| (!w.is_pod(), w.protocol != InboundProtocol::HBONE);
        // `min_by_key` takes the first of equals, which is the oldest.
        same.iter().min_by_key(|w| rank(w)).cloned()
    }

    /// The service that a client of `namespace` means by an address: exact addresses first, then blocks.
    pub(crate) fn service_by_address(&self, network: &Text, address: IpAddr, namespace: &str) -> Option<Arc<Service>> {
        // One look-up in a table for nearly every connection; blocks are tried only when it finds nothing.
        let exact = self.vips.get(&NetworkAddress::new(network.clone(), address));
        if let Some(best) = exact.and_then(|services| best(services, Some(namespace))) {
            return Some(best);
        }
        // Blocks are canonical; `NetworkAddress::new` above has done the same for the exact address.
        let address = address.to_canonical();
        let inside = self.cidrs.iter().filter(|(net, cidr, service)| {
            net == network && cidr.contains(&address) && service.is_visible_to(namespace)
        });
        // min_by_key: of equals the oldest.
        let rank = |cidr: &IpNet, service: &Service| {
            // Own namespace, then the smaller block, then the canonical service.
            (service.namespace != *namespace, u8::MAX - cidr.prefix_len(), !service.canonical)
        };
        inside.min_by_key(|(_, cidr, service)| rank(cidr, service)).map(|(_, _, service)| service.clone())
    }

    /// A service with that address whoever asks, for references of the control plane.
    pub(crate) fn any_service_by_address(&self, address: &NetworkAddress) -> Option<Arc<Service>> {
        best(self.vips.get(address)?, None)
    }

    /// The service that a client of `namespace` means by a hostname.
    pub(crate) fn service_by_hostname(&self, hostname: &str, namespace: &str) -> Option<Arc<Service>> {
        best(self.services_by_hostname(hostname), Some(namespace))
    }

    /// All services of a hostname, oldest first. Case does not count.
    pub(crate) fn services_by_hostname(&self, hostname: &str) -> &[Arc<Service>] {
        self.hostnames.get(lowercase(hostname).as_ref()).map_or(&[], Vec::as_slice)
    }
}

/// Key of a hostname.
fn folded(hostname: &Text) -> Text {
    match lowercase(hostname) {
        // Nearly always: shares the service's own string.
        Cow::Borrowed(_) => hostname.clone(),
        Cow::Owned(lower) => lower.into(),
    }
}

/// Of several services the one a client means: visible, of its own namespace, canonical, oldest. Without client: canonical, oldest.
fn best(services: &[Arc<Service>], namespace: Option<&str>) -> Option<Arc<Service>> {
    let visible = services.iter().filter(|s| namespace.is_none_or(|ns| s.is_visible_to(ns)));
    let rank = |s: &Service| (namespace.is_some_and(|ns| s.namespace != *ns), !s.canonical);
    visible.min_by_key(|s| rank(s)).cloned()
}

pub(super) fn addresses(workload: &Workload) -> impl Iterator<Item = NetworkAddress> + '_ {
    let own = match workload.network_mode {
        NetworkMode::Standard => workload.workload_ips.as_slice(),
        // All pods of the node share its addresses, so none of them can be found by one.
        NetworkMode::HostNetwork => &[],
    };
    own.iter().map(|ip| NetworkAddress::new(workload.network.clone(), *ip))
}

fn replace<K: Hash + Eq>(
    map: &mut HashMap<K, Vec<Arc<Service>>>,
    before: Option<&Arc<Service>>,
    after: Option<&Arc<Service>>,
    keys: impl Fn(&Arc<Service>) -> Vec<K>,
) {
    let new_keys = after.map(&keys).unwrap_or_default();
    for key in before.map(&keys).unwrap_or_default() {
        if !new_keys.contains(&key) {
            remove(map, &key, before.map(|s| s.key()).as_ref());
        }
    }
    let Some(after) = after else { return };
    for key in new_keys {
        let list = map.entry(key).or_insert_with(|| Vec::with_capacity(1));
        match list.iter_mut().find(|s| s.hostname == after.hostname && s.namespace == after.namespace) {
            // In its old position: of equals the oldest wins, and an update must not change who that is.
            Some(place) => *place = after.clone(),
            None => list.push(after.clone()),
        }
    }
}

fn remove<K: Hash + Eq>(map: &mut HashMap<K, Vec<Arc<Service>>>, key: &K, service: Option<&NamespacedHostname>) {
    if let (Some(list), Some(service)) = (map.get_mut(key), service) {
        list.retain(|s| s.key() != *service);
        if list.is_empty() {
            map.remove(key);
        }
    }
}
