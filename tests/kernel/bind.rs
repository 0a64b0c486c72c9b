//! `cgroup/bind4|6`: the proxy's DNS sockets get the pod's address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use ebpf_common::{Address, Counter, Family, Kind, PodConfig};

use crate::stage::{Actor, DNS_PORT, POD_V4, POD_V6, Stage, at, eventually, resolver::Resolver};

const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

fn bound(address: SocketAddr) -> SocketAddr {
    UdpSocket::bind(address).unwrap().local_addr().unwrap()
}

#[test]
fn the_proxys_dns_sockets_are_bound_to_the_pods_addresses_and_its_listeners_are_noted() {
    let Some(stage) = Stage::with_dns() else { return };

    let resolver = Resolver::start(&stage);

    let addresses = [POD_V4, POD_V4, POD_V6, POD_V6].map(|address| at(address, DNS_PORT));
    assert_eq!(resolver.bound, addresses);
    assert_eq!(stage.count(Counter::DnsSocketBound), 4);
    let noted: Vec<_> =
        stage.steering.listeners(stage.cookie).unwrap().into_iter().map(|one| (one.kind, one.family)).collect();
    assert_eq!(noted, Family::ALL.map(|family| (Kind::Dns, family)));
    drop(resolver);
    eventually("no listener is known", || stage.steering.listeners(stage.cookie).unwrap().is_empty());
}

#[test]
fn other_ports_applications_and_pods_that_are_not_enrolled_keep_loopback() {
    let Some(stage) = Stage::with_dns() else { return };

    for loopback in LOOPBACK {
        assert_eq!(stage.as_app(|| bound(at(loopback, DNS_PORT))), at(loopback, DNS_PORT), "an application");
        let other = stage.as_actor(Actor::Proxy, || bound(at(loopback, 15000)));
        assert_eq!(other, at(loopback, 15000), "the proxy's other ports");
        stage.steering.remove_pod(stage.cookie).unwrap();
        let outside = stage.as_actor(Actor::Proxy, || bound(at(loopback, DNS_PORT)));
        assert_eq!(outside, at(loopback, DNS_PORT), "not enrolled");
        stage.steering.put_pod(stage.cookie, &stage.pod_config_with_dns()).unwrap();
    }
    assert_eq!(stage.count(Counter::DnsSocketBound), 0);
}

#[test]
fn without_an_address_of_a_family_its_socket_stays_on_loopback_and_is_not_taken_for_one_that_is_asked() {
    let Some(stage) = Stage::with_dns() else { return };
    let without = PodConfig { ipv6: Address::NONE, ..stage.pod_config_with_dns() };
    stage.steering.put_pod(stage.cookie, &without).unwrap();

    let resolver = Resolver::start(&stage);

    assert_eq!(resolver.bound[2], at(LOOPBACK[1], DNS_PORT));
    let noted: Vec<_> = stage.steering.listeners(stage.cookie).unwrap().into_iter().map(|one| one.family).collect();
    assert_eq!(noted, [Family::V4]);
}
