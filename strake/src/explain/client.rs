//! The client of a connection.

use std::{net::IpAddr, sync::Arc};

use anyhow::Result;
use model::Workload;
use serde::Serialize;

use super::world::World;
use crate::mesh::PodFacts;

/// The side that opens the connection.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Client {
    /// `NAMESPACE/NAME`, or the address.
    pub(crate) name: String,
    /// Empty for a client that is no pod.
    pub(crate) node: String,
    /// A proxy takes its connections.
    pub(crate) in_mesh: bool,
    /// Identity that its proxy proves; none in plaintext.
    pub(crate) identity: Option<String>,
    pub(crate) addresses: Vec<IpAddr>,
    #[serde(skip)]
    pub(super) workload: Option<Arc<Workload>>,
}

impl Client {
    /// A client without proxy.
    pub(crate) fn outside(address: IpAddr) -> Self {
        let name = address.to_string();
        Self { name, node: String::new(), in_mesh: false, identity: None, addresses: vec![address], workload: None }
    }

    /// # Errors
    /// When the proxy of the pod's node does not answer: it is not known whether it takes the pod's connections.
    pub(crate) fn of_pod(world: &World, pod: &PodFacts) -> Result<Self> {
        let proxy = world.proxy(&pod.node)?;
        let in_mesh = proxy.captures(&pod.namespace, &pod.name);
        let workload = world.workload(&pod.namespace, &pod.name);
        let identity = workload.as_ref().filter(|_| in_mesh).and_then(|workload| workload.identity());
        Ok(Self {
            name: format!("{}/{}", pod.namespace, pod.name),
            node: pod.node.clone(),
            in_mesh,
            identity: identity.map(|identity| identity.to_string()),
            addresses: pod.ips.clone(),
            workload,
        })
    }

    /// An address of the client, of the family of `like` where it has one.
    pub(super) fn address(&self, like: IpAddr) -> Option<IpAddr> {
        let same = self.addresses.iter().find(|address| address.is_ipv4() == like.is_ipv4());
        same.or(self.addresses.first()).copied()
    }
}
