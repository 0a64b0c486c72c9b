//! The listeners that a pod gets in its namespace. `Sockets` opens them.

use super::{DnsListening, Listening};
use contract::ports;
use telemetry::Direction;

/// Everything that listens for a pod.
#[derive(Debug)]
pub struct PodListeners {
    pub connections: Vec<(ListenerKind, Listening)>,
    /// Empty: the pod's DNS questions are not answered.
    pub dns: Vec<DnsListening>,
}

/// The three ways into a pod's proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerKind {
    /// 15001: what the pod's applications open.
    Outbound,
    /// 15008: tunnels of other proxies.
    Hbone,
    /// 15006: everything else that comes to the pod.
    Plaintext,
}

impl ListenerKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Outbound, Self::Hbone, Self::Plaintext];

    /// The port, which peers, redirection and tools know.
    pub const fn port(self) -> u16 {
        match self {
            Self::Outbound => ports::OUTBOUND,
            Self::Plaintext => ports::INBOUND_PLAINTEXT,
            Self::Hbone => ports::HBONE,
        }
    }

    /// Side of the proxy on its connections.
    pub const fn direction(self) -> Direction {
        match self {
            Self::Outbound => Direction::Outbound,
            Self::Plaintext | Self::Hbone => Direction::Inbound,
        }
    }

    /// Descriptors that a connection needs: its own, and that of its next hop. Each stream of a tunnel counts for itself.
    pub(crate) const fn descriptors(self) -> usize {
        match self {
            Self::Outbound | Self::Plaintext => 2,
            Self::Hbone => 1,
        }
    }

    /// Application connections need TCP's keepalive; tunnels have pings.
    pub const fn needs_keepalive(self) -> bool {
        match self {
            Self::Outbound | Self::Plaintext => true,
            Self::Hbone => false,
        }
    }
}
