//! DestinationRules to the traffic policies and subsets of a service, with findings for settings that a waypoint does not
//! enforce.

mod balancer;
mod hash;
mod layers;
mod locality;
mod lookup;
mod outlier;
mod pool;
mod tls;

use route::traffic::{Algorithm, PortPolicies, ProxyProtocol, RetryBudget, ServiceTraffic, Subset, TrafficPolicy};
use route::{Destination, Origin};

use crate::finding::{Finding, Findings, Reason};
use crate::world::{Service, World, origin};

use layers::{Layers, Part};
use lookup::lookup;

const KIND: &str = "DestinationRule";

/// Traffic policy of a service for a waypoint, and what was found on the way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CompiledTraffic {
    pub traffic: ServiceTraffic,
    /// Sorted by object and field.
    pub findings: Vec<Finding>,
}

/// Compiles the traffic policy of a service for a waypoint in namespace `waypoint`.
pub fn traffic(world: &World, waypoint: &str, host: &str, service: &Service) -> CompiledTraffic {
    let mut findings = Findings::default();
    let rules = lookup(world, waypoint, host, service, &mut findings);
    let mut traffic = ServiceTraffic::default();
    let mut top = None;
    for rule in &rules {
        let Some(policy) = &rule.spec.traffic_policy else { continue };
        let at = origin(KIND, &rule.metadata).at("spec.trafficPolicy");
        if let Some((earlier, _)) = &top {
            let message = format!("{earlier} has a policy for the same host and is older: its policy is used");
            findings.add(Reason::Shadowed, &at, "", message);
        } else {
            top = Some((at, policy));
        }
    }
    let top = top.map(|(at, policy)| (Layers::new(&at, policy, service, &mut findings), at));
    if let Some((_, at)) = &top {
        traffic.origin = Some(at.to_string());
    }
    let top = top.map(|(layers, _)| layers).unwrap_or_default();
    traffic.policies = top.compile(None, service, &mut findings);
    for rule in &rules {
        for (index, of) in rule.spec.subsets.iter().enumerate() {
            let at = origin(KIND, &rule.metadata).at(format!("spec.subsets[{index}]"));
            if let Some(earlier) = traffic.subsets.get(&of.name) {
                let earlier = earlier.origin.as_deref().unwrap_or_default();
                let message = format!("subset {:?} is also in {earlier}, which is used", of.name);
                findings.add(Reason::Shadowed, &at, "", message);
                continue;
            }
            let own = of.traffic_policy.as_ref();
            let own = own.map(|policy| {
                Layers::new(&at.at(format!("{}.trafficPolicy", at.field)), policy, service, &mut findings)
            });
            let policies = top.compile(own.as_ref(), service, &mut findings);
            let labels = of.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
            let subset = Subset { labels, policies, origin: Some(at.to_string()) };
            traffic.subsets.insert(of.name.clone(), subset);
        }
    }
    CompiledTraffic { traffic, findings: findings.into_sorted() }
}

/// Returns true if the service has a subset of this name for the waypoint.
pub(crate) fn has_subset(world: &World, waypoint: &str, host: &str, service: &Service, subset: &str) -> bool {
    let rules = lookup(world, waypoint, host, service, &mut Findings::default());
    rules.iter().any(|rule| rule.spec.subsets.iter().any(|of| of.name == subset))
}

/// Returns true if endpoints of a destination are chosen by a hash of the request.
pub(crate) fn is_hashed(world: &World, waypoint: &str, destination: &Destination) -> bool {
    let Some(service) = world.services.get(&destination.host) else { return false };
    let compiled = traffic(world, waypoint, &destination.host, service);
    let policy = compiled.traffic.policy(destination.port, destination.subset.as_deref());
    policy.is_some_and(|policy| matches!(policy.load_balancer.algorithm, Algorithm::ConsistentHash { .. }))
}

/// Compiles one policy, of which every part comes from one place.
fn policy(layers: &layers::Policy<'_>, findings: &mut Findings) -> TrafficPolicy {
    let outlier_detection = layers.outlier_detection.as_ref().map(|part| outlier::compile(part, findings));
    if let Some(part) = &layers.tunnel {
        let message = "tunnels through another proxy are not supported: connections go to the endpoints";
        findings.add(Reason::Unsupported, &part.at, "tunnel", message);
    }
    TrafficPolicy {
        load_balancer: balancer::compile(layers.load_balancer.as_ref(), outlier_detection.is_some(), findings),
        connection_pool: pool::compile(layers.connection_pool.as_ref(), findings),
        outlier_detection,
        tls: layers.tls.as_ref().and_then(|part| tls::compile(part, findings)),
        proxy_protocol: layers.proxy_protocol.as_ref().map(|part| match part.value.version {
            kube_types::istio::ProxyProtocolVersion::V1 => ProxyProtocol::V1,
            kube_types::istio::ProxyProtocolVersion::V2 => ProxyProtocol::V2,
        }),
        retry_budget: layers.retry_budget.as_ref().map(|part| retry_budget(part, findings)),
    }
}

fn retry_budget(part: &Part<'_, kube_types::istio::RetryBudget>, findings: &mut Findings) -> RetryBudget {
    let default = RetryBudget::default();
    let budget = part.value;
    let share = match budget.percent.map(|percent| percent.0) {
        None => default.share,
        Some(percent) => {
            let share = (0.0..=100.0).contains(&percent).then(|| route::traffic::Millionths::new(percent / 100.0));
            share.flatten().unwrap_or_else(|| {
                let message = format!("invalid percentage {percent}, expected 0 to 100: 20 is used");
                findings.add(Reason::Invalid, &part.at, "retryBudget.percent", message);
                default.share
            })
        }
    };
    if budget.budget_interval.is_some() {
        let message = "the budget is a share of the requests that run, without an interval: the setting has no effect";
        findings.add(Reason::Unsupported, &part.at, "retryBudget.budgetInterval", message);
    }
    RetryBudget { share, min_concurrency: budget.min_retry_concurrency.unwrap_or(default.min_concurrency) }
}

impl Layers<'_> {
    /// Complete policies for all ports; `subset` is the policy of a subset that overrides.
    fn compile(&self, subset: Option<&Layers<'_>>, service: &Service, findings: &mut Findings) -> PortPolicies {
        let mut compile = |port| policy(&self.resolve(subset, port), findings).into();
        let default: std::sync::Arc<TrafficPolicy> = compile(None);
        let ports = service.ports.iter().map(|port| port.number);
        let ports = ports.filter(|port| self.has_port(*port) || subset.is_some_and(|subset| subset.has_port(*port)));
        PortPolicies { default, ports: ports.map(|port| (port, compile(Some(port)))).collect() }
    }
}

/// A number of which 0 stands for no limit.
fn limit(value: Option<i32>, at: &Origin, field: &str, findings: &mut Findings) -> Option<u32> {
    let value = value?;
    let limit = u32::try_from(value).ok();
    if limit.is_none() {
        findings.add(
            Reason::Invalid,
            at,
            field,
            format!("invalid limit {value}, expected 0 or more: there is no limit"),
        );
    }
    limit.filter(|limit| *limit > 0)
}

#[cfg(test)]
mod field_tests;
#[cfg(test)]
mod tests;
