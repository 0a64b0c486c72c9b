//! kube-proxy of a node: from Services to nftables rules in the node's network namespace, replaced as a whole in one
//! transaction. Connections that are under way keep their endpoint. Which endpoint is usable is decided in `services`.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    net::{IpAddr, SocketAddr},
    process::{Command, Stdio},
};

use runtime::sys::Netns;

use crate::{
    addresses::{Dual, SERVICES_V4, SERVICES_V6},
    services::Resolved,
};

/// The table that is replaced each time.
const TABLE: &str = "inet kube-proxy";

/// A pod of the node: its interface there, and its addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LocalPod {
    pub(crate) interface: String,
    pub(crate) addresses: Dual,
}

/// The rules of a node with these addresses.
pub(crate) fn render(services: &[Resolved], pods: &[LocalPod], node: Dual) -> String {
    // `delete` fails for a table that does not exist, so it is declared first; all three are one transaction.
    let mut text = format!("table {TABLE}\ndelete table {TABLE}\ntable {TABLE} {{\n");
    local_set(&mut text, "local_v4", "ipv4_addr", pods.iter().map(|pod| (&pod.interface, pod.addresses.v4.into())));
    local_set(&mut text, "local_v6", "ipv6_addr", pods.iter().map(|pod| (&pod.interface, pod.addresses.v6.into())));
    // Each Service's port gets a chain of its own, which the entry of the map leads to: a connection finds its chain in one
    // look-up, however many Services there are.
    let mut entries = [Vec::new(), Vec::new()];
    for service in services {
        for port in service.ports.iter().filter(|port| !port.endpoints.is_empty()) {
            for ip in &service.ips {
                // A Service of two families sends each to endpoints of its own: DNAT cannot change the family.
                let same = |endpoint: &&SocketAddr| endpoint.is_ipv4() == ip.is_ipv4();
                let endpoints: Vec<_> = port.endpoints.iter().filter(same).collect();
                if endpoints.is_empty() {
                    continue;
                }
                let family = &mut entries[usize::from(ip.is_ipv6())];
                let protocol = if port.udp { "udp" } else { "tcp" };
                let chain = format!("service-{}-{}", if ip.is_ipv6() { "v6" } else { "v4" }, family.len());
                endpoint_chain(&mut text, &chain, protocol, &endpoints);
                family.push(format!("{ip} . {protocol} . {} : goto {chain}", port.port));
            }
        }
    }
    service_map(&mut text, "services_v4", "ipv4_addr", &entries[0]);
    service_map(&mut text, "services_v6", "ipv6_addr", &entries[1]);
    base_chains(&mut text, node);
    text.push_str("}\n");
    text
}

fn local_set<'a>(text: &mut String, name: &str, kind: &str, pods: impl Iterator<Item = (&'a String, IpAddr)>) {
    let elements: Vec<_> = pods.map(|(interface, ip)| format!("{interface:?} . {ip}")).collect();
    push(text, &format!("set {name} {{ type ifname . {kind}; {} }}", element_list(&elements)));
}

fn service_map(text: &mut String, name: &str, kind: &str, elements: &[String]) {
    let kind = format!("type {kind} . inet_proto . inet_service : verdict");
    push(text, &format!("map {name} {{ {kind}; {} }}", element_list(elements)));
}

fn element_list(elements: &[String]) -> String {
    if elements.is_empty() { String::new() } else { format!("elements = {{ {} }};", elements.join(", ")) }
}

/// One endpoint at random.
fn endpoint_chain(text: &mut String, chain: &str, protocol: &str, endpoints: &[&SocketAddr]) {
    let family = if endpoints.iter().all(|endpoint| endpoint.is_ipv4()) { "ip" } else { "ip6" };
    let target = |endpoint: &SocketAddr| format!("{} . {}", endpoint.ip(), endpoint.port());
    let choices: Vec<_> =
        endpoints.iter().enumerate().map(|(index, endpoint)| format!("{index} : {}", target(endpoint))).collect();
    let rule = format!(
        "meta l4proto {protocol} dnat {family} addr . port to numgen random mod {} map {{ {} }}",
        endpoints.len(),
        choices.join(", ")
    );
    push(text, &format!("chain {chain} {{ {rule}; }}"));
}

/// The chains that the kernel calls. A pod may only send from its own addresses; a pod that is its
/// own endpoint is answered by way of the node; what no Service takes is refused.
fn base_chains(text: &mut String, node: Dual) {
    let lookup_v4 = "ip daddr . meta l4proto . th dport vmap @services_v4";
    let lookup_v6 = "ip6 daddr . meta l4proto . th dport vmap @services_v6";
    // What still has a Service's address after the rewriting has no usable endpoint. A client that is refused tries
    // again at once; one whose packets vanish waits for its timeout.
    let rejects = format!("ip daddr {SERVICES_V4} reject; ip6 daddr {SERVICES_V6} reject;");
    // The order of priorities matters: the source is checked before a rule can rewrite it (raw is -300), destinations
    // are rewritten before routing (-100), and a pod that talks to itself through a Service gets the node's address
    // after routing (100), so that its answer comes back through the node and is rewritten again.
    for line in [
        "chain source { type filter hook prerouting priority raw; policy accept;".to_owned(),
        "  iifname \"pod*\" meta nfproto ipv4 iifname . ip saddr != @local_v4 counter drop;".to_owned(),
        "  iifname \"pod*\" ip6 saddr { ::, fe80::/10 } accept;".to_owned(),
        "  iifname \"pod*\" meta nfproto ipv6 iifname . ip6 saddr != @local_v6 counter drop; }".to_owned(),
        format!("chain incoming {{ type nat hook prerouting priority -100; {lookup_v4}; {lookup_v6}; }}"),
        format!("chain outgoing {{ type nat hook output priority -100; {lookup_v4}; {lookup_v6}; }}"),
        "chain hairpin { type nat hook postrouting priority 100;".to_owned(),
        format!("  oifname . ip saddr @local_v4 snat ip to {};", node.v4),
        format!("  oifname . ip6 saddr @local_v6 snat ip6 to {}; }}", node.v6),
        format!("chain forwarded {{ type filter hook forward priority filter; {rejects} }}"),
        format!("chain own {{ type filter hook output priority filter; {rejects} }}"),
    ] {
        push(text, &line);
    }
}

fn push(text: &mut String, line: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "  {line}");
}

/// Hands rules to the kernel. Blocks for as long as `nft` takes, some 10 ms.
pub(crate) fn apply(netns: &Netns, rules: &str) -> io::Result<()> {
    let mut command = Command::new("nft");
    command.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut nft = netns
        .run(|| command.spawn().map_err(|err| io::Error::new(err.kind(), format!("nft (package nftables): {err}"))))?;
    if let Some(mut input) = nft.stdin.take() {
        input.write_all(rules.as_bytes())?;
    }
    let output = nft.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("nft: {}", String::from_utf8_lossy(&output.stderr).trim())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{addresses::NodeNumber, services::ResolvedPort};

    fn service(ips: &[&str], endpoints: &[&str]) -> Resolved {
        Resolved {
            namespace: "default".to_owned(),
            name: "web".to_owned(),
            ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
            ports: vec![ResolvedPort {
                port: 80,
                udp: false,
                endpoints: endpoints.iter().map(|text| text.parse().unwrap()).collect(),
            }],
            hosts: Vec::new(),
            endpoint_count: 0,
            slices: Vec::new(),
        }
    }

    fn pod() -> LocalPod {
        LocalPod { interface: "pod2".to_owned(), addresses: NodeNumber(1).pod(2) }
    }

    #[test]
    fn each_family_chooses_among_its_own_endpoints() {
        let service =
            service(&["10.96.1.1", "fd00:10:96::101"], &["10.244.1.2:8080", "10.244.2.2:8080", "[fd00::2]:8080"]);

        let rules = render(&[service], &[pod()], NodeNumber(1).addresses());

        assert!(rules.contains("10.96.1.1 . tcp . 80 : goto service-v4-0"), "{rules}");
        assert!(rules.contains(
            "dnat ip addr . port to numgen random mod 2 map { 0 : 10.244.1.2 . 8080, 1 : 10.244.2.2 . 8080 }"
        ));
        assert!(rules.contains("fd00:10:96::101 . tcp . 80 : goto service-v6-0"));
        assert!(rules.contains("dnat ip6 addr . port to numgen random mod 1 map { 0 : fd00::2 . 8080 }"));
    }

    #[test]
    fn a_service_without_endpoints_is_left_to_the_refusal() {
        let rules = render(&[service(&["10.96.1.1"], &[])], &[], NodeNumber(1).addresses());

        assert!(!rules.contains("10.96.1.1"));
        assert!(rules.contains("ip daddr 10.96.0.0/16 reject"));
    }

    #[test]
    fn the_kernel_takes_the_rules_twice() {
        let Ok(netns) = Netns::create() else {
            assert!(std::env::var_os("CI").is_none(), "skipped: no permission to make a netns");
            return;
        };
        let service = service(&["10.96.1.1", "fd00:10:96::101"], &["10.244.1.2:8080", "[fd00::2]:8080"]);

        apply(&netns, &render(&[service], &[pod()], NodeNumber(1).addresses())).unwrap();
        apply(&netns, &render(&[], &[], NodeNumber(1).addresses())).unwrap();
    }
}
