//! The routing rule and routes in a pod's network namespace that bring marked packets to `lo`.
//! It decides nothing: which pods get them, and when they go, is the enrolment's business.
//!
//! ```text
//! ip rule  pref 32764 fwmark 0x111/0xfff lookup 100
//! ip route local default dev lo   src <ip> table 100             (IPv6: metric 1024)
//! ip route local default dev eth0 src <ip> table 100 metric 10   (IPv6: metric 4096)
//! ```
//! The second route is for sockets that are bound to the pod's interface.

use std::net::IpAddr;

use ebpf_common::{LOOP_MARK, LOOP_MARK_MASK, LOOPBACK_INTERFACE};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage, RouteScope, RouteType};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::{IpVersion, RouteMessageBuilder};
use runtime::sys::Netns;
use rustix::io::Errno;

use crate::netlink::{Netlink, NetlinkError, collect, tolerate};

/// Priority of the rule, just before the main table's 32766; Istio's number.
pub const RULE_PRIORITY: u32 = 32764;
/// The table with the routes to `lo`; Istio's number. Nothing else may use it in a pod.
pub const TABLE: u8 = 100;

/// What a pod's routes depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routing {
    /// The pod's addresses; one of each family is used, the first.
    pub addresses: Vec<IpAddr>,
    /// Index, inside the namespace, of the interface that holds them.
    pub interface: u32,
}

impl Routing {
    /// The first address of each family.
    fn sources(&self) -> impl Iterator<Item = IpAddr> {
        let v4 = self.addresses.iter().find(|ip| ip.is_ipv4());
        let v6 = self.addresses.iter().find(|ip| ip.is_ipv6());
        v4.into_iter().chain(v6).copied()
    }

    fn routes(&self, source: IpAddr) -> [Route; 2] {
        let (first, second) = match source {
            IpAddr::V4(_) => (None, Some(10)),
            IpAddr::V6(_) => (Some(1024), Some(4096)),
        };
        [
            Route { source, interface: LOOPBACK_INTERFACE, metric: first },
            Route { source, interface: self.interface, metric: second },
        ]
    }
}

/// Puts rule and routes in place. Idempotent; a route of ours with other values is replaced.
///
/// # Errors
/// Those of the kernel; some of it may then be in place, see [`remove`].
pub async fn apply(netns: &Netns, routing: &Routing) -> Result<(), NetlinkError> {
    let link = Netlink::open(netns)?;
    for source in routing.sources() {
        let mut request = link.handle.rule().add();
        *request.message_mut() = rule(source);
        tolerate("add the rule", request.execute().await, &[Errno::EXIST.raw_os_error()])?;
        let present = routes_of(&link, source).await?;
        for route in routing.routes(source) {
            if !present.contains(&route) {
                let added = link.handle.route().add(route.message()).replace().execute().await;
                tolerate("add the route", added, &[])?;
            }
        }
    }
    Ok(())
}

/// What of rule and routes is not in place, in words; empty when all is.
///
/// # Errors
/// When the kernel cannot be asked.
pub async fn missing(netns: &Netns, routing: &Routing) -> Result<Vec<String>, NetlinkError> {
    let link = Netlink::open(netns)?;
    let mut missing = Vec::new();
    for source in routing.sources() {
        let family = if source.is_ipv4() { "IPv4" } else { "IPv6" };
        if our_rules(&link, source).await?.is_empty() {
            missing.push(format!("{family} rule {RULE_PRIORITY}"));
        }
        let present = routes_of(&link, source).await?;
        for route in routing.routes(source).iter().filter(|route| !present.contains(route)) {
            missing.push(format!("{family} route by interface {}", route.interface));
        }
    }
    Ok(missing)
}

/// Takes away every rule and route of ours, of both families. Idempotent.
///
/// Live connections that were captured are reset by this: they must have ended before.
///
/// # Errors
/// Those of the kernel.
pub async fn remove(netns: &Netns) -> Result<(), NetlinkError> {
    let link = Netlink::open(netns)?;
    let gone = [Errno::NOENT.raw_os_error(), Errno::SRCH.raw_os_error()];
    for family in FAMILIES {
        for rule in our_rules(&link, family).await? {
            tolerate("delete the rule", link.handle.rule().del(rule).execute().await, &gone)?;
        }
        for route in table_messages(&link, family).await? {
            tolerate("delete the route", link.handle.route().del(route).execute().await, &gone)?;
        }
    }
    Ok(())
}

/// What [`remove`] has left, in words; empty when nothing is.
///
/// # Errors
/// When the kernel cannot be asked.
pub async fn leftovers(netns: &Netns) -> Result<Vec<String>, NetlinkError> {
    let link = Netlink::open(netns)?;
    let mut left = Vec::new();
    for family in FAMILIES {
        left.extend(our_rules(&link, family).await?.iter().map(|_| format!("rule {RULE_PRIORITY}")));
        left.extend(table_messages(&link, family).await?.iter().map(|_| format!("route in table {TABLE}")));
    }
    Ok(left)
}

/// One address of each family, where only the family matters.
const FAMILIES: [IpAddr; 2] =
    [IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED)];

/// A `local default` route of our table.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Route {
    source: IpAddr,
    interface: u32,
    metric: Option<u32>,
}

impl Route {
    fn message(&self) -> RouteMessage {
        let mut message = match self.source {
            IpAddr::V4(ip) => RouteMessageBuilder::<std::net::Ipv4Addr>::new().pref_source(ip).build(),
            IpAddr::V6(ip) => RouteMessageBuilder::<std::net::Ipv6Addr>::new().pref_source(ip).build(),
        };
        message.header.table = TABLE;
        message.header.kind = RouteType::Local;
        message.header.scope = if self.source.is_ipv4() { RouteScope::Host } else { RouteScope::Universe };
        message.attributes.push(RouteAttribute::Oif(self.interface));
        message.attributes.extend(self.metric.map(RouteAttribute::Priority));
        message
    }

    /// `None` for a route that is not of the kind we make.
    fn parse(message: &RouteMessage) -> Option<Self> {
        let (mut source, mut interface, mut metric) = (None, None, None);
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::PrefSource(address) => source = address_of(address),
                RouteAttribute::Oif(index) => interface = Some(*index),
                RouteAttribute::Priority(value) => metric = Some(*value).filter(|value| *value != 0),
                _ => {}
            }
        }
        let ours = message.header.kind == RouteType::Local && message.header.destination_prefix_length == 0;
        ours.then_some(Self { source: source?, interface: interface?, metric })
    }
}

fn address_of(address: &rtnetlink::packet_route::route::RouteAddress) -> Option<IpAddr> {
    use rtnetlink::packet_route::route::RouteAddress;
    match address {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}

async fn routes_of(link: &Netlink, family: IpAddr) -> Result<Vec<Route>, NetlinkError> {
    Ok(table_messages(link, family).await?.iter().filter_map(Route::parse).collect())
}

async fn table_messages(link: &Netlink, family: IpAddr) -> Result<Vec<RouteMessage>, NetlinkError> {
    let mut query = RouteMessage::default();
    query.header.address_family = if family.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let all = collect("list routes", link.handle.route().get(query).execute()).await?;
    Ok(all.into_iter().filter(|message| message.header.table == TABLE).collect())
}

async fn our_rules(link: &Netlink, family: IpAddr) -> Result<Vec<RuleMessage>, NetlinkError> {
    let version = if family.is_ipv4() { IpVersion::V4 } else { IpVersion::V6 };
    let all = collect("list rules", link.handle.rule().get(version).execute()).await?;
    let wanted = rule(family);
    let ours = |message: &RuleMessage| {
        message.header.table == TABLE
            && message.header.action == RuleAction::ToTable
            && wanted.attributes.iter().all(|attribute| message.attributes.contains(attribute))
    };
    Ok(all.into_iter().filter(ours).collect())
}

fn rule(family: IpAddr) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = if family.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.table = TABLE;
    message.header.action = RuleAction::ToTable;
    message.attributes = vec![
        RuleAttribute::Priority(RULE_PRIORITY),
        RuleAttribute::FwMark(LOOP_MARK),
        RuleAttribute::FwMask(LOOP_MARK_MASK),
    ];
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sysctl::{self, PreviousValues};
    use crate::testing;

    async fn pod() -> Option<(Netns, Routing)> {
        let netns = testing::netns()?;
        let addresses: Vec<IpAddr> = vec!["10.244.1.7".parse().unwrap(), "fd00:10:244:1::7".parse().unwrap()];
        testing::loopback_up(&netns).await;
        let interface = testing::add_interface(&netns, &addresses).await;
        Some((netns, Routing { addresses, interface }))
    }

    #[tokio::test]
    async fn rules_are_in_place_after_applying_once_or_twice_and_gone_after_removal() {
        let Some((netns, routing)) = pod().await else { return };
        assert_eq!(missing(&netns, &routing).await.unwrap().len(), 6);

        apply(&netns, &routing).await.unwrap();
        apply(&netns, &routing).await.unwrap();
        assert_eq!(missing(&netns, &routing).await.unwrap(), Vec::<String>::new());
        assert_eq!(leftovers(&netns).await.unwrap().len(), 6);

        remove(&netns).await.unwrap();
        remove(&netns).await.unwrap();
        assert_eq!(leftovers(&netns).await.unwrap(), Vec::<String>::new());
    }

    #[tokio::test]
    async fn a_rule_or_route_that_somebody_took_away_is_missed_and_comes_back() {
        let Some((netns, routing)) = pod().await else { return };
        apply(&netns, &routing).await.unwrap();
        let link = Netlink::open(&netns).unwrap();
        let rules = our_rules(&link, routing.addresses[0]).await.unwrap();
        link.handle.rule().del(rules[0].clone()).execute().await.unwrap();
        let routes = table_messages(&link, routing.addresses[1]).await.unwrap();
        link.handle.route().del(routes[0].clone()).execute().await.unwrap();

        let noticed = missing(&netns, &routing).await.unwrap();
        apply(&netns, &routing).await.unwrap();

        assert_eq!(noticed.len(), 2, "{noticed:?}");
        assert!(missing(&netns, &routing).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_pod_without_ipv6_gets_no_ipv6_rules() {
        let Some((netns, mut routing)) = pod().await else { return };
        routing.addresses.truncate(1);

        apply(&netns, &routing).await.unwrap();

        assert_eq!(leftovers(&netns).await.unwrap().len(), 3);
    }

    #[tokio::test]
    async fn the_interface_is_the_one_that_holds_the_address() {
        let Some((netns, routing)) = pod().await else { return };

        let found = crate::netlink::interface_of(&netns, &routing.addresses).await.unwrap();
        let nobodys = crate::netlink::interface_of(&netns, &["10.9.9.9".parse().unwrap()]).await.unwrap();

        assert_eq!(found, Some(routing.interface));
        assert_eq!(nobodys, None);
    }

    #[tokio::test]
    async fn settings_return_to_what_they_were() {
        let Some(netns) = testing::netns() else { return };
        let dir = tempfile::tempdir().unwrap();
        let previous = PreviousValues::new(dir.path().join("sysctl"));
        let reflect = "/proc/sys/net/ipv6/fwmark_reflect";
        netns.run(|| std::fs::write(reflect, "1")).unwrap();
        assert_eq!(sysctl::missing(&netns).unwrap().len(), 2);

        sysctl::apply(&netns, 7, &previous).unwrap();
        sysctl::apply(&netns, 7, &previous).unwrap();
        assert_eq!(sysctl::missing(&netns).unwrap(), Vec::<String>::new());
        sysctl::restore(&netns, 7, &previous).unwrap();
        sysctl::restore(&netns, 7, &previous).unwrap();

        assert_eq!(sysctl::missing(&netns).unwrap().len(), 2);
        assert_eq!(netns.run(|| std::fs::read_to_string(reflect)).unwrap().trim(), "1");
        assert_eq!(std::fs::read_dir(dir.path().join("sysctl")).unwrap().count(), 0);
    }
}
