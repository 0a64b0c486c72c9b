//! What every proxy of a mesh knows, and its decisions by the proxies' own code.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use identity::Identity;
use model::{State, Workload};
use policy::{Connection, Trace, trace};

use crate::mesh::{ByNode, Mesh, dump::ProxyDump};

/// The proxy of a node.
#[derive(Debug)]
pub(crate) struct Proxy {
    /// As it decides.
    pub(crate) state: State,
    /// As it is shown.
    pub(crate) dump: ProxyDump,
}

/// The proxies of a mesh at one moment.
#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) proxies: BTreeMap<String, Proxy>,
    /// Nodes whose proxy does not answer, and why.
    pub(crate) silent: BTreeMap<String, String>,
}

/// Decision of the proxy of a pod on a connection to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The proxy decides, by these policies.
    Decided(Trace),
    /// No proxy takes connections of the pod: nothing in the mesh refuses one.
    NotCaptured,
    /// It cannot be told, for this reason.
    Unknown(String),
}

impl World {
    /// Asks every proxy.
    ///
    /// # Errors
    /// When the nodes are not known. A proxy that does not answer is missing.
    pub(crate) async fn ask(mesh: &Mesh) -> Result<Self> {
        Ok(Self::new(mesh.raw_dumps().await?))
    }

    pub(crate) fn new(dumps: ByNode<Bytes>) -> Self {
        let mut world = Self::default();
        for (node, dump) in dumps {
            match dump.and_then(|dump| Proxy::new(&dump).with_context(|| format!("ztunnel of {node}"))) {
                Ok(proxy) => {
                    world.proxies.insert(node, proxy);
                }
                Err(error) => {
                    world.silent.insert(node, format!("{error:#}"));
                }
            }
        }
        world
    }

    /// The proxy of a node.
    ///
    /// # Errors
    /// When it has not answered, with the reason.
    pub(crate) fn proxy(&self, node: &str) -> Result<&Proxy> {
        let reason = || match self.silent.get(node) {
            Some(reason) => reason.clone(),
            None => format!("node {node:?} has no ztunnel"),
        };
        self.proxies.get(node).with_context(reason)
    }

    /// The decision on a connection to a workload.
    pub(crate) fn verdict(&self, to: &Workload, connection: &Connection) -> Verdict {
        let proxy = match self.proxy(&to.node) {
            Ok(proxy) => proxy,
            // A workload without node is none of a pod: nobody captures it.
            Err(_) if to.node.is_empty() => return Verdict::NotCaptured,
            Err(reason) => return Verdict::Unknown(format!("{reason:#}")),
        };
        if !proxy.captures(&to.namespace, &to.name) {
            return Verdict::NotCaptured;
        }
        match proxy.state.workload(&to.uid) {
            Some(local) => Verdict::Decided(trace(&proxy.state.policies_of(&local), connection)),
            None => {
                Verdict::Unknown(format!("ztunnel of {} does not know the pod yet: it refuses connections", to.node))
            }
        }
    }

    /// Identities of workloads in the mesh, each with one pod that has it and an address of that.
    pub(crate) fn identities(&self) -> BTreeMap<Identity, IpAddr> {
        let mut identities = BTreeMap::new();
        for proxy in self.proxies.values() {
            for workload in proxy.state.dump().workloads {
                let is_captured = workload.protocol == model::InboundProtocol::HBONE;
                let address = workload.workload_ips.first();
                if let (true, Some(identity), Some(address)) = (is_captured, workload.identity(), address) {
                    identities.entry(identity).or_insert(*address);
                }
            }
        }
        identities
    }

    /// The workload of this name, as the proxy of its own node knows it, else any other.
    pub(crate) fn workload(&self, namespace: &str, name: &str) -> Option<Arc<Workload>> {
        let known = self.proxies.iter().filter_map(|(node, proxy)| {
            let uid = &proxy.dump.workload(namespace, name)?.uid;
            Some((node, proxy.state.workload(uid)?))
        });
        let mut known: Vec<_> = known.collect();
        known.sort_by_key(|(node, workload)| workload.node != ***node);
        known.into_iter().next().map(|(_, workload)| workload)
    }
}

impl Proxy {
    fn new(dump: &[u8]) -> Result<Self> {
        let unexpected = "unexpected /config_dump";
        Ok(Self {
            state: State::from_dump(dump).context(unexpected)?,
            dump: serde_json::from_slice(dump).context(unexpected)?,
        })
    }

    /// Returns true if the proxy has the sockets of a pod: it takes what the pod sends and gets.
    pub(crate) fn captures(&self, namespace: &str, name: &str) -> bool {
        let is_this = |info: &crate::mesh::dump::PodName| info.namespace == namespace && info.name == name;
        self.dump.workload_state.values().any(|pod| is_this(&pod.info) && pod.state == "Up")
    }
}

/// An address of a workload, of the family of `like` where it has one.
pub(crate) fn address_of(workload: &Workload, like: Option<IpAddr>) -> Option<IpAddr> {
    let same = workload.workload_ips.iter().find(|ip| like.is_none_or(|like| ip.is_ipv4() == like.is_ipv4()));
    same.or(workload.workload_ips.first()).copied()
}

/// A connection as policies see it.
pub(crate) fn connection(source: IpAddr, destination: SocketAddr, identity: Option<Identity>) -> Connection {
    Connection { source, destination, identity }
}
