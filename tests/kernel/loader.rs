//! The loader: taking over, reading back, catching up, leaving nothing.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Write},
    os::fd::AsFd,
    path::PathBuf,
    process,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use aya::maps::MapData;
use ebpf_common::{
    Family, Kind, LAYOUT,
    layout::{COUNTERS_ENTRIES, PODS_ENTRIES},
    names,
};
use ebpf_loader::{Check, LoadError, Steering, observe};
use parking_lot::Mutex;
use runtime::sys::Netns;
use socket2::Domain;

use crate::stage::{
    self, APP_PORT, Acceptor, Actor, FAMILIES, HOST_V4, POD_V4, Stage, any, ask, at, connect, eventually, exchange,
    far, proxy::listener,
};

/// Surveys beside the storm of links.
const SURVEYS: usize = 300;

fn failed(checks: &[Check]) -> Vec<String> {
    checks.iter().filter(|check| !check.ok).map(|check| check.name.clone()).collect()
}

/// Checks of the node's programs that fail, read back now.
fn failed_root(steering: &Steering) -> Vec<String> {
    failed(steering.survey().unwrap().root())
}

/// Checks of the pod that fail, read back now.
fn failed_pod(stage: &Stage, steering: &Steering) -> Vec<String> {
    let survey = steering.survey().unwrap();
    failed(&steering.verify_pod(&survey, stage.cookie, stage.pod.as_fd()).unwrap())
}

#[test]
fn everything_that_was_attached_is_read_back() {
    let Some(stage) = Stage::enrolled() else { return };

    let survey = stage.steering.survey().unwrap();
    let root = survey.root();
    let pod = stage.steering.verify_pod(&survey, stage.cookie, stage.pod.as_fd()).unwrap();

    assert_eq!(failed(root), [""; 0], "{root:?}");
    assert_eq!(failed(&pod), [""; 0], "{pod:?}");
    let names: BTreeSet<_> = root.iter().map(|check| check.name.as_str()).collect();
    let of_both_families =
        ["bind", "connect", "getpeername", "recvmsg", "sendmsg"].map(|hook| [4, 6].map(|v| format!("{hook}{v}")));
    let others = ["egress", "sockops", "tag_prober", "tag_proxy"].map(str::to_owned);
    let expected: BTreeSet<_> = of_both_families.into_iter().flatten().chain(others).collect();
    assert_eq!(names, expected.iter().map(String::as_str).collect());
}

#[test]
fn a_link_that_somebody_removed_is_noticed() {
    let Some(stage) = Stage::enrolled() else { return };
    let pins = stage.pins.list();
    let remove = |name: &str| fs::remove_file(pins.iter().find(|pin| pin.ends_with(name)).unwrap()).unwrap();

    remove("strake_connect6");
    remove(&stage.cookie.to_string());

    assert_eq!(failed_root(&stage.steering), ["connect6"]);
    assert_eq!(failed_pod(&stage, &stage.steering), ["sk_lookup"]);
}

#[test]
fn a_survey_tells_how_things_were_when_it_was_taken() {
    let Some(stage) = Stage::enrolled() else { return };
    let before = stage.steering.survey().unwrap();

    stage.steering.detach_pod(stage.cookie).unwrap();
    let after = stage.steering.survey().unwrap();

    let links = before.links_at(&stage.pod).unwrap();
    assert!(links.len() == 1 && links[0].ends_with("of program strake_lookup"), "{links:?}");
    assert_eq!(after.links_at(&stage.pod).unwrap(), [""; 0]);
}

#[test]
fn a_link_without_a_pin_remains_although_it_does_not_count_as_proof() {
    let Some(stage) = Stage::enrolled() else { return };
    let pins = stage.pins.list();
    let held = stage::pins::unpin(pins.iter().find(|pin| pin.ends_with(stage.cookie.to_string())).unwrap());

    stage.steering.detach_pod(stage.cookie).unwrap();
    stage.steering.remove_pod(stage.cookie).unwrap();

    let remains =
        || stage.steering.remains(&stage.steering.survey().unwrap(), stage.cookie, stage.pod.as_fd()).unwrap();
    assert!(remains().len() == 1 && remains()[0].ends_with("strake_lookup"), "{:?}", remains());
    drop(held);
    eventually("the link is gone", || remains().is_empty());
}

#[test]
fn a_namespace_that_is_not_the_pods_is_noticed() {
    let Some(stage) = Stage::enrolled() else { return };

    let survey = stage.steering.survey().unwrap();
    let checks = stage.steering.verify_pod(&survey, stage.cookie, stage.host.as_fd()).unwrap();

    assert_eq!(failed(&checks), ["netns_cookie", "sk_lookup"]);
}

#[test]
fn a_successor_replaces_the_programs_in_place_and_connections_go_on() {
    let Some(stage) = Stage::enrolled() else { return };
    let _proxy = stage.proxy();
    let live = stage.as_app(|| connect(far(POD_V4)).unwrap());
    let listeners = stage.steering.listeners(stage.cookie).unwrap();

    let successor = Steering::open(stage.config()).unwrap();
    successor.attach_pod(stage.cookie, stage.pod.as_fd()).unwrap();

    assert_eq!(failed_root(&successor), [""; 0]);
    assert_eq!(failed_pod(&stage, &successor), [""; 0]);
    assert_eq!(failed_root(&stage.steering).len(), 14, "the predecessor's programs run nowhere");
    assert_eq!(successor.listeners(stage.cookie).unwrap(), listeners);
    assert_eq!(successor.pods().unwrap(), [(stage.cookie, stage.pod_config())]);
    let answer = stage.as_app(|| exchange(live, "").unwrap());
    assert!(answer.starts_with("outbound to "), "{answer}");
    let answer = stage.as_app(|| ask(far(POD_V4), "").unwrap());
    assert!(answer.starts_with("outbound to "), "{answer}");
}

#[test]
fn a_proxy_that_listened_before_its_pod_was_entered_is_caught_up_with() {
    let Some(stage) = Stage::new() else { return };
    let _proxy = stage.proxy();
    stage.enrol();
    assert_eq!(stage.steering.listeners(stage.cookie).unwrap(), []);

    let caught_up = stage.steering.catch_up(process::id()).unwrap();

    let mut noted = caught_up.noted;
    noted.retain(|(cookie, ..)| *cookie == stage.cookie);
    noted.sort_unstable();
    noted.dedup();
    assert_eq!(noted, [Kind::Inbound, Kind::Outbound, Kind::Hbone].map(|kind| (stage.cookie, kind, Family::V6)));
    for (pod, _) in FAMILIES {
        let _application = stage.application(at(any(pod), APP_PORT));
        assert!(stage.as_app(|| ask(far(pod), "").unwrap()).starts_with("outbound to "));
        assert!(stage.as_host(|| ask(at(pod, APP_PORT), "hello").unwrap()).starts_with("hello from "));
    }
}

#[test]
fn a_pod_that_nobody_knows_is_swept() {
    let Some(stage) = Stage::enrolled() else { return };

    assert_eq!(stage.steering.sweep(&BTreeSet::from([stage.cookie])).unwrap().pods, BTreeSet::new());
    let swept = stage.steering.sweep(&BTreeSet::new()).unwrap();

    assert_eq!(swept.pods, BTreeSet::from([stage.cookie]));
    assert_eq!(stage.steering.pods().unwrap(), []);
    assert_eq!(failed_pod(&stage, &stage.steering), ["pod_entry", "sk_lookup"]);
}

#[test]
fn the_tag_of_a_cgroup_that_has_gone_is_no_fault_and_is_swept() {
    let Some(stage) = Stage::enrolled() else { return };
    let short_lived = stage.config().cgroup_root.join("short-lived");
    fs::create_dir(&short_lived).unwrap();
    stage.steering.tag_proxy(&short_lived).unwrap();

    fs::remove_dir(&short_lived).unwrap();
    let survey = stage.steering.survey().unwrap();
    let swept = stage.steering.sweep(&BTreeSet::from([stage.cookie])).unwrap();

    assert_eq!(failed(survey.root()), [""; 0], "{:?}", survey.root());
    assert_eq!(swept.cgroups, 1);
    assert_eq!(stage.steering.sweep(&BTreeSet::from([stage.cookie])).unwrap().cgroups, 0);
}

#[test]
fn who_only_looks_sees_programs_pods_and_listeners() {
    let Some(stage) = Stage::new() else { return };
    let bpffs_dir = stage.config().bpffs_dir;
    assert_eq!(observe::links_at(&stage.pod).unwrap().len(), 0);

    stage.enrol();
    let _proxy = stage.proxy();

    let links = observe::links_at(&stage.pod).unwrap();
    assert!(links.len() == 1 && links[0].ends_with("of program strake_lookup"), "{links:?}");
    let known = observe::cookies(&bpffs_dir).unwrap();
    assert_eq!(known[names::PODS], BTreeSet::from([stage.cookie]));
    assert_eq!(known[names::SOCKS], BTreeSet::from([stage.cookie]));
    assert_eq!(known[names::LOCALS], BTreeSet::new());
    assert_eq!(observe::pod(&bpffs_dir, stage.cookie).unwrap(), Some(stage.pod_config()));
    assert_eq!(observe::pod(&bpffs_dir, 0).unwrap(), None);
}

#[test]
fn unloading_leaves_nothing() {
    let Some(stage) = Stage::enrolled() else { return };
    let _server = stage.as_host(|| Acceptor::application(at(any(HOST_V4), APP_PORT)));
    assert!(!stage.pins.list().is_empty());

    stage.steering.unload().unwrap();

    assert_eq!(stage.pins.list(), Vec::<PathBuf>::new());
    let off = failed_root(&stage.steering);
    assert_eq!(off.len(), 12, "{off:?}");
    assert!(
        ["bind4", "connect6", "sendmsg4", "sockops"].iter().all(|name| off.iter().any(|one| one == name)),
        "{off:?}"
    );
    let answer = stage.as_app(|| ask(at(HOST_V4, APP_PORT), "hello").unwrap());
    assert!(answer.starts_with("hello from 10.77.0.2:"), "{answer}");
}

#[test]
fn unloading_does_not_claim_what_the_kernel_denies() {
    let Some(stage) = Stage::enrolled() else { return };
    let pins = stage.pins.list();
    let held = stage::pins::unpin(pins.iter().find(|pin| pin.ends_with("strake_connect6")).unwrap());

    let left = stage.steering.unload();

    assert!(
        matches!(&left, Err(LoadError::StillAttached { left }) if left.len() == 1 && left[0].ends_with("strake_connect6")),
        "{left:?}"
    );
    drop(held);
    eventually("nothing is attached", || stage.steering.unload().is_ok());
}

#[test]
fn pins_outside_a_bpf_file_system_are_refused() {
    let Some(stage) = Stage::new() else { return };
    let directory = tempfile::tempdir().unwrap();
    let config = ebpf_loader::Config { bpffs_dir: directory.path().join("pins"), ..stage.config() };

    assert!(matches!(Steering::open(config), Err(LoadError::NotBpffs { .. })));
}

#[test]
fn pins_of_another_layout_are_refused() {
    let Some(stage) = Stage::new() else { return };
    fs::create_dir(stage.config().bpffs_dir.join("layout-0")).unwrap();

    assert!(matches!(Steering::open(stage.config()), Err(LoadError::OtherLayout { .. })));
}

#[test]
fn uninstalling_detaches_what_another_layout_has_pinned() {
    let Some(stage) = Stage::enrolled() else { return };
    let base = stage.config().bpffs_dir;
    fs::rename(base.join(format!("layout-{LAYOUT}")), base.join("layout-0")).unwrap();
    assert!(matches!(Steering::open(stage.config()), Err(LoadError::OtherLayout { .. })));

    let removed = ebpf_loader::remove_other_layouts(&base).unwrap();

    assert_eq!(removed, 1);
    assert_eq!(observe::links_at(&stage.pod).unwrap(), [""; 0]);
    assert_eq!(fs::read_dir(&base).unwrap().count(), 0);
    assert_eq!(ebpf_loader::remove_other_layouts(&base).unwrap(), 0);
    let successor = Steering::open(stage.config()).unwrap();
    assert_eq!(failed_root(&successor), [""; 0]);
}

#[test]
fn links_that_others_make_and_remove_meanwhile_do_not_disturb_a_survey() {
    let Some(stage) = Stage::enrolled() else { return };
    let Some(other) = Stage::new() else { return };
    let stop = AtomicBool::new(false);

    let made = thread::scope(|scope| {
        let storm = || {
            let mut made = 0;
            while !stop.load(Ordering::Relaxed) {
                let netns = Netns::create().unwrap();
                let cookie = netns.cookie().unwrap();
                other.steering.attach_pod(cookie, netns.as_fd()).unwrap();
                other.steering.detach_pod(cookie).unwrap();
                made += 1;
            }
            made
        };
        let storms = [scope.spawn(storm), scope.spawn(storm)];
        for _ in 0..SURVEYS {
            assert_eq!(failed_root(&stage.steering), [""; 0]);
            assert_eq!(failed_pod(&stage, &stage.steering), [""; 0]);
        }
        stop.store(true, Ordering::Relaxed);
        storms.map(|storm| storm.join().unwrap())
    });

    println!("{made:?} links made and removed during {SURVEYS} surveys");
}

#[test]
fn a_map_that_is_not_what_the_number_of_its_layout_says_is_refused() {
    let Some(stage) = Stage::new() else { return };
    let maps = stage.config().bpffs_dir.join(format!("layout-{LAYOUT}/maps"));
    let pin = maps.join(names::COUNTERS);
    fs::remove_file(&pin).unwrap();
    MapData::from_pin(maps.join(names::PODS)).unwrap().pin(&pin).unwrap();

    let refused = Steering::open(stage.config()).unwrap_err();

    let LoadError::OtherMap { path, found, expected } = &refused else { panic!("{refused}") };
    assert_eq!((path, found.entries as usize, expected.entries as usize), (&pin, PODS_ENTRIES, COUNTERS_ENTRIES));
    assert!(refused.to_string().contains("uninstall"), "{refused}");
}

#[test]
fn what_is_pinned_is_what_the_layout_says() {
    let Some(stage) = Stage::new() else { return };
    let pins = stage.pins.list();
    let maps = pins.iter().filter(|pin| pin.parent().is_some_and(|parent| parent.ends_with("maps")));

    let names: BTreeSet<_> = maps.map(|pin| pin.file_name().unwrap().to_str().unwrap()).collect();

    assert_eq!(names, BTreeSet::from(names::MAPS));
    // It compares what is pinned with the layout before it loads anything.
    Steering::open(stage.config()).unwrap();
}

#[test]
fn log_lines_of_the_programs_become_events() {
    let Some(mut stage) = Stage::enrolled() else { return };
    let mut log = stage.steering.take_log().unwrap();
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();

    let _listener = stage.as_actor(Actor::Proxy, || listener(15001, Domain::IPV6, false));
    tracing::subscriber::with_default(subscriber, || log.flush());

    let text = lines.text();
    let expected = format!("listener on port 15001 noted for netns {}", stage.cookie);
    assert!(text.contains("INFO ebpf: ") && text.contains(&expected), "{text}");
    assert!(stage.steering.take_log().is_none());
}

/// Collects what a subscriber writes.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock()).into_owned()
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
