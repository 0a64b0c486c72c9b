//! The routing rule and routes in a pod's network namespace that bring marked packets to `lo`, and the proof that they do.
//! It decides nothing: which pods get them, and when they go, is the enrolment's business.
//!
//! ```text
//! ip rule  pref 0 fwmark 0x111/0xfff lookup 1500111
//! ip route local default dev lo   src <ip> table 1500111             (IPv6: metric 1024)
//! ip route local default dev eth0 src <ip> table 1500111 metric 10   (IPv6: metric 4096)
//! ```
//! The second route is for sockets that are bound to the pod's interface.
//!
//! With priority 0 the rule comes right after the kernel's own for the table `local`, and before every rule that somebody
//! adds later: the kernel appends a rule to those of its priority, and a rule without a priority gets 0 then. Also `ip rule
//! flush` leaves it alone.

mod legacy;
mod lookup;
mod message;

use std::fmt;
use std::net::IpAddr;

use ebpf_common::LOOPBACK_INTERFACE;
use rtnetlink::packet_route::route::RouteMessage;
use runtime::sys::Netns;
use rustix::io::Errno;

use crate::enrol::Reading;
use crate::netlink::{Netlink, NetlinkError, change};

pub use legacy::remove as remove_legacy;
use message::{Route, Rule};

/// Priority of the rule.
pub const RULE_PRIORITY: u32 = 0;

/// Priority of the copy of the rule that [`invalidate_cached_routes`] adds for a moment.
const COPY_PRIORITY: u32 = 1;

/// The table with the routes to `lo`. Nothing else may use it in a pod. Names of tables in use elsewhere are small numbers:
/// the CNI plugin `sbr` counts from 100, VPN clients take 52 or 51820, network plugins numbers below 3000.
pub const TABLE: u32 = 1_500_111;

/// Value of `rtm_protocol` and `FRA_PROTOCOL` that distinguishes the mesh's routes and rules from others'.
pub const PROTOCOL: u8 = 83;

/// Rules of others that are moved behind ours at most, in one attempt.
const MOVES: usize = 64;

/// One address of each family, where only the family matters.
const FAMILIES: [IpAddr; 2] =
    [IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED)];

/// Error of setting up the routing of a pod.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// Routes of somebody else are in our table; they are not deleted.
    #[error("routing table {TABLE} is used by somebody else: {}; remove these routes, or take the pod out of the mesh", .routes.join(", "))]
    TableTaken { routes: Vec<String> },
    /// Rules of somebody else come back to the front as fast as they are moved.
    #[error("{rules} rules of somebody else come before the rule of the mesh")]
    NotInFront { rules: usize },
}

/// Addresses and interface on which a pod's routes depend.
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
            // Metrics as the kernel shows them: an IPv6 route without one gets 1024 (`IP6_RT_PRIO_USER`), and `present`
            // is compared by value.
            IpAddr::V4(_) => (None, Some(10)),
            IpAddr::V6(_) => (Some(1024), Some(4096)),
        };
        [
            Route { source, interface: LOOPBACK_INTERFACE, metric: first },
            Route { source, interface: self.interface, metric: second },
        ]
    }
}

/// `IPv4` or `IPv6`.
fn family(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// Lists routes of others in our table.
fn foreign(routes: &[RouteMessage]) -> Vec<String> {
    routes.iter().filter(|route| !message::is_ours(route)).map(message::words).collect()
}

/// Puts rule and routes in place and the rule to the front. Idempotent; returns what was missing, wrong or in front of the
/// rule, in words. A route of the mesh with other values is replaced; those of others are left alone.
///
/// # Errors
/// When the table is used by somebody else, and those of the kernel; some of it may then be in place, see [`remove`].
pub async fn apply(netns: &Netns, routing: &Routing) -> Result<Vec<String>, RulesError> {
    let link = Netlink::open(netns)?;
    let mut repaired = Vec::new();
    for source in routing.sources() {
        let before = repaired.len();
        // Routes before the rule: a rule that leads to an empty table falls through to the table `main`, and marked
        // packets leave the pod.
        apply_routes(&link, source, &routing.routes(source), &mut repaired).await?;
        let with_routes = repaired.len();
        apply_rule(&link, source, &mut repaired).await?;
        if source.is_ipv6() && with_routes > before && repaired.len() == with_routes {
            invalidate_cached_routes(&link, source).await?;
        }
    }
    Ok(repaired)
}

/// Makes the IPv6 sockets of the namespace look up their route again, by adding a copy of our rule and deleting it.
///
/// A connection that sent while our table was empty has cached a route of the table `main`. Linux 6.18 compares such a route
/// with the serial number of its node in its own table, so a route that is added to our table changes nothing for it: the
/// connection would send to the wire, where `strake_egress` drops every packet, until its application gives up. A change
/// of rules invalidates all cached routes. (IPv4 does that at each change of a route, too.)
async fn invalidate_cached_routes(link: &Netlink, source: IpAddr) -> Result<(), NetlinkError> {
    let copy = message::rule(source, COPY_PRIORITY);
    let mut request = link.handle.rule().add();
    *request.message_mut() = copy.clone();
    change("add a copy of the rule", request.execute(), &[Errno::EXIST.raw_os_error()]).await?;
    let gone = [Errno::NOENT.raw_os_error()];
    change("delete the copy of the rule", link.handle.rule().del(copy).execute(), &gone).await
}

async fn apply_routes(
    link: &Netlink,
    source: IpAddr,
    wanted: &[Route],
    repaired: &mut Vec<String>,
) -> Result<(), RulesError> {
    let present = message::routes(link, source, TABLE).await?;
    // Before anything is changed: packets that somebody else's routes lead away would be ours, so the pod is not
    // enrolled.
    let taken = foreign(&present);
    if !taken.is_empty() {
        return Err(RulesError::TableTaken { routes: taken });
    }
    let gone = [Errno::NOENT.raw_os_error(), Errno::SRCH.raw_os_error()];
    let is_wanted = |route: &RouteMessage| Route::parse(route).is_some_and(|route| wanted.contains(&route));
    // Of an address that the pod no longer has, or an interface that was made anew.
    for stale in present.iter().filter(|route| !is_wanted(route)) {
        change("delete the route", link.handle.route().del(stale.clone()).execute(), &gone).await?;
    }
    // Read before the deletions, of which none is wanted.
    let present: Vec<Route> = present.iter().filter_map(Route::parse).collect();
    for route in wanted.iter().filter(|route| !present.contains(route)) {
        let added = link.handle.route().add(route.message()).execute();
        change("add the route", added, &[Errno::EXIST.raw_os_error()]).await?;
        repaired.push(format!("{} route by interface {}", family(source), route.interface));
    }
    Ok(())
}

async fn apply_rule(link: &Netlink, source: IpAddr, repaired: &mut Vec<String>) -> Result<(), RulesError> {
    let family = family(source);
    let gone = [Errno::NOENT.raw_os_error()];
    if !message::rules(link, source).await?.iter().any(Rule::is_wanted) {
        let mut request = link.handle.rule().add();
        *request.message_mut() = message::rule(source, RULE_PRIORITY);
        change("add the rule", request.execute(), &[Errno::EXIST.raw_os_error()]).await?;
        repaired.push(format!("{family} rule"));
    }
    // The list is read again after each move: somebody else may add rules meanwhile.
    for moved in 0..=MOVES {
        let rules = message::rules(link, source).await?;
        let Some(first) = message::in_front(&rules).next() else { return Ok(()) };
        if moved == MOVES {
            return Err(RulesError::NotInFront { rules: message::in_front(&rules).count() });
        }
        // The copy comes behind ours; then the first of the two is deleted, which the kernel finds first. It is never away.
        let mut copy = link.handle.rule().add().replace();
        *copy.message_mut() = first.message.clone();
        change("move a rule behind ours", copy.execute(), &[]).await?;
        change("move a rule behind ours", link.handle.rule().del(first.message.clone()).execute(), &gone).await?;
        repaired.push(format!("{family} rule \"{first}\" was in front of the mesh's"));
    }
    Ok(())
}

/// Facts of the kernel's routing of a pod.
#[derive(Debug)]
pub struct Facts {
    /// The pod's address is on its interface.
    pub address: Reading,
    /// Rule and routes are in place, the rule in front, and nobody else's route in the table.
    pub rules: Reading,
    /// Marked packets go to `lo`.
    pub outbound: Reading,
    /// Packets to the pod's address are delivered locally.
    pub inbound: Reading,
}

/// Reads everything back.
pub async fn read(netns: &Netns, routing: &Routing) -> Facts {
    // One socket for all four: they are facts of the same namespace.
    let link = match Netlink::open(netns) {
        Ok(link) => link,
        Err(error) => {
            let unreadable = || Reading::Unreadable(crate::described::described(&error));
            return Facts { address: unreadable(), rules: unreadable(), outbound: unreadable(), inbound: unreadable() };
        }
    };
    Facts {
        address: Reading::of(address(&link, routing).await),
        rules: Reading::of(missing_on(&link, routing).await.map(none_of("in place and in front"))),
        outbound: Reading::of(lookup::outbound(&link, routing).await),
        inbound: Reading::of(lookup::inbound(&link, routing).await),
    }
}

fn none_of(praise: &str) -> impl FnOnce(Vec<String>) -> Result<String, String> {
    let praise = praise.to_owned();
    move |found| if found.is_empty() { Ok(praise) } else { Err(found.join(", ")) }
}

async fn address(link: &Netlink, routing: &Routing) -> Result<Result<String, String>, NetlinkError> {
    let held = link.addresses().await?;
    let wrong = routing.sources().filter_map(|source| {
        let on: Vec<u32> = held.iter().filter(|(_, ip)| *ip == source).map(|(index, _)| *index).collect();
        match on.as_slice() {
            [] => Some(format!("{source} is on no interface")),
            on if on.contains(&routing.interface) => None,
            // Not empty: the first arm has taken that.
            on => Some(format!("{source} is on interface {}, was on {}", on[0], routing.interface)),
        }
    });
    Ok(none_of(&format!("on interface {}", routing.interface))(wrong.collect()))
}

/// Lists what of rule and routes is missing, and what is in front of the rule; empty when all is well.
///
/// # Errors
/// When the kernel cannot be asked.
pub async fn missing(netns: &Netns, routing: &Routing) -> Result<Vec<String>, NetlinkError> {
    missing_on(&Netlink::open(netns)?, routing).await
}

async fn missing_on(link: &Netlink, routing: &Routing) -> Result<Vec<String>, NetlinkError> {
    let mut missing = Vec::new();
    for source in routing.sources() {
        let family = family(source);
        let rules = message::rules(link, source).await?;
        if rules.iter().any(Rule::is_wanted) {
            missing.extend(
                message::in_front(&rules).map(|rule| format!("{family} rule \"{rule}\" is in front of the mesh's")),
            );
        } else {
            missing.push(format!("no {family} rule"));
        }
        let routes = message::routes(link, source, TABLE).await?;
        let present: Vec<Route> = routes.iter().filter_map(Route::parse).collect();
        for route in routing.routes(source).iter().filter(|route| !present.contains(route)) {
            missing.push(format!("no {family} route by interface {}", route.interface));
        }
        missing.extend(
            foreign(&routes).iter().map(|route| format!("{family} route of somebody else in table {TABLE}: {route}")),
        );
    }
    Ok(missing)
}

/// Removes every rule and route of the mesh, of both families. Idempotent.
///
/// Live connections that were captured are reset by this: they must have ended before.
///
/// # Errors
/// Those of the kernel.
pub async fn remove(netns: &Netns) -> Result<(), NetlinkError> {
    let link = Netlink::open(netns)?;
    let gone = [Errno::NOENT.raw_os_error(), Errno::SRCH.raw_os_error()];
    for family in FAMILIES {
        // The rule first, so that no marked packet looks into a table that is being emptied.
        for rule in message::rules(&link, family).await?.into_iter().filter(Rule::is_ours) {
            change("delete the rule", link.handle.rule().del(rule.message).execute(), &gone).await?;
        }
        for route in message::routes(&link, family, TABLE).await?.into_iter().filter(message::is_ours) {
            change("delete the route", link.handle.route().del(route).execute(), &gone).await?;
        }
    }
    Ok(())
}

/// Lists what [`remove`] has left; empty when nothing is.
///
/// # Errors
/// When the kernel cannot be asked.
pub async fn leftovers(netns: &Netns) -> Result<Vec<String>, NetlinkError> {
    let link = Netlink::open(netns)?;
    let mut left = Vec::new();
    for family in FAMILIES {
        let rules = message::rules(&link, family).await?;
        left.extend(rules.iter().filter(|rule| rule.is_ours()).map(|rule| format!("rule {rule}")));
        let routes = message::routes(&link, family, TABLE).await?;
        left.extend(
            routes
                .iter()
                .filter(|route| message::is_ours(route))
                .map(|route| format!("route {}", message::words(route))),
        );
    }
    Ok(left)
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words())
    }
}

#[cfg(test)]
mod tests;
