//! Resources by their addresses, as `NETWORK/IP`, for clients that have everything and ask about one address: a connection
//! waits for the answer, so it must not take a walk through the mesh. Always kept, some 120 bytes for each address.

use std::collections::HashMap;
use std::sync::Arc;

use prost::Message as _;
use proto::workload::address::Type;
use proto::workload::{Address, NetworkMode};

use crate::index::addresses_of;

type Name = Arc<str>;

/// Names of resources by address. Workloads of the host's network have none: all of a node share the node's.
#[derive(Debug, Default)]
pub(crate) struct Addresses(HashMap<Name, Vec<Name>>);

impl Addresses {
    /// Replaces the contents of a resource; `None` before it exists, and when it is gone.
    pub(crate) fn replace(&mut self, name: &Name, before: Option<&[u8]>, after: Option<&[u8]>) {
        let (old, new) = (before.map(read).unwrap_or_default(), after.map(read).unwrap_or_default());
        for address in old.iter().filter(|address| !new.contains(address)) {
            if let Some(names) = self.0.get_mut(address) {
                names.retain(|other| other != name);
                if names.is_empty() {
                    self.0.remove(address);
                }
            }
        }
        for address in new.into_iter().filter(|address| !old.contains(address)) {
            // Nearly every address has one resource.
            self.0.entry(address).or_insert_with(|| Vec::with_capacity(1)).push(Arc::clone(name));
        }
        runtime::collections::shrink_sparse(&mut self.0);
    }

    /// Resources with this address.
    pub(crate) fn find(&self, address: &str) -> &[Name] {
        self.0.get(address).map_or(&[], Vec::as_slice)
    }
}

/// Addresses of an encoded resource. One that cannot be decoded has none.
pub(crate) fn read(value: &[u8]) -> Vec<Name> {
    match Address::decode(value).ok().and_then(|address| address.r#type) {
        Some(Type::Workload(workload)) if workload.network_mode == i32::from(NetworkMode::HostNetwork) => Vec::new(),
        Some(resource) => addresses_of(&resource),
        None => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use proto::workload::Workload;

    use super::*;

    fn pod(addresses: &[[u8; 4]], mode: NetworkMode) -> Vec<u8> {
        let addresses = addresses.iter().map(|address| address.to_vec()).collect();
        let workload = Workload { addresses, network_mode: mode.into(), ..Workload::default() };
        Address { r#type: Some(Type::Workload(workload)) }.encode_to_vec()
    }

    #[test]
    fn a_resource_is_found_by_the_addresses_that_it_has_now() {
        let mut addresses = Addresses::default();
        let (name, other) = (Name::from("a"), Name::from("b"));
        let first = pod(&[[10, 0, 0, 1], [10, 0, 0, 2]], NetworkMode::Standard);
        let second = pod(&[[10, 0, 0, 2], [10, 0, 0, 3]], NetworkMode::Standard);

        addresses.replace(&name, None, Some(&first));
        addresses.replace(&other, None, Some(&first));
        addresses.replace(&name, Some(&first), Some(&second));

        assert_eq!(addresses.find("/10.0.0.1"), [Name::clone(&other)]);
        assert_eq!(addresses.find("/10.0.0.2"), [name.clone(), other.clone()]);
        assert_eq!(addresses.find("/10.0.0.3"), [Name::clone(&name)]);
        assert!(addresses.find("net/10.0.0.1").is_empty());
        addresses.replace(&name, Some(&second), None);
        addresses.replace(&other, Some(&first), None);
        assert!(addresses.0.is_empty());
    }

    #[test]
    fn a_pod_of_the_hosts_network_is_not_found_by_the_address_of_its_node() {
        let mut addresses = Addresses::default();
        addresses.replace(&"a".into(), None, Some(&pod(&[[10, 0, 0, 1]], NetworkMode::HostNetwork)));

        assert!(addresses.find("/10.0.0.1").is_empty());
    }
}
