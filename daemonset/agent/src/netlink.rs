//! rtnetlink inside a pod's network namespace. It carries requests; what to ask is in `rules`, `finder` and `hooks`.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use futures::StreamExt;
use rtnetlink::packet_core::{NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use rtnetlink::{Error, Handle, new_connection};
use runtime::sys::Netns;
use runtime::sys::packet::watched;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};
use socket2::Socket;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Longest wait for an answer of the kernel, which takes microseconds.
const ANSWER_DEADLINE: Duration = Duration::from_secs(2);

/// Lists that may be interrupted in a row.
const DUMPS: usize = 5;

/// `RTMGRP_LINK`, `RTMGRP_IPV4_IFADDR`, `RTMGRP_IPV4_ROUTE`, `RTMGRP_IPV4_RULE`, `RTMGRP_IPV6_IFADDR`, `RTMGRP_IPV6_ROUTE`, and
/// the bit of `RTNLGRP_IPV6_RULE` (19).
const ROUTING_GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400 | 1 << 18;

/// Error of a request to the kernel's routing tables.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The namespace cannot be entered, or no socket can be made in it.
    #[error("cannot open a netlink socket in the network namespace: {0}")]
    Open(#[from] io::Error),
    /// The kernel refused.
    #[error("{action}: {source}")]
    Refused { action: &'static str, source: Error },
    /// The kernel did not answer, or not to the end.
    #[error("{action}: no answer of the kernel within {ANSWER_DEADLINE:?}")]
    Late { action: &'static str },
    /// The answer ended before the kernel said so.
    #[error("{action}: the answer of the kernel is incomplete")]
    Incomplete { action: &'static str },
    /// The list changed at each attempt (`NLM_F_DUMP_INTR`).
    #[error("{action}: the list changes faster than it can be read")]
    Interrupted { action: &'static str },
}

impl NetlinkError {
    /// The `errno` of the kernel's answer, positive.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { source: Error::NetlinkError(message), .. } => Some(-message.raw_code()),
            Self::Refused { .. }
            | Self::Open(_)
            | Self::Late { .. }
            | Self::Incomplete { .. }
            | Self::Interrupted { .. } => None,
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
    pub(crate) fn open(netns: &Netns) -> Result<Self, NetlinkError> {
        // A socket belongs to the namespace in which it is made, for life; it is used from outside of it.
        let (mut connection, handle, _) = netns.run(new_connection)?;
        // A list without its end is not whole.
        connection.set_forward_done(true);
        Ok(Self { handle, driver: tokio::spawn(connection) })
    }

    /// Everything that the kernel lists for `request`, as it was at one moment.
    pub(crate) async fn dump(
        &self,
        action: &'static str,
        request: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        for _ in 0..DUMPS {
            if let Some(listed) = within(action, self.dump_once(action, request.clone())).await? {
                return Ok(listed);
            }
        }
        Err(NetlinkError::Interrupted { action })
    }

    /// `None` when the list was interrupted.
    async fn dump_once(
        &self,
        action: &'static str,
        request: RouteNetlinkMessage,
    ) -> Result<Option<Vec<RouteNetlinkMessage>>, NetlinkError> {
        let mut answers = self.send(action, request, NLM_F_REQUEST | NLM_F_DUMP)?;
        let (mut listed, mut interrupted) = (Vec::new(), false);
        while let Some(answer) = answers.next().await {
            interrupted |= answer.header.flags & NLM_F_DUMP_INTR != 0;
            match answer.payload {
                NetlinkPayload::InnerMessage(message) => listed.push(message),
                NetlinkPayload::Done(_) => return Ok((!interrupted).then_some(listed)),
                NetlinkPayload::Error(error) => {
                    return Err(NetlinkError::Refused { action, source: Error::NetlinkError(error) });
                }
                _ => break,
            }
        }
        Err(NetlinkError::Incomplete { action })
    }

    /// The kernel's single answer to `request`.
    pub(crate) async fn ask(
        &self,
        action: &'static str,
        request: RouteNetlinkMessage,
    ) -> Result<RouteNetlinkMessage, NetlinkError> {
        let mut answers = self.send(action, request, NLM_F_REQUEST)?;
        let first = async { Ok(answers.next().await) };
        match within(action, first).await?.map(|answer| answer.payload) {
            Some(NetlinkPayload::InnerMessage(message)) => Ok(message),
            Some(NetlinkPayload::Error(error)) => {
                Err(NetlinkError::Refused { action, source: Error::NetlinkError(error) })
            }
            Some(_) | None => Err(NetlinkError::Incomplete { action }),
        }
    }

    fn send(
        &self,
        action: &'static str,
        request: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<impl StreamExt<Item = NetlinkMessage<RouteNetlinkMessage>> + Unpin + use<>, NetlinkError> {
        let mut message = NetlinkMessage::from(request);
        message.header.flags = flags;
        let answers = self.handle.clone().request(message);
        Ok(Box::pin(answers.map_err(|source| NetlinkError::Refused { action, source })?))
    }

    /// Every address of the namespace with the index of its interface.
    pub(crate) async fn addresses(&self) -> Result<Vec<(u32, IpAddr)>, NetlinkError> {
        let listed = self.dump("list addresses", RouteNetlinkMessage::GetAddress(AddressMessage::default())).await?;
        let addresses = listed.iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewAddress(message) => Some((message.header.index, own_address(message)?)),
            _ => None,
        });
        Ok(addresses.collect())
    }

    /// Addresses to which no socket can be bound yet: duplicate address detection (RFC 4862, 5.4) has not ended for them, or has
    /// found one.
    async fn tentative(&self) -> Result<Vec<IpAddr>, NetlinkError> {
        let listed = self.dump("list addresses", RouteNetlinkMessage::GetAddress(AddressMessage::default())).await?;
        let tentative = listed.iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewAddress(message) if is_tentative(message) => own_address(message),
            _ => None,
        });
        Ok(tentative.collect())
    }

    /// The interface that holds one of `wanted`, in the order of `wanted`.
    pub(crate) async fn interface_of(&self, wanted: &[IpAddr]) -> Result<Option<u32>, NetlinkError> {
        let held = self.addresses().await?;
        Ok(wanted.iter().find_map(|ip| held.iter().find(|(_, address)| address == ip)).map(|(index, _)| *index))
    }
}

impl Drop for Netlink {
    fn drop(&mut self) {
        // The task would keep the socket, and with it the namespace, open.
        self.driver.abort();
    }
}

/// As [`Netlink::interface_of`], for a namespace that nothing else is asked of.
///
/// # Errors
/// When the namespace cannot be asked.
pub async fn interface_of(netns: &Netns, wanted: &[IpAddr]) -> Result<Option<u32>, NetlinkError> {
    Netlink::open(netns)?.interface_of(wanted).await
}

/// Those of a pod's addresses to which no socket can be bound yet.
///
/// # Errors
/// When the namespace cannot be asked.
pub async fn tentative(netns: &Netns, own: &[IpAddr]) -> Result<Vec<IpAddr>, NetlinkError> {
    // Only IPv6 has them.
    if own.iter().all(IpAddr::is_ipv4) {
        return Ok(Vec::new());
    }
    let mut tentative = Netlink::open(netns)?.tentative().await?;
    tentative.retain(|address| own.contains(address));
    Ok(tentative)
}

fn is_tentative(message: &AddressMessage) -> bool {
    message.header.flags.contains(AddressHeaderFlags::Tentative)
}

fn own_address(message: &AddressMessage) -> Option<IpAddr> {
    // On a point-to-point interface `Address` is the other end and `Local` is ours.
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(ip) => Some(*ip),
        _ => None,
    });
    let plain = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(ip) => Some(*ip),
        _ => None,
    });
    local.or(plain)
}

async fn within<T>(
    action: &'static str,
    answer: impl Future<Output = Result<T, NetlinkError>>,
) -> Result<T, NetlinkError> {
    timeout(ANSWER_DEADLINE, answer).await.unwrap_or(Err(NetlinkError::Late { action }))
}

/// Waits for the outcome of a change. `tolerated` are values of `errno` that say that it is made already.
pub(crate) async fn change(
    action: &'static str,
    request: impl Future<Output = Result<(), Error>>,
    tolerated: &[i32],
) -> Result<(), NetlinkError> {
    let changed = within(action, async { request.await.map_err(|source| NetlinkError::Refused { action, source }) });
    match changed.await {
        Err(error) if error.errno().is_some_and(|errno| tolerated.contains(&errno)) => Ok(()),
        other => other,
    }
}

/// Tells that interfaces, addresses, rules or routes of a namespace have changed, not how.
#[derive(Debug)]
pub struct RoutingWatch(AsyncFd<Socket>);

impl RoutingWatch {
    /// Begins to watch. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the namespace cannot be entered or no descriptor is left.
    pub fn new(netns: &Netns) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let made = || rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None);
        let socket = netns.run(|| Ok(made()?))?;
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, ROUTING_GROUPS))?;
        Ok(Self(watched(Socket::from(socket))?))
    }

    /// Waits until something has changed since the last call. Cancel-safe.
    pub async fn changed(&mut self) {
        loop {
            // The runtime is ending; the regular proof does not depend on this.
            let Ok(mut ready) = self.0.readable().await else { return std::future::pending().await };
            let mut changed = false;
            // Every notification that is there. One that was lost (`ENOBUFS`) is a change too.
            while let Ok(received) = ready.try_io(|socket| {
                // The contents do not matter, so that a datagram may be cut off.
                let received = rustix::net::recv(socket.get_ref(), &mut [0_u8; 64][..], RecvFlags::empty());
                if received == Err(rustix::io::Errno::AGAIN) {
                    Err(io::ErrorKind::WouldBlock.into())
                } else {
                    Ok(received)
                }
            }) {
                changed |= received.is_ok();
            }
            if changed {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[tokio::test]
    async fn an_address_is_tentative_while_others_are_asked_whether_they_have_it() {
        let Some(netns) = testing::netns() else { return };
        // Longer than the test.
        netns.run(|| std::fs::write("/proc/sys/net/ipv6/conf/default/dad_transmits", "200")).unwrap();
        let settled: IpAddr = "fd00::1".parse().unwrap();
        let asked: IpAddr = "fd00::2".parse().unwrap();
        let v4: IpAddr = "10.0.0.1".parse().unwrap();
        let interface = testing::add_interface(&netns, &[v4, settled]).await;
        let link = Netlink::open(&netns).unwrap();
        let mut request = link.handle.address().add(interface, asked, 128);
        request.message_mut().header.flags = AddressHeaderFlags::empty();
        request.execute().await.unwrap();

        assert_eq!(tentative(&netns, &[v4, settled, asked]).await.unwrap(), [asked]);
        assert_eq!(tentative(&netns, &[v4, settled]).await.unwrap(), Vec::<IpAddr>::new());
        assert_eq!(tentative(&netns, &[v4]).await.unwrap(), Vec::<IpAddr>::new());
    }
}
