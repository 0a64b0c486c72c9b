//! `strake get workloads`: endpoints of the mesh as the node proxies know them.

use std::{net::IpAddr, process::ExitCode};

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
    dump::{ProxyDump, Workload},
};

/// Lists workloads as the node proxies know them: protocol, identity and policies
#[derive(Debug, Args)]
pub(crate) struct Workloads {
    #[command(flatten)]
    options: Options,
}

/// A pod or another endpoint.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    namespace: String,
    name: String,
    node: String,
    ips: Vec<IpAddr>,
    /// Protocol by which proxies reach it: `HBONE` or `TCP`.
    protocol: String,
    identity: String,
    status: String,
    /// Policies that select it by label; those of its namespace and of the mesh hold, too.
    policies: Vec<String>,
    services: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    waypoint: Option<String>,
    known_on: Vec<String>,
    differs_on: Vec<String>,
    uid: String,
    #[serde(skip)]
    asked: usize,
}

impl Workloads {
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
    let merged = merge(dumps.into_iter().map(|(node, dump)| (node, dump.workloads)), |workload| workload.uid.clone());
    let scope = options.scope(Some("default"));
    let wanted = |row: &Row| {
        scope.is_none_or(|namespace| row.namespace == namespace)
            && (options.names.is_empty() || options.names.contains(&row.name))
    };
    let mut items: Vec<_> = merged.into_values().map(|known| Row::new(known, asked)).filter(wanted).collect();
    items.sort_by_cached_key(|row| (row.namespace.clone(), row.name.clone(), row.uid.clone()));
    Listing { items, unreachable }
}

impl Row {
    fn new(known: Known<Workload>, asked: usize) -> Self {
        let Known { object, nodes, differing } = known;
        let identity = object.identity();
        let Workload { uid, namespace, name, node, workload_ips, protocol, status, waypoint, .. } = object;
        Self {
            namespace,
            name,
            node,
            ips: workload_ips,
            protocol,
            identity,
            status,
            policies: object.authorization_policies,
            services: object.services,
            waypoint: waypoint.map(|waypoint| waypoint.destination),
            known_on: nodes,
            differs_on: differing,
            uid,
            asked,
        }
    }
}

impl Item for Row {
    const KIND: &'static str = "workloads";
    const HEADER: &'static [&'static str] = &["NAMESPACE", "NAME", "NODE", "IPS", "PROTOCOL", "IDENTITY", "PROXIES"];
    const WIDE: &'static [&'static str] = &["STATUS", "POLICIES", "SERVICES", "WAYPOINT"];

    fn key(&self) -> String {
        self.uid.clone()
    }

    fn cells(&self) -> Vec<String> {
        let ips: Vec<_> = self.ips.iter().map(ToString::to_string).collect();
        vec![
            self.namespace.clone(),
            self.name.clone(),
            or_dash(&self.node),
            or_dash(&ips.join(",")),
            self.protocol.clone(),
            self.identity.clone(),
            Known::<()>::count(&self.known_on, &self.differs_on, self.asked),
        ]
    }

    fn wide_cells(&self) -> Vec<String> {
        let waypoint = self.waypoint.as_deref().unwrap_or_default();
        vec![
            self.status.clone(),
            or_dash(&self.policies.join(",")),
            or_dash(&self.services.join(",")),
            or_dash(waypoint),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::get::testing;

    #[test]
    fn a_workload_has_the_protocol_and_identity_that_proxies_use() {
        let listing = listing(&testing::options(&["-n", "shop"]), testing::dumps());

        insta::assert_snapshot!(listing::render(&listing, listing::Format::Table).unwrap(), @r"
    NAMESPACE   NAME   NODE     IPS          PROTOCOL   IDENTITY                                    PROXIES
    shop        cart   node-1   10.244.1.2   HBONE      spiffe://cluster.local/ns/shop/sa/cart      1/1
    shop        db-0   node-2   10.244.2.3   HBONE      spiffe://cluster.local/ns/shop/sa/db        1/1
    shop        db-1   node-2   10.244.2.4   HBONE      spiffe://cluster.local/ns/shop/sa/db        1/1
    shop        log    node-1   10.244.1.9   TCP        spiffe://cluster.local/ns/shop/sa/default   1/1
    ");
    }
}
