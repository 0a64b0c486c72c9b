//! `cgroup/getpeername4|6`: the peer of a socket that is connected for DNS.

use std::net::TcpStream;

use crate::stage::{
    FAMILIES, HOST_V4, POD_V4, Stage, at,
    resolver::{Resolver, ask_over_tcp, nameserver, socket_for},
};

#[test]
fn the_peer_is_the_nameserver_that_was_named_over_udp_and_tcp() {
    let Some(stage) = Stage::with_dns() else { return };
    let _resolver = Resolver::start(&stage);

    for (pod, _) in FAMILIES {
        stage.as_app(|| {
            let udp = socket_for(nameserver(pod)).unwrap();
            udp.connect(nameserver(pod)).unwrap();
            let tcp = TcpStream::connect(nameserver(pod)).unwrap();

            assert_eq!(udp.peer_addr().unwrap(), nameserver(pod));
            assert_eq!(tcp.peer_addr().unwrap(), nameserver(pod));
            assert_eq!(udp.local_addr().unwrap().ip(), pod, "and the own address is the pod's");
            assert_eq!(tcp.local_addr().unwrap().ip(), pod);
        });
    }
    let mapped = "[::ffff:192.0.2.10]:53".parse().unwrap();
    assert_eq!(stage.as_app(|| ask_over_tcp(mapped).unwrap()).from, mapped);
}

#[test]
fn a_socket_that_connects_elsewhere_later_has_its_true_peer() {
    let Some(stage) = Stage::with_dns() else { return };
    let _resolver = Resolver::start(&stage);

    stage.as_app(|| {
        let socket = socket_for(nameserver(POD_V4)).unwrap();
        socket.connect(nameserver(POD_V4)).unwrap();
        socket.connect(at(HOST_V4, 9)).unwrap();

        assert_eq!(socket.peer_addr().unwrap(), at(HOST_V4, 9));
        assert_eq!(socket.local_addr().unwrap().ip(), POD_V4);
    });
}
