//! Addresses that nobody in the mesh has, as discovery has just said. Short memory: a pod may get the address at any time,
//! and as long as it is remembered here a connection to it is not asked about.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, reason = "the caller hands the time in: tests choose it"))]

use std::collections::HashSet;
use std::time::{Duration, Instant};

use model::NetworkAddress;

/// An address is remembered for between one and two of these. Discovery announces a new pod within some tenths of a second;
/// remembered for longer, an address would be passed through for longer than without a question. Remembered for less, a
/// client that opens many connections to one address outside of the mesh would ask more than twice a second.
const GENERATION: Duration = Duration::from_millis(500);

/// Number of addresses of one generation; more are not remembered, and asked about again.
const MOST: usize = 16 * 1024;

#[derive(Debug)]
pub(super) struct Absent {
    recent: HashSet<NetworkAddress>,
    earlier: HashSet<NetworkAddress>,
    begun: Instant,
}

impl Absent {
    pub(super) fn new(now: Instant) -> Self {
        Self { recent: HashSet::new(), earlier: HashSet::new(), begun: now }
    }

    pub(super) fn contains(&mut self, address: &NetworkAddress, now: Instant) -> bool {
        self.age(now);
        self.recent.contains(address) || self.earlier.contains(address)
    }

    pub(super) fn remember(&mut self, address: NetworkAddress, now: Instant) {
        self.age(now);
        if self.recent.len() < MOST {
            self.recent.insert(address);
        }
    }

    /// Discovery says something else about the address.
    pub(super) fn forget(&mut self, address: &NetworkAddress) {
        self.recent.remove(address);
        self.earlier.remove(address);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.recent.is_empty() && self.earlier.is_empty()
    }

    fn age(&mut self, now: Instant) {
        let age = now.saturating_duration_since(self.begun);
        if age < GENERATION {
            return;
        }
        self.earlier = if age < 2 * GENERATION { std::mem::take(&mut self.recent) } else { HashSet::new() };
        self.recent = HashSet::new();
        self.begun = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u32) -> NetworkAddress {
        NetworkAddress::new("".into(), std::net::Ipv4Addr::from_bits(number).into())
    }

    #[test]
    fn an_address_is_remembered_for_at_least_half_a_second_and_for_less_than_one() {
        let begun = Instant::now();
        for (asked, of) in [(0, 0), (499, 1), (700, 2)] {
            let mut absent = Absent::new(begun);
            let at = begun + Duration::from_millis(asked);
            absent.remember(address(of), at);

            assert!(absent.contains(&address(of), at + GENERATION - Duration::from_millis(1)), "asked at {asked}");
            assert!(!absent.contains(&address(of), at + 2 * GENERATION), "asked at {asked}");
            assert!(absent.is_empty());
        }
    }

    #[test]
    fn what_discovery_says_anew_is_forgotten_at_once_in_both_generations() {
        let begun = Instant::now();
        let mut absent = Absent::new(begun);
        absent.remember(address(1), begun);
        absent.remember(address(2), begun + GENERATION);

        absent.forget(&address(1));
        absent.forget(&address(2));

        assert!(absent.is_empty());
    }

    #[test]
    fn more_addresses_than_fit_are_not_remembered() {
        let begun = Instant::now();
        let mut absent = Absent::new(begun);
        let most = u32::try_from(MOST).unwrap();

        (0..=most).for_each(|number| absent.remember(address(number), begun));

        assert!(absent.contains(&address(most - 1), begun) && !absent.contains(&address(most), begun));
    }
}
