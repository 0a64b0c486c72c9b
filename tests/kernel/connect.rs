//! `cgroup/connect4|6`: what an application and the proxy connect to, and where it goes.

use std::{
    io,
    net::{SocketAddr, SocketAddrV6},
    os::fd::AsFd,
};

use ebpf_common::{Address, Counter, F_IN, LOOP_MARK, LOOP_MARK_MASK, PodConfig};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};
use socket2::SockRef;

use crate::stage::{
    APP_PORT, Acceptor, Actor, DNS_PORT, FAMILIES, POD_V4, POD_V6, Stage, any, ask, at, connect, connect_with,
    exchange, far,
    proxy::app_leg,
    resolver::{Answered, Resolver, ask_connected, ask_over_tcp, nameserver},
    wire::Wire,
};

#[test]
fn the_proxy_learns_the_original_destination_and_the_application_sees_its_own_peer() {
    let Some(stage) = Stage::enrolled() else { return };
    let _proxy = stage.proxy();

    for (pod, _) in FAMILIES {
        let (peer, own, answer) = stage.as_app(|| {
            let stream = connect(far(pod)).unwrap();
            (stream.peer_addr().unwrap(), stream.local_addr().unwrap(), exchange(stream, "").unwrap())
        });

        assert_eq!(peer, far(pod));
        assert_eq!(own.ip(), pod);
        assert_eq!(answer, format!("outbound to {} from {own}", far(pod)));
    }
    assert_eq!(stage.count(Counter::OutboundCaptured), 2);
}

#[test]
fn a_mapped_destination_is_captured_like_ipv4() {
    let Some(stage) = Stage::enrolled() else { return };
    let _proxy = stage.proxy();

    let answer = stage.as_app(|| ask("[::ffff:192.0.2.10]:80".parse().unwrap(), "").unwrap());

    assert!(answer.starts_with("outbound to 192.0.2.10:80 from 10.77.0.2:"), "{answer}");
}

#[test]
fn a_socket_bound_to_the_pods_interface_is_captured_with_and_without_privilege() {
    let Some(stage) = Stage::enrolled() else { return };
    let _proxy = stage.proxy();

    for privileged in [true, false] {
        for (pod, _) in FAMILIES {
            let wire = Wire::record(&stage);
            let answer = stage.as_app(|| {
                if !privileged {
                    set_capabilities(
                        None,
                        CapabilitySets {
                            effective: CapabilitySet::empty(),
                            permitted: CapabilitySet::empty(),
                            inheritable: CapabilitySet::empty(),
                        },
                    )
                    .unwrap();
                }
                let stream = connect_with(far(pod), |socket| socket.bind_device(Some(b"eth0"))).unwrap();
                exchange(stream, "").unwrap()
            });

            assert!(answer.starts_with(&format!("outbound to {} from", far(pod))), "{answer}");
            assert_eq!(wire.tcp_to(80), 0);
        }
    }
}

#[test]
fn the_applications_own_mark_bits_stay() {
    let Some(stage) = Stage::enrolled() else { return };
    let _proxy = stage.proxy();

    let mark = stage.as_app(|| {
        let stream = connect_with(far(POD_V4), |socket| socket.set_mark(0x7_0539)).unwrap();
        SockRef::from(&stream).mark().unwrap()
    });

    assert_eq!(mark, 0x7_0000 | LOOP_MARK);
}

#[test]
fn the_pod_itself_and_loopback_are_not_captured() {
    let Some(stage) = Stage::enrolled() else { return };
    let _proxy = stage.proxy();

    for (pod, _) in FAMILIES {
        let _application = stage.application(at(any(pod), APP_PORT));
        let loopback: SocketAddr =
            if pod.is_ipv4() { ([127, 0, 0, 1], APP_PORT).into() } else { "[::1]:8080".parse().unwrap() };

        for server in [at(pod, APP_PORT), loopback] {
            let answer = stage.as_app(|| ask(server, "hello").unwrap());

            assert!(answer.starts_with(&format!("hello from {}", bracketed(server))), "{answer}");
        }
    }
    assert_eq!(stage.count(Counter::OutboundCaptured), 0);
}

#[test]
fn other_processes_of_the_node_are_not_captured() {
    let Some(stage) = Stage::enrolled() else { return };
    let _proxy = stage.proxy();
    let _server = stage.as_host(|| Acceptor::application(at(any(POD_V4), APP_PORT)));

    let answer = stage.as_host(|| ask(([127, 0, 0, 1], APP_PORT).into(), "hello").unwrap());

    assert!(answer.starts_with("hello from 127.0.0.1:"), "{answer}");
    assert_eq!(stage.count(Counter::OutboundCaptured), 0);
}

#[test]
fn with_no_proxy_nothing_leaves_the_pod() {
    let Some(stage) = Stage::enrolled() else { return };
    let _server = stage.as_host(|| Acceptor::application(at(any(POD_V4), 80)));
    drop(stage.proxy());
    let wire = Wire::record(&stage);

    for (_, host) in FAMILIES {
        let result = stage.as_app(|| attempt(at(host, 80)));

        let err = result.unwrap_err();
        assert!(matches!(err.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::TimedOut), "{err}");
    }

    assert_eq!(wire.tcp_to(80), 0);
}

#[test]
fn a_pod_that_leaves_captures_nothing_new_and_keeps_what_it_has() {
    let Some(stage) = Stage::enrolled() else { return };
    let _proxy = stage.proxy();
    for (pod, host) in FAMILIES {
        let _server = stage.as_host(|| Acceptor::application(at(host, APP_PORT)));
        let captured = stage.as_app(|| connect(at(host, APP_PORT)).unwrap());
        let leaving = PodConfig { flags: 0, ..stage.pod_config() };

        stage.steering.put_pod(stage.cookie, &leaving).unwrap();
        let direct = stage.as_app(|| ask(at(host, APP_PORT), "direct").unwrap());
        let kept = stage.as_app(|| exchange(captured, "").unwrap());

        assert!(direct.starts_with(&format!("direct from {}", bracketed(at(pod, 0)))), "{direct}");
        assert!(kept.starts_with("outbound to"), "{kept}");
        stage.steering.put_pod(stage.cookie, &stage.pod_config()).unwrap();
    }
}

#[test]
fn a_socket_that_was_marked_once_may_connect_directly_later() {
    let Some(stage) = Stage::enrolled() else { return };
    let _server = stage.as_host(|| Acceptor::application(at(any(POD_V4), APP_PORT)));
    let leaving = PodConfig { flags: F_IN, ..stage.pod_config() };

    let mark = stage.as_app(|| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_mark(LOOP_MARK).unwrap();
        stage.steering.put_pod(stage.cookie, &leaving).unwrap();
        socket.connect_timeout(&at(crate::stage::HOST_V4, APP_PORT).into(), crate::stage::DEADLINE).unwrap();
        socket.mark().unwrap()
    });

    assert_eq!(mark & LOOP_MARK_MASK, 0);
}

#[test]
fn a_socket_bound_to_another_interface_is_refused() {
    let Some(stage) = Stage::enrolled() else { return };
    let _proxy = stage.proxy();
    stage.add_pod_interface("other0");

    let err = stage
        .as_app(|| connect_with(far(POD_V4), |socket| socket.bind_device(Some(b"other0"))))
        .expect_err("it would pass the proxy by");

    assert_eq!(err.kind(), io::ErrorKind::PermissionDenied);
    assert_eq!(stage.count(Counter::ForeignInterface), 1);
}

#[test]
fn a_family_that_the_pod_has_no_address_of_is_refused() {
    let Some(stage) = Stage::enrolled() else { return };
    let _proxy = stage.proxy();
    let own = stage.pod_config();
    let mapped: SocketAddr = "[::ffff:192.0.2.10]:80".parse().unwrap();
    let loopback: [SocketAddr; 3] =
        ["127.0.0.1:8080", "[::1]:8080", "[::ffff:127.0.0.1]:8080"].map(|text| text.parse().unwrap());

    for (config, refused, captured) in [
        (PodConfig { ipv6: Address::NONE, ..own }, vec![far(POD_V6)], vec![far(POD_V4), mapped]),
        (PodConfig { ipv4: Address::NONE, ..own }, vec![far(POD_V4), mapped], vec![far(POD_V6)]),
    ] {
        stage.steering.put_pod(stage.cookie, &config).unwrap();
        let wire = Wire::record(&stage);
        for server in refused {
            let err = stage.as_app(|| connect(server)).expect_err("nothing leads it to the proxy");
            assert_eq!(err.kind(), io::ErrorKind::PermissionDenied, "{server}");
        }
        for server in captured {
            assert!(stage.as_app(|| ask(server, "").unwrap()).starts_with("outbound to "), "{server}");
        }
        for server in loopback {
            // Nobody listens there.
            assert_eq!(stage.as_app(|| connect(server)).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        }
        assert_eq!(wire.tcp_to(80), 0);
    }
    assert_eq!(stage.count(Counter::OutboundUnroutable), 3);
    assert_eq!(stage.count(Counter::OutboundCaptured), 3);
}

#[test]
fn a_link_local_destination_is_refused_whatever_its_scope() {
    let Some(stage) = Stage::enrolled() else { return };
    let _proxy = stage.proxy();
    stage.add_pod_interface("other0");

    for interface in ["eth0", "other0"] {
        let scope = stage.pod_interface(interface);
        let server = SocketAddrV6::new("fe80::1".parse().unwrap(), 80, 0, scope).into();

        let err = stage.as_app(|| connect(server)).expect_err("the scope is not to be seen in the hook");

        assert_eq!(err.kind(), io::ErrorKind::PermissionDenied);
    }
    assert_eq!(stage.count(Counter::OutboundUnroutable), 2);
    assert_eq!(stage.count(Counter::OutboundCaptured), 0);
}

#[test]
fn a_pod_that_is_not_enrolled_is_left_alone() {
    let Some(stage) = Stage::new() else { return };
    let _server = stage.as_host(|| Acceptor::application(at(any(FAMILIES[1].0), APP_PORT)));

    for (pod, host) in FAMILIES {
        let answer = stage.as_app(|| ask(at(host, APP_PORT), "hello").unwrap());

        assert!(answer.starts_with(&format!("hello from {}", bracketed(at(pod, 0)))), "{answer}");
    }
    let survey = stage.steering.survey().unwrap();
    assert!(stage.steering.verify_pod(&survey, stage.cookie, stage.pod.as_fd()).unwrap().iter().any(|check| !check.ok));
}

#[test]
fn questions_over_tcp_and_connected_udp_go_to_the_proxy() {
    let Some(stage) = Stage::with_dns() else { return };
    let _resolver = Resolver::start(&stage);
    let wire = Wire::record(&stage);

    for (pod, _) in FAMILIES {
        for ask in [ask_over_tcp, ask_connected] {
            let answered = stage.as_app(|| ask(nameserver(pod)).unwrap());

            assert_eq!(answered, Answered { text: format!("question from {pod}"), from: nameserver(pod) });
        }
    }
    assert_eq!(stage.count(Counter::DnsCaptured), 4);
    assert_eq!(stage.count(Counter::OutboundCaptured), 0);
    assert_eq!(wire.dns_packets(), 0);
}

#[test]
fn a_socket_bound_to_the_pods_interface_may_ask_over_tcp() {
    let Some(stage) = Stage::with_dns() else { return };
    let _resolver = Resolver::start(&stage);

    for (pod, _) in FAMILIES {
        let answer = stage.as_app(|| {
            let stream = connect_with(nameserver(pod), |socket| socket.bind_device(Some(b"eth0"))).unwrap();
            exchange(stream, "question").unwrap()
        });

        assert_eq!(answer, format!("question from {pod}"));
    }
}

#[test]
fn without_the_proxy_connected_sockets_hear_at_once_that_nobody_answers() {
    let Some(stage) = Stage::with_dns() else { return };
    drop(Resolver::start(&stage));
    let wire = Wire::record(&stage);

    for (pod, _) in FAMILIES {
        for ask in [ask_over_tcp, ask_connected] {
            let err = stage.as_app(|| ask(nameserver(pod)).unwrap_err());

            assert_eq!(err.kind(), io::ErrorKind::ConnectionRefused, "{pod}");
        }
    }
    assert_eq!(wire.dns_packets(), 0);
}

#[test]
fn the_proxy_does_not_connect_to_its_own_dns_port_for_others() {
    let Some(stage) = Stage::with_dns() else { return };
    let (_proxy, _resolver) = (stage.proxy(), Resolver::start(&stage));

    for (pod, host) in FAMILIES {
        let err = stage.as_actor(Actor::Proxy, || app_leg(at(host, 0), at(pod, DNS_PORT)).unwrap_err());

        assert_eq!(err.kind(), io::ErrorKind::PermissionDenied);
    }
    assert_eq!(stage.count(Counter::DnsOutsider), 2);
}

/// Gives up soon: for connections that are expected to fail.
fn attempt(server: SocketAddr) -> io::Result<std::net::TcpStream> {
    std::net::TcpStream::connect_timeout(&server, std::time::Duration::from_millis(300))
}

/// The address of a socket address with its colon, as it is written before a port.
fn bracketed(address: SocketAddr) -> String {
    let text = at(address.ip(), 0).to_string();
    text.trim_end_matches('0').to_owned()
}
