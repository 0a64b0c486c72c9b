//! Everything that a choice reads: immutable, made anew when endpoints, their health or the policy change.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use route::retry::HOST_SELECTION_ATTEMPTS;
use route::traffic::{Algorithm, Distribution, HashTable, LocalityBalancing, TrafficPolicy};

use crate::choose::Group;
use crate::endpoint::{Host, Place};
use crate::levels::{Level, Members, level};
use crate::load::{Count, availability, shares};
use crate::maglev::Table;
use crate::pick::{PickRequest, Refused};
use crate::priority::Preference;
use crate::random::Random;
use crate::ring::{Member, Ring};
use crate::warm_up;

/// Endpoints on their levels.
#[derive(Debug)]
pub(crate) struct Snapshot<T> {
    pub(crate) policy: Arc<TrafficPolicy>,
    hosts: Vec<Arc<Host<T>>>,
    levels: Vec<Level>,
}

/// Sources of a snapshot.
pub(crate) struct Parts<'a, T> {
    pub(crate) policy: &'a Arc<TrafficPolicy>,
    pub(crate) own: &'a Place,
    pub(crate) preferences: &'a [String],
    /// In the order of their hash keys, so that replicas make the same tables.
    pub(crate) hosts: &'a [Arc<Host<T>>],
    pub(crate) now: Instant,
}

impl<T> Snapshot<T> {
    pub(crate) fn new(parts: &Parts<'_, T>, random: &mut Random) -> Self {
        let balancer = &parts.policy.load_balancer;
        let distribution = distribution(&balancer.locality, parts.own);
        let has_outliers = parts.policy.outlier_detection.is_some();
        let preference = Preference::new(&balancer.locality, parts.preferences, has_outliers);
        let mut by_rank = BTreeMap::<usize, Vec<u32>>::new();
        for (host, number) in parts.hosts.iter().zip(0u32..) {
            let place = &host.endpoint.place;
            if host.endpoint.weight > 0 && distribution.is_none_or(|of| pattern(of, place).is_some()) {
                by_rank.entry(preference.rank(parts.own, place)).or_default().push(number);
            }
        }
        let on_levels: Vec<_> = by_rank.into_values().collect();
        let available = |number: &&u32| parts.hosts[**number as usize].is_available();
        let count = |hosts: &[u32]| Count { available: hosts.iter().filter(available).count(), total: hosts.len() };
        let counts: Vec<_> = on_levels.iter().map(|hosts| count(hosts)).collect();
        let panic_percent = parts.policy.outlier_detection.as_ref().map_or(0, |outliers| outliers.min_health_percent);
        let shares = shares(&counts, panic_percent);
        let mut levels = Vec::new();
        for ((hosts, share), count) in on_levels.iter().zip(shares).zip(counts) {
            let groups = grouped(parts, distribution, hosts, share.in_panic);
            let warm_until = warm_until(parts, hosts);
            levels.push(Level { count, share, members: members(parts, &groups, random), warm_until });
        }
        Self { policy: Arc::clone(parts.policy), hosts: parts.hosts.to_vec(), levels }
    }

    /// Chooses an endpoint and says on which level it is.
    pub(crate) fn choose(&self, request: &PickRequest<'_>) -> Result<(&Arc<Host<T>>, usize), Refused> {
        let mut random = Random::new(request.random);
        let is_hashed = matches!(self.policy.load_balancer.algorithm, Algorithm::ConsistentHash { .. });
        // Requests of one key stay on one level, too.
        let hash = request.hash.filter(|_| is_hashed).unwrap_or_else(|| random.next());
        let percent = u32::try_from(hash % 100).unwrap_or_default();
        let none = if self.hosts.is_empty() { Refused::NoEndpoint } else { Refused::NoHealthyEndpoint };
        let number = level(&self.levels, percent, request.avoid_levels).ok_or(none)?;
        let on_level = &self.levels[number];
        let tries = if request.previous.is_empty() { 1 } else { HOST_SELECTION_ATTEMPTS };
        let mut host = None;
        for attempt in 0..tries {
            // The next hash is Envoy's.
            let hash = hash ^ u64::from(attempt).wrapping_neg();
            host = self.draw(on_level, hash, request.now, &mut random);
            if host.is_none_or(|host| !self.was_tried(host, request)) {
                break;
            }
        }
        let host = host.ok_or(none)?;
        let host = match &on_level.members {
            Members::Groups(groups) if self.was_tried(host, request) => {
                self.untried(groups, request, &mut random).unwrap_or(host)
            }
            Members::Groups(_) | Members::Ring(_) | Members::Maglev(_) => host,
        };
        Ok((&self.hosts[host as usize], number))
    }

    fn draw(&self, level: &Level, hash: u64, now: Instant, random: &mut Random) -> Option<u32> {
        let groups = match &level.members {
            Members::Ring(ring) => return ring.find(hash),
            Members::Maglev(table) => return table.find(hash),
            Members::Groups(groups) => groups,
        };
        let (_, group) = &groups[Members::group(groups, random)?];
        let balancer = &self.policy.load_balancer;
        let warming = balancer.warm_up.filter(|_| level.warm_until.is_some_and(|until| now < until));
        let factor = warming.map(|policy| {
            move |host: u32| {
                self.hosts[host as usize].warm_since.map_or(1.0, |since| warm_up::factor(&policy, since, now))
            }
        });
        let active = |host: u32| self.hosts[host as usize].state.active();
        match balancer.algorithm {
            Algorithm::RoundRobin => group.round_robin(factor),
            Algorithm::Random => group.random(factor, random),
            // There is no table only where these are the algorithm.
            Algorithm::LeastRequest | Algorithm::Passthrough | Algorithm::ConsistentHash { .. } => {
                group.least_request(factor, active, random)
            }
        }
    }

    fn was_tried(&self, host: u32, request: &PickRequest<'_>) -> bool {
        let id = &self.hosts[host as usize].endpoint.id;
        request.previous.iter().any(|previous| previous == id)
    }

    /// An endpoint that was not tried yet: chance has found none in a few draws.
    fn untried(&self, groups: &[(u64, Group)], request: &PickRequest<'_>, random: &mut Random) -> Option<u32> {
        let hosts: Vec<_> = groups.iter().flat_map(|(_, group)| group.hosts()).copied().collect();
        let (before, from) = hosts.split_at(random.below(hosts.len().max(1)));
        from.iter().chain(before).copied().find(|host| !self.was_tried(*host, request))
    }
}

/// The shares for traffic from a place; `None` if there are none.
fn distribution<'a>(locality: &'a LocalityBalancing, own: &Place) -> Option<&'a Distribution> {
    match locality {
        LocalityBalancing::Distribute(all) => {
            all.iter().find(|of| of.from.matches(&own.region, &own.zone, &own.subzone))
        }
        LocalityBalancing::Service | LocalityBalancing::Disabled | LocalityBalancing::Failover { .. } => None,
    }
}

/// Number of the first pattern that a place matches.
fn pattern(distribution: &Distribution, place: &Place) -> Option<usize> {
    distribution.to.iter().position(|(pattern, _)| pattern.matches(&place.region, &place.zone, &place.subzone))
}

/// Groups of a level with their weights; those without any endpoint that may take traffic are left out.
fn grouped<T>(
    parts: &Parts<'_, T>,
    distribution: Option<&Distribution>,
    hosts: &[u32],
    in_panic: bool,
) -> Vec<(u64, Vec<u32>)> {
    let usable = |hosts: &[u32]| -> Vec<u32> {
        hosts.iter().copied().filter(|host| in_panic || parts.hosts[*host as usize].is_available()).collect()
    };
    let groups = match distribution {
        None => vec![(1, usable(hosts))],
        Some(distribution) => {
            let mut groups = vec![Vec::new(); distribution.to.len()];
            for host in hosts {
                if let Some(number) = pattern(distribution, &parts.hosts[*host as usize].endpoint.place) {
                    groups[number].push(*host);
                }
            }
            let weighted = groups.iter().zip(&distribution.to).map(|(group, (_, weight))| {
                let members = usable(group);
                // A locality that loses endpoints loses its share only below the overprovisioning factor.
                let share = availability(Count { available: members.len(), total: group.len() });
                (u64::from(*weight) * share as u64, members)
            });
            weighted.collect()
        }
    };
    groups.into_iter().filter(|(weight, hosts)| *weight > 0 && !hosts.is_empty()).collect()
}

fn members<T>(parts: &Parts<'_, T>, groups: &[(u64, Vec<u32>)], random: &mut Random) -> Members {
    let Algorithm::ConsistentHash { table, .. } = &parts.policy.load_balancer.algorithm else {
        let weight = |host: &u32| (*host, parts.hosts[*host as usize].endpoint.weight);
        let group = |(share, hosts): &(u64, Vec<u32>)| {
            let members: Vec<_> = hosts.iter().map(weight).collect();
            (*share, Group::new(&members, random.next()))
        };
        return Members::Groups(groups.iter().map(group).collect());
    };
    let all: u64 = groups.iter().map(|(share, _)| share).sum();
    let mut members = Vec::new();
    for (share, hosts) in groups {
        let weight = |host: &u32| f64::from(parts.hosts[*host as usize].endpoint.weight);
        let total: f64 = hosts.iter().map(weight).sum();
        let share = *share as f64 / all as f64;
        members.extend(hosts.iter().map(|host| Member {
            key: &parts.hosts[*host as usize].endpoint.hash_key,
            host: *host,
            weight: share * weight(host) / total,
        }));
    }
    match *table {
        HashTable::Ring { minimum_size } => Members::Ring(Ring::new(&members, minimum_size)),
        HashTable::Maglev { size } => Members::Maglev(Table::new(&members, size)),
    }
}

fn warm_until<T>(parts: &Parts<'_, T>, hosts: &[u32]) -> Option<Instant> {
    let duration = parts.policy.load_balancer.warm_up?.duration;
    let ends = hosts.iter().filter_map(|host| parts.hosts[*host as usize].warm_since);
    ends.map(|since| since + duration).max().filter(|end| *end > parts.now)
}
