//! Way of a pod to its nameservers: sockets of its namespace with the proxy's mark, and descriptors of its budget.

use crate::inpod::Pod;
use dns::PodNetwork;
use proxy_core::budget::{self, Budgets, Descriptors, Owner, Resource};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::{TcpStream, UdpSocket};

/// See the module.
pub(super) struct Nameservers {
    pub(super) pod: Arc<Pod>,
    pub(super) budgets: Arc<Budgets>,
}

impl Nameservers {
    fn descriptor(&self) -> io::Result<Descriptors> {
        self.budgets.descriptors(&self.pod.usage, 1).ok_or_else(|| {
            budget::exceeded(&self.pod.usage, Resource::Descriptors, Owner::Pod);
            io::Error::other("no descriptor is left for this pod")
        })
    }
}

impl PodNetwork for Nameservers {
    type Guard = Descriptors;

    fn udp(&self, to: SocketAddr) -> io::Result<(UdpSocket, Descriptors)> {
        let descriptor = self.descriptor()?;
        Ok((self.pod.sockets.connect_udp(to)?, descriptor))
    }

    async fn tcp(&self, to: SocketAddr) -> io::Result<(TcpStream, Descriptors)> {
        let descriptor = self.descriptor()?;
        Ok((self.pod.sockets.connect(to, None).await?, descriptor))
    }

    fn refused(&self) {
        budget::exceeded(&self.pod.usage, Resource::Questions, Owner::Pod);
    }
}
