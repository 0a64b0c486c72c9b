//! Rules and routes as rtnetlink writes them. It compares and describes; `rules` decides.

use std::net::IpAddr;

use ebpf_common::{LOOP_MARK, LOOP_MARK_MASK};
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{PROTOCOL, RULE_PRIORITY, TABLE};
use crate::netlink::{Netlink, NetlinkError};

/// `RT_TABLE_LOCAL`.
const TABLE_LOCAL: u32 = 255;

/// A `local default` route of our table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) source: IpAddr,
    pub(super) interface: u32,
    pub(super) metric: Option<u32>,
}

impl Route {
    pub(super) fn message(&self) -> RouteMessage {
        let mut message = match self.source {
            IpAddr::V4(ip) => RouteMessageBuilder::<std::net::Ipv4Addr>::new().pref_source(ip).build(),
            IpAddr::V6(ip) => RouteMessageBuilder::<std::net::Ipv6Addr>::new().pref_source(ip).build(),
        };
        // `RT_TABLE_UNSPEC`: the attribute counts.
        message.header.table = 0;
        message.header.protocol = RouteProtocol::Other(PROTOCOL);
        message.header.kind = RouteType::Local;
        // As `ip route add local` writes it; IPv6 has no scopes.
        message.header.scope = if self.source.is_ipv4() { RouteScope::Host } else { RouteScope::Universe };
        // The builder has put one of its own there, and the field of the header holds numbers up to 255 only.
        message.attributes.retain(|attribute| !matches!(attribute, RouteAttribute::Table(_)));
        message.attributes.push(RouteAttribute::Table(TABLE));
        message.attributes.push(RouteAttribute::Oif(self.interface));
        message.attributes.extend(self.metric.map(RouteAttribute::Priority));
        message
    }

    /// `None` for a route that is not ours.
    pub(super) fn parse(message: &RouteMessage) -> Option<Self> {
        Self::shaped(message).filter(|_| is_ours(message))
    }

    /// `None` for a route that is not of the kind we make, whoever made it.
    pub(super) fn shaped(message: &RouteMessage) -> Option<Self> {
        let (mut source, mut interface, mut metric) = (None, None, None);
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::PrefSource(address) => source = address_of(address),
                RouteAttribute::Oif(index) => interface = Some(*index),
                RouteAttribute::Priority(value) => metric = Some(*value).filter(|value| *value != 0),
                _ => {}
            }
        }
        let all = message.header.kind == RouteType::Local && message.header.destination_prefix_length == 0;
        all.then_some(Self { source: source?, interface: interface?, metric })
    }
}

/// Was it made by an agent of Strake?
pub(super) fn is_ours(message: &RouteMessage) -> bool {
    message.header.protocol == RouteProtocol::Other(PROTOCOL)
}

pub(super) fn table_of(message: &RouteMessage) -> u32 {
    let attribute = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    // The header's field has 8 bits; larger numbers are in the attribute only.
    attribute.unwrap_or(message.header.table.into())
}

pub(super) fn interface_of(message: &RouteMessage) -> Option<u32> {
    message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })
}

/// For a reader.
pub(super) fn words(message: &RouteMessage) -> String {
    let to = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(address) => address_of(address),
        _ => None,
    });
    let to = to.map_or("default".to_owned(), |ip| format!("{ip}/{}", message.header.destination_prefix_length));
    let interface = interface_of(message).map(|index| format!(" by interface {index}")).unwrap_or_default();
    format!("{:?} {to}{interface} table {}", message.header.kind, table_of(message)).to_lowercase()
}

fn address_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}

pub(super) fn address_family(ip: IpAddr) -> AddressFamily {
    if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

/// The routes of one table, of the family of `ip`.
pub(super) async fn routes(link: &Netlink, ip: IpAddr, table: u32) -> Result<Vec<RouteMessage>, NetlinkError> {
    let mut query = RouteMessage::default();
    query.header.address_family = address_family(ip);
    // Filtered here: without strict checking (`NETLINK_GET_STRICT_CHK`) the kernel lists the routes of all tables.
    let all = link.dump("list routes", RouteNetlinkMessage::GetRoute(query)).await?;
    let routes = all.into_iter().filter_map(|message| match message {
        RouteNetlinkMessage::NewRoute(route) if table_of(&route) == table => Some(route),
        _ => None,
    });
    Ok(routes.collect())
}

/// A rule as the kernel lists it.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) message: RuleMessage,
}

impl Rule {
    pub(super) fn table(&self) -> u32 {
        let attribute = self.message.attributes.iter().find_map(|attribute| match attribute {
            RuleAttribute::Table(table) => Some(*table),
            _ => None,
        });
        attribute.unwrap_or(self.message.header.table.into())
    }

    /// The kernel leaves out priority 0.
    pub(super) fn priority(&self) -> u32 {
        let attribute = self.message.attributes.iter().find_map(|attribute| match attribute {
            RuleAttribute::Priority(priority) => Some(*priority),
            _ => None,
        });
        attribute.unwrap_or(0)
    }

    /// Leads to our table, by our mark and nothing else, whatever its priority.
    pub(super) fn is_ours(&self) -> bool {
        self.table() == TABLE && self.is_for_marked()
    }

    /// Leads to a table, by our mark and nothing else.
    pub(super) fn is_for_marked(&self) -> bool {
        let header = &self.message.header;
        let conditions = self.message.attributes.iter().filter(|attribute| {
            !matches!(
                attribute,
                RuleAttribute::Table(_)
                    | RuleAttribute::Priority(_)
                    | RuleAttribute::Protocol(_)
                    // -1: nothing is suppressed.
                    | RuleAttribute::SuppressPrefixLen(u32::MAX)
                    | RuleAttribute::SuppressIfGroup(u32::MAX)
            )
        });
        let mut marks = 0;
        let only_mark = conditions.into_iter().all(|attribute| {
            marks += 1;
            matches!(attribute, RuleAttribute::FwMark(LOOP_MARK) | RuleAttribute::FwMask(LOOP_MARK_MASK))
        });
        header.action == RuleAction::ToTable
            && header.src_len == 0
            && header.dst_len == 0
            && header.tos == 0
            && only_mark
            // Mark and mask, each once: a rule without the mask would match other marks as well.
            && marks == 2
    }

    /// Ours, with the right priority.
    pub(super) fn is_wanted(&self) -> bool {
        self.is_ours() && self.priority() == RULE_PRIORITY
    }

    /// The kernel's own, which delivers packets to this namespace.
    fn is_local(&self) -> bool {
        self.table() == TABLE_LOCAL && self.message.header.action == RuleAction::ToTable
    }

    pub(super) fn words(&self) -> String {
        let action = match self.message.header.action {
            RuleAction::ToTable => format!("lookup {}", self.table()),
            other => format!("{other:?}").to_lowercase(),
        };
        format!("{}: {action}", self.priority())
    }
}

/// Rules that come before ours, other than the kernel's for the table `local`; all of them when ours is not there.
pub(super) fn in_front(rules: &[Rule]) -> impl Iterator<Item = &Rule> {
    rules.iter().take_while(|rule| !rule.is_wanted()).filter(|rule| !rule.is_local())
}

/// The rules of the family of `ip`, in the order in which the kernel goes through them.
pub(super) async fn rules(link: &Netlink, ip: IpAddr) -> Result<Vec<Rule>, NetlinkError> {
    let mut query = RuleMessage::default();
    query.header.family = address_family(ip);
    let all = link.dump("list rules", RouteNetlinkMessage::GetRule(query)).await?;
    let rules = all.into_iter().filter_map(|message| match message {
        RouteNetlinkMessage::NewRule(message) => Some(Rule { message }),
        _ => None,
    });
    Ok(rules.collect())
}

/// Our rule of the family of `ip`.
pub(super) fn rule(ip: IpAddr, priority: u32) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = address_family(ip);
    message.header.action = RuleAction::ToTable;
    message.attributes = vec![
        RuleAttribute::Table(TABLE),
        RuleAttribute::Priority(priority),
        RuleAttribute::FwMark(LOOP_MARK),
        RuleAttribute::FwMask(LOOP_MARK_MASK),
        RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL)),
    ];
    message
}
