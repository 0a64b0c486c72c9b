//! The network namespace that a CNI plugin names for a pod of which no process runs yet. It finds none by itself; see `finder`.

use std::net::IpAddr;
use std::path::PathBuf;

use runtime::sys::Netns;
use runtime::sys::netns::NetnsId;

use crate::netlink::{NetlinkError, interface_of};

/// A pod's network namespace and addresses, as its CNI plugin told them. Keeps the namespace open.
#[derive(Debug)]
pub struct Sandbox {
    netns: Netns,
    cookie: u64,
    ips: Vec<IpAddr>,
}

impl PartialEq for Sandbox {
    fn eq(&self, other: &Self) -> bool {
        (self.cookie, &self.ips) == (other.cookie, &other.ips)
    }
}

impl Eq for Sandbox {}

/// Reason why a namespace cannot be a pod's.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    #[error("no address of the pod: expected at least one in IPs")]
    NoAddress,
    #[error("cannot open the network namespace {}: {source}", .path.display())]
    Open { path: PathBuf, source: std::io::Error },
    #[error("{} is the node's own network namespace", .path.display())]
    Host { path: PathBuf },
    #[error("the network namespace {} holds none of the pod's addresses", .path.display())]
    Foreign { path: PathBuf },
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

impl Sandbox {
    /// Opens the namespace and makes sure that it holds an address of the pod. `host` is the node's own, which is nobody's.
    ///
    /// # Errors
    /// All of [`SandboxError`].
    pub async fn open(path: &str, ips: Vec<IpAddr>, host: NetnsId) -> Result<Self, SandboxError> {
        if ips.is_empty() {
            return Err(SandboxError::NoAddress);
        }
        let path = PathBuf::from(path);
        let failed = |source| SandboxError::Open { path: path.clone(), source };
        let netns = Netns::open(&path).map_err(failed)?;
        let cookie = netns.cookie().map_err(failed)?;
        // A plugin that is called for a pod on the host network names the node's namespace.
        if netns.id() == host {
            return Err(SandboxError::Host { path });
        }
        if interface_of(&netns, &ips).await?.is_none() {
            return Err(SandboxError::Foreign { path });
        }
        Ok(Self { netns, cookie, ips })
    }

    /// The kernel's number for the namespace.
    pub const fn cookie(&self) -> u64 {
        self.cookie
    }

    /// Addresses of the pod, known before the cluster knows them.
    pub fn ips(&self) -> &[IpAddr] {
        &self.ips
    }

    /// The namespace.
    pub const fn netns(&self) -> &Netns {
        &self.netns
    }
}
