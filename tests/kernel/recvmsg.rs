//! `cgroup/recvmsg4|6`: answers come from the nameserver that was asked.

use std::net::UdpSocket;

use ebpf_common::PodConfig;

use crate::stage::{
    DEADLINE, FAMILIES, HOST_V4, POD_V4, Stage, at,
    resolver::{Resolver, ask_connected, ask_unconnected, nameserver, send_and_receive, socket_for},
};

#[test]
fn answers_come_from_the_nameserver_that_was_asked() {
    let Some(stage) = Stage::with_dns() else { return };
    let _resolver = Resolver::start(&stage);

    for (pod, _) in FAMILIES {
        for ask in [ask_unconnected, ask_connected] {
            assert_eq!(stage.as_app(|| ask(nameserver(pod)).unwrap()).from, nameserver(pod));
        }
    }
    let mapped = "[::ffff:192.0.2.10]:53".parse().unwrap();
    assert_eq!(stage.as_app(|| ask_connected(mapped).unwrap()).from, mapped);
}

#[test]
fn of_two_nameservers_that_one_socket_asks_in_turn_each_answers_for_itself() {
    let Some(stage) = Stage::with_dns() else { return };
    let _resolver = Resolver::start(&stage);

    stage.as_app(|| {
        let socket = socket_for(nameserver(POD_V4)).unwrap();
        for one in [nameserver(POD_V4), at(HOST_V4, 53), nameserver(POD_V4)] {
            assert_eq!(send_and_receive(&socket, one).unwrap().from, one);
        }
    });
}

#[test]
fn an_answer_that_is_on_its_way_when_the_pod_leaves_is_still_the_nameservers() {
    let Some(stage) = Stage::with_dns() else { return };
    let _resolver = Resolver::start(&stage);

    let from = stage.as_app(|| {
        let socket = socket_for(nameserver(POD_V4)).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.send_to(b"question", nameserver(POD_V4)).unwrap();
        let leaving = PodConfig { flags: 0, ..stage.pod_config_with_dns() };
        stage.steering.put_pod(stage.cookie, &leaving).unwrap();
        socket.recv_from(&mut [0; 64]).unwrap().1
    });

    assert_eq!(from, nameserver(POD_V4));
}

#[test]
fn packets_of_others_keep_their_source() {
    let Some(stage) = Stage::with_dns() else { return };
    let _resolver = Resolver::start(&stage);

    for (pod, host) in FAMILIES {
        let other = stage.as_host(|| UdpSocket::bind(at(host, 53)).unwrap());
        let from = stage.as_app(|| {
            let socket = socket_for(nameserver(pod)).unwrap();
            send_and_receive(&socket, nameserver(pod)).unwrap();
            other.send_to(b"forged", at(pod, socket.local_addr().unwrap().port())).unwrap();
            socket.recv_from(&mut [0; 64]).unwrap().1
        });

        assert_eq!(from, at(host, 53));
    }
}
