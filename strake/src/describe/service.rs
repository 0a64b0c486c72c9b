//! The description of a Service.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use contract::admin::control::Finding;
use serde::Serialize;

use super::asked::{Asked, PolicyView, PortView};
use crate::{explain::endpoints, mesh::dump::Service};

/// A Service.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ServiceView {
    pub(super) service: String,
    pub(super) hostname: String,
    pub(super) addresses: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) waypoint: Option<String>,
    pub(super) endpoints: Vec<EndpointView>,
    pub(super) ports: Vec<PortView>,
    pub(super) policies: Vec<PolicyView>,
    pub(super) findings: Vec<Finding>,
    pub(super) notes: Vec<String>,
}

/// An endpoint of a Service.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EndpointView {
    pub(super) workload: String,
    pub(super) node: String,
    /// `HBONE` or `TCP`.
    pub(super) protocol: String,
    pub(super) status: String,
}

impl ServiceView {
    pub(super) fn new(namespace: &str, name: &str, asked: &Asked) -> Result<Self> {
        let is_this = |service: &&Service| service.namespace == namespace && service.name == name;
        let known = asked
            .world
            .proxies
            .values()
            .find_map(|proxy| proxy.dump.services.iter().find(is_this).map(|service| (proxy, service)));
        let Some((proxy, service)) = known else {
            match asked.world.silent.values().next() {
                Some(reason) => {
                    bail!("Service {namespace}/{name} not found in what the proxies know; not seen: {reason}")
                }
                None => bail!("Service {namespace}/{name} not found in what the proxies know"),
            }
        };
        let (mut ports, mut policies) = (Vec::new(), Vec::new());
        let numbers: BTreeSet<u16> = service.ports.keys().filter_map(|port| port.parse().ok()).collect();
        for port in numbers {
            let mut view = PortView { port: port.to_string(), ..PortView::default() };
            for (workload, target) in endpoints(proxy, service, port) {
                asked.callers(&workload, format!("{port} (of pods {target})"), target, &mut view);
                policies.extend(asked.policies_of(&workload));
            }
            ports.push(view);
        }
        policies.sort();
        policies.dedup();
        let endpoints = service.endpoints.values().filter_map(|endpoint| {
            let workload = proxy.state.workload(&endpoint.workload_uid)?;
            Some(EndpointView {
                workload: format!("{}/{}", workload.namespace, workload.name),
                node: workload.node.to_string(),
                protocol: format!("{:?}", workload.protocol),
                status: endpoint.status.clone(),
            })
        });
        // A waypoint that the namespace names is a finding of the namespace.
        let mut objects = vec![format!("Service {namespace}/{name}"), format!("Namespace {namespace}")];
        objects.extend(policies.iter().map(|policy| format!("AuthorizationPolicy {}", policy.policy)));
        Ok(Self {
            service: format!("{namespace}/{name}"),
            hostname: service.hostname.clone(),
            addresses: service.vips.iter().map(|vip| vip.trim_start_matches('/').to_owned()).collect(),
            waypoint: service.waypoint.as_ref().map(|waypoint| waypoint.destination.clone()),
            endpoints: endpoints.collect(),
            ports,
            policies,
            findings: asked.findings(&objects),
            notes: asked.notes.clone(),
        })
    }
}
