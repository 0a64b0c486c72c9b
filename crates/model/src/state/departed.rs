//! Addresses of pods that were in the mesh when discovery removed them. Nothing is sent to them in plaintext.
//!
//! Discovery removes a pod when it is deleted; nobody answers at its address then. But a control plane that has lost a part
//! of its state removes pods that still run, and a destination that discovery does not know gets plaintext. So an address
//! is refused for a while, until discovery says something else about it: a pod that takes the address over is announced,
//! whether it is in the mesh or not. A pod that leaves the mesh by its label is not removed, it is announced without HBONE.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, reason = "the caller hands the time in: tests choose it"))]

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::index::addresses;
use crate::{InboundProtocol, NetworkAddress, Text, Workload};

/// Time for which an address is refused. Longer than it takes to notice and repair a control plane.
const REFUSED_FOR: Duration = Duration::from_secs(3600);

/// Number of addresses that are always remembered; of more, those that departed first are forgotten. At 10 pods that end
/// per second this is more than the hour.
const MOST: usize = 64 * 1024;

/// Number of addresses beyond [`MOST`] that are forgotten together: finding the oldest takes a walk through all,
/// and discovery can remove a hundred thousand workloads at once.
const FORGOTTEN_TOGETHER: usize = MOST / 8;

#[derive(Debug, Default)]
pub(crate) struct Departed(HashMap<NetworkAddress, Instant>);

impl Departed {
    /// Notes a workload that discovery has removed.
    pub(super) fn remember(&mut self, workload: &Workload, now: Instant) {
        // Other kinds, as a WorkloadEntry, are removed by their users, and what they stood for may go on.
        if !workload.is_pod() || workload.protocol != InboundProtocol::HBONE {
            return;
        }
        if self.0.len() >= MOST + FORGOTTEN_TOGETHER {
            self.forget_oldest();
        }
        // An address that departs twice is refused from the second time on.
        self.0.extend(addresses(workload).map(|address| (address, now)));
    }

    /// Removes the [`FORGOTTEN_TOGETHER`] addresses that departed first.
    fn forget_oldest(&mut self) {
        let mut departures: Vec<Instant> = self.0.values().copied().collect();
        let (_, newest_forgotten, _) = departures.select_nth_unstable(FORGOTTEN_TOGETHER - 1);
        let mut left = FORGOTTEN_TOGETHER;
        // Many addresses can have departed at the same instant, so their number counts as well.
        self.0.retain(|_, since| {
            let is_forgotten = left > 0 && *since <= *newest_forgotten;
            left -= usize::from(is_forgotten);
            !is_forgotten
        });
    }

    /// Discovery says something else about the addresses of this workload.
    pub(super) fn forget(&mut self, workload: &Workload) {
        if !self.0.is_empty() {
            for address in addresses(workload) {
                self.0.remove(&address);
            }
        }
    }

    /// Is this the address of a pod that was in the mesh and that discovery has removed?
    pub(crate) fn contains(&self, network: &Text, address: IpAddr, now: Instant) -> bool {
        let since = self.0.get(&NetworkAddress::new(network.clone(), address));
        since.is_some_and(|since| now.duration_since(*since) < REFUSED_FOR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::workload;

    #[test]
    fn an_address_is_refused_for_an_hour_or_until_it_is_announced_again() {
        let (mut departed, now, network) = (Departed::default(), Instant::now(), Text::from(""));
        let pod = workload("a", "10.0.0.1");
        let is_refused = |departed: &Departed, after| departed.contains(&network, pod.workload_ips[0], now + after);
        departed.remember(&pod, now);

        assert!(is_refused(&departed, Duration::from_secs(3599)));
        assert!(!is_refused(&departed, Duration::from_secs(3600)));
        departed.forget(&Workload { protocol: InboundProtocol::TCP, ..pod.clone() });
        assert!(!is_refused(&departed, Duration::ZERO));
    }

    #[test]
    fn pods_outside_of_the_mesh_and_other_kinds_are_not_remembered() {
        let (mut departed, now) = (Departed::default(), Instant::now());
        departed.remember(&Workload { protocol: InboundProtocol::TCP, ..workload("a", "10.0.0.1") }, now);
        departed.remember(
            &Workload { uid: "c/networking.istio.io/WorkloadEntry/ns/a".into(), ..workload("a", "10.0.0.1") },
            now,
        );

        assert!(departed.0.is_empty());
    }

    #[test]
    fn of_too_many_those_that_departed_first_are_forgotten() {
        let (mut departed, now) = (Departed::default(), Instant::now());
        let address = |number: usize| {
            let [.., a, b, c] = u32::try_from(number).unwrap().to_be_bytes();
            format!("10.{a}.{b}.{c}")
        };
        let last = MOST + FORGOTTEN_TOGETHER;
        for number in 0..=last {
            departed.remember(&workload("a", &address(number)), now + Duration::from_micros(number as u64));
        }
        let is_refused =
            |number| departed.contains(&Text::from(""), address(number).parse().unwrap(), now + Duration::from_secs(1));

        assert_eq!(departed.0.len(), MOST + 1);
        assert!(!is_refused(0) && !is_refused(FORGOTTEN_TOGETHER - 1));
        assert!(is_refused(FORGOTTEN_TOGETHER) && is_refused(last));
    }

    #[test]
    fn addresses_that_departed_at_the_same_instant_do_not_take_each_other_along() {
        let (mut departed, now) = (Departed::default(), Instant::now());
        for number in 0..=u32::try_from(MOST + FORGOTTEN_TOGETHER).unwrap() {
            let [.., a, b, c] = number.to_be_bytes();
            departed.remember(&workload("a", &format!("10.{a}.{b}.{c}")), now);
        }

        assert_eq!(departed.0.len(), MOST + 1);
    }
}
