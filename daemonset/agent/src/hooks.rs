//! Finds what else in a pod's network namespace may take connections away from the proxy. It removes nothing and proves nothing:
//! whether such a thing does harm depends on what it does, so it is reported and not counted as a failed fact.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use ebpf_loader::{LoadError, Survey};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage, LinkXdp, XdpAttached};
use rtnetlink::packet_route::tc::{TcAttribute, TcMessage};
use runtime::sys::Netns;
use rustix::net::netlink::NETFILTER;

use crate::netlink::{Netlink, NetlinkError};
use crate::pod::PodNetns;
use crate::raw_netlink::{self, attribute};

/// `NFNL_SUBSYS_NFTABLES` and `NFT_MSG_GETCHAIN`.
const GET_CHAINS: u16 = 10 << 8 | 4;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_USE: u16 = 6;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_HOOK_HOOKNUM: u16 = 1;

/// `NF_INET_PRE_ROUTING` and `NF_INET_LOCAL_OUT`: where a packet's destination or route is changed.
const DIVERTING_HOOKS: [(u32, &str); 2] = [(0, "prerouting"), (3, "output")];

/// Error of reading the hooks of a namespace.
#[derive(Debug, thiserror::Error)]
pub enum HooksError {
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    #[error("list nftables chains: {0}")]
    Netfilter(#[source] io::Error),
    #[error(transparent)]
    Links(#[from] LoadError),
}

/// Lists what may take connections of the pod away from the proxy, sorted.
///
/// # Errors
/// When the kernel cannot be asked; then nothing is known.
pub async fn find(pod_netns: &Arc<PodNetns>, survey: &Survey) -> Result<Vec<String>, HooksError> {
    let mut found = survey.foreign_lookups(pod_netns.netns.as_fd())?;
    found.iter_mut().for_each(|link| *link = format!("sk_lookup: {link}"));
    found.extend(on_interfaces(&pod_netns.netns).await?);
    let pod_netns = pod_netns.clone();
    let chains = tokio::task::spawn_blocking(move || in_netfilter(&pod_netns.netns)).await;
    found.extend(chains.map_err(io::Error::other).flatten().map_err(HooksError::Netfilter)?);
    found.sort_unstable();
    Ok(found)
}

/// XDP programs, and queueing disciplines to which filters of arriving and leaving packets are attached.
async fn on_interfaces(netns: &Netns) -> Result<Vec<String>, NetlinkError> {
    let link = Netlink::open(netns)?;
    let mut found = Vec::new();
    let mut names = std::collections::HashMap::new();
    for message in link.dump("list interfaces", RouteNetlinkMessage::GetLink(LinkMessage::default())).await? {
        let RouteNetlinkMessage::NewLink(message) = message else { continue };
        let name = message.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        });
        let name = name.unwrap_or_else(|| message.header.index.to_string());
        if message.attributes.iter().any(has_xdp) {
            found.push(format!("xdp: a program on {name}"));
        }
        names.insert(message.header.index, name);
    }
    let disciplines = RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default());
    for message in link.dump("list queueing disciplines", disciplines).await? {
        let RouteNetlinkMessage::NewQueueDiscipline(message) = message else { continue };
        let kind = message.attributes.iter().find_map(|attribute| match attribute {
            TcAttribute::Kind(kind) => Some(kind.as_str()),
            _ => None,
        });
        if let Some(kind @ ("clsact" | "ingress")) = kind {
            let index = u32::try_from(message.header.index).unwrap_or_default();
            let name = names.get(&index).cloned().unwrap_or_else(|| index.to_string());
            found.push(format!("tc: {kind} on {name}"));
        }
    }
    Ok(found)
}

fn has_xdp(attribute: &LinkAttribute) -> bool {
    let LinkAttribute::Xdp(attributes) = attribute else { return false };
    attributes.iter().any(|xdp| matches!(xdp, LinkXdp::Attached(mode) if *mode != XdpAttached::None))
}

/// Chains that change where packets go. Blocks for some microseconds per chain.
fn in_netfilter(netns: &Netns) -> io::Result<Vec<String>> {
    let socket = raw_netlink::open(netns, NETFILTER)?;
    // `struct nfgenmsg`: all families.
    let chains = raw_netlink::dump(&socket, GET_CHAINS, &[0; 4], Vec::new, |found, message| {
        found.extend(message.get(4..).and_then(diverting_chain));
    });
    let mut found = match chains {
        // A kernel without nf_tables.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error()) => Vec::new(),
        chains => chains?,
    };
    found.extend(netns.run(legacy_tables)?);
    Ok(found)
}

/// A chain of type `nat` or `route` that is not empty, at a hook where packets are diverted.
fn diverting_chain(attributes: &[u8]) -> Option<String> {
    let kind = text(attribute(attributes, NFTA_CHAIN_TYPE)?);
    let hook = be_word(attribute(attribute(attributes, NFTA_CHAIN_HOOK)?, NFTA_HOOK_HOOKNUM)?)?;
    let (_, hook) = DIVERTING_HOOKS.into_iter().find(|(number, _)| *number == hook)?;
    // Without the number the chain counts as used: it is reported rather than missed.
    let rules = attribute(attributes, NFTA_CHAIN_USE).and_then(be_word).unwrap_or(1);
    // An empty chain changes nothing, and one of type `filter` drops packets but diverts none.
    if rules == 0 || !matches!(kind.as_str(), "nat" | "route") {
        return None;
    }
    let (table, chain) =
        (text(attribute(attributes, NFTA_CHAIN_TABLE)?), text(attribute(attributes, NFTA_CHAIN_NAME)?));
    Some(format!("netfilter: {kind} chain {table} {chain} at {hook}"))
}

/// Tables of the old iptables that somebody has used in this namespace.
fn legacy_tables() -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for file in ["ip_tables_names", "ip6_tables_names"] {
        let names = match std::fs::read_to_string(format!("/proc/thread-self/net/{file}")) {
            // The module is not loaded.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            names => names?,
        };
        // The kernel lists a table here from its first use on, also when it is empty now.
        let diverting = names.lines().filter(|name| ["nat", "mangle"].contains(name));
        found.extend(diverting.map(|name| format!("netfilter: iptables table {name} ({file})")));
    }
    Ok(found)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

fn be_word(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::testing;

    fn run(netns: &Netns, program: &str, arguments: &str) {
        let status = netns.run(|| Command::new(program).args(arguments.split(' ')).status()).unwrap();
        assert!(status.success(), "{program} {arguments}");
    }

    #[tokio::test]
    async fn filters_of_packets_on_an_interface_are_found() {
        let Some(netns) = testing::netns() else { return };
        testing::add_interface(&netns, &["10.0.0.1".parse().unwrap()]).await;
        assert_eq!(on_interfaces(&netns).await.unwrap(), [""; 0]);

        run(&netns, "tc", "qdisc add dev eth0 clsact");

        assert_eq!(on_interfaces(&netns).await.unwrap(), ["tc: clsact on eth0"]);
    }

    #[test]
    fn chains_that_divert_packets_are_found_and_others_are_not() {
        let Some(netns) = testing::netns() else { return };
        for line in [
            "add table ip mine",
            "add chain ip mine pre { type nat hook prerouting priority -100 ; }",
            "add chain ip mine empty { type nat hook output priority -100 ; }",
            "add chain ip mine keep { type filter hook input priority 0 ; }",
            "add rule ip mine keep accept",
        ] {
            run(&netns, "nft", line);
        }
        assert_eq!(in_netfilter(&netns).unwrap(), [""; 0]);

        run(&netns, "nft", "add rule ip mine pre tcp dport 80 redirect to :8080");

        assert_eq!(in_netfilter(&netns).unwrap(), ["netfilter: nat chain mine pre at prerouting"]);
    }
}
