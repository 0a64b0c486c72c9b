//! Rules and routes that agents before the table 1500111 left in pods, in the table 100. Only those that are certainly theirs
//! are removed.
//!
//! ```text
//! ip rule  pref 32764 fwmark 0x111/0xfff lookup 100
//! ip route local default dev lo   src <ip> table 100             (IPv6: metric 1024)
//! ip route local default dev eth0 src <ip> table 100 metric 10   (IPv6: metric 4096)
//! ```
//!
//! Istio's agent makes the same rule, and a route of table 100 without `src`. So the rule is removed only together with both
//! routes above, and other routes of the table stay.

use rtnetlink::packet_route::route::RouteMessage;
use runtime::sys::Netns;
use rustix::io::Errno;

use super::Routing;
use super::message::{self, Route, Rule};
use crate::netlink::{Netlink, NetlinkError, change};

const RULE_PRIORITY: u32 = 32764;
const TABLE: u32 = 100;

/// Removes what an earlier agent left in a pod with these addresses; returns it in words.
///
/// # Errors
/// Those of the kernel; what was not reached stays.
pub async fn remove(netns: &Netns, routing: &Routing) -> Result<Vec<String>, NetlinkError> {
    let link = Netlink::open(netns)?;
    let gone = [Errno::NOENT.raw_os_error(), Errno::SRCH.raw_os_error()];
    let mut removed = Vec::new();
    for source in routing.sources() {
        let wanted = routing.routes(source);
        let is_wanted = |route: &RouteMessage| Route::shaped(route).is_some_and(|route| wanted.contains(&route));
        let present = message::routes(&link, source, TABLE).await?;
        let ours: Vec<&RouteMessage> = present.iter().filter(|route| is_wanted(route)).collect();
        // Both or none: one route alone may be Istio's.
        if ours.len() != wanted.len() {
            continue;
        }
        // The rule first: the routes are what it is known by.
        let rules = message::rules(&link, source).await?;
        for rule in rules.into_iter().filter(is_legacy) {
            removed.push(format!("rule {rule}"));
            change("delete the rule", link.handle.rule().del(rule.message).execute(), &gone).await?;
        }
        for route in ours {
            removed.push(format!("route {}", message::words(route)));
            change("delete the route", link.handle.route().del(route.clone()).execute(), &gone).await?;
        }
    }
    Ok(removed)
}

fn is_legacy(rule: &Rule) -> bool {
    rule.table() == TABLE && rule.priority() == RULE_PRIORITY && rule.is_for_marked()
}
