//! DestinationRules to the subsets of a service and to the policy for connections to it, as data. Which settings of a policy a
//! waypoint enforces is decided with its data path.

use kube_types::istio::{
    ClientTlsMode, ClientTlsSettings, ConnectionPoolSettings, DestinationRule, H2UpgradePolicy, LoadBalancerSettings,
    OutlierDetection, PortTrafficPolicy, ProxyProtocol, RetryBudget, TrafficPolicy, TunnelSettings,
};
use route::{Destination, Labels, Origin};

use crate::finding::{Finding, Findings, Reason};
use crate::names::{covers, full_host, is_exported, specificity};
use crate::world::{Service, World, by_age, origin};

const KIND: &str = "DestinationRule";

/// Endpoints of a service whose workloads have all labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subset {
    pub origin: Origin,
    pub name: String,
    pub labels: Labels,
    policy: Option<TrafficPolicy>,
}

/// Subsets and policies that a waypoint uses for a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policies {
    pub subsets: Vec<Subset>,
    /// The rule whose policy counts, and its policy.
    policy: Option<(Origin, TrafficPolicy)>,
    /// Sorted by object and field.
    pub findings: Vec<Finding>,
}

/// Policy for connections to one port of a service, or to a subset of its endpoints. `None` stands for the default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    pub load_balancer: Option<LoadBalancerSettings>,
    pub connection_pool: Option<ConnectionPoolSettings>,
    pub outlier_detection: Option<OutlierDetection>,
    pub tls: Option<ClientTlsSettings>,
    pub tunnel: Option<TunnelSettings>,
    pub proxy_protocol: Option<ProxyProtocol>,
    pub retry_budget: Option<RetryBudget>,
}

/// Finds the subsets and policies of a service for a waypoint in namespace `waypoint`.
pub fn policies(world: &World, waypoint: &str, host: &str, service: &Service) -> Policies {
    let mut findings = Findings::default();
    let used = lookup(world, waypoint, host, service, &mut findings);
    let mut policies = Policies::default();
    for rule in used {
        let at = origin(KIND, &rule.metadata);
        for (index, of) in rule.spec.subsets.iter().enumerate() {
            let at = at.at(format!("spec.subsets[{index}]"));
            if let Some(earlier) = policies.subsets.iter().find(|earlier| earlier.name == of.name) {
                let message = format!("subset {:?} is also in {}, which is used", of.name, earlier.origin);
                findings.add(Reason::Shadowed, &at, "", message);
                continue;
            }
            let labels = of.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
            let policy = of.traffic_policy.clone();
            if let Some(policy) = &policy {
                report(policy, &at.at(format!("{}.trafficPolicy", at.field)), &mut findings);
            }
            policies.subsets.push(Subset { origin: at, name: of.name.clone(), labels, policy });
        }
        let Some(policy) = &rule.spec.traffic_policy else { continue };
        if let Some((earlier, _)) = &policies.policy {
            let message = format!("{earlier} has a policy for the same host and is older: its policy is used");
            findings.add(Reason::Shadowed, &at, "spec.trafficPolicy", message);
        } else {
            report(policy, &at.at("spec.trafficPolicy"), &mut findings);
            policies.policy = Some((at, policy.clone()));
        }
    }
    policies.findings = findings.into_sorted();
    policies
}

/// Returns true if the service has a subset of this name for the waypoint.
pub(crate) fn has_subset(world: &World, waypoint: &str, host: &str, service: &Service, subset: &str) -> bool {
    let rules = lookup(world, waypoint, host, service, &mut Findings::default());
    rules.iter().any(|rule| rule.spec.subsets.iter().any(|of| of.name == subset))
}

/// Returns true if endpoints of a destination are chosen by a hash of the request.
pub(crate) fn is_hashed(world: &World, waypoint: &str, destination: &Destination) -> bool {
    let Some(service) = world.services.get(&destination.host) else { return false };
    let policies = policies(world, waypoint, &destination.host, service);
    let policy = policies.policy(destination.port, destination.subset.as_deref());
    policy.load_balancer.is_some_and(|balancer| balancer.consistent_hash.is_some())
}

/// Rules of the first namespace that has any for the host: the waypoint's, the service's, the root namespace. Of these, those
/// with the most special host, the oldest first.
fn lookup<'a>(
    world: &'a World,
    waypoint: &str,
    host: &str,
    service: &Service,
    findings: &mut Findings,
) -> Vec<&'a DestinationRule> {
    let full = |rule: &DestinationRule| full_host(&rule.spec.host, &rule.metadata.namespace, &world.cluster_domain);
    let mut candidates = by_age(&world.destination_rules, |rule| &rule.metadata);
    candidates.retain(|rule| {
        let is_exported = is_exported(&rule.spec.export_to, &rule.metadata.namespace, waypoint);
        covers(&full(rule), host) && is_exported
    });
    candidates.retain(|rule| {
        if rule.spec.workload_selector.is_some() {
            let message = "rules for single clients are not supported by waypoints: the rule has no effect";
            findings.add(Reason::Unsupported, &origin(KIND, &rule.metadata), "spec.workloadSelector", message);
        }
        rule.spec.workload_selector.is_none()
    });
    // Rules of the root namespace are the last resort, unless they are for that namespace alone.
    let is_own = |rule: &DestinationRule| {
        let of_root = waypoint == world.root_namespace;
        rule.metadata.namespace == waypoint && (!of_root || rule.spec.export_to.iter().any(|entry| entry == "."))
    };
    let of_service = |rule: &DestinationRule| rule.metadata.namespace == service.namespace;
    let of_root = |rule: &DestinationRule| rule.metadata.namespace == world.root_namespace;
    let steps: [&dyn Fn(&DestinationRule) -> bool; 3] = [&is_own, &of_service, &of_root];
    let Some(step) = steps.into_iter().find(|step| candidates.iter().any(|rule| step(rule))) else {
        return Vec::new();
    };
    let most = candidates.iter().filter(|rule| step(rule)).map(|rule| specificity(&full(rule))).max();
    let (used, hidden): (Vec<_>, Vec<_>) =
        candidates.into_iter().partition(|rule| step(rule) && Some(specificity(&full(rule))) == most);
    let Some(first) = used.first() else { return used };
    let concerned = |rule: &&DestinationRule| is_own(rule) || of_service(rule) || of_root(rule);
    for rule in hidden.into_iter().filter(concerned) {
        let message = format!("{} is used for {host} instead", origin(KIND, &first.metadata));
        findings.add(Reason::Shadowed, &origin(KIND, &rule.metadata), "spec.host", message);
    }
    used
}

impl Policies {
    /// The policy for a port, or for a subset of the endpoints behind it.
    pub fn policy(&self, port: u16, subset: Option<&str>) -> Policy {
        let top = self.policy.as_ref().map(|(_, policy)| for_port(policy, port)).unwrap_or_default();
        let subset = subset.and_then(|name| self.subsets.iter().find(|subset| subset.name == name));
        let Some(of_subset) = subset.and_then(|subset| subset.policy.as_ref()) else { return top };
        let own = for_port(of_subset, port);
        // An entry for the port replaces these parts as a whole, also those that it does not have.
        if has_port(of_subset, port) {
            return Policy {
                tunnel: own.tunnel.or(top.tunnel),
                proxy_protocol: own.proxy_protocol.or(top.proxy_protocol),
                retry_budget: own.retry_budget.or(top.retry_budget),
                ..own
            };
        }
        Policy {
            load_balancer: own.load_balancer.or(top.load_balancer),
            connection_pool: own.connection_pool.or(top.connection_pool),
            outlier_detection: own.outlier_detection.or(top.outlier_detection),
            tls: own.tls.or(top.tls),
            tunnel: own.tunnel.or(top.tunnel),
            proxy_protocol: own.proxy_protocol.or(top.proxy_protocol),
            retry_budget: own.retry_budget.or(top.retry_budget),
        }
    }

    /// The object that the policy of the service comes from.
    pub fn origin(&self) -> Option<&Origin> {
        self.policy.as_ref().map(|(origin, _)| origin)
    }
}

fn of_port(policy: &TrafficPolicy, port: u16) -> Option<&PortTrafficPolicy> {
    policy.port_level_settings.iter().find(|of| of.port.as_ref().is_some_and(|of| of.number == port))
}

fn has_port(policy: &TrafficPolicy, port: u16) -> bool {
    of_port(policy, port).is_some()
}

/// A policy for one port: an entry for it replaces load balancing, pool, outlier detection and TLS, and leaves the rest.
fn for_port(policy: &TrafficPolicy, port: u16) -> Policy {
    let rest = Policy {
        tunnel: policy.tunnel.clone(),
        proxy_protocol: policy.proxy_protocol.clone(),
        retry_budget: policy.retry_budget.clone(),
        ..Policy::default()
    };
    match of_port(policy, port) {
        Some(of) => Policy {
            load_balancer: of.load_balancer.clone(),
            connection_pool: of.connection_pool.clone(),
            outlier_detection: of.outlier_detection.clone(),
            tls: of.tls.clone(),
            ..rest
        },
        None => Policy {
            load_balancer: policy.load_balancer.clone(),
            connection_pool: policy.connection_pool.clone(),
            outlier_detection: policy.outlier_detection.clone(),
            tls: policy.tls.clone(),
            ..rest
        },
    }
}

/// Settings that have no effect on any waypoint.
fn report(policy: &TrafficPolicy, at: &Origin, findings: &mut Findings) {
    report_parts(
        (&policy.load_balancer, &policy.connection_pool, &policy.outlier_detection, &policy.tls),
        at,
        findings,
    );
    for (index, of) in policy.port_level_settings.iter().enumerate() {
        let at = at.at(format!("{}.portLevelSettings[{index}]", at.field));
        if of.port.is_none() {
            findings.add(Reason::Invalid, &at, "port", "there is no port: the settings have no effect");
        }
        report_parts((&of.load_balancer, &of.connection_pool, &of.outlier_detection, &of.tls), &at, findings);
    }
}

type Parts<'a> = (
    &'a Option<LoadBalancerSettings>,
    &'a Option<ConnectionPoolSettings>,
    &'a Option<OutlierDetection>,
    &'a Option<ClientTlsSettings>,
);

fn report_parts((balancer, pool, outliers, tls): Parts<'_>, at: &Origin, findings: &mut Findings) {
    if balancer.as_ref().is_some_and(|balancer| balancer.zone_aware_lb_setting.is_some()) {
        let message = "waypoints balance by locality only: the setting has no effect";
        findings.add(Reason::Unsupported, at, "loadBalancer.zoneAwareLbSetting", message);
    }
    let http = pool.as_ref().and_then(|pool| pool.http.as_ref());
    if http.is_some_and(|http| http.use_client_protocol && http.h2_upgrade_policy == H2UpgradePolicy::Upgrade) {
        let message = "useClientProtocol and h2UpgradePolicy UPGRADE exclude each other: the client's protocol is used";
        findings.add(Reason::Invalid, at, "connectionPool.http.h2UpgradePolicy", message);
    }
    if outliers.as_ref().is_some_and(|outliers| outliers.consecutive_errors.is_some()) {
        let message = "replaced by consecutive5xxErrors and consecutiveGatewayErrors: it has no effect";
        findings.add(Reason::Ignored, at, "outlierDetection.consecutiveErrors", message);
    }
    match tls.as_ref().map(|tls| tls.mode) {
        Some(ClientTlsMode::Disable | ClientTlsMode::IstioMutual) => {
            let message = "waypoints reach endpoints in the mesh by HBONE with mutual TLS, whatever the mode";
            findings.add(Reason::Ignored, at, "tls.mode", message);
        }
        Some(ClientTlsMode::Simple | ClientTlsMode::Mutual) | None => {}
    }
}

#[cfg(test)]
#[path = "destination_rule_tests.rs"]
mod tests;
