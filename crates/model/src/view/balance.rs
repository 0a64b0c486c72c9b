//! Choice of the endpoint of a service, its port and its address: by weighted chance within the preferred group. Nothing is
//! remembered.

use std::{net::IpAddr, sync::Arc};

use rand::{Rng, RngExt};

use crate::{LoadBalancerMode, LoadBalancerScope, NamespacedHostname, Service, Text, Workload, state::Store};

/// Purpose for which the service port is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// An application's connection.
    Traffic,
    /// A hop to a waypoint or gateway: an application tunnel makes up for a missing port.
    Gateway,
}

/// A port of a service, and what it is looked up for.
#[derive(Debug, Clone, Copy)]
pub(super) struct ServicePort {
    pub number: u16,
    pub purpose: Purpose,
}

/// A chosen endpoint.
#[derive(Debug, Clone)]
pub(super) struct Choice {
    pub workload: Arc<Workload>,
    /// Target port.
    pub port: u16,
    pub service: Option<Arc<Service>>,
}

/// The workload that an endpoint is chosen for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Client<'a> {
    pub workload: &'a Workload,
    /// Uids of endpoints that it cannot use.
    pub except: &'a [Text],
}

/// Chooses an endpoint of `service` for a connection of `client` to `port`. None: no endpoint fits.
pub(super) fn choose(
    store: &Store,
    client: Client<'_>,
    service: &Arc<Service>,
    port: ServicePort,
    rng: &mut impl Rng,
) -> Option<Choice> {
    let Client { workload: source, except } = client;
    let key = service.key();
    // Sorted by uid, so that tests with a fixed seed are repeatable.
    let all = store.members(&key).filter(|w| service.admits(w.status));
    let fit = all.filter(|w| is_reachable(source, w) && !except.contains(&w.uid));
    let candidates = fit.filter_map(|w| Some((w, target_port(service, &key, w, port)?))).collect::<Vec<_>>();
    // After health, address and port: an endpoint that cannot be used must not win a preference.
    let group = preferred(source, service, candidates);
    let chosen = weighted(&group, |(w, _)| w.capacity, rng);
    chosen.map(|(workload, port)| Choice { workload: (*workload).clone(), port: *port, service: Some(service.clone()) })
}

/// One of `items` by chance; none when they add up to 0.
pub(super) fn weighted<'a, T>(items: &'a [T], weight: impl Fn(&T) -> u32, rng: &mut impl Rng) -> Option<&'a T> {
    let total: u64 = items.iter().map(|item| u64::from(weight(item))).sum();
    if total == 0 {
        return None;
    }
    // Walks the weights until the random position is used up: linear, without a table to build for each connection.
    let mut at = rng.random_range(0..total);
    items.iter().find(|item| match at.checked_sub(u64::from(weight(item))) {
        Some(rest) => {
            at = rest;
            false
        }
        None => true,
    })
}

fn is_reachable(source: &Workload, workload: &Workload) -> bool {
    // Endpoints of other networks need no address of their own: their gateway has one.
    let remote = workload.network != source.network && workload.network_gateway.is_some();
    !workload.workload_ips.is_empty() || !workload.hostname.is_empty() || remote
}

/// Returns the port of `workload` that stands for `port`. None: the service does not have that port, or nobody says its target.
pub(super) fn target_port(
    service: &Service,
    key: &NamespacedHostname,
    workload: &Workload,
    port: ServicePort,
) -> Option<u16> {
    let ServicePort { number, purpose } = port;
    // Port 0 stands for "not known" in discovery.
    let own = workload.membership(key).and_then(|m| m.ports.target(number)).filter(|port| *port != 0);
    let tunnel = workload.application_tunnel.as_ref().filter(|_| purpose == Purpose::Gateway);
    // A port that the service does not list is refused even where an endpoint would take it.
    if purpose == Purpose::Traffic && !service.ports.contains(number) {
        return None;
    }
    own.or_else(|| service.ports.target(number).filter(|port| *port != 0))
        .or_else(|| tunnel.and_then(|t| t.port).map(|_| number))
}

type Candidates<'a> = Vec<(&'a Arc<Workload>, u16)>;

fn preferred<'a>(source: &Workload, service: &Service, candidates: Candidates<'a>) -> Candidates<'a> {
    let scopes = service.load_balancer.as_ref().map_or(&[][..], |lb| &lb.routing_preferences);
    match service.mode() {
        // Passthrough does not come here from an application; a gateway of such a service has no preference.
        LoadBalancerMode::Standard | LoadBalancerMode::Passthrough => candidates,
        LoadBalancerMode::Strict => {
            candidates.into_iter().filter(|(w, _)| scopes.iter().all(|s| shares(*s, source, w))).collect()
        }
        LoadBalancerMode::Failover => {
            let ranked: Vec<_> = candidates.into_iter().map(|c| (rank(scopes, source, c.0), c)).collect();
            // All of the best group share the load; the others get nothing while it has an endpoint.
            let highest = ranked.iter().map(|(rank, _)| *rank).max();
            ranked.into_iter().filter(|(rank, _)| Some(*rank) == highest).map(|(_, c)| c).collect()
        }
    }
}

/// Number of preferences that match from the start. A leading network preference outweighs all others,
/// and endpoints of other networks are still ranked among themselves.
fn rank(scopes: &[LoadBalancerScope], source: &Workload, workload: &Workload) -> usize {
    let (first, rest) = match scopes {
        [LoadBalancerScope::Network, rest @ ..] => {
            let weight = if shares(LoadBalancerScope::Network, source, workload) { scopes.len() } else { 0 };
            (weight, rest)
        }
        all => (0, all),
    };
    first + rest.iter().take_while(|scope| shares(**scope, source, workload)).count()
}

/// Returns whether both have the same region, zone, ... Two that do not know theirs do.
fn shares(scope: LoadBalancerScope, a: &Workload, b: &Workload) -> bool {
    match scope {
        LoadBalancerScope::Region => a.locality.region == b.locality.region,
        LoadBalancerScope::Zone => a.locality.zone == b.locality.zone,
        LoadBalancerScope::Subzone => a.locality.subzone == b.locality.subzone,
        LoadBalancerScope::Node => a.node == b.node,
        LoadBalancerScope::Cluster => a.cluster_id == b.cluster_id,
        LoadBalancerScope::Network => a.network == b.network,
    }
}

/// Returns the address of the chosen endpoint to use: the original one if it is its own, else one that the service admits,
/// of the original's family if there is one.
pub(super) fn select_ip(choice: &Choice, original: IpAddr) -> Option<IpAddr> {
    let ips = &choice.workload.workload_ips;
    if ips.contains(&original) {
        return Some(original);
    }
    let families = choice.service.as_ref().and_then(|s| s.ip_families);
    // `ipFamilies` of the service restrict its endpoints' addresses.
    let mut admitted = ips.iter().copied().filter(|ip| families.is_none_or(|f| f.accepts(*ip))).peekable();
    let first = admitted.peek().copied();
    // Another family is better than no connection: the proxy's own socket need not be of the application's.
    admitted.find(|ip| ip.is_ipv4() == original.is_ipv4()).or(first)
}
