//! Ports of workloads, as manifests declare them: policies match the pod's port, and a Service's port is another number.

use std::collections::{BTreeMap, BTreeSet};

use kube_types::ObjectRef;
use kube_types::core::{Container, IntOrString, Pod, Probe, Service};

use crate::target_port::target_port;

/// TCP ports of one pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PodPorts {
    /// Ports on which the pod takes connections: those that its containers declare, that its probes name, and to which
    /// Services send.
    own: BTreeSet<u16>,
    /// Ports of Services that select the pod, where they differ from the pod's: name of the Service and its target.
    services: BTreeMap<u16, (String, u16)>,
}

/// Relation of a port number in a policy to the ports of a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fit {
    /// The pod has it.
    Own,
    /// Only a Service in front of the pod has the port: no connection arrives at the pod with it.
    ServiceOnly { service: String, target: u16 },
    /// The pod declares other ports, not this one. It may listen there all the same.
    Undeclared,
    /// The pod declares no port at all.
    Unknown,
}

/// Number of selected workloads by relation of a port number of a policy to their ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally(BTreeMap<Fit, usize>);

impl PodPorts {
    pub(crate) fn of<'a>(pod: &Pod, services: impl Iterator<Item = &'a Service>) -> Self {
        let mut own = BTreeSet::new();
        // Init containers, too: a restartable one is a sidecar that serves as long as the pod runs.
        let containers = pod.spec.containers.iter().chain(&pod.spec.init_containers);
        for container in containers {
            let declared = container.ports.iter().filter(|port| matches!(port.protocol.as_deref(), None | Some("TCP")));
            own.extend(declared.map(|port| port.container_port));
            // The kubelet connects there, so that somebody listens.
            own.extend(probed(container));
        }
        let mut in_front = Vec::new();
        for service in services {
            // The mesh carries TCP only.
            for port in service.spec.ports.iter().filter(|port| port.protocol() == "TCP") {
                if let Some(target) = target_port(port, pod) {
                    // A Service sends there, so somebody listens, whether or not a container declares the port.
                    own.insert(target);
                    in_front.push((port.port, (service.metadata.name.clone(), target)));
                }
            }
        }
        // After all Services: the port of one may be the target of another.
        let services = in_front.into_iter().filter(|(port, _)| !own.contains(port)).collect();
        Self { own, services }
    }

    pub(crate) fn fit(&self, port: u16) -> Fit {
        if self.own.contains(&port) {
            Fit::Own
        } else if let Some((service, target)) = self.services.get(&port) {
            Fit::ServiceOnly { service: service.clone(), target: *target }
        } else if self.own.is_empty() {
            // Declaring ports is voluntary in Kubernetes: of a pod that declares none nothing can be concluded.
            Fit::Unknown
        } else {
            Fit::Undeclared
        }
    }

    /// Returns true if a connection to the pod can have this port.
    pub(crate) fn can_be(&self, port: u16) -> bool {
        // A port that nobody declares counts as possible; only a Service's port, which is translated before it arrives,
        // does not.
        self.own.contains(&port) || !self.services.contains_key(&port)
    }
}

/// Ports that the container's probes name by number.
fn probed(container: &Container) -> impl Iterator<Item = u16> {
    let probes = [&container.readiness_probe, &container.liveness_probe, &container.startup_probe];
    probes.into_iter().flatten().flat_map(probe_ports)
}

fn probe_ports(probe: &Probe) -> impl Iterator<Item = u16> {
    let http = probe.http_get.as_ref().map(|action| &action.port);
    let tcp = probe.tcp_socket.as_ref().map(|action| &action.port);
    http.into_iter().chain(tcp).filter_map(|port| match port {
        IntOrString::Int(port) => Some(*port).filter(|port| *port > 0),
        // A name is that of a declared port, which is in the list already.
        IntOrString::String(_) => None,
    })
}

impl Tally {
    pub(crate) fn count(&mut self, fit: &Fit, add: bool) {
        let count = self.0.entry(fit.clone()).or_default();
        *count = if add { *count + 1 } else { count.saturating_sub(1) };
        if *count == 0 {
            self.0.remove(fit);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The Service that has the port, and its target, when no selected workload can have it and at least one is behind
    /// such a Service.
    pub(crate) fn service_only(&self) -> Option<(&str, u16)> {
        // One workload that has the port makes the number right, whatever Services have it, too.
        if self.0.keys().any(|fit| matches!(fit, Fit::Own)) {
            return None;
        }
        self.0.iter().find_map(|(fit, _)| match fit {
            Fit::ServiceOnly { service, target } => Some((service.as_str(), *target)),
            Fit::Own | Fit::Undeclared | Fit::Unknown => None,
        })
    }

    /// Returns true if all selected workloads declare ports, and none of them this one.
    pub(crate) fn is_undeclared(&self) -> bool {
        !self.0.is_empty() && self.0.keys().all(|fit| matches!(fit, Fit::Undeclared))
    }

    /// Number of workloads that the policy selects.
    pub(crate) fn workloads(&self) -> usize {
        self.0.values().sum()
    }
}

/// Port numbers of the policies that select a pod, each compared with the pod's ports.
pub(crate) type Fits = Vec<(ObjectRef, u16, Fit)>;

#[cfg(test)]
mod tests {
    use kube_types::core::{ContainerPort, ServicePort};

    use super::*;

    fn web() -> Service {
        let mut service = Service::default();
        service.metadata.name = "web".to_owned();
        let target_port = Some(IntOrString::Int(8080));
        service.spec.ports.push(ServicePort { port: 80, target_port, ..ServicePort::default() });
        service
    }

    #[test]
    fn a_port_that_only_a_service_has_never_arrives_at_the_pod() {
        let ports = PodPorts::of(&Pod::default(), [&web()].into_iter());

        assert_eq!(ports.fit(8080), Fit::Own);
        assert_eq!(ports.fit(80), Fit::ServiceOnly { service: "web".to_owned(), target: 8080 });
        assert_eq!(ports.fit(90), Fit::Undeclared);
        assert!(ports.can_be(90) && !ports.can_be(80));
        assert_eq!(PodPorts::default().fit(80), Fit::Unknown);
    }

    #[test]
    fn what_the_pod_declares_counts_even_behind_a_service_with_the_same_number() {
        let mut pod = Pod::default();
        let ports = vec![ContainerPort { container_port: 80, ..ContainerPort::default() }];
        pod.spec.containers.push(Container { ports, ..Container::default() });

        assert_eq!(PodPorts::of(&pod, [&web()].into_iter()).fit(80), Fit::Own);
    }

    #[test]
    fn a_tally_speaks_of_all_selected_workloads() {
        let only = Fit::ServiceOnly { service: "web".to_owned(), target: 8080 };
        let mut tally = Tally::default();
        tally.count(&only, true);
        tally.count(&Fit::Undeclared, true);
        assert_eq!(tally.service_only(), Some(("web", 8080)));
        assert!(!tally.is_undeclared());

        tally.count(&Fit::Own, true);
        assert_eq!(tally.service_only(), None, "one of them has it");
        tally.count(&Fit::Own, false);
        tally.count(&only, false);
        assert!(tally.is_undeclared());
        tally.count(&Fit::Undeclared, false);

        assert!(tally.is_empty());
    }
}
