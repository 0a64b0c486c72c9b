//! `sk_lookup`: which listener a new connection of the pod gets.

use std::{
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ebpf_common::{Counter, PodConfig};
use socket2::Domain;

use crate::stage::{
    APP_PORT, Acceptor, Actor, FAMILIES, Stage, any, ask, at, connect, connect_with, exchange,
    proxy::{app_leg, listener},
};

/// Addresses that a pod may get besides those that the mesh knows.
const SECOND: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 77, 0, 112)), IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0x112))];

#[test]
fn inbound_connections_go_to_the_proxy_and_the_application_sees_the_client() {
    let Some(stage) = Stage::enrolled() else { return };
    let _proxy = stage.proxy();

    for (pod, host) in FAMILIES {
        let _application = stage.application(at(any(pod), APP_PORT));

        let answer = stage.as_host(|| ask(at(pod, APP_PORT), "hello").unwrap());

        let expected = format!("hello from {}", at(host, 0).to_string().trim_end_matches('0'));
        assert!(answer.starts_with(&expected), "{answer}");
    }
    assert_eq!(stage.count(Counter::LookupInbound), 2);
    assert_eq!(stage.count(Counter::AppLeg), 2);
}

#[test]
fn the_tunnel_port_reaches_the_tunnel_listener() {
    let Some(stage) = Stage::enrolled() else { return };
    let _proxy = stage.proxy();

    for (pod, _) in FAMILIES {
        assert_eq!(stage.as_host(|| exchange(connect(at(pod, 15008)).unwrap(), "").unwrap()), "hbone");
    }
}

#[test]
fn with_no_proxy_the_application_is_not_reachable() {
    let Some(stage) = Stage::enrolled() else { return };

    for (pod, _) in FAMILIES {
        let _application = stage.application(at(any(pod), APP_PORT));

        let err = stage.as_host(|| ask(at(pod, APP_PORT), "hello")).unwrap_err();

        assert_eq!(err.kind(), io::ErrorKind::ConnectionRefused);
    }
    assert_eq!(stage.count(Counter::NoListener), 2);
}

#[test]
fn an_application_cannot_steal_from_the_proxys_port() {
    let Some(stage) = Stage::enrolled() else { return };
    let _thief = stage.as_app(|| listener(15006, Domain::IPV6, true));
    let _proxy = stage.as_actor(Actor::Proxy, || {
        Acceptor::start(listener(15006, Domain::IPV6, true), |mut client| {
            let _ = client.write_all(b"proxy");
        })
    });

    for (pod, _) in FAMILIES {
        for _ in 0..20 {
            let answer = stage.as_host(|| ask(at(pod, APP_PORT), "").unwrap());

            assert_eq!(answer, "proxy");
        }
    }
}

#[test]
fn an_old_admission_does_not_count() {
    let Some(stage) = Stage::enrolled() else { return };
    let _proxy = stage.proxy();

    for (pod, host) in FAMILIES {
        let _application = stage.application(at(any(pod), APP_PORT));
        let client = at(host, 40_002);
        stage.admit_long_ago(client, at(pod, APP_PORT));

        let answer = stage.as_host(|| {
            let stream = connect_with(at(pod, APP_PORT), |socket| socket.bind(&client.into())).unwrap();
            exchange(stream, "hello").unwrap()
        });

        assert_ne!(answer, format!("hello from {client}"), "it passed the proxy by");
    }
    assert_eq!(stage.count(Counter::AdmissionExpired), 2);
    assert_eq!(stage.count(Counter::LookupInbound), 2);
}

#[test]
fn a_pod_that_leaves_is_reached_directly() {
    let Some(stage) = Stage::enrolled() else { return };
    let _proxy = stage.proxy();
    stage.steering.put_pod(stage.cookie, &PodConfig { flags: 0, ..stage.pod_config() }).unwrap();

    for (pod, _) in FAMILIES {
        let _application = stage.application(at(any(pod), APP_PORT));
        let (client, answer) = stage.as_host(|| {
            let stream = connect(at(pod, APP_PORT)).unwrap();
            (stream.local_addr().unwrap(), exchange(stream, "hello").unwrap())
        });

        assert_eq!(answer, format!("hello from {client}"));
    }
    assert_eq!(stage.count(Counter::LookupInbound), 0);
}

#[test]
fn a_further_address_of_the_pod_is_learnt() {
    let Some(stage) = Stage::enrolled() else { return };
    let _proxy = stage.proxy();

    for address in SECOND {
        stage.add_pod_address(address);
        let _application = stage.application(at(any(address), APP_PORT));

        let answer = stage.as_host(|| ask(at(address, APP_PORT), "hello").unwrap());

        assert!(answer.starts_with("hello from "), "{answer}");
    }
}

#[test]
fn a_further_address_that_talks_to_itself_is_left_alone() {
    let Some(stage) = Stage::enrolled() else { return };
    let _proxy = stage.proxy();

    for address in SECOND {
        stage.add_pod_address(address);
        let _application = stage.application(at(any(address), APP_PORT));
        let (client, answer) = stage.as_app(|| {
            let stream = connect_with(at(address, APP_PORT), |socket| socket.bind(&at(address, 0).into())).unwrap();
            (stream.local_addr().unwrap(), exchange(stream, "hello").unwrap())
        });

        assert_eq!(answer, format!("hello from {client}"));
    }
}

#[test]
fn a_proxy_of_one_family_serves_that_family() {
    let Some(stage) = Stage::enrolled() else { return };
    let _inbound = stage.as_actor(Actor::Proxy, || Acceptor::start(listener(15006, Domain::IPV4, false), drop));

    let [v4, v6] = FAMILIES.map(|(pod, _)| stage.as_host(|| connect(at(pod, APP_PORT)).map(drop)));

    assert!(v4.is_ok());
    assert_eq!(v6.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
}

#[test]
fn two_connections_with_the_same_addresses_and_ports_do_not_meet() {
    let Some(stage) = Stage::enrolled() else { return };
    let _proxy = stage.proxy();

    for (pod, host) in FAMILIES {
        let _application = stage.application(at(any(pod), APP_PORT));
        // The port that the proxy picks for its connection to the application...
        let first = stage.as_host(|| connect(at(pod, APP_PORT)).unwrap());
        let taken = stage.as_actor(Actor::Proxy, || app_leg(at(host, 0), at(pod, APP_PORT)).unwrap());
        let port = taken.local_addr().unwrap().port();

        // ... is the one that the next client uses.
        let second = stage.as_host(|| {
            let stream = connect_with(at(pod, APP_PORT), |socket| socket.bind(&at(host, port).into())).unwrap();
            exchange(stream, "second").unwrap()
        });

        assert!(second.starts_with("second from "), "{second}");
        assert!(exchange(first, "first").unwrap().starts_with("first from "));
        assert!(exchange(taken, "taken").unwrap().starts_with("taken from "));
    }
}
