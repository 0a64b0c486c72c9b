//! The way of a connection, from the client's node to the endpoints that it may reach.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use anyhow::{Result, bail};
use identity::Identity;
use model::{
    InboundProtocol, Workload,
    view::{self, RouteKind},
};
use serde::Serialize;

use super::{
    client::Client,
    pod,
    subject::{Destination, Subject},
    verdict::{Path, judged},
    world::{Proxy, Verdict, World, address_of, connection},
};
use crate::mesh::{PodFacts, dump::Service};

/// The answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Explanation {
    pub(crate) from: Client,
    /// `svc/shop/db`, `pod/shop/db-0` or an address.
    pub(crate) to: String,
    pub(crate) port: u16,
    /// Reason why the client's proxy opens no connection.
    pub(crate) refused: Option<String>,
    /// Each endpoint that may be chosen.
    pub(crate) paths: Vec<Path>,
    /// Facts that were not seen, and what the names were taken for.
    pub(crate) notes: Vec<String>,
}

/// An endpoint with the port that connections to a Service have there.
struct Endpoint {
    workload: Arc<Workload>,
    port: u16,
}

impl Explanation {
    /// # Errors
    /// When a name does not exist, or the port is missing.
    pub(crate) fn new(
        world: &World,
        pods: &[PodFacts],
        client: &Client,
        to: &Destination,
        default: &str,
    ) -> Result<Self> {
        let mut notes: Vec<_> = world.silent.values().map(|reason| format!("not seen: {reason}")).collect();
        let mut explanation = |to: String, port: u16, found: Found| {
            let Found { refused, paths, notes: more } = found;
            notes.extend(more);
            Self { from: client.clone(), to, port, refused, paths, notes: std::mem::take(&mut notes) }
        };
        let walk = Walk { world, client };
        match &to.subject {
            Subject::Address(address) => {
                let Some(port) = to.port else { bail!("a port is needed: {address}:PORT") };
                let found = walk.to_address(SocketAddr::new(*address, port))?;
                Ok(explanation(address.to_string(), port, found))
            }
            Subject::Pod(name) | Subject::Either(name) | Subject::Service(name) => {
                let (namespace, name) = name.within(default);
                let service = walk.service(namespace, name)?;
                match (&to.subject, service) {
                    (Subject::Service(_), None) => {
                        bail!("Service {namespace}/{name} not found in what the proxies know")
                    }
                    (Subject::Service(_) | Subject::Either(_), Some(service)) => {
                        let port = service_port(&service, to.port)?;
                        let found = walk.to_service(&service, port)?;
                        Ok(explanation(format!("svc/{namespace}/{name}"), port, found))
                    }
                    _ => {
                        let pod = pod(pods, namespace, name)?;
                        let Some(port) = to.port else { bail!("a port is needed: {namespace}/{name}:PORT") };
                        let Some(address) = pod.ips.first() else { bail!("pod {namespace}/{name} has no address yet") };
                        let found = walk.to_address(SocketAddr::new(*address, port))?;
                        Ok(explanation(format!("pod/{namespace}/{name}"), port, found))
                    }
                }
            }
        }
    }

    /// Returns true if every endpoint takes the connection.
    pub(crate) fn is_allowed(&self) -> bool {
        self.refused.is_none() && self.paths.iter().all(|path| path.allowed == Some(true)) && !self.paths.is_empty()
    }
}

/// The port of a Service: the one that is wanted, or the only one.
fn service_port(service: &Service, wanted: Option<u16>) -> Result<u16> {
    let ports: Vec<u16> = service.ports.keys().filter_map(|port| port.parse().ok()).collect();
    let known = || ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let name = format!("{}/{}", service.namespace, service.name);
    match (wanted, ports.as_slice()) {
        (Some(port), _) if ports.contains(&port) => Ok(port),
        (Some(port), _) => bail!("Service {name} has no port {port}; it has {}", known()),
        (None, [only]) => Ok(*only),
        (None, _) => bail!("Service {name} has the ports {}: expected one of them, as {name}:PORT", known()),
    }
}

/// Endpoints of a Service, with the target of one of its ports.
pub(crate) fn endpoints(proxy: &Proxy, service: &Service, port: u16) -> Vec<(Arc<Workload>, u16)> {
    let found = service.endpoints.values().filter_map(|endpoint| {
        Some((proxy.state.workload(&endpoint.workload_uid)?, *endpoint.port.get(&port.to_string())?))
    });
    found.collect()
}

/// What follows the error about a waypoint that connections are not let past.
const UNAVAILABLE: &str = "; the waypoint cannot take connections, and strake.io/waypoint-failure-mode is closed: `strake describe svc` says why it cannot";

#[derive(Default)]
struct Found {
    refused: Option<String>,
    paths: Vec<Path>,
    notes: Vec<String>,
}

impl Found {
    fn refused(reason: String) -> Self {
        Self { refused: Some(reason), ..Self::default() }
    }
}

struct Walk<'a> {
    world: &'a World,
    client: &'a Client,
}

impl Walk<'_> {
    /// The proxy whose knowledge counts: that of the client's node, or for a client without proxy any.
    fn proxy(&self) -> Result<&Proxy> {
        if self.client.in_mesh {
            return self.world.proxy(&self.client.node);
        }
        match self.world.proxies.values().next() {
            Some(proxy) => Ok(proxy),
            None => bail!("no ztunnel answers: {}", self.world.silent.values().cloned().collect::<Vec<_>>().join("; ")),
        }
    }

    fn service(&self, namespace: &str, name: &str) -> Result<Option<Service>> {
        let services = &self.proxy()?.dump.services;
        Ok(services.iter().find(|service| service.namespace == namespace && service.name == name).cloned())
    }

    fn to_service(&self, service: &Service, port: u16) -> Result<Found> {
        let proxy = self.proxy()?;
        let all: Vec<_> =
            endpoints(proxy, service, port).into_iter().map(|(workload, port)| Endpoint { workload, port }).collect();
        let vip = service.vips.iter().find_map(|vip| vip.rsplit('/').next()?.parse::<IpAddr>().ok());
        match vip {
            // Clients of a headless Service resolve its name to the pods themselves.
            None => self.each(proxy, &all, None),
            Some(vip) => {
                if self.client.in_mesh {
                    match self.route(proxy, SocketAddr::new(vip, port)) {
                        Routed::Endpoints => {}
                        Routed::Done(found) => return Ok(found),
                    }
                } else if all.is_empty() {
                    return Ok(Found::refused("the Service has no ready endpoint".to_owned()));
                }
                self.each(proxy, &all, Some(vip))
            }
        }
    }

    fn to_address(&self, address: SocketAddr) -> Result<Found> {
        let proxy = self.proxy()?;
        if self.client.in_mesh
            && let Routed::Done(found) = self.route(proxy, address)
        {
            return Ok(found);
        }
        let network = proxy.state.config().network.clone();
        if let Some(workload) = proxy.state.workload_by_address(&network, address.ip()) {
            return self.each(proxy, &[Endpoint { workload, port: address.port() }], Some(address.ip()));
        }
        let of_service = proxy.dump.services.iter().find(|service| {
            service
                .vips
                .iter()
                .filter_map(|vip| vip.rsplit('/').next()?.parse().ok())
                .any(|vip: IpAddr| vip == address.ip())
        });
        match of_service {
            Some(service) => self.to_service(service, service_port(service, Some(address.port()))?),
            None => Ok(Found { paths: vec![Path::outside(address)], ..Found::default() }),
        }
    }

    /// The route of the client's proxy, as far as it does not depend on the endpoint.
    fn route(&self, proxy: &Proxy, destination: SocketAddr) -> Routed {
        let Some(source) = &self.client.workload else {
            let reason =
                "the client's ztunnel does not know the pod yet: it refuses its connections (unknown_local_workload)";
            return Routed::Done(Found::refused(reason.to_owned()));
        };
        match view::outbound(&proxy.state, source, destination) {
            Err(error) => {
                let text = format!("{error} ({})", error.code());
                let hint = if text.contains(graph::UNAVAILABLE_WAYPOINT) { UNAVAILABLE } else { "" };
                Routed::Done(Found::refused(text + hint))
            }
            Ok(route) => match &route.kind {
                // Of an unknown address the proxy asks discovery first, whose answer to it is what was read here.
                RouteKind::Passthrough | RouteKind::Unknown => {
                    Routed::Done(Found { paths: vec![Path::outside(destination)], ..Found::default() })
                }
                RouteKind::Hbone(tunnel) if tunnel.via_waypoint => {
                    Routed::Done(Found { paths: vec![Path::waypoint(&route)], ..Found::default() })
                }
                RouteKind::Hbone(_) | RouteKind::DoubleHbone(_) | RouteKind::Tcp => Routed::Endpoints,
            },
        }
    }

    fn each(&self, proxy: &Proxy, endpoints: &[Endpoint], like: Option<IpAddr>) -> Result<Found> {
        let mut found = Found::default();
        for endpoint in endpoints {
            // The client's proxy decides by what it knows, whatever others know.
            let workload = proxy.state.workload(&endpoint.workload.uid).unwrap_or_else(|| endpoint.workload.clone());
            found.paths.push(self.path(&workload, endpoint.port, like));
        }
        if found.paths.is_empty() {
            found.refused = Some("the Service has no ready endpoint".to_owned());
        }
        found.paths.sort_by(|a, b| a.endpoint.cmp(&b.endpoint));
        Ok(found)
    }

    fn path(&self, to: &Workload, port: u16, like: Option<IpAddr>) -> Path {
        let is_tunnel = self.client.in_mesh && to.protocol == InboundProtocol::HBONE;
        let address = address_of(to, like).map(|ip| SocketAddr::new(ip, port));
        let identity: Option<Identity> =
            self.client.identity.as_ref().filter(|_| is_tunnel).and_then(|identity| identity.parse().ok());
        let source = address.and_then(|address| self.client.address(address.ip()));
        let verdict = match (address, source) {
            (Some(address), Some(source)) => self.world.verdict(to, &connection(source, address, identity)),
            _ => Verdict::Unknown("client or endpoint has no address".to_owned()),
        };
        let (allowed, reason, policies) = judged(&verdict);
        let decided_by = match verdict {
            Verdict::NotCaptured => "nobody".to_owned(),
            Verdict::Decided(_) | Verdict::Unknown(_) => format!("ztunnel of {}", to.node),
        };
        Path {
            endpoint: format!("{}/{}", to.namespace, to.name),
            node: to.node.to_string(),
            address,
            protocol: if is_tunnel { "HBONE" } else { "TCP" },
            allowed,
            decided_by,
            reason,
            policies,
        }
    }
}

enum Routed {
    /// To one of the endpoints.
    Endpoints,
    /// This is the whole way.
    Done(Found),
}
