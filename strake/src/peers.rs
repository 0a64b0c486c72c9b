//! Protocol by which each node proxy reaches a pod, as the proxies themselves report it.

use std::collections::HashMap;

use anyhow::Result;

use crate::mesh::Mesh;

/// Protocol by which a node proxy reaches a pod in the mesh.
const HBONE: &str = "HBONE";

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
    pub(crate) async fn ask(mesh: &Mesh) -> Result<Self> {
        let mut nodes = Vec::new();
        for (node, dump) in mesh.dumps().await? {
            // One silent proxy is an error of the whole: with an answer that is missing, "all peers agree" would be a
            // guess.
            let known = dump?.workloads.into_iter().map(|w| ((w.namespace, w.name), w.protocol)).collect();
            nodes.push((node, known));
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
