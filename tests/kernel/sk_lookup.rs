//! `sk_lookup`: which listener a new connection of the pod gets.

use std::{
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsFd,
    time::Duration,
};

use ebpf_common::{Counter, F_BYPASS_IN, LOCALS_PER_POD, PodConfig, ProbePorts};
use ebpf_loader::{Config, Steering};
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
fn a_pod_that_bypasses_inbound_capture_gets_plaintext_itself_and_tunnels_by_the_proxy() {
    let Some(stage) = Stage::enrolled() else { return };
    let (_proxy, own) = (stage.proxy(), stage.pod_config());
    let bypassing = PodConfig { flags: own.flags | F_BYPASS_IN, ..stage.pod_config_with_dns() };
    stage.steering.put_pod(stage.cookie, &bypassing).unwrap();

    for (pod, host) in FAMILIES {
        let _application = stage.application(at(any(pod), APP_PORT));
        let answer = stage.as_host(|| ask(at(pod, APP_PORT), "hello").unwrap());

        let expected = format!("hello from {}", at(host, 0).to_string().trim_end_matches('0'));
        assert!(answer.starts_with(&expected), "{answer}");
        assert_eq!(stage.as_host(|| exchange(connect(at(pod, 15008)).unwrap(), "").unwrap()), "hbone");
        for port in [15001, 15006, 15053] {
            let err =
                stage.as_host(|| connect(at(pod, port))).expect_err("the proxy must not take a stranger for the pod");
            assert_eq!(err.kind(), io::ErrorKind::ConnectionRefused, "{port}");
        }
    }
    assert_eq!((stage.count(Counter::LookupBypassed), stage.count(Counter::LookupInbound)), (2, 0));
    assert_eq!((stage.count(Counter::LookupRefused), stage.count(Counter::LookupHbone)), (6, 2));
    stage.steering.put_pod(stage.cookie, &own).unwrap();
    let _application = stage.application(at(any(FAMILIES[0].0), APP_PORT));
    stage.as_host(|| ask(at(FAMILIES[0].0, APP_PORT), "hello").unwrap());
    assert_eq!(stage.count(Counter::LookupInbound), 1);
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

/// Port of the listener to which the foreign program gives connections.
const FOREIGN_PORT: u16 = 9006;

/// A program of somebody else at the pod's namespace that gives its inbound connections to a listener of its own: the program of
/// another node's agent, told that this is the proxy's port. Like ours it replaces what was selected before it.
fn foreign_lookup(stage: &Stage) -> (Steering, Acceptor) {
    let foreign = Steering::open(Config {
        cgroup_root: stage.cgroup(Actor::Host),
        bpffs_dir: stage.pins.directory().with_file_name("foreign"),
        host_netns_cookie: stage.host.cookie().unwrap(),
    })
    .unwrap();
    let ports = PodConfig { out_port: 9001, in_port: FOREIGN_PORT, hbone_port: 9008, ..stage.pod_config() };
    foreign.put_pod(stage.cookie, &ports).unwrap();
    let listening = stage.as_app(|| {
        Acceptor::start(listener(FOREIGN_PORT, Domain::IPV6, false), |mut client| {
            let _ = client.write_all(b"foreign");
        })
    });
    let caught_up = foreign.catch_up(std::process::id()).unwrap();
    assert!(caught_up.noted.iter().any(|(cookie, ..)| *cookie == stage.cookie), "{caught_up:?}");
    foreign.attach_pod(stage.cookie, stage.pod.as_fd()).unwrap();
    (foreign, listening)
}

#[test]
fn the_selection_of_a_program_that_was_attached_before_is_replaced() {
    let Some(stage) = Stage::enrolled() else { return };
    let _proxy = stage.proxy();
    stage.steering.detach_pod(stage.cookie).unwrap();
    let _foreign = foreign_lookup(&stage);

    stage.steering.attach_pod(stage.cookie, stage.pod.as_fd()).unwrap();

    for (pod, _) in FAMILIES {
        let _application = stage.application(at(any(pod), APP_PORT));
        let answer = stage.as_host(|| ask(at(pod, APP_PORT), "hello").unwrap());
        assert!(answer.starts_with("hello from "), "{answer}");
    }
    assert_eq!(stage.count(Counter::LookupInbound), 2);
    assert_eq!(stage.count(Counter::LookupReplaced), 2);
}

#[test]
fn a_refusal_does_not_take_back_what_a_program_before_has_selected() {
    let Some(stage) = Stage::enrolled() else { return };
    stage.steering.detach_pod(stage.cookie).unwrap();
    let _foreign = foreign_lookup(&stage);

    stage.steering.attach_pod(stage.cookie, stage.pod.as_fd()).unwrap();

    for (pod, _) in FAMILIES {
        assert_eq!(stage.as_host(|| exchange(connect(at(pod, APP_PORT)).unwrap(), "").unwrap()), "foreign");
    }
    assert_eq!(stage.count(Counter::LookupOverruled), 2);
    assert_eq!(stage.count(Counter::NoListener), 0);
}

#[test]
fn a_program_that_was_attached_after_ours_and_replaces_selections_takes_the_connection() {
    let Some(stage) = Stage::enrolled() else { return };
    let _proxy = stage.proxy();

    let _foreign = foreign_lookup(&stage);

    for (pod, _) in FAMILIES {
        assert_eq!(stage.as_host(|| exchange(connect(at(pod, APP_PORT)).unwrap(), "").unwrap()), "foreign");
    }
    assert_eq!(stage.count(Counter::LookupInbound), 2, "ours has run and was replaced");
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

/// A GET of a prober's, and whether the application saw the prober's own connection.
fn probe(stage: &Stage, target: std::net::SocketAddr) -> bool {
    let (own, answer) = stage.as_prober(|| {
        let stream = connect(target).unwrap();
        (stream.local_addr().unwrap(), exchange(stream, "probe").unwrap())
    });
    answer == format!("probe from {own}")
}

#[test]
fn a_prober_passes_the_proxy_by_only_where_the_pod_declares_a_probe() {
    let Some(stage) = Stage::enrolled() else { return };
    let _proxy = stage.proxy();

    for (pod, _) in FAMILIES {
        let _declared = stage.application(at(any(pod), APP_PORT));
        let _other = stage.application(at(any(pod), APP_PORT + 2));

        assert!(probe(&stage, at(pod, APP_PORT)), "a declared probe met the proxy");
        assert!(!probe(&stage, at(pod, APP_PORT + 2)), "an undeclared port passed the proxy by");
    }
    assert_eq!(stage.count(Counter::LookupAdmitted), 2);
    assert_eq!(stage.count(Counter::ProbeUndeclared), 2);
    assert_eq!(stage.count(Counter::LookupInbound), 2);
}

#[test]
fn a_probe_that_is_no_longer_declared_meets_the_proxy() {
    let Some(stage) = Stage::enrolled() else { return };
    let _proxy = stage.proxy();
    stage.steering.put_probes(stage.cookie, &ProbePorts::of([APP_PORT + 1])).unwrap();

    for (pod, _) in FAMILIES {
        let _application = stage.application(at(any(pod), APP_PORT));

        assert!(!probe(&stage, at(pod, APP_PORT)));
    }
}

#[test]
fn a_probe_of_a_further_address_meets_the_proxy() {
    let Some(stage) = Stage::enrolled() else { return };
    let _proxy = stage.proxy();

    for address in SECOND {
        stage.add_pod_address(address);
        let _application = stage.application(at(any(address), APP_PORT));

        assert!(!probe(&stage, at(address, APP_PORT)));
    }
    assert_eq!(stage.count(Counter::ProbeUndeclared), 2);
}

#[test]
fn a_pod_has_no_more_than_its_share_of_further_addresses_and_gets_it_back_with_time() {
    let Some(stage) = Stage::enrolled() else { return };
    let _proxy = stage.proxy();
    let share = u8::try_from(LOCALS_PER_POD).unwrap();
    let further: Vec<IpAddr> = (0..share + 4).map(|last| Ipv4Addr::new(10, 77, 0, 120 + last).into()).collect();
    let _application = stage.application(at(any(further[0]), APP_PORT));
    for address in &further {
        stage.add_pod_address(*address);
        // The proxy accepts it in any case; what is not learnt does not get as far as the application.
        stage.as_host(|| connect(at(*address, APP_PORT)).map(drop)).unwrap();
    }

    assert_eq!(stage.steering.locals(stage.cookie).unwrap().len(), usize::from(share));
    assert!(stage.count(Counter::LocalsFull) >= 4);
    let kept = stage.steering.age_locals(Duration::from_secs(3600)).unwrap();
    assert_eq!((kept.known, kept.forgotten, kept.pods_full), (usize::from(share), 0, 1));
    let aged = stage.steering.age_locals(Duration::ZERO).unwrap();
    assert_eq!((aged.known, aged.forgotten, aged.pods_full), (0, usize::from(share), 0));

    let last = *further.last().unwrap();
    let answer = stage.as_host(|| ask(at(last, APP_PORT), "hello").unwrap());
    assert!(answer.starts_with("hello from "), "{answer}");
}

#[test]
fn a_neighbour_that_uses_up_its_share_takes_nothing_from_others() {
    let Some(stage) = Stage::enrolled() else { return };
    let _proxy = stage.proxy();
    // As many neighbours as a node can have, each with all that a pod can have.
    stage.fill_shares_of_neighbours();

    for address in SECOND {
        stage.add_pod_address(address);
        let _application = stage.application(at(any(address), APP_PORT));

        let answer = stage.as_host(|| ask(at(address, APP_PORT), "hello").unwrap());

        assert!(answer.starts_with("hello from "), "{answer}");
    }
    assert_eq!(stage.count(Counter::LocalsFull), 0);
}

#[test]
fn a_pod_that_is_forgotten_leaves_no_probes_and_no_addresses() {
    let Some(stage) = Stage::enrolled() else { return };
    let _proxy = stage.proxy();
    stage.add_pod_address(SECOND[0]);
    stage.as_host(|| connect(at(SECOND[0], APP_PORT)).map(drop)).unwrap();
    assert_eq!(stage.steering.locals(stage.cookie).unwrap(), [SECOND[0]]);

    stage.steering.remove_pod(stage.cookie).unwrap();

    assert_eq!(stage.steering.probes(stage.cookie).unwrap(), None);
    assert_eq!(stage.steering.locals(stage.cookie).unwrap(), Vec::<IpAddr>::new());
    let known = ebpf_loader::observe::cookies(&stage.config().bpffs_dir).unwrap();
    assert!(known.values().all(|cookies| !cookies.contains(&stage.cookie)), "{known:?}");
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
fn the_proxys_capture_ports_are_closed_to_others_in_a_pod_that_leaves() {
    let Some(stage) = Stage::enrolled() else { return };
    let _proxy = stage.proxy();
    stage.steering.put_pod(stage.cookie, &PodConfig { flags: 0, ..stage.pod_config() }).unwrap();

    for (pod, _) in FAMILIES {
        for port in [15001, 15006] {
            let err = stage.as_host(|| connect(at(pod, port))).unwrap_err();

            assert_eq!(err.kind(), io::ErrorKind::ConnectionRefused, "{port}");
        }
        // Peers that have not heard yet that the pod leaves.
        assert_eq!(stage.as_host(|| exchange(connect(at(pod, 15008)).unwrap(), "").unwrap()), "hbone");
    }
    assert_eq!(stage.count(Counter::LookupRefused), 4);
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
