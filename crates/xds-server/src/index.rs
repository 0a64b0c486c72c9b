//! Names by which clients ask for addresses one by one: that of a resource, or an address as `NETWORK/IP`. The name of a
//! service stands for its workloads, too. Kept only while a client asks in this way.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use prost::Message as _;
use proto::workload::address::Type;
use proto::workload::{Address, NetworkAddress};

use crate::cache::Entries;

type Name = Arc<str>;
type Names = HashMap<Name, BTreeSet<Name>>;

/// The resources of addresses by what refers to them.
#[derive(Debug, Default)]
pub(crate) struct Index {
    facts: HashMap<Name, Facts>,
    workloads_by_address: Names,
    services_by_address: Names,
    /// Workloads of each service, whether it exists or not.
    members: Names,
    by_node: Names,
}

#[derive(Debug, Default)]
struct Facts {
    is_service: bool,
    /// Addresses as `NETWORK/IP`, sorted.
    aliases: Vec<Name>,
    /// Services of a workload.
    services: Vec<Name>,
    /// Node of a workload; empty when nobody has scheduled it.
    node: Name,
}

impl Index {
    pub(crate) fn of(entries: &Entries) -> Self {
        let mut index = Self::default();
        for (name, entry) in entries {
            index.set(name, Some(&entry.value));
        }
        index
    }

    /// Replaces a resource; `None` when it is gone. One that cannot be decoded is found by its own name only.
    pub(crate) fn set(&mut self, name: &Name, value: Option<&[u8]>) {
        if let Some(old) = self.facts.remove(name) {
            self.link(name, &old, false);
        }
        if let Some(value) = value {
            // The cache holds encoded resources only; decoding is paid for while somebody asks by name.
            let facts = Address::decode(value).ok().and_then(|address| address.r#type).map(facts).unwrap_or_default();
            self.link(name, &facts, true);
            self.facts.insert(Arc::clone(name), facts);
        }
    }

    fn link(&mut self, name: &Name, facts: &Facts, add: bool) {
        let by_address = if facts.is_service { &mut self.services_by_address } else { &mut self.workloads_by_address };
        facts.aliases.iter().for_each(|alias| change(by_address, alias, name, add));
        facts.services.iter().for_each(|service| change(&mut self.members, service, name, add));
        if !facts.node.is_empty() {
            change(&mut self.by_node, &facts.node, name, add);
        }
    }

    /// The resources that a name stands for: its own, else the workloads with the address, else the services with it, each
    /// with its workloads. None when nothing is known.
    pub(crate) fn find(&self, name: &str) -> BTreeSet<Name> {
        if let Some((name, _)) = self.facts.get_key_value(name) {
            return self.with_members(name);
        }
        // A workload's own address comes before a service's.
        if let Some(workloads) = self.workloads_by_address.get(name) {
            return workloads.clone();
        }
        let services = self.services_by_address.get(name).into_iter().flatten();
        services.flat_map(|service| self.with_members(service)).collect()
    }

    /// A resource, and the workloads of it when it is a service.
    pub(crate) fn with_members(&self, name: &Name) -> BTreeSet<Name> {
        let is_service = self.facts.get(name).is_some_and(|facts| facts.is_service);
        let members = is_service.then(|| self.members.get(name)).flatten();
        [name].into_iter().chain(members.into_iter().flatten()).cloned().collect()
    }

    pub(crate) fn on_node(&self, node: &str) -> impl Iterator<Item = &Name> {
        self.by_node.get(node).into_iter().flatten()
    }

    /// Returns true if one of these names stands for the resource: its own, an address, or a service of it that is among
    /// `wanted`.
    pub(crate) fn is_asked_for(&self, name: &Name, asked: &BTreeSet<Name>, wanted: &BTreeSet<Name>) -> bool {
        let Some(facts) = self.facts.get(name) else { return asked.contains(name) };
        asked.contains(name)
            || facts.aliases.iter().any(|alias| asked.contains(alias))
            || facts.services.iter().any(|service| wanted.contains(service))
    }

    pub(crate) fn is_on_node(&self, name: &Name, node: &str) -> bool {
        !node.is_empty() && self.facts.get(name).is_some_and(|facts| &*facts.node == node)
    }

    /// Addresses of a resource as `NETWORK/IP`, sorted.
    pub(crate) fn aliases(&self, name: &Name) -> &[Name] {
        self.facts.get(name).map_or(&[], |facts| &facts.aliases)
    }
}

fn change(names: &mut Names, key: &Name, name: &Name, add: bool) {
    if add {
        names.entry(Arc::clone(key)).or_default().insert(Arc::clone(name));
    } else if let Some(set) = names.get_mut(key) {
        set.remove(name);
        if set.is_empty() {
            names.remove(key);
        }
    }
}

fn facts(resource: Type) -> Facts {
    let aliases = addresses_of(&resource);
    match resource {
        Type::Workload(workload) => Facts {
            is_service: false,
            aliases,
            services: workload.services.keys().map(|key| key.as_str().into()).collect(),
            node: workload.node.into(),
        },
        Type::Service(_) => Facts { is_service: true, aliases, ..Facts::default() },
    }
}

/// Addresses of a resource as `NETWORK/IP`, sorted. A block of addresses is none of them.
pub(crate) fn addresses_of(resource: &Type) -> Vec<Name> {
    let mut addresses: Vec<Name> = match resource {
        Type::Workload(workload) => {
            workload.addresses.iter().filter_map(|bytes| alias(&workload.network, bytes)).collect()
        }
        Type::Service(service) => {
            let single = service.addresses.iter().filter(|address| is_single(address));
            single.filter_map(|address| alias(&address.network, &address.address)).collect()
        }
    };
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

fn is_single(address: &NetworkAddress) -> bool {
    address.length.is_none_or(|length| length as usize == address.address.len() * 8)
}

fn alias(network: &str, bytes: &[u8]) -> Option<Name> {
    let address = match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
        _ => return None,
    };
    Some(format!("{network}/{address}").into())
}

#[cfg(test)]
mod tests {
    use proto::workload::{PortList, Service, Workload};

    use super::*;

    fn encoded(resource: Type) -> Vec<u8> {
        Address { r#type: Some(resource) }.encode_to_vec()
    }

    fn pod(address: [u8; 4], service: Option<&str>) -> Vec<u8> {
        let services = service.into_iter().map(|service| (service.to_owned(), PortList::default())).collect();
        encoded(Type::Workload(Workload {
            addresses: vec![address.to_vec()],
            services,
            node: "n1".to_owned(),
            ..Workload::default()
        }))
    }

    fn service(address: [u8; 4], length: Option<u32>) -> Vec<u8> {
        let address = NetworkAddress { network: "net".to_owned(), address: address.to_vec(), length };
        encoded(Type::Service(Service { addresses: vec![address], ..Service::default() }))
    }

    fn found(index: &Index, name: &str) -> Vec<String> {
        index.find(name).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_resource_is_found_by_its_name_and_its_addresses_and_a_service_brings_its_workloads() {
        let mut index = Index::default();
        index.set(&"app/web".into(), Some(&service([10, 96, 0, 1], None)));
        index.set(&"a".into(), Some(&pod([10, 0, 0, 1], Some("app/web"))));
        index.set(&"b".into(), Some(&pod([10, 0, 0, 2], None)));

        for name in ["app/web", "net/10.96.0.1"] {
            assert_eq!(found(&index, name), ["a", "app/web"], "{name}");
        }
        assert_eq!(found(&index, "/10.0.0.1"), ["a"]);
        assert_eq!(found(&index, "b"), ["b"]);
        assert!(found(&index, "net/10.0.0.1").is_empty() && found(&index, "x").is_empty());
        assert_eq!(index.on_node("n1").count(), 2);
        assert_eq!(index.aliases(&"app/web".into()), [Name::from("net/10.96.0.1")]);
    }

    #[test]
    fn a_block_of_addresses_has_no_alias() {
        let mut index = Index::default();
        index.set(&"app/block".into(), Some(&service([10, 96, 0, 0], Some(16))));
        index.set(&"app/one".into(), Some(&service([10, 97, 0, 0], Some(32))));

        assert!(found(&index, "net/10.96.0.0").is_empty());
        assert_eq!(found(&index, "net/10.97.0.0"), ["app/one"]);
    }

    #[test]
    fn what_is_gone_leaves_nothing_behind() {
        let mut index = Index::default();
        index.set(&"app/web".into(), Some(&service([10, 96, 0, 1], None)));
        index.set(&"a".into(), Some(&pod([10, 0, 0, 1], Some("app/web"))));
        index.set(&"a".into(), Some(&pod([10, 0, 0, 9], None)));
        assert!(found(&index, "/10.0.0.1").is_empty());
        index.set(&"a".into(), None);
        index.set(&"app/web".into(), None);

        let Index { facts, workloads_by_address, services_by_address, members, by_node } = index;
        assert!(facts.is_empty() && workloads_by_address.is_empty() && services_by_address.is_empty());
        assert!(members.is_empty() && by_node.is_empty());
    }
}
