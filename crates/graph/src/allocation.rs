//! Addresses that are allocated for hosts of ServiceEntries: one of 240.240.0.0/16 and one of 2001:2::/48 for each host, as
//! Istio does. An address is in use when the status of its object has it; until then it is a proposal.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use contract::labels::AUTO_ALLOCATE_LABEL;
use kube_types::istio::{Resolution, ServiceEntry};

/// Namespace and name of a ServiceEntry.
type Name = (String, String);

/// First address of 240.240.0.0/16, which is reserved (RFC 1112, section 4).
const FIRST_V4: Ipv4Addr = Ipv4Addr::new(240, 240, 0, 0);
/// First address of 2001:2::/48, which is for benchmarks (RFC 5180).
const FIRST_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 0);
/// Offset of the last address; that of the first is 1. Those of the network and of broadcast stay free.
const LAST: u16 = u16::MAX - 1;

/// Returns true if addresses are allocated for the hosts of an entry. Its author may give addresses or opt out; a
/// connection of resolution `NONE` goes to the address that the client knows.
pub(crate) fn is_wanted(entry: &ServiceEntry) -> bool {
    let label = entry.metadata.labels.get(AUTO_ALLOCATE_LABEL);
    entry.spec.addresses.is_empty()
        && entry.spec.resolution != Resolution::None
        && !label.is_some_and(|value| value.eq_ignore_ascii_case("false"))
}

/// Returns true if addresses are allocated for this host of an entry that wants some. The names of a domain share none,
/// unless a waypoint looks them up.
pub(crate) fn is_allocatable(entry: &ServiceEntry, host: &str) -> bool {
    !host.starts_with('*') || entry.spec.resolution == Resolution::DynamicDns
}

/// The addresses of each host, and the owner of each address.
#[derive(Debug, Default)]
pub(crate) struct Allocator {
    owned: BTreeMap<Name, BTreeMap<String, Pair>>,
    taken: HashMap<IpAddr, (Name, String)>,
    /// Offset that was allocated last. The search continues behind it, so that an address which became free is used again as
    /// late as possible: clients may still have it in their caches.
    last: u16,
}

/// Addresses of one host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Pair {
    v4: Option<Ipv4Addr>,
    v6: Option<Ipv6Addr>,
}

impl Pair {
    fn addresses(self) -> impl Iterator<Item = IpAddr> {
        self.v4.map(IpAddr::from).into_iter().chain(self.v6.map(IpAddr::from))
    }
}

impl Allocator {
    /// Frees the addresses of hosts that an entry does not have any more.
    pub(crate) fn retain(&mut self, entry: &Name, hosts: &[&str]) {
        let Some(owned) = self.owned.get_mut(entry) else { return };
        let gone: Vec<_> = owned.extract_if(.., |host, _| !hosts.contains(&host.as_str())).collect();
        if owned.is_empty() {
            self.owned.remove(entry);
        }
        // Free at once: `last` keeps the search away from them as long as the range allows.
        for address in gone.into_iter().flat_map(|(_, pair)| pair.addresses()) {
            self.taken.remove(&address);
        }
    }

    /// Takes over the addresses that the status of an entry has for a host, as far as they are of the ranges and no other
    /// host has them.
    pub(crate) fn adopt(&mut self, entry: &Name, host: &str, addresses: impl Iterator<Item = IpAddr>) {
        let owner = (entry.clone(), host.to_owned());
        let mut read = Pair::default();
        // The first of each family counts; a status with more was not written by an allocator.
        for address in addresses.filter(|address| self.taken.get(address).is_none_or(|taken| *taken == owner)) {
            match address {
                IpAddr::V4(address) if is_of_range_v4(address) => read.v4 = read.v4.or(Some(address)),
                IpAddr::V6(address) if is_of_range_v6(address) => read.v6 = read.v6.or(Some(address)),
                // An address outside of the ranges: somebody else's, which a client may really reach there.
                IpAddr::V4(_) | IpAddr::V6(_) => {}
            }
        }
        let own = self.pair(entry, host);
        self.set(&owner, Pair { v4: read.v4.or(own.v4), v6: read.v6.or(own.v6) });
        // A process that starts anew continues behind the highest address that a status has.
        if let Some(offset) = read.v4.map(offset).filter(|offset| *offset <= LAST) {
            self.last = self.last.max(offset);
        }
    }

    /// Allocates the addresses that a host lacks. False when all are in use.
    pub(crate) fn allocate(&mut self, entry: &Name, host: &str) -> bool {
        let own = self.pair(entry, host);
        if own.v4.is_some() && own.v6.is_some() {
            return true;
        }
        // Each offset once, beginning behind the last one.
        let offsets = (1..=LAST).map(|step| (u32::from(self.last) + u32::from(step) - 1) % u32::from(LAST) + 1);
        let free = |address: IpAddr| !self.taken.contains_key(&address);
        // At most 65534 look-ups, and only when the range is full; otherwise the first or one of the next is free.
        let found = offsets
            .map(|offset| (offset, at_v4(offset), at_v6(offset)))
            .find(|(_, v4, v6)| (own.v4.is_some() || free((*v4).into())) && (own.v6.is_some() || free((*v6).into())));
        let Some((offset, v4, v6)) = found else { return false };
        self.last = u16::try_from(offset).unwrap_or(LAST);
        let owner = (entry.clone(), host.to_owned());
        self.set(&owner, Pair { v4: own.v4.or(Some(v4)), v6: own.v6.or(Some(v6)) });
        true
    }

    /// The addresses of a host, IPv4 first.
    pub(crate) fn of(&self, entry: &Name, host: &str) -> impl Iterator<Item = IpAddr> {
        self.pair(entry, host).addresses()
    }

    fn pair(&self, entry: &Name, host: &str) -> Pair {
        self.owned.get(entry).and_then(|hosts| hosts.get(host)).copied().unwrap_or_default()
    }

    fn set(&mut self, owner: &(Name, String), new: Pair) {
        if new == Pair::default() {
            return;
        }
        let (entry, host) = owner;
        let old = self.owned.entry(entry.clone()).or_default().insert(host.clone(), new);
        // Freed before the new ones are entered: a host usually keeps one of its two.
        for address in old.unwrap_or_default().addresses() {
            self.taken.remove(&address);
        }
        self.taken.extend(new.addresses().map(|address| (address, owner.clone())));
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.owned.is_empty() && self.taken.is_empty()
    }
}

fn at_v4(offset: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(FIRST_V4.to_bits() + offset)
}

fn at_v6(offset: u32) -> Ipv6Addr {
    Ipv6Addr::from_bits(FIRST_V6.to_bits() + u128::from(offset))
}

const fn is_of_range_v4(address: Ipv4Addr) -> bool {
    address.to_bits() >> 16 == FIRST_V4.to_bits() >> 16
}

const fn is_of_range_v6(address: Ipv6Addr) -> bool {
    address.to_bits() >> 80 == FIRST_V6.to_bits() >> 80
}

/// Offset of an address within its range.
fn offset(address: Ipv4Addr) -> u16 {
    let [_, _, high, low] = address.octets();
    u16::from_be_bytes([high, low])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> Name {
        ("app".to_owned(), name.to_owned())
    }

    fn of(allocator: &Allocator, entry: &str, host: &str) -> Vec<String> {
        allocator.of(&name(entry), host).map(|address| address.to_string()).collect()
    }

    #[test]
    fn hosts_get_addresses_in_order_and_keep_them() {
        let mut allocator = Allocator::default();
        for host in ["one", "two"] {
            assert!(allocator.allocate(&name("a"), host));
        }
        assert!(allocator.allocate(&name("a"), "one"));

        assert_eq!(of(&allocator, "a", "one"), ["240.240.0.1", "2001:2::1"]);
        assert_eq!(of(&allocator, "a", "two"), ["240.240.0.2", "2001:2::2"]);
        assert!(of(&allocator, "a", "three").is_empty());
    }

    #[test]
    fn an_address_that_became_free_is_used_again_last() {
        let mut allocator = Allocator::default();
        allocator.allocate(&name("a"), "one");
        allocator.retain(&name("a"), &[]);
        assert!(allocator.is_empty());
        for number in 0..LAST {
            assert!(allocator.allocate(&name("b"), &number.to_string()), "{number}");
        }

        assert_eq!(of(&allocator, "b", "0"), ["240.240.0.2", "2001:2::2"]);
        assert_eq!(of(&allocator, "b", &(LAST - 1).to_string()), ["240.240.0.1", "2001:2::1"]);
        assert!(!allocator.allocate(&name("b"), "one too many"));
    }

    #[test]
    fn what_a_status_has_is_kept_unless_another_host_has_it_or_it_is_of_no_range() {
        let mut allocator = Allocator::default();
        let read = |texts: [&str; 2]| texts.map(|text| text.parse::<IpAddr>().unwrap()).into_iter();
        allocator.adopt(&name("a"), "one", read(["240.240.1.1", "2001:2::11"]));
        allocator.adopt(&name("b"), "one", read(["240.240.1.1", "2001:2::12"]));
        allocator.adopt(&name("c"), "one", read(["10.0.0.1", "2001:db8::1"]));
        for entry in ["a", "b", "c"] {
            allocator.allocate(&name(entry), "one");
        }

        assert_eq!(of(&allocator, "a", "one"), ["240.240.1.1", "2001:2::11"]);
        assert_eq!(of(&allocator, "b", "one"), ["240.240.1.2", "2001:2::12"]);
        assert_eq!(of(&allocator, "c", "one"), ["240.240.1.3", "2001:2::103"]);
    }

    #[test]
    fn the_status_that_another_replica_has_written_replaces_a_proposal() {
        let mut allocator = Allocator::default();
        allocator.allocate(&name("a"), "one");
        allocator.adopt(&name("a"), "one", ["240.240.0.7", "2001:2::7"].map(|text| text.parse().unwrap()).into_iter());

        assert_eq!(of(&allocator, "a", "one"), ["240.240.0.7", "2001:2::7"]);
        allocator.allocate(&name("b"), "one");
        assert_eq!(of(&allocator, "b", "one"), ["240.240.0.8", "2001:2::8"]);
    }

    #[test]
    fn addresses_are_for_entries_that_have_none_and_resolve_names() {
        let entry = |json| serde_json::from_value::<ServiceEntry>(json).unwrap();
        let dns = entry(serde_json::json!({"spec": {"resolution": "DNS"}}));
        assert!(is_wanted(&dns) && is_allocatable(&dns, "a.com") && !is_allocatable(&dns, "*.a.com"));
        assert!(is_allocatable(&entry(serde_json::json!({"spec": {"resolution": "DYNAMIC_DNS"}})), "*.a.com"));
        for unwanted in [
            serde_json::json!({"spec": {"resolution": "NONE"}}),
            serde_json::json!({"spec": {"resolution": "DNS", "addresses": ["10.0.0.1"]}}),
            serde_json::json!({
                "metadata": {"labels": {"networking.istio.io/enable-autoallocate-ip": "False"}}, "spec": {"resolution": "DNS"}
            }),
        ] {
            assert!(!is_wanted(&entry(unwanted.clone())), "{unwanted}");
        }
    }
}
