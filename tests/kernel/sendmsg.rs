//! `cgroup/sendmsg4|6`: questions of sockets that are not connected.

use std::{io, net::UdpSocket, time::Duration};

use ebpf_common::{Address, Counter, F_IN, F_OUT, PodConfig};
use socket2::SockRef;

use crate::stage::{
    Actor, DEADLINE, DNS_PORT, FAMILIES, FAR_V4, POD_V4, Stage, any, at,
    resolver::{Answered, Resolver, ask_unconnected, nameserver, send_and_receive, socket_for},
    wire::Wire,
};

/// For answers that are not to come.
const SHORT: Duration = Duration::from_millis(300);

#[test]
fn a_question_goes_to_the_proxy_from_the_pods_address_and_nothing_leaves_the_pod() {
    let Some(stage) = Stage::with_dns() else { return };
    let _resolver = Resolver::start(&stage);
    let wire = Wire::record(&stage);

    for (pod, _) in FAMILIES {
        let answered = stage.as_app(|| ask_unconnected(nameserver(pod)).unwrap());

        assert_eq!(answered.text, format!("question from {pod}"));
    }
    assert_eq!(stage.count(Counter::DnsCaptured), 2);
    assert_eq!(wire.dns_packets(), 0);
}

#[test]
fn a_mapped_nameserver_is_asked_like_ipv4() {
    let Some(stage) = Stage::with_dns() else { return };
    let _resolver = Resolver::start(&stage);
    let mapped = "[::ffff:192.0.2.10]:53".parse().unwrap();

    let answered = stage.as_app(|| ask_unconnected(mapped).unwrap());

    assert_eq!(answered, Answered { text: format!("question from {POD_V4}"), from: mapped });
}

#[test]
fn other_ports_the_pod_itself_and_loopback_are_left_alone() {
    let Some(stage) = Stage::with_dns() else { return };
    let _resolver = Resolver::start(&stage);

    for (pod, host) in FAMILIES {
        let server = stage.as_host(|| UdpSocket::bind(at(host, 5353)).unwrap());
        let local = stage.as_app(|| UdpSocket::bind(at(pod, 53)).unwrap());
        stage.as_app(|| {
            let socket = socket_for(at(pod, 0)).unwrap();
            socket.send_to(b"other", at(host, 5353)).unwrap();
            socket.send_to(b"own", at(pod, 53)).unwrap();
        });

        for (server, text) in [(server, "other"), (local, "own")] {
            server.set_read_timeout(Some(DEADLINE)).unwrap();
            let mut bytes = [0; 16];
            let (length, from) = server.recv_from(&mut bytes).unwrap();
            assert_eq!((&bytes[..length], from.ip()), (text.as_bytes(), pod));
        }
    }
    assert_eq!(stage.count(Counter::DnsCaptured), 0);
}

#[test]
fn one_socket_may_ask_and_send_elsewhere_in_turns() {
    let Some(stage) = Stage::with_dns() else { return };
    let _resolver = Resolver::start(&stage);

    for (pod, host) in FAMILIES {
        let server = stage.as_host(|| UdpSocket::bind(at(host, 5353)).unwrap());
        server.set_read_timeout(Some(DEADLINE)).unwrap();
        stage.as_app(|| {
            let socket = socket_for(at(pod, 0)).unwrap();
            assert_eq!(send_and_receive(&socket, nameserver(pod)).unwrap().from, nameserver(pod));
            socket.send_to(b"other", at(host, 5353)).unwrap();
            let from = server.recv_from(&mut [0; 16]).unwrap().1;
            assert_eq!(from.ip(), pod);
            server.send_to(b"back", from).unwrap();
            assert_eq!(socket.recv_from(&mut [0; 16]).unwrap().1, at(host, 5353));
            // Connected elsewhere, after it has asked.
            socket.connect(at(host, 5353)).unwrap();
            socket.send(b"connected").unwrap();
            assert_eq!(server.recv_from(&mut [0; 16]).unwrap().1, from);
            assert_eq!(socket.peer_addr().unwrap(), at(host, 5353));
        });
    }
}

#[test]
fn the_proxys_own_questions_and_those_of_pods_that_opted_out_go_to_the_nameserver() {
    let Some(stage) = Stage::with_dns() else { return };
    let ask = |actor| {
        let wire = Wire::record(&stage);
        stage.as_actor(actor, || {
            let socket = socket_for(nameserver(POD_V4)).unwrap();
            socket.send_to(b"question", nameserver(POD_V4)).unwrap();
            let connected = socket_for(nameserver(POD_V4)).unwrap();
            connected.connect(nameserver(POD_V4)).unwrap();
            connected.send(b"question").unwrap();
        });
        wire.dns_packets()
    };

    assert_eq!(ask(Actor::Proxy), 2);
    assert_eq!(ask(Actor::App), 0);
    let out = PodConfig { flags: F_OUT | F_IN, ..stage.pod_config_with_dns() };
    stage.steering.put_pod(stage.cookie, &out).unwrap();
    assert_eq!(ask(Actor::App), 2);
}

#[test]
fn questions_of_the_node_are_not_captured() {
    let Some(stage) = Stage::with_dns() else { return };
    let _resolver = Resolver::start(&stage);
    let server = stage.as_host(|| UdpSocket::bind(at(FAMILIES[0].1, 53)).unwrap());
    server.set_read_timeout(Some(DEADLINE)).unwrap();

    stage.as_host(|| {
        socket_for(server.local_addr().unwrap()).unwrap().send_to(b"q", server.local_addr().unwrap()).unwrap()
    });

    assert_eq!(server.recv_from(&mut [0; 16]).unwrap().1.ip(), FAMILIES[0].1);
    assert_eq!(stage.count(Counter::DnsCaptured), 0);
}

#[test]
fn without_the_proxy_questions_are_not_answered_and_none_leaves_the_pod() {
    let Some(stage) = Stage::with_dns() else { return };
    drop(Resolver::start(&stage));
    let wire = Wire::record(&stage);

    for (pod, _) in FAMILIES {
        let err = stage.as_app(|| {
            let socket = socket_for(nameserver(pod)).unwrap();
            socket.set_read_timeout(Some(SHORT)).unwrap();
            socket.send_to(b"question", nameserver(pod)).unwrap();
            socket.recv_from(&mut [0; 16]).unwrap_err()
        });
        // The kernel tells nothing of refusals to a socket that is not connected: its resolver gives up after its own time.
        assert_eq!(err.kind(), io::ErrorKind::WouldBlock);
    }

    assert_eq!(wire.dns_packets(), 0);
}

#[test]
fn a_question_that_cannot_reach_the_proxy_is_refused() {
    let Some(stage) = Stage::with_dns() else { return };
    let _resolver = Resolver::start(&stage);
    stage.add_pod_interface("other0");
    let wire = Wire::record(&stage);

    let bound = stage.as_app(|| {
        let socket = socket_for(nameserver(POD_V4)).unwrap();
        SockRef::from(&socket).bind_device(Some(b"other0")).unwrap();
        socket.send_to(b"question", nameserver(POD_V4)).unwrap_err()
    });
    let without = PodConfig { ipv4: Address::NONE, ..stage.pod_config_with_dns() };
    stage.steering.put_pod(stage.cookie, &without).unwrap();
    let family = stage.as_app(|| ask_unconnected(nameserver(POD_V4)).unwrap_err());

    for err in [bound, family] {
        assert_eq!(err.kind(), io::ErrorKind::PermissionDenied);
    }
    assert_eq!(stage.count(Counter::DnsRefused), 2);
    stage.steering.put_pod(stage.cookie, &stage.pod_config_with_dns()).unwrap();
    assert_eq!(wire.dns_packets(), 0);
}

#[test]
fn the_proxys_port_is_closed_to_the_outside_and_open_to_the_pod() {
    let Some(stage) = Stage::with_dns() else { return };
    let _resolver = Resolver::start(&stage);

    for (pod, _) in FAMILIES {
        let outside = stage.as_host(|| {
            let socket = socket_for(at(pod, 0)).unwrap();
            socket.set_read_timeout(Some(SHORT)).unwrap();
            socket.connect(at(pod, DNS_PORT)).unwrap();
            socket.send(b"question").unwrap();
            socket.recv(&mut [0; 16]).unwrap_err()
        });
        assert_eq!(outside.kind(), io::ErrorKind::ConnectionRefused);

        let own = stage.as_app(|| ask_unconnected(at(pod, DNS_PORT)).unwrap());
        assert_eq!(own, Answered { text: format!("question from {pod}"), from: at(pod, DNS_PORT) });
    }
    assert_eq!(stage.count(Counter::DnsOutsider), 2);
    let other = stage.as_app(|| UdpSocket::bind(at(any(POD_V4), 9000)).unwrap());
    other.set_read_timeout(Some(DEADLINE)).unwrap();
    stage.as_host(|| socket_for(at(FAR_V4, 0)).unwrap().send_to(b"x", at(POD_V4, 9000)).unwrap());
    assert_eq!(other.recv(&mut [0; 16]).unwrap(), 1, "other ports are open");
}
