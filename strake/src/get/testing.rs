//! Answers of proxies for tests: a dump as the program writes it.

use crate::mesh::{ByNode, dump::ProxyDump};

use super::listing::Options;

#[derive(clap::Parser)]
struct Line {
    #[command(flatten)]
    options: Options,
}

pub(crate) fn options(words: &[&str]) -> Options {
    <Line as clap::Parser>::parse_from([&["get"], words].concat()).options
}

/// A recorded dump of the proxy `node-1` of a lab, and one that is silent.
pub(crate) fn dumps() -> ByNode<ProxyDump> {
    let dump = serde_json::from_str(DUMP).unwrap();
    vec![("node-1".to_owned(), Ok(dump)), ("node-2".to_owned(), Err(anyhow::anyhow!("cannot reach admin.sock")))]
}

/// Shapes of every list in it.
pub(crate) const DUMP: &str = include_str!("testing/config_dump.json");

/// The raw dumps of both nodes of that lab: the second has the endpoints of Service `db`.
pub(crate) fn raw_dumps() -> ByNode<bytes::Bytes> {
    let mut second: serde_json::Value = serde_json::from_str(DUMP).unwrap();
    second["config"]["node"]["name"] = "node-2".into();
    let pod = |name: &str| {
        serde_json::json!({"state": "Up", "connections": {"inbound": [], "outbound": []},
            "info": {"name": name, "namespace": "shop", "serviceAccount": "db"}})
    };
    second["workloadState"] = serde_json::json!({"4a": pod("db-0"), "4b": pod("db-1")});
    vec![("node-1".to_owned(), Ok(DUMP.into())), ("node-2".to_owned(), Ok(second.to_string().into()))]
}

/// The pods of that lab.
pub(crate) fn pods() -> Vec<crate::mesh::PodFacts> {
    [
        ("cart", "3b", "node-1", "10.244.1.2"),
        ("db-0", "4a", "node-2", "10.244.2.3"),
        ("log", "5c", "node-1", "10.244.1.9"),
    ]
    .map(|(name, uid, node, ip)| crate::mesh::PodFacts {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        uid: uid.to_owned(),
        node: node.to_owned(),
        ips: vec![ip.parse().unwrap()],
        phase: "Running".to_owned(),
        ready: true,
        selected: Some(true),
    })
    .to_vec()
}
