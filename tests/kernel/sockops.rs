//! `sockops`: the proxy's listeners, probers' connections, accepted sockets.

use std::io;

use ebpf_common::{Counter, F_IN, Family, Kind, LOOP_MARK, LOOP_MARK_MASK, PodConfig};
use socket2::{Domain, SockRef};

use crate::stage::{
    APP_PORT, Acceptor, Actor, FAMILIES, Stage, any, ask, at, connect, connect_with, eventually, exchange, far,
    proxy::{app_leg, listener},
    wire::Wire,
};

#[test]
fn the_proxys_listeners_are_noted_and_forgotten_when_they_close() {
    let Some(stage) = Stage::enrolled() else { return };

    let proxy = stage.proxy();
    let noted: Vec<_> =
        stage.steering.listeners(stage.cookie).unwrap().into_iter().map(|one| (one.kind, one.family)).collect();
    drop(proxy);

    assert_eq!(noted, [Kind::Inbound, Kind::Outbound, Kind::Hbone].map(|kind| (kind, Family::V6)));
    eventually("no listener is known", || stage.steering.listeners(stage.cookie).unwrap().is_empty());
}

#[test]
fn a_listener_loses_its_mark_and_is_bound_to_the_pods_interface_from_the_start() {
    let Some(stage) = Stage::enrolled() else { return };

    let [outbound, inbound] = [15001, 15006].map(|port| {
        let listener = stage.as_actor(Actor::Proxy, || listener(port, Domain::IPV6, false));
        (listener.mark().unwrap(), stage.as_app(|| listener.device().unwrap()))
    });

    assert_eq!(outbound, (0, None));
    assert_eq!(inbound, (0, Some(b"eth0".to_vec())));
}

#[test]
fn an_applications_listener_on_a_proxy_port_is_not_the_proxys() {
    let Some(stage) = Stage::enrolled() else { return };

    let _listener = stage.as_app(|| listener(15006, Domain::IPV6, false));

    assert_eq!(stage.steering.listeners(stage.cookie).unwrap(), []);
}

#[test]
fn a_probe_reaches_the_application_while_others_are_captured() {
    let Some(stage) = Stage::enrolled() else { return };
    let _proxy = stage.proxy();

    for (pod, host) in FAMILIES {
        let _application = stage.application(at(any(pod), APP_PORT));
        let (own, answer) = stage.as_prober(|| {
            let stream = connect(at(pod, APP_PORT)).unwrap();
            (stream.local_addr().unwrap(), exchange(stream, "probe").unwrap())
        });
        stage.as_host(|| ask(at(pod, APP_PORT), "other").unwrap());

        assert_eq!(own.ip(), host);
        assert_eq!(answer, format!("probe from {own}"));
    }
    assert_eq!(stage.count(Counter::LookupAdmitted), 2);
    assert_eq!(stage.count(Counter::AdmissionUsed), 2);
    assert_eq!(stage.count(Counter::LookupInbound), 2);
}

#[test]
fn a_prober_outside_the_nodes_network_namespace_admits_nothing() {
    let Some(stage) = Stage::enrolled() else { return };
    let leaving = PodConfig { flags: F_IN, ..stage.pod_config() };
    stage.steering.put_pod(stage.cookie, &leaving).unwrap();

    for (_, host) in FAMILIES {
        let _server = stage.as_host(|| Acceptor::application(at(host, APP_PORT)));
        let answer = stage.as_prober_in_pod(|| ask(at(host, APP_PORT), "probe").unwrap());

        assert!(answer.starts_with("probe from "), "{answer}");
    }
    assert_eq!(stage.count(Counter::ProbeAdmitted), 0);
    assert_eq!(stage.count(Counter::ProbeForeign), 2);
}

#[test]
fn probes_are_answered_when_the_proxy_is_dead() {
    let Some(stage) = Stage::enrolled() else { return };

    for (pod, _) in FAMILIES {
        let _application = stage.application(at(any(pod), APP_PORT));

        assert!(stage.as_prober(|| ask(at(pod, APP_PORT), "probe")).is_ok());
        let refused = stage.as_prober(|| ask(at(pod, APP_PORT + 1), "probe")).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }
}

#[test]
fn a_probe_and_a_proxied_connection_with_the_same_addresses_and_ports_do_not_meet() {
    let Some(stage) = Stage::enrolled() else { return };

    for (pod, _) in FAMILIES {
        let _application = stage.application(at(any(pod), APP_PORT));
        let probe = stage.as_prober(|| connect(at(pod, APP_PORT)).unwrap());
        let client = probe.local_addr().unwrap();

        let proxied = stage.as_actor(Actor::Proxy, || app_leg(client, at(pod, APP_PORT)).unwrap());

        assert_eq!(exchange(proxied, "proxied").unwrap(), format!("proxied from {client}"));
        assert_eq!(exchange(probe, "probe").unwrap(), format!("probe from {client}"));
    }
}

#[test]
fn what_a_listener_accepts_is_marked_even_if_the_proxy_marks_the_listener_late() {
    let Some(stage) = Stage::enrolled() else { return };
    let listener = stage.as_actor(Actor::Proxy, || listener(15001, Domain::IPV6, false));
    listener.set_mark(0x539).unwrap();

    for (pod, _) in FAMILIES {
        let application = stage.as_app(|| connect(far(pod)).unwrap());
        let (accepted, _) = listener.accept().unwrap();

        assert_eq!(accepted.mark().unwrap() & LOOP_MARK_MASK, LOOP_MARK);
        assert_eq!(accepted.device().unwrap(), None);
        drop(application);
    }
}

#[test]
fn an_admission_ends_with_the_probe() {
    let Some(stage) = Stage::enrolled() else { return };
    let _proxy = stage.proxy();

    for (pod, host) in FAMILIES {
        let client = at(host, 40_000);
        let from_client = || connect_with(at(pod, APP_PORT), |socket| socket.bind(&client.into()));
        stage.as_prober(from_client).expect_err("nobody listens yet");
        let _application = stage.application(at(any(pod), APP_PORT));

        let answer = stage.as_host(|| exchange(from_client().unwrap(), "other").unwrap());

        assert_ne!(answer, format!("other from {client}"), "it passed the proxy by");
    }
    assert_eq!(stage.count(Counter::LookupInbound), 2);
}

#[test]
fn resets_towards_the_application_stay_inside_the_pod() {
    let Some(stage) = Stage::enrolled() else { return };
    let _proxy = stage.proxy();
    let wire = Wire::record(&stage);

    let port = stage.as_app(|| {
        let stream = connect(far(FAMILIES[0].0)).unwrap();
        // Unread data makes the close a reset.
        SockRef::from(&stream).peek(&mut [std::mem::MaybeUninit::uninit(); 1]).unwrap();
        stream.local_addr().unwrap().port()
    });

    assert_eq!(wire.tcp_to(port), 0);
}

#[test]
fn a_new_proxy_takes_over_from_an_old_one() {
    let Some(stage) = Stage::enrolled() else { return };
    let old = stage.as_actor(Actor::Proxy, || listener(15001, Domain::IPV6, true));
    let before = stage.steering.listeners(stage.cookie).unwrap();

    let _new = stage.as_actor(Actor::Proxy, || listener(15001, Domain::IPV6, true));
    let after = stage.steering.listeners(stage.cookie).unwrap();
    drop(old);

    assert_ne!(before[0].socket_cookie, after[0].socket_cookie);
    assert_eq!(stage.steering.listeners(stage.cookie).unwrap(), after);
}
