//! Protocol by which each node proxy reaches a pod, as the proxies themselves report it.

use std::collections::HashMap;

use anyhow::{Context as _, Result};
use lab::Lab;
use serde::Deserialize;

use crate::admin;

/// Protocol by which a node proxy reaches a pod in the mesh.
const HBONE: &str = "HBONE";

#[derive(Debug, Deserialize)]
struct Dump {
    workloads: Vec<Workload>,
}

#[derive(Debug, Deserialize)]
struct Workload {
    namespace: String,
    name: String,
    protocol: String,
}

/// Protocols by namespace and name of the pod.
type Protocols = HashMap<(String, String), String>;

/// Name of each node, and what its proxy knows.
#[derive(Debug, Default)]
pub(crate) struct Peers(Vec<(String, Protocols)>);

impl Peers {
    /// Asks the node proxy of every node.
    ///
    /// # Errors
    /// When one does not answer: what it would do is not known then.
    pub(crate) async fn ask(lab: &Lab) -> Result<Self> {
        let mut nodes = Vec::new();
        for node in lab.nodes().await? {
            let body = admin::get(&admin::ztunnel(lab, &node.name), admin::CONFIG_DUMP_PATH).await;
            // One silent proxy is an error of the whole: with an answer that is missing, "all peers agree" would be a
            // guess.
            let body = body.with_context(|| format!("ztunnel of {}", node.name))?;
            let dump: Dump = serde_json::from_slice(&body)
                .with_context(|| format!("ztunnel of {}: unexpected /config_dump", node.name))?;
            let known = dump.workloads.into_iter().map(|w| ((w.namespace, w.name), w.protocol)).collect();
            nodes.push((node.name, known));
        }
        Ok(Self(nodes))
    }

    /// Nodes whose proxy would not reach a pod by HBONE (`true`) or in plaintext (`false`), as it should.
    pub(crate) fn behind(&self, namespace: &str, name: &str, hbone: bool) -> Vec<&str> {
        let key = (namespace.to_owned(), name.to_owned());
        let agrees = |known: &Protocols| match known.get(&key) {
            Some(protocol) => (protocol == HBONE) == hbone,
            // A proxy reaches what it does not know in plaintext.
            None => !hbone,
        };
        self.0.iter().filter(|(_, known)| !agrees(known)).map(|(node, _)| node.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_behind_until_its_proxy_knows_the_protocol() {
        let known = |protocol: &str| HashMap::from([(("shop".to_owned(), "db".to_owned()), protocol.to_owned())]);
        let peers = Peers(vec![
            ("node-1".to_owned(), known("HBONE")),
            ("node-2".to_owned(), known("TCP")),
            ("node-3".to_owned(), HashMap::new()),
        ]);

        assert_eq!(peers.behind("shop", "db", true), ["node-2", "node-3"]);
        assert_eq!(peers.behind("shop", "db", false), ["node-1"]);
    }
}
