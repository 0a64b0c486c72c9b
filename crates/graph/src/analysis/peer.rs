//! Port numbers of one PeerAuthentication.

use kube_types::ObjectRef;
use kube_types::istio::{PeerAuthentication, TlsMode};

use super::{Tallies, service_port};
use crate::finding::{Finding, Reason, Severity};

/// Findings about the ports, and why those that no connection has do nothing, in words for the condition.
pub(crate) fn review(
    key: &ObjectRef,
    policy: &PeerAuthentication,
    tallies: &Tallies,
) -> (Vec<Finding>, Option<String>) {
    let (mut findings, mut dead) = (Vec::new(), Vec::new());
    let ports = policy.spec.port_level_mtls.iter().filter(|(_, port)| port.mode != TlsMode::Unset);
    for (port, _) in ports {
        // No workload is selected: that is another finding, and this one would only repeat it.
        let Some(tally) = tallies.get(port) else { continue };
        let path = format!("spec.portLevelMtls.{port}");
        if let Some((service, target)) = tally.service_only() {
            let message = format!("the mode of port {port} never applies: {}", service_port(*port, service, target));
            findings.push(Finding::warning(key, Reason::ServicePort, &message).at(path));
            dead.push(message);
        } else if tally.is_undeclared() {
            let message =
                format!("the mode of port {port} may apply to nothing: no selected workload declares the port");
            findings.push(Finding::new(key, Severity::Info, Reason::UndeclaredPort, message).at(path));
        }
    }
    (findings, (!dead.is_empty()).then(|| dead.join("; ")))
}
