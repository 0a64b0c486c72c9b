//! `strake get certificates`: certificates of workloads in the node proxies.

use std::{process::ExitCode, time::SystemTime};

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use super::{
    listing::{self, Item, Listing, Options},
    table::or_dash,
};
use crate::{
    mesh::{
        ByNode, Mesh,
        dump::{CertificateState, ProxyDump},
    },
    times,
};

/// Lists certificates that the node proxies hold for the pods of their nodes; names are those of service accounts
#[derive(Debug, Args)]
pub(crate) struct Certificates {
    #[command(flatten)]
    options: Options,
}

/// A certificate of a node.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    node: String,
    identity: String,
    /// `Available`, or why not.
    state: String,
    serial: String,
    /// RFC 3339.
    valid_from: String,
    /// RFC 3339.
    expires: String,
    #[serde(skip)]
    namespace: String,
    #[serde(skip)]
    account: String,
}

impl Certificates {
    pub(crate) async fn run(&self, mesh: &Mesh) -> Result<ExitCode> {
        let options = &self.options;
        let list = async || Ok(listing(options, options.of_node(mesh.dumps().await?)?));
        let first = list().await?;
        options.reject_unknown(&first, |row| &row.account)?;
        listing::show(first, options.output, options.watch, list).await
    }
}

fn listing(options: &Options, dumps: ByNode<ProxyDump>) -> Listing<Row> {
    let (dumps, unreachable) = listing::answers(dumps);
    let scope = options.scope(None);
    let wanted = |row: &Row| {
        scope.is_none_or(|namespace| row.namespace == namespace)
            && (options.names.is_empty() || options.names.contains(&row.account))
    };
    let rows = dumps.into_iter().flat_map(|(node, dump)| {
        dump.certificates.into_iter().map(move |certificate| Row::new(node.clone(), certificate))
    });
    Listing { items: rows.filter(wanted).collect(), unreachable }
}

/// Namespace and service account of an identity: `spiffe://DOMAIN/ns/NAMESPACE/sa/ACCOUNT`.
pub(crate) fn account(identity: &str) -> Option<(&str, &str)> {
    let (_, rest) = identity.split_once("/ns/")?;
    rest.split_once("/sa/")
}

impl Row {
    fn new(node: String, certificate: CertificateState) -> Self {
        let CertificateState { identity, state, mut cert_chain } = certificate;
        let own = if cert_chain.is_empty() { Default::default() } else { cert_chain.swap_remove(0) };
        let (namespace, account) = account(&identity).unwrap_or_default();
        Self {
            node,
            namespace: namespace.to_owned(),
            account: account.to_owned(),
            state,
            serial: own.serial_number,
            valid_from: own.valid_from,
            expires: own.expiration_time,
            identity,
        }
    }
}

impl Item for Row {
    const KIND: &'static str = "certificates";
    const HEADER: &'static [&'static str] = &["NODE", "IDENTITY", "STATE", "EXPIRES", "IN"];
    const WIDE: &'static [&'static str] = &["VALID FROM", "SERIAL"];

    fn key(&self) -> String {
        format!("{} {}", self.node, self.identity)
    }

    fn cells(&self) -> Vec<String> {
        let left = times::parse(&self.expires).map(|end| times::until(end, SystemTime::now()));
        vec![
            self.node.clone(),
            self.identity.clone(),
            self.state.clone(),
            or_dash(&self.expires),
            or_dash(&left.unwrap_or_default()),
        ]
    }

    fn wide_cells(&self) -> Vec<String> {
        vec![or_dash(&self.valid_from), or_dash(&self.serial)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::get::testing;

    #[test]
    fn each_node_has_certificates_of_its_own() {
        let listing = listing(&testing::options(&[]), testing::dumps());

        let text = listing::render(&listing, listing::Format::Wide).unwrap();
        let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(
            rows[1][..4],
            ["node-1", "spiffe://cluster.local/ns/shop/sa/cart", "Available", "2026-01-02T00:00:00Z"]
        );
        assert_eq!(rows[1].last(), Some(&"427"));
        assert_eq!(rows[2][2..], ["Initializing", "-", "-", "-", "-"]);
    }

    #[test]
    fn names_are_those_of_service_accounts() {
        assert_eq!(account("spiffe://cluster.local/ns/shop/sa/db"), Some(("shop", "db")));
        assert_eq!(account("x"), None);
        let found = listing(&testing::options(&["db", "-n", "shop"]), testing::dumps());
        assert!(found.items.iter().all(|row| row.account == "db"));
    }
}
