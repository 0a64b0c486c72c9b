//! Routes of connections, and targets of CONNECTs.

mod balance;
mod inbound;
mod names;
mod outbound;
mod waypoints;

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use super::*;
use crate::{
    Address, ApplicationTunnel, Change, GatewayAddress, HealthPolicy, InboundProtocol, IpFamilies, LoadBalancer,
    LoadBalancerMode, LoadBalancerScope, Locality, Membership, Memberships, NamespacedHostname, NetworkMode, Ports,
    Service, State, StateConfig, Text, TunnelProtocol, WeightedWaypoint, Workload,
    testing::{service, workload},
};

const VIP: &str = "10.96.0.1";
const WAYPOINT: &str = "ns/waypoint.ns.svc.cluster.local";

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn state(workloads: Vec<Workload>, services: Vec<Service>) -> State {
    let state = State::new(StateConfig::default());
    let workloads = workloads.into_iter().map(Address::Workload);
    let all = services.into_iter().map(Address::Service).chain(workloads);
    state.apply_addresses(all.map(Change::Upsert).collect());
    state
}

fn client() -> Workload {
    Workload { services: Memberships::default(), service_account: "client".into(), ..workload("client", "10.0.0.9") }
}

fn member_of(hostname: &str, ports: &[(u16, u16)]) -> Memberships {
    let service = NamespacedHostname::new("ns", hostname);
    [Membership { service, ports: ports.iter().copied().collect() }].into_iter().collect()
}

fn waypoint_ref(destination: &str) -> Option<GatewayAddress> {
    Some(GatewayAddress { destination: destination.parse().unwrap(), hbone_mtls_port: 15008 })
}

/// A waypoint pod and its service.
fn waypoint() -> (Workload, Service) {
    let pod = Workload {
        services: member_of("waypoint.ns.svc.cluster.local", &[]),
        service_account: "waypoint".into(),
        ..workload("waypoint", "10.0.0.50")
    };
    let ports: Ports = [(15008, 15008)].into_iter().collect();
    (pod, Service { ports, ..service("waypoint", "ns", "10.96.0.50") })
}

fn hbone(route: &Route) -> &Hbone {
    match &route.kind {
        RouteKind::Hbone(hbone) => hbone,
        other => panic!("{other:?}"),
    }
}

fn identities(hbone: &Hbone) -> Vec<String> {
    hbone.expected.iter().map(|id| id.service_account().to_owned()).collect()
}

fn balanced(mode: LoadBalancerMode, scopes: &[LoadBalancerScope]) -> Service {
    let lb = LoadBalancer { routing_preferences: scopes.to_vec(), mode, health_policy: HealthPolicy::OnlyHealthy };
    Service { load_balancer: Some(lb), ..service("svc", "ns", VIP) }
}

/// Number of times that each endpoint of the service was chosen in 300 connections.
fn spread(state: &State, source: &Workload) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for _ in 0..300 {
        let chosen = match outbound(state, source, addr("10.96.0.1:80")) {
            Ok(route) => route.workload.unwrap().name.to_string(),
            Err(error) => error.code().to_owned(),
        };
        *counts.entry(chosen).or_default() += 1;
    }
    counts
}

fn chosen(state: &State, source: &Workload) -> Vec<String> {
    let mut names: Vec<String> = spread(state, source).into_keys().collect();
    names.sort();
    names
}
