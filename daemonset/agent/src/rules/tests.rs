use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use ebpf_common::LOOP_MARK;
use runtime::sys::socket::set_transparent;
use socket2::{Domain, Socket, Type};

use super::*;
use crate::sysctl::{self, PreviousValues};
use crate::testing;

async fn pod() -> Option<(Netns, Routing)> {
    let netns = testing::netns()?;
    let addresses: Vec<IpAddr> = vec!["10.244.1.7".parse().unwrap(), "fd00:10:244:1::7".parse().unwrap()];
    testing::loopback_up(&netns).await;
    let interface = testing::add_interface(&netns, &addresses).await;
    let routing = Routing { addresses, interface };
    // The kernel makes the IPv6 route to an address a little after the address.
    let delivers = async {
        while !matches!(read(&netns, &routing).await.inbound, Reading::Holds(_)) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), delivers).await.expect("packets to the pod are delivered");
    Some((netns, routing))
}

/// As [`pod`], with rules.
async fn joined() -> Option<(Netns, Routing)> {
    let (netns, routing) = pod().await?;
    assert_eq!(apply(&netns, &routing).await.unwrap().len(), 6);
    assert_holds(&netns, &routing).await;
    Some((netns, routing))
}

async fn assert_holds(netns: &Netns, routing: &Routing) {
    let Facts { address, rules, outbound, inbound } = read(netns, routing).await;
    for reading in [address, rules, outbound, inbound] {
        assert!(matches!(reading, Reading::Holds(_)), "{reading:?}");
    }
}

/// iproute2 in a namespace; what it prints.
fn ip(netns: &Netns, arguments: &str) -> String {
    let output = netns.run(|| Command::new("ip").args(arguments.split(' ')).output()).unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

const BOTH: [&str; 2] = ["-4", "-6"];

#[tokio::test]
async fn rules_are_in_place_after_applying_once_or_twice_and_gone_after_removal() {
    let Some((netns, routing)) = pod().await else { return };
    assert_eq!(missing(&netns, &routing).await.unwrap().len(), 6);

    assert_eq!(apply(&netns, &routing).await.unwrap().len(), 6);
    assert_eq!(apply(&netns, &routing).await.unwrap(), [""; 0]);
    assert_eq!(missing(&netns, &routing).await.unwrap(), Vec::<String>::new());
    assert_eq!(leftovers(&netns).await.unwrap().len(), 6);

    remove(&netns).await.unwrap();
    remove(&netns).await.unwrap();
    assert_eq!(leftovers(&netns).await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn a_rule_or_route_that_somebody_took_away_is_missed_and_comes_back() {
    let Some((netns, routing)) = joined().await else { return };
    ip(&netns, &format!("-4 rule del fwmark 0x111/0xfff lookup {TABLE}"));
    ip(&netns, &format!("-6 route flush table {TABLE}"));

    let noticed = missing(&netns, &routing).await.unwrap();
    let facts = read(&netns, &routing).await;
    let repaired = apply(&netns, &routing).await.unwrap();

    assert_eq!(noticed.len(), 3, "{noticed:?}");
    assert!(matches!(&facts.outbound, Reading::Fails(found) if found.contains("IPv4") && found.contains("IPv6")));
    assert_eq!(repaired.len(), 3, "{repaired:?}");
    assert_holds(&netns, &routing).await;
}

#[tokio::test]
async fn the_proof_covers_sockets_that_are_bound_to_the_pods_interface() {
    let Some((netns, routing)) = joined().await else { return };
    // What a socket without a bound interface takes is left in place.
    BOTH.iter()
        .for_each(|family| drop(ip(&netns, &format!("{family} route del local default dev eth0 table {TABLE}"))));

    let facts = read(&netns, &routing).await;
    let repaired = apply(&netns, &routing).await.unwrap();

    let Reading::Fails(found) = &facts.outbound else { panic!("{facts:?}") };
    let bound = format!("bound to interface {}: ", routing.interface);
    assert!(found.starts_with(&format!("IPv4 {bound}")), "{found}");
    // Linux 6.18 takes the IPv6 route by `lo` for a bound socket, too.
    assert!(found.split("; ").all(|failure| failure.contains(&bound)), "{found}");
    assert_eq!(repaired.len(), 2, "{repaired:?}");
    assert_holds(&netns, &routing).await;
}

/// A connection of a marked socket to an address that is not the pod's, and its other end: our routes bring it to a listener
/// in the namespace itself.
fn looped() -> std::io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("[::]:0")?;
    set_transparent(&listener)?;
    let client = Socket::new(Domain::IPV6, Type::STREAM, None)?;
    client.set_mark(LOOP_MARK)?;
    let far = SocketAddr::new("fd00:99::9".parse().expect("an address"), listener.local_addr()?.port());
    client.connect(&far.into())?;
    let (server, _) = listener.accept()?;
    server.set_read_timeout(Some(Duration::from_secs(20)))?;
    Ok((client.into(), server))
}

#[tokio::test]
async fn an_ipv6_connection_that_sent_while_the_routes_were_away_goes_on_when_they_are_back() {
    let Some((netns, routing)) = joined().await else { return };
    ip(&netns, "-6 route add default dev eth0");
    // The end of duplicate address detection invalidates cached routes, too.
    while !ip(&netns, "-6 address show tentative").is_empty() {
        tokio::task::yield_now().await;
    }
    // As `strake_egress` does.
    let refuse = "add table ip6 wire; add chain ip6 wire out { type filter hook output priority 0; }; \
                  add rule ip6 wire out oifname eth0 meta mark & 0xfff == 0x111 drop";
    assert!(netns.run(|| Command::new("nft").arg(refuse).status()).unwrap().success());

    for _ in 0..2 {
        let (mut client, mut server) = netns.run(looped).unwrap();
        ip(&netns, &format!("-6 route flush table {TABLE}"));
        client.write_all(b"a").unwrap();

        apply(&netns, &routing).await.unwrap();

        server.read_exact(&mut [0]).expect("the byte arrives");
        assert_holds(&netns, &routing).await;
        assert_eq!(leftovers(&netns).await.unwrap().len(), 6);
    }
}

#[tokio::test]
async fn no_rule_that_is_added_later_comes_in_front() {
    let Some((netns, routing)) = joined().await else { return };

    for family in BOTH {
        for rule in [
            "pref 100 lookup main",
            "lookup main",
            "pref 0 lookup main suppress_prefixlength 0",
            "pref 1 fwmark 0x111 lookup main",
            "fwmark 0x111/0xfff lookup main",
        ] {
            ip(&netns, &format!("{family} rule add {rule}"));
            assert_holds(&netns, &routing).await;
        }
    }

    assert_eq!(apply(&netns, &routing).await.unwrap(), [""; 0]);
}

#[tokio::test]
async fn rules_survive_a_flush() {
    let Some((netns, routing)) = joined().await else { return };

    BOTH.iter().for_each(|family| drop(ip(&netns, &format!("{family} rule flush"))));

    assert_holds(&netns, &routing).await;
}

#[tokio::test]
async fn rules_that_were_in_front_before_are_moved_behind_ours_and_stay() {
    let Some((netns, routing)) = pod().await else { return };
    let foreign = |family: &str| {
        let to = if family == "-4" { "to 198.51.100.0/24" } else { "to 2001:db8:1::/48" };
        [
            format!("{to} lookup main"),
            "lookup main suppress_prefixlength 0".to_owned(),
            "fwmark 0x222 lookup 999".to_owned(),
        ]
    };
    for family in BOTH {
        for rule in foreign(family) {
            ip(&netns, &format!("{family} rule add pref 0 {rule}"));
        }
    }
    let listed = |family: &str| {
        let rules = ip(&netns, &format!("{family} rule show"));
        rules.lines().filter(|rule| !rule.contains(&TABLE.to_string())).map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    let before = BOTH.map(listed);

    let repaired = apply(&netns, &routing).await.unwrap();

    assert_eq!(repaired.iter().filter(|what| what.contains("was in front of the mesh")).count(), 6, "{repaired:?}");
    assert_holds(&netns, &routing).await;
    assert_eq!(BOTH.map(listed), before, "rules of somebody else are others, or in another order");
}

#[tokio::test]
async fn a_rule_of_ours_that_was_put_behind_others_is_noticed_and_comes_to_the_front() {
    let Some((netns, routing)) = joined().await else { return };
    for family in BOTH {
        ip(&netns, &format!("{family} rule del fwmark 0x111/0xfff lookup {TABLE}"));
        ip(&netns, &format!("{family} rule add pref 0 lookup main"));
        ip(&netns, &format!("{family} rule add fwmark 0x111/0xfff lookup {TABLE} pref 0 protocol {PROTOCOL}"));
    }

    let facts = read(&netns, &routing).await;
    let repaired = apply(&netns, &routing).await.unwrap();

    assert!(matches!(&facts.rules, Reading::Fails(found) if found.contains("in front of the mesh")), "{facts:?}");
    assert_eq!(repaired.len(), 2, "{repaired:?}");
    assert_holds(&netns, &routing).await;
}

#[tokio::test]
async fn a_table_that_somebody_else_uses_is_left_alone_and_told() {
    let Some((netns, routing)) = pod().await else { return };
    ip(&netns, &format!("route add 203.0.113.0/24 dev eth0 table {TABLE}"));

    let refused = apply(&netns, &routing).await.unwrap_err();
    remove(&netns).await.unwrap();

    assert!(refused.to_string().contains("203.0.113.0/24"), "{refused}");
    assert!(
        ip(&netns, &format!("route show table {TABLE}")).contains("203.0.113.0/24"),
        "a route of somebody else is gone"
    );
    assert_eq!(leftovers(&netns).await.unwrap(), [""; 0]);
}

#[tokio::test]
async fn a_route_of_somebody_else_in_our_table_is_noticed_and_never_deleted() {
    let Some((netns, routing)) = joined().await else { return };
    ip(&netns, &format!("route add 203.0.113.0/24 dev eth0 table {TABLE}"));

    let facts = read(&netns, &routing).await;

    assert!(matches!(&facts.rules, Reading::Fails(found) if found.contains("203.0.113.0/24")), "{facts:?}");
    apply(&netns, &routing).await.unwrap_err();
    remove(&netns).await.unwrap();
    assert!(ip(&netns, &format!("route show table {TABLE}")).contains("203.0.113.0/24"));
}

#[tokio::test]
async fn a_route_of_ours_with_other_values_is_replaced() {
    let Some((netns, mut routing)) = joined().await else { return };
    ip(&netns, "address add 10.244.1.8/32 dev eth0");
    routing.addresses[0] = "10.244.1.8".parse().unwrap();

    let noticed = missing(&netns, &routing).await.unwrap();
    let repaired = apply(&netns, &routing).await.unwrap();

    assert_eq!((noticed.len(), repaired.len()), (2, 2), "{noticed:?} {repaired:?}");
    assert_holds(&netns, &routing).await;
    assert_eq!(leftovers(&netns).await.unwrap().len(), 6);
}

#[tokio::test]
async fn an_address_that_is_gone_is_noticed_and_so_is_that_packets_to_it_are_not_delivered() {
    let Some((netns, routing)) = joined().await else { return };
    ip(&netns, "address del 10.244.1.7/32 dev eth0");

    let one = read(&netns, &routing).await;
    ip(&netns, "-6 address del fd00:10:244:1::7/128 dev eth0");
    let both = read(&netns, &routing).await;

    for (facts, gone) in [(one, 1), (both, 2)] {
        assert!(matches!(&facts.address, Reading::Fails(found) if found.split(", ").count() == gone), "{facts:?}");
        assert!(matches!(&facts.inbound, Reading::Fails(found) if found.split("; ").count() == gone), "{facts:?}");
    }
}

#[tokio::test]
async fn a_namespace_that_cannot_be_asked_says_nothing() {
    let Some((_, routing)) = pod().await else { return };
    // Not a namespace: it cannot be entered.
    let netns = Netns::from_fd(std::fs::File::open("/proc/self/status").unwrap().into()).unwrap();

    let Facts { address, rules, outbound, inbound } = read(&netns, &routing).await;

    for reading in [address, rules, outbound, inbound] {
        assert!(matches!(reading, Reading::Unreadable(_)), "{reading:?}");
    }
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
async fn a_change_to_rules_routes_addresses_or_interfaces_is_told() {
    let Some((netns, _)) = joined().await else { return };
    let mut watch = crate::netlink::RoutingWatch::new(&netns).unwrap();
    let soon = Duration::from_secs(5);

    for change in [
        "-4 rule add lookup main",
        "-6 rule add lookup main",
        "-4 route add 203.0.113.0/24 dev eth0",
        "-6 route add 2001:db8::/64 dev eth0",
        "address add 10.244.1.9/32 dev eth0",
        "-6 address add fd00:10:244:1::9/128 dev eth0",
        "link set eth0 down",
    ] {
        ip(&netns, change);
        tokio::time::timeout(soon, watch.changed()).await.unwrap_or_else(|_| panic!("not told: {change}"));
    }
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

/// Leaves rules and routes of an agent before the table 1500111, for each family.
fn leave_legacy(netns: &Netns, routing: &Routing) {
    for (family, source, lo, eth0) in [("-4", routing.addresses[0], 0, 10), ("-6", routing.addresses[1], 1024, 4096)] {
        ip(netns, &format!("{family} rule add pref 32764 fwmark 0x111/0xfff lookup 100"));
        ip(netns, &format!("{family} route add local default dev lo src {source} table 100 metric {lo}"));
        let interface = routing.interface;
        let name = ip(netns, "-o link show");
        let name = name.lines().find_map(|line| line.strip_prefix(&format!("{interface}: "))).unwrap();
        let name = name.split([':', '@']).next().unwrap();
        ip(netns, &format!("{family} route add local default dev {name} src {source} table 100 metric {eth0}"));
    }
}

#[tokio::test]
async fn what_an_earlier_agent_left_in_table_100_is_removed_and_nothing_else_of_it() {
    let Some((netns, routing)) = joined().await else { return };
    leave_legacy(&netns, &routing);
    ip(&netns, "-4 route add 192.0.2.0/24 dev lo table 100");
    ip(&netns, "-4 rule add pref 32764 to 192.0.2.0/24 lookup 100");

    let removed = remove_legacy(&netns, &routing).await.unwrap();

    assert_eq!(removed.len(), 6, "{removed:?}");
    assert_eq!(remove_legacy(&netns, &routing).await.unwrap(), [""; 0]);
    assert!(ip(&netns, "-4 route show table 100").contains("192.0.2.0/24"));
    assert_eq!(ip(&netns, "-6 route show table 100"), "");
    let rules = BOTH.map(|family| ip(&netns, &format!("{family} rule show"))).concat();
    assert_eq!(rules.matches("lookup 100").count(), 1, "{rules}");
    assert_holds(&netns, &routing).await;
}

#[tokio::test]
async fn a_pod_of_istios_agent_keeps_its_rule_and_route() {
    let Some((netns, routing)) = pod().await else { return };
    for family in BOTH {
        ip(&netns, &format!("{family} rule add pref 32764 fwmark 0x111/0xfff lookup 100"));
        ip(&netns, &format!("{family} route add local default dev lo table 100"));
    }

    assert_eq!(remove_legacy(&netns, &routing).await.unwrap(), [""; 0]);

    for family in BOTH {
        assert!(ip(&netns, &format!("{family} rule show")).contains("lookup 100"));
        assert!(ip(&netns, &format!("{family} route show table 100")).contains("default"));
    }
}
