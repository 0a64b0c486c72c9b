//! rtnetlink inside a pod's network namespace. It carries requests; what to ask is in `rules` and `finder`.

use std::io;
use std::net::IpAddr;

use futures::{Stream, TryStreamExt};
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::{Error, Handle, new_connection};
use runtime::sys::Netns;
use tokio::task::JoinHandle;

/// Why a question to the kernel's routing tables failed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The namespace cannot be entered, or no socket can be made in it.
    #[error("cannot open a netlink socket in the network namespace: {0}")]
    Open(#[from] io::Error),
    /// The kernel refused.
    #[error("{action}: {source}")]
    Refused { action: &'static str, source: Error },
}

impl NetlinkError {
    /// The `errno` of the kernel's answer, positive.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { source: Error::NetlinkError(message), .. } => Some(-message.raw_code()),
            Self::Refused { .. } | Self::Open(_) => None,
        }
    }
}

/// A netlink socket of one namespace: made inside it, used from anywhere.
pub(crate) struct Netlink {
    pub(crate) handle: Handle,
    driver: JoinHandle<()>,
}

impl Netlink {
    /// Needs a tokio runtime.
    pub(crate) fn open(netns: &Netns) -> io::Result<Self> {
        let (connection, handle, _) = netns.run(new_connection)?;
        Ok(Self { handle, driver: tokio::spawn(connection) })
    }

    /// Every address of the namespace with the index of its interface.
    pub(crate) async fn addresses(&self) -> Result<Vec<(u32, IpAddr)>, NetlinkError> {
        let messages = collect("list addresses", self.handle.address().get().execute()).await?;
        Ok(messages.iter().flat_map(|message| own_addresses(message).map(|ip| (message.header.index, ip))).collect())
    }
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// The interface that holds one of `wanted`, in the order of `wanted`.
///
/// # Errors
/// When the namespace cannot be asked.
pub async fn interface_of(netns: &Netns, wanted: &[IpAddr]) -> Result<Option<u32>, NetlinkError> {
    let held = Netlink::open(netns)?.addresses().await?;
    Ok(wanted.iter().find_map(|ip| held.iter().find(|(_, address)| address == ip)).map(|(index, _)| *index))
}

fn own_addresses(message: &AddressMessage) -> impl Iterator<Item = IpAddr> {
    // On a point-to-point interface `Address` is the other end and `Local` is ours.
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(ip) => Some(*ip),
        _ => None,
    });
    let plain = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(ip) => Some(*ip),
        _ => None,
    });
    local.or(plain).into_iter()
}

pub(crate) async fn collect<T>(
    action: &'static str,
    stream: impl Stream<Item = Result<T, Error>>,
) -> Result<Vec<T>, NetlinkError> {
    stream.try_collect().await.map_err(|source| NetlinkError::Refused { action, source })
}

/// The outcome of a request that may already be fulfilled: `tolerated` is the `errno` that says so.
pub(crate) fn tolerate(action: &'static str, result: Result<(), Error>, tolerated: &[i32]) -> Result<(), NetlinkError> {
    match result.map_err(|source| NetlinkError::Refused { action, source }) {
        Err(error) if error.errno().is_some_and(|errno| tolerated.contains(&errno)) => Ok(()),
        other => other,
    }
}
