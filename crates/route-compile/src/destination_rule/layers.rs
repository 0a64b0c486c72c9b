//! Precedence of the parts of a policy: service, port, subset, port of a subset.

use std::collections::BTreeMap;

use kube_types::istio::{
    ClientTlsSettings, ConnectionPoolSettings, LoadBalancerSettings, OutlierDetection, ProxyProtocol, RetryBudget,
    TrafficPolicy, TunnelSettings,
};
use route::Origin;

use crate::finding::{Findings, Reason};
use crate::world::Service;

/// Part of a policy.
#[derive(Debug)]
pub(super) struct Part<'a, T> {
    /// The policy that it stands in.
    pub(super) at: Origin,
    pub(super) value: &'a T,
}

/// Parts of a policy. `None` stands for the default.
#[derive(Clone, Debug, Default)]
pub(super) struct Policy<'a> {
    pub(super) load_balancer: Option<Part<'a, LoadBalancerSettings>>,
    pub(super) connection_pool: Option<Part<'a, ConnectionPoolSettings>>,
    pub(super) outlier_detection: Option<Part<'a, OutlierDetection>>,
    pub(super) tls: Option<Part<'a, ClientTlsSettings>>,
    pub(super) tunnel: Option<Part<'a, TunnelSettings>>,
    pub(super) proxy_protocol: Option<Part<'a, ProxyProtocol>>,
    pub(super) retry_budget: Option<Part<'a, RetryBudget>>,
}

/// A policy of an object, with those for single ports.
#[derive(Debug, Default)]
pub(super) struct Layers<'a> {
    all: Policy<'a>,
    ports: BTreeMap<u16, Policy<'a>>,
}

impl<T> Clone for Part<'_, T> {
    fn clone(&self) -> Self {
        Self { at: self.at.clone(), value: self.value }
    }
}

fn part<'a, T>(at: &Origin, value: &'a Option<T>) -> Option<Part<'a, T>> {
    value.as_ref().map(|value| Part { at: at.clone(), value })
}

impl<'a> Layers<'a> {
    /// Splits a policy that stands at a place.
    pub(super) fn new(at: &Origin, policy: &'a TrafficPolicy, service: &Service, findings: &mut Findings) -> Self {
        let all = Policy {
            load_balancer: part(at, &policy.load_balancer),
            connection_pool: part(at, &policy.connection_pool),
            outlier_detection: part(at, &policy.outlier_detection),
            tls: part(at, &policy.tls),
            tunnel: part(at, &policy.tunnel),
            proxy_protocol: part(at, &policy.proxy_protocol),
            retry_budget: part(at, &policy.retry_budget),
        };
        let mut ports = BTreeMap::new();
        for (index, of) in policy.port_level_settings.iter().enumerate() {
            let at = at.at(format!("{}.portLevelSettings[{index}]", at.field));
            let Some(number) = of.port.as_ref().map(|port| port.number) else {
                findings.add(Reason::Invalid, &at, "port", "there is no port: the settings have no effect");
                continue;
            };
            if !service.has_port(number) {
                let message = format!("{} has no port {number}: the settings have no effect", service.name);
                findings.add(Reason::Missing, &at, "port.number", message);
                continue;
            }
            if ports.contains_key(&number) {
                let message = format!("an earlier entry is for port {number}: the settings have no effect");
                findings.add(Reason::Shadowed, &at, "port.number", message);
                continue;
            }
            let own = Policy {
                load_balancer: part(&at, &of.load_balancer),
                connection_pool: part(&at, &of.connection_pool),
                outlier_detection: part(&at, &of.outlier_detection),
                tls: part(&at, &of.tls),
                ..Policy::default()
            };
            ports.insert(number, own);
        }
        Self { all, ports }
    }

    pub(super) fn has_port(&self, port: u16) -> bool {
        self.ports.contains_key(&port)
    }

    /// The policy for a port, `None` for those without an entry, as a subset overrides it.
    pub(super) fn resolve(&self, subset: Option<&Layers<'a>>, port: Option<u16>) -> Policy<'a> {
        let top = self.for_port(port);
        let Some(subset) = subset else { return top };
        let own = subset.for_port(port);
        // An entry for the port replaces these parts as a whole, also those that it does not have.
        let replaces = port.is_some_and(|port| subset.has_port(port));
        let rest = Policy {
            tunnel: own.tunnel.or(top.tunnel),
            proxy_protocol: own.proxy_protocol.or(top.proxy_protocol),
            retry_budget: own.retry_budget.or(top.retry_budget),
            ..Policy::default()
        };
        if replaces {
            let (load_balancer, connection_pool) = (own.load_balancer, own.connection_pool);
            let (outlier_detection, tls) = (own.outlier_detection, own.tls);
            return Policy { load_balancer, connection_pool, outlier_detection, tls, ..rest };
        }
        Policy {
            load_balancer: own.load_balancer.or(top.load_balancer),
            connection_pool: own.connection_pool.or(top.connection_pool),
            outlier_detection: own.outlier_detection.or(top.outlier_detection),
            tls: own.tls.or(top.tls),
            ..rest
        }
    }

    /// An entry for a port replaces load balancing, pool, outlier detection and TLS, and leaves the rest.
    fn for_port(&self, port: Option<u16>) -> Policy<'a> {
        let all = self.all.clone();
        match port.and_then(|port| self.ports.get(&port)) {
            Some(own) => Policy {
                tunnel: all.tunnel,
                proxy_protocol: all.proxy_protocol,
                retry_budget: all.retry_budget,
                ..own.clone()
            },
            None => all,
        }
    }
}
