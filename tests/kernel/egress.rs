//! `cgroup_skb/egress`: packets between application and proxy, while somebody has taken the pod's routing away.

use std::{
    fs,
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use ebpf_common::{Counter, PodConfig, names};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::stage::{
    APP_PORT, Acceptor, Actor, DEADLINE, FAMILIES, Stage, any, at, connect, connect_with, eventually, exchange, far,
    proxy::listener, wire::Wire,
};

/// `IPPROTO_MPTCP`.
const MPTCP: i32 = 262;

/// Longer than TCP waits before it sends a first segment again.
const SOON: Duration = Duration::from_millis(300);

/// Changes to routing by somebody who is root in the pod. The pod's own routes lead a marked packet onto the wire then.
const DRIFTS: [&str; 3] = [
    "rule del fwmark 0x111/0xfff lookup 100",
    "route flush table 100",
    "rule add pref 1 fwmark 0x111/0xfff lookup main",
];

/// Undoes any of [`DRIFTS`].
fn repair(stage: &Stage, drift: &str) {
    match drift.strip_prefix("rule add") {
        Some(rule) => stage.ip_in_pod(&format!("rule del{rule}")),
        None => {
            if !drift.starts_with("rule del") {
                stage.ip_in_pod(DRIFTS[0]);
            }
            if !drift.starts_with("route flush") {
                stage.ip_in_pod(DRIFTS[1]);
            }
            stage.add_rules();
        }
    }
}

/// Sends a request without waiting for an answer, and lets TCP try again.
fn send(stream: &mut TcpStream) {
    stream.write_all(b"a request").unwrap();
    std::thread::park_timeout(SOON);
}

#[test]
fn what_a_captured_connection_sends_while_its_routing_is_gone_stays_in_the_pod_and_arrives_after_the_repair() {
    let Some(stage) = Stage::enrolled() else { return };
    let _proxy = stage.proxy();

    for drift in DRIFTS {
        let mut streams = FAMILIES.map(|(pod, _)| stage.as_app(|| connect(far(pod)).unwrap()));
        let (before, wire) = (stage.count(Counter::EgressDropped), Wire::record(&stage));

        stage.ip_in_pod(drift);
        stage.as_app(|| streams.iter_mut().for_each(send));

        assert_eq!(wire.tcp_to(80), 0, "{drift}");
        assert!(stage.count(Counter::EgressDropped) >= before + 2, "{drift}: nothing was sent");
        repair(&stage, drift);
        for stream in streams {
            let answer = stage.as_app(|| exchange(stream, "").unwrap());
            assert!(answer.starts_with("outbound to "), "{drift}: {answer}");
        }
    }
}

#[test]
fn a_connection_that_begins_while_the_routing_is_gone_does_not_leave_the_pod() {
    let Some(stage) = Stage::enrolled() else { return };
    let _proxy = stage.proxy();
    let bound_to_eth0 = |server: SocketAddr| {
        let socket = Socket::new(Domain::for_address(server), Type::STREAM, None).unwrap();
        socket.bind_device(Some(b"eth0")).unwrap();
        socket.connect_timeout(&server.into(), SOON)
    };

    for drift in DRIFTS {
        stage.ip_in_pod(drift);
        let wire = Wire::record(&stage);
        for (pod, _) in FAMILIES {
            let direct = stage.as_app(|| TcpStream::connect_timeout(&far(pod), SOON).map(drop));
            assert_eq!(direct.unwrap_err().kind(), io::ErrorKind::TimedOut, "{drift}");
            stage.as_app(|| bound_to_eth0(far(pod))).unwrap_err();
        }

        assert_eq!(wire.tcp_to(80), 0, "{drift}");
        repair(&stage, drift);
    }
}

#[test]
fn without_loopback_a_pods_connections_do_not_leave_it() {
    let Some(stage) = Stage::enrolled() else { return };
    let _proxy = stage.proxy();
    let mut streams = FAMILIES.map(|(pod, _)| stage.as_app(|| connect(far(pod)).unwrap()));
    let wire = Wire::record(&stage);

    stage.ip_in_pod("link set lo down");
    stage.as_app(|| streams.iter_mut().for_each(send));
    for (pod, _) in FAMILIES {
        stage.as_app(|| TcpStream::connect_timeout(&far(pod), SOON)).unwrap_err();
    }

    assert_eq!(wire.tcp_to(80), 0);
}

#[test]
fn an_application_that_takes_its_mark_away_reaches_nobody() {
    let Some(stage) = Stage::enrolled() else { return };
    let _proxy = stage.proxy();

    for (pod, _) in FAMILIES {
        let wire = Wire::record(&stage);
        stage.as_app(|| {
            let mut stream = connect(far(pod)).unwrap();
            SockRef::from(&stream).set_mark(0).unwrap();
            send(&mut stream);
        });

        assert_eq!(wire.tcp_to(80), 0);
    }
    assert!(stage.count(Counter::EgressDropped) >= 2);
}

#[test]
fn a_multipath_connection_stays_in_the_pod() {
    let Some(stage) = Stage::enrolled() else { return };
    let _proxy = stage.proxy();

    for (pod, _) in FAMILIES {
        let mut stream: TcpStream = stage.as_app(|| {
            let socket = Socket::new(Domain::for_address(far(pod)), Type::STREAM, Some(Protocol::from(MPTCP))).unwrap();
            socket.connect_timeout(&far(pod).into(), DEADLINE).unwrap();
            socket.into()
        });
        let wire = Wire::record(&stage);

        stage.ip_in_pod(DRIFTS[0]);
        stage.as_app(|| send(&mut stream));

        assert_eq!(wire.tcp_to(80), 0);
        repair(&stage, DRIFTS[0]);
        assert!(stage.as_app(|| exchange(stream, "").unwrap()).starts_with("outbound to "));
    }
    assert!(stage.count(Counter::EgressDropped) >= 2);
}

/// Applications of [`talkative`] that have unbound their socket.
static UNBOUND: AtomicUsize = AtomicUsize::new(0);

/// An application that answers byte by byte for two seconds, on a socket that it has unbound from `lo`.
fn talkative(mut client: TcpStream) {
    let _ = client.read_to_end(&mut Vec::new());
    SockRef::from(&client).bind_device(None).unwrap();
    UNBOUND.fetch_add(1, Ordering::Relaxed);
    for _ in 0..100 {
        let _ = client.write_all(b".");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

#[test]
fn an_applications_answer_to_the_proxy_stays_in_the_pod_although_its_socket_is_no_longer_bound_to_loopback() {
    let Some(stage) = Stage::enrolled() else { return };
    let _proxy = stage.proxy();

    for (index, (pod, _)) in FAMILIES.into_iter().enumerate() {
        let _application = stage.as_app(|| {
            let listener = std::net::TcpListener::bind(at(any(pod), APP_PORT)).unwrap();
            Acceptor::start(listener.into(), talkative)
        });
        let mut client = stage.as_host(|| connect(at(pod, APP_PORT)).unwrap());
        let port = client.local_addr().unwrap().port();
        stage.as_host(|| client.shutdown(Shutdown::Write).unwrap());
        eventually("the application answers", || UNBOUND.load(Ordering::Relaxed) > index);
        let (before, wire) = (stage.count(Counter::EgressDropped), Wire::record(&stage));

        stage.ip_in_pod(DRIFTS[0]);

        // The proxy passes the answer on when it is whole.
        eventually("the answer is dropped", || stage.count(Counter::EgressDropped) > before);
        assert_eq!(wire.payload_bytes_to(port), 0);
        repair(&stage, DRIFTS[0]);
        let mut answer = String::new();
        stage.as_host(|| client.read_to_string(&mut answer).unwrap());
        assert_eq!(answer, ".".repeat(100));
    }
}

#[test]
fn the_proxys_answer_to_an_application_stays_in_the_pod_although_its_address_is_no_longer_local() {
    let Some(stage) = Stage::enrolled() else { return };
    let _outbound = stage.as_actor(Actor::Proxy, || {
        Acceptor::start(listener(15001, Domain::IPV6, false), |mut application| {
            while application.read_exact(&mut [0]).is_ok() {
                let _ = application.write_all(b"an answer");
            }
        })
    });

    for (pod, _) in FAMILIES {
        let mut stream = stage.as_app(|| connect(far(pod)).unwrap());
        stage.as_app(|| stream.write_all(b".").unwrap());
        stage.as_app(|| stream.read_exact(&mut [0; 9]).unwrap());
        let before = stage.count(Counter::EgressDropped);

        stage.as_app(|| stream.write_all(b".").unwrap());
        stage.as_app(|| stream.read_exact(&mut [0; 9]).unwrap());
        assert_eq!(stage.count(Counter::EgressDropped), before);
        stage.ip_in_pod("rule add pref 0 from all lookup 200");
        stage.ip_in_pod("rule del pref 0 lookup local");
        stage.ip_in_pod(DRIFTS[0]);
        stage.as_app(|| send(&mut stream));

        eventually("the answer or the request is dropped", || stage.count(Counter::EgressDropped) > before);
        stage.ip_in_pod("rule add pref 0 lookup local");
        stage.ip_in_pod("rule del pref 0 lookup 200");
        repair(&stage, DRIFTS[0]);
    }
}

#[test]
fn connections_that_began_before_the_pod_was_enrolled_go_on_whatever_becomes_of_its_routing() {
    let Some(stage) = Stage::new() else { return };
    let servers = FAMILIES.map(|(_, host)| stage.as_host(|| Acceptor::application(at(host, APP_PORT))));
    let streams = FAMILIES.map(|(_, host)| stage.as_app(|| connect(at(host, APP_PORT)).unwrap()));

    stage.enrol();
    let _proxy = stage.proxy();
    stage.ip_in_pod(DRIFTS[0]);

    for stream in streams {
        let answer = stage.as_app(|| exchange(stream, "hello").unwrap());
        assert!(answer.starts_with("hello from "), "{answer}");
    }
    assert_eq!(stage.count(Counter::EgressDropped), 0);
    drop(servers);
}

#[test]
fn without_the_programs_at_connect_a_connection_is_captured_when_it_sends_its_first_packet() {
    let Some(stage) = Stage::enrolled() else { return };
    let _proxy = stage.proxy();
    let wire = Wire::record(&stage);

    for name in [names::CONNECT4, names::CONNECT6] {
        let pins = stage.pins.list();
        fs::remove_file(pins.iter().find(|pin| pin.ends_with(name)).unwrap()).unwrap();
    }

    for (pod, _) in FAMILIES {
        let before = stage.count(Counter::OutboundMarkedLate);
        eventually("no program runs at connect(2)", || {
            let (own, answer) = stage.as_app(|| {
                let stream = connect(far(pod)).unwrap();
                (stream.local_addr().unwrap(), exchange(stream, "").unwrap())
            });
            assert_eq!(answer, format!("outbound to {} from {own}", far(pod)));
            stage.count(Counter::OutboundMarkedLate) > before
        });
    }
    assert_eq!(wire.tcp_to(80), 0);
}

#[test]
fn a_pod_that_is_forgotten_has_what_is_left_of_its_connections_reset() {
    let Some(stage) = Stage::enrolled() else { return };
    let _outbound = stage.as_actor(Actor::Proxy, || {
        Acceptor::start(listener(15001, Domain::IPV6, false), |mut application| {
            let _ = application.read_to_end(&mut Vec::new());
        })
    });
    let streams = FAMILIES.map(|(_, host)| stage.as_app(|| connect(at(host, APP_PORT)).unwrap()));

    stage.steering.detach_pod(stage.cookie).unwrap();
    stage.ip_in_pod(DRIFTS[0]);
    stage.ip_in_pod(DRIFTS[1]);
    stage.steering.remove_pod(stage.cookie).unwrap();

    for mut stream in streams {
        let ended = stage.as_app(|| {
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            stream.write_all(b"anybody there?").unwrap();
            stream.read_to_end(&mut Vec::new())
        });
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
}

#[test]
fn a_socket_that_was_captured_once_connects_directly_after_its_pod_has_left() {
    let Some(stage) = Stage::enrolled() else { return };
    let _server = FAMILIES.map(|(_, host)| stage.as_host(|| Acceptor::application(at(host, APP_PORT))));

    for (pod, host) in FAMILIES {
        let answer = stage.as_app(|| {
            let socket = Socket::new(Domain::for_address(at(pod, 0)), Type::STREAM, None).unwrap();
            // No proxy listens: the first attempt is refused or times out.
            socket.connect_timeout(&at(host, APP_PORT).into(), SOON).unwrap_err();
            let stream = disconnected(socket);
            stage.steering.put_pod(stage.cookie, &PodConfig { flags: 0, ..stage.pod_config() }).unwrap();
            stream.connect_timeout(&at(host, APP_PORT).into(), DEADLINE).unwrap();
            exchange(stream.into(), "direct").unwrap()
        });

        assert!(answer.starts_with("direct from "), "{answer}");
        stage.steering.put_pod(stage.cookie, &stage.pod_config()).unwrap();
    }
}

/// The socket, no longer on its way to where it was to be connected (`AF_UNSPEC`).
fn disconnected(socket: Socket) -> Socket {
    rustix::net::connect_unspec(&socket).unwrap();
    socket
}

#[test]
fn other_processes_of_the_node_send_as_ever() {
    let Some(stage) = Stage::enrolled() else { return };
    let _proxy = stage.proxy();
    let _server = stage.as_app(|| Acceptor::application(at(any(FAMILIES[1].0), APP_PORT)));

    for (pod, _) in FAMILIES {
        let answer = stage.as_host(|| {
            let stream = connect_with(at(pod, APP_PORT), |socket| socket.set_mark(0x111)).unwrap();
            exchange(stream, "hello").unwrap()
        });
        assert!(answer.starts_with("hello from "), "{answer}");
    }
    assert_eq!(stage.count(Counter::EgressDropped), 0);
}

/// Runs of the program for one figure.
const RUNS: u32 = 1_000_000;

/// Bound on the mean: some 20 times what is measured on an idle machine, so that a busy one does not fail.
const MOST_PER_PACKET: Duration = Duration::from_micros(2);

#[test]
fn the_program_costs_a_packet_less_than_two_microseconds() {
    let Some(stage) = Stage::enrolled() else { return };
    let interfaces = stage.as_app(|| {
        let index = fs::read_to_string("/proc/thread-self/net/dev_snmp6/eth0").unwrap();
        [1, index.lines().find_map(|line| line.strip_prefix("ifIndex")?.trim().parse().ok()).unwrap()]
    });

    for (name, interface) in ["lo", "eth0"].into_iter().zip(interfaces) {
        let cost = stage.as_app(|| stage.steering.egress_cost(interface, RUNS).unwrap());

        println!("a packet that leaves by {name}: {:?} for each of {RUNS} runs", cost.mean);
        assert!(cost.passes && cost.mean < MOST_PER_PACKET, "{name}: {cost:?}");
    }
}
