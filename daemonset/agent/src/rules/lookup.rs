//! The kernel's route for packets of a pod, asked by route lookups (`RTM_GETROUTE`). It changes nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ebpf_common::{LOOP_MARK, LOOPBACK_INTERFACE};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteType};

use super::message::{address_family, interface_of, table_of, words};
use super::{Routing, TABLE, family};
use crate::netlink::{Netlink, NetlinkError};

/// An address of the other end, of the networks for documentation (RFC 5737, RFC 3849): any will do.
fn elsewhere(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::new(192, 0, 2, 1).into(),
        IpAddr::V6(_) => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
    }
}

struct Query {
    from: IpAddr,
    to: IpAddr,
    mark: Option<u32>,
    /// The socket is bound to this interface.
    by: Option<u32>,
    /// The packet arrives through this interface.
    through: Option<u32>,
}

impl Query {
    fn message(&self) -> RouteMessage {
        let address = |ip| match ip {
            IpAddr::V4(ip) => RouteAddress::Inet(ip),
            IpAddr::V6(ip) => RouteAddress::Inet6(ip),
        };
        let bits = if self.to.is_ipv4() { 32 } else { 128 };
        let mut message = RouteMessage::default();
        message.header.address_family = address_family(self.to);
        (message.header.source_prefix_length, message.header.destination_prefix_length) = (bits, bits);
        // The table in which the route was found.
        message.header.flags = RouteFlags::LookupTable;
        message.attributes =
            vec![RouteAttribute::Destination(address(self.to)), RouteAttribute::Source(address(self.from))];
        message.attributes.extend(self.mark.map(RouteAttribute::Mark));
        message.attributes.extend(self.by.map(RouteAttribute::Oif));
        message.attributes.extend(self.through.map(RouteAttribute::Iif));
        message
    }
}

/// The kernel's answer.
enum Answer {
    Route(RouteMessage),
    /// No route, or one that drops, with the `errno` that a socket would get.
    None(i32),
}

async fn ask(link: &Netlink, query: &Query) -> Result<Answer, NetlinkError> {
    match link.ask("look up a route", RouteNetlinkMessage::GetRoute(query.message())).await {
        Ok(RouteNetlinkMessage::NewRoute(route)) => Ok(Answer::Route(route)),
        // An answer of another kind says nothing about the route.
        Ok(_) => Err(NetlinkError::Incomplete { action: "look up a route" }),
        Err(error) => match error.errno().filter(|errno| is_verdict(*errno)) {
            // These are the kernel's answer to the question, not failures to ask.
            Some(errno) => Ok(Answer::None(errno)),
            None => Err(error),
        },
    }
}

/// Values of `errno` that are the result of a lookup: `ENETUNREACH`, `EHOSTUNREACH`, `EACCES` (prohibit), `EINVAL` (blackhole,
/// martian), `EXDEV` (reverse path filter), `EAGAIN` (throw).
fn is_verdict(errno: i32) -> bool {
    use rustix::io::Errno;
    [Errno::NETUNREACH, Errno::HOSTUNREACH, Errno::ACCESS, Errno::INVAL, Errno::XDEV, Errno::AGAIN]
        .iter()
        .any(|verdict| verdict.raw_os_error() == errno)
}

/// Asks whether a marked packet from the pod's address goes to `lo` by our table, in each family, and also when the socket is bound to
/// the pod's interface?
pub(super) async fn outbound(link: &Netlink, routing: &Routing) -> Result<Result<String, String>, NetlinkError> {
    let mut wrong = Vec::new();
    for from in routing.sources() {
        // Sockets that are bound to the pod's interface do not take a route by `lo`: they have one of their own.
        for by in [None, Some(routing.interface)] {
            let query = Query { from, to: elsewhere(from), mark: Some(LOOP_MARK), by, through: None };
            let found = match ask(link, &query).await? {
                Answer::Route(route) if is_to_proxy(&route) => continue,
                Answer::Route(route) => words(&route),
                Answer::None(errno) => std::io::Error::from_raw_os_error(errno).to_string(),
            };
            let bound = by.map(|index| format!(" bound to interface {index}")).unwrap_or_default();
            wrong.push(format!("{}{bound}: {found}, expected local by interface 1 table {TABLE}", family(from)));
        }
    }
    Ok(if wrong.is_empty() { Ok("marked packets go to lo".to_owned()) } else { Err(wrong.join("; ")) })
}

fn is_to_proxy(route: &RouteMessage) -> bool {
    route.header.kind == RouteType::Local && interface_of(route) == Some(LOOPBACK_INTERFACE) && table_of(route) == TABLE
}

/// Asks whether a packet to the pod's address, through the pod's interface, is delivered in this namespace.
pub(super) async fn inbound(link: &Netlink, routing: &Routing) -> Result<Result<String, String>, NetlinkError> {
    let mut wrong = Vec::new();
    for to in routing.sources() {
        let mut query = Query { from: elsewhere(to), to, mark: None, by: None, through: Some(routing.interface) };
        let mut answer = ask(link, &query).await?;
        if matches!(answer, Answer::None(_)) {
            // The filter of source addresses may refuse this one, and take others: asked without a way in.
            query = Query { from: to, through: None, ..query };
            answer = ask(link, &query).await?;
        }
        match answer {
            Answer::Route(route) if route.header.kind == RouteType::Local => {}
            Answer::Route(route) => wrong.push(format!("{}: {}, expected local", family(to), words(&route))),
            Answer::None(errno) => {
                wrong.push(format!("{}: {}", family(to), std::io::Error::from_raw_os_error(errno)));
            }
        }
    }
    Ok(if wrong.is_empty() { Ok("packets to the pod are delivered".to_owned()) } else { Err(wrong.join("; ")) })
}
