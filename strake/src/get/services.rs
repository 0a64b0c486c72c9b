//! `strake get services`: Services and their endpoints as the node proxies know them.

use std::{collections::BTreeMap, process::ExitCode};

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use super::{
    known::{Known, merge},
    listing::{self, Item, Listing, Options},
    table::or_dash,
};
use crate::mesh::{
    ByNode, Mesh,
    dump::{ProxyDump, Service},
};

/// Lists Services as the node proxies know them: addresses, ports and healthy endpoints
#[derive(Debug, Args)]
pub(crate) struct Services {
    #[command(flatten)]
    options: Options,
}

/// A Service, or another name that stands for workloads.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    namespace: String,
    name: String,
    hostname: String,
    addresses: Vec<String>,
    /// Target port by port.
    ports: BTreeMap<String, u16>,
    endpoints: Vec<Endpoint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    waypoint: Option<String>,
    /// Nodes whose proxies know exactly this.
    known_on: Vec<String>,
    /// Nodes whose proxies know another version.
    differs_on: Vec<String>,
    #[serde(skip)]
    asked: usize,
}

#[derive(Debug, Serialize)]
struct Endpoint {
    workload: String,
    status: String,
    /// Target port by port.
    ports: BTreeMap<String, u16>,
}

impl Services {
    pub(crate) async fn run(&self, mesh: &Mesh) -> Result<ExitCode> {
        let options = &self.options;
        let list = async || Ok(listing(options, options.of_node(mesh.dumps().await?)?));
        let first = list().await?;
        options.reject_unknown(&first, |row| &row.name)?;
        listing::show(first, options.output, options.watch, list).await
    }
}

fn listing(options: &Options, dumps: ByNode<ProxyDump>) -> Listing<Row> {
    let (dumps, unreachable) = listing::answers(dumps);
    let asked = dumps.len();
    let services = dumps.into_iter().map(|(node, dump)| (node, dump.services));
    let merged = merge(services, |service| format!("{}/{}", service.namespace, service.hostname));
    let scope = options.scope(Some("default"));
    let wanted = |row: &Row| {
        scope.is_none_or(|namespace| row.namespace == namespace)
            && (options.names.is_empty() || options.names.contains(&row.name))
    };
    let rows = merged.into_values().map(|known| Row::new(known, asked));
    Listing { items: rows.filter(wanted).collect(), unreachable }
}

impl Row {
    fn new(known: Known<Service>, asked: usize) -> Self {
        let Known { object, nodes, differing } = known;
        let Service { namespace, name, hostname, vips, ports, endpoints, waypoint } = object;
        let endpoints = endpoints.into_values().map(|endpoint| Endpoint {
            workload: short(&endpoint.workload_uid),
            status: endpoint.status,
            ports: endpoint.port,
        });
        Self {
            namespace,
            name,
            hostname,
            addresses: vips.iter().map(|vip| vip.trim_start_matches('/').to_owned()).collect(),
            ports,
            endpoints: endpoints.collect(),
            waypoint: waypoint.map(|waypoint| waypoint.destination),
            known_on: nodes,
            differs_on: differing,
            asked,
        }
    }
}

/// Namespace and name of a pod in the uid of its workload: `CLUSTER/GROUP/KIND/NAMESPACE/NAME`.
fn short(uid: &str) -> String {
    match uid.splitn(4, '/').last() {
        Some(name) if uid.contains("//Pod/") => name.to_owned(),
        _ => uid.to_owned(),
    }
}

fn ports(ports: &BTreeMap<String, u16>) -> String {
    let pair = |(port, target): (&String, &u16)| match *target {
        0 => port.clone(),
        target if port == &target.to_string() => port.clone(),
        target => format!("{port}:{target}"),
    };
    ports.iter().map(pair).collect::<Vec<_>>().join(",")
}

impl Item for Row {
    const KIND: &'static str = "services";
    const HEADER: &'static [&'static str] =
        &["NAMESPACE", "NAME", "ADDRESSES", "PORTS", "ENDPOINTS", "WAYPOINT", "PROXIES"];
    const WIDE: &'static [&'static str] = &["HOSTNAME", "WORKLOADS"];

    fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.hostname)
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.namespace.clone(),
            self.name.clone(),
            or_dash(&self.addresses.join(",")),
            or_dash(&ports(&self.ports)),
            self.endpoints.len().to_string(),
            or_dash(self.waypoint.as_deref().unwrap_or_default()),
            Known::<()>::count(&self.known_on, &self.differs_on, self.asked),
        ]
    }

    fn wide_cells(&self) -> Vec<String> {
        let workloads: Vec<_> = self.endpoints.iter().map(|endpoint| endpoint.workload.as_str()).collect();
        vec![self.hostname.clone(), or_dash(&workloads.join(","))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::get::testing;

    #[test]
    fn a_service_has_the_endpoints_that_proxies_know() {
        let listing = listing(&testing::options(&["-A"]), testing::dumps());

        insta::assert_snapshot!(listing::render(&listing, listing::Format::Wide).unwrap(), @r"
    NAMESPACE   NAME   ADDRESSES   PORTS     ENDPOINTS   WAYPOINT   PROXIES   HOSTNAME                    WORKLOADS
    shop        db     10.96.0.7   80:8080   1           -          1/1       db.shop.svc.cluster.local   shop/db-0
    ");
        let one = super::listing(&testing::options(&["-n", "none"]), testing::dumps());
        assert!(one.items.is_empty() && one.unreachable.len() == 1);
    }

    #[test]
    fn a_workload_is_named_by_its_pod() {
        assert_eq!(short("Kubernetes//Pod/shop/db-0"), "shop/db-0");
        assert_eq!(
            short("Kubernetes/networking.istio.io/WorkloadEntry/shop/vm"),
            "Kubernetes/networking.istio.io/WorkloadEntry/shop/vm"
        );
    }
}
