//! Policies on requests to a service, and findings about what of its DestinationRules waypoints do not do.

use graph::{Finding, Mesh, Reason, Severity};
use kube_types::istio::DestinationRule;
use kube_types::{ObjectRef, Resource};
use route_compile::Service;
use route_compile::security::{Settings, Target, authorization_policy};
use waypoint_config::Policies;

use super::unit::of_object;

/// Policies that target the service, of all objects that say something about it.
pub(super) fn of<'a>(
    mesh: &Mesh,
    service: &Service,
    objects: impl Iterator<Item = &'a Resource>,
) -> (Policies, Vec<(ObjectRef, Finding)>) {
    let settings = Settings {
        trust_domain: mesh.trust_domain.clone(),
        root_namespace: mesh.root_namespace.clone(),
        ..Settings::default()
    };
    let own = Target::Service { namespace: service.namespace.clone(), name: service.name.clone() };
    let (mut policies, mut findings) = (Policies::default(), Vec::new());
    for object in objects {
        match object {
            Resource::AuthorizationPolicy(policy) => {
                let compiled = authorization_policy(&settings, policy);
                if compiled.targets.contains(&own) {
                    findings.extend(compiled.findings.iter().filter_map(of_object));
                    policies.http.push(compiled.value);
                }
            }
            Resource::DestinationRule(rule) => findings.extend(without_effect(&object.key(), rule)),
            _ => {}
        }
    }
    (policies, findings)
}

/// What a waypoint does not do yet of a DestinationRule.
fn without_effect(key: &ObjectRef, rule: &DestinationRule) -> impl Iterator<Item = (ObjectRef, Finding)> + use<> {
    let finding = |field: &str, message: &str| {
        let (object, field, message) = (key.clone(), field.to_owned(), message.to_owned());
        (object.clone(), Finding { object, severity: Severity::Warning, reason: Reason::Unsupported, field, message })
    };
    let subsets = (!rule.spec.subsets.is_empty()).then(|| {
        finding(
            "spec.subsets",
            "subsets are not supported yet: requests that a route sends to one are answered with 503",
        )
    });
    let policy = rule.spec.traffic_policy.is_some().then(|| {
        finding("spec.trafficPolicy", "waypoints do not follow it yet: endpoints are used in turn, without limits")
    });
    subsets.into_iter().chain(policy)
}
