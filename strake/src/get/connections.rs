//! `strake get connections`: connections that the node proxies carry now.

use std::{collections::BTreeMap, net::IpAddr, process::ExitCode};

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use super::{
    listing::{self, Item, Listing, Options},
    table::or_dash,
};
use crate::mesh::{
    ByNode, Mesh,
    dump::{Connection, PodName, ProxyDump},
};

/// Lists open connections of the pods in the mesh, and whether each is in an HBONE tunnel; names are those of pods
#[derive(Debug, Args)]
pub(crate) struct Connections {
    #[command(flatten)]
    options: Options,
}

/// An open connection of a pod. One between two pods is in the list twice: outbound of one, inbound of the other.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    node: String,
    namespace: String,
    pod: String,
    /// `inbound` or `outbound`.
    direction: &'static str,
    /// The pod at the other end, by its address; empty when none is known.
    peer: String,
    src: String,
    /// The address or Service that the client asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    original_dst: Option<String>,
    actual_dst: String,
    /// `HBONE`: encrypted, both sides authenticated. `TCP`: as the application sends it.
    protocol: String,
}

impl Connections {
    pub(crate) async fn run(&self, mesh: &Mesh) -> Result<ExitCode> {
        let options = &self.options;
        let list = async || Ok(listing(options, options.of_node(mesh.dumps().await?)?));
        let first = list().await?;
        self.reject_unknown(&first, mesh).await?;
        listing::show(first, options.output, options.watch, list).await
    }

    /// A pod without a connection is no mistake; one that does not exist is.
    async fn reject_unknown(&self, first: &Listing<Row>, mesh: &Mesh) -> Result<()> {
        if self.options.names.iter().all(|name| first.items.iter().any(|row| row.pod == *name)) {
            return Ok(());
        }
        let pods = mesh.pods().await?;
        match self.options.names.iter().find(|name| pods.iter().all(|pod| pod.name != **name)) {
            Some(missing) => anyhow::bail!("pod {missing} not found"),
            None => Ok(()),
        }
    }
}

fn listing(options: &Options, dumps: ByNode<ProxyDump>) -> Listing<Row> {
    let (dumps, unreachable) = listing::answers(dumps);
    let scope = options.scope(None);
    let mut items = Vec::new();
    for (node, dump) in dumps {
        let names = dump.names();
        for state in dump.workload_state.into_values() {
            let PodName { namespace, name } = &state.info;
            let wanted = scope.is_none_or(|scope| scope == namespace)
                && (options.names.is_empty() || options.names.contains(name));
            if !wanted {
                continue;
            }
            let of = |direction, connections: Vec<Connection>| {
                let row = |connection| Row::new(&node, &state.info, direction, connection, &names);
                connections.into_iter().map(row).collect::<Vec<_>>()
            };
            items.extend(of("inbound", state.connections.inbound));
            items.extend(of("outbound", state.connections.outbound));
        }
    }
    items.sort_by_cached_key(Row::key);
    Listing { items, unreachable }
}

impl Row {
    fn new(
        node: &str,
        pod: &PodName,
        direction: &'static str,
        connection: Connection,
        names: &BTreeMap<IpAddr, String>,
    ) -> Self {
        let Connection { src, original_dst, actual_dst, protocol } = connection;
        let other = if direction == "inbound" { src } else { actual_dst };
        Self {
            node: node.to_owned(),
            namespace: pod.namespace.clone(),
            pod: pod.name.clone(),
            direction,
            peer: names.get(&other.ip().to_canonical()).cloned().unwrap_or_default(),
            src: src.to_string(),
            original_dst,
            actual_dst: actual_dst.to_string(),
            protocol,
        }
    }
}

impl Item for Row {
    const KIND: &'static str = "connections";
    const HEADER: &'static [&'static str] = &["NODE", "POD", "DIRECTION", "PEER", "SOURCE", "DESTINATION", "PROTOCOL"];
    const WIDE: &'static [&'static str] = &["ASKED FOR"];

    fn key(&self) -> String {
        let Self { node, namespace, pod, direction, src, actual_dst, .. } = self;
        format!("{node} {namespace}/{pod} {direction} {src} {actual_dst}")
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.node.clone(),
            format!("{}/{}", self.namespace, self.pod),
            self.direction.to_owned(),
            or_dash(&self.peer),
            self.src.clone(),
            self.actual_dst.clone(),
            self.protocol.clone(),
        ]
    }

    fn wide_cells(&self) -> Vec<String> {
        vec![or_dash(self.original_dst.as_deref().unwrap_or_default())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::get::testing;

    #[test]
    fn a_connection_names_both_ends_and_the_protocol() {
        let listing = listing(&testing::options(&[]), testing::dumps());

        insta::assert_snapshot!(listing::render(&listing, listing::Format::Wide).unwrap(), @r"
    NODE     POD         DIRECTION   PEER        SOURCE             DESTINATION        PROTOCOL   ASKED FOR
    node-1   shop/cart   outbound    shop/db-0   10.244.1.2:40000   10.244.2.3:15008   HBONE      10.96.0.7:80
    node-1   shop/cart   outbound    -           10.244.1.2:40002   192.0.2.1:443      TCP        192.0.2.1:443
    ");
        assert!(super::listing(&testing::options(&["-n", "none"]), testing::dumps()).items.is_empty());
    }
}
