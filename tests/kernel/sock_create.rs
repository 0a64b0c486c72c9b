//! `cgroup/sock_create`: whose a socket is.

use ebpf_common::Counter;
use ebpf_loader::LoadError;
use socket2::{Domain, Socket, Type};

use crate::stage::{Actor, POD_V4, Stage, ask, far};

#[test]
fn only_sockets_of_the_proxys_cgroup_are_the_proxys() {
    let Some(stage) = Stage::enrolled() else { return };

    for actor in [Actor::App, Actor::Proxy, Actor::Prober] {
        stage.as_actor(actor, || Socket::new(Domain::IPV4, Type::STREAM, None).unwrap());
    }

    assert_eq!(stage.count(Counter::ProxySocket), 1);
    assert_eq!(stage.count(Counter::ProberSocket), 1);
    assert_eq!(stage.count(Counter::TagFailed), 0);
}

#[test]
fn an_application_that_uses_the_proxys_mark_is_captured_all_the_same() {
    let Some(stage) = Stage::enrolled() else { return };
    let _proxy = stage.proxy();

    let answer = stage.as_app(|| {
        let stream = crate::stage::connect_with(far(POD_V4), |socket| socket.set_mark(0x539)).unwrap();
        crate::stage::exchange(stream, "").unwrap()
    });

    assert!(answer.starts_with("outbound to "), "{answer}");
}

#[test]
fn an_untagged_cgroup_makes_application_sockets_again() {
    let Some(stage) = Stage::enrolled() else { return };
    let _proxy = stage.proxy();

    let removed = stage.steering.untag(&stage.cgroup(Actor::Proxy)).unwrap();
    let answer = stage.as_actor(Actor::Proxy, || ask(far(POD_V4), "").unwrap());

    assert!(removed);
    assert!(answer.starts_with("outbound to "), "{answer}");
    assert!(!stage.steering.untag(&stage.cgroup(Actor::Proxy)).unwrap());
}

#[test]
fn only_the_prober_that_was_chosen_keeps_its_tag() {
    let Some(stage) = Stage::new() else { return };
    let [prober, app, proxy] = [Actor::Prober, Actor::App, Actor::Proxy].map(|actor| stage.cgroup(actor));
    stage.steering.tag_prober(&app).unwrap();

    assert_eq!(stage.steering.untag_other_probers(Some(&prober)).unwrap(), 1);
    let survey = stage.steering.survey().unwrap();
    assert!(stage.steering.verify_prober(&survey, &prober).unwrap().ok);
    assert!(!stage.steering.verify_prober(&survey, &app).unwrap().ok);
    assert_eq!(stage.steering.untag_other_probers(None).unwrap(), 1);

    let survey = stage.steering.survey().unwrap();
    assert!(!stage.steering.verify_prober(&survey, &prober).unwrap().ok);
    assert!(stage.steering.verify_proxy(&survey, &proxy).unwrap().ok);
}

#[test]
fn the_whole_node_cannot_be_tagged_as_the_proxy() {
    let Some(stage) = Stage::new() else { return };
    let root = stage.config().cgroup_root;

    for cgroup in [root.as_path(), root.parent().unwrap()] {
        assert!(matches!(stage.steering.tag_proxy(cgroup), Err(LoadError::TagsEverything { .. })));
    }
}
