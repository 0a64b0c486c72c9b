//! Every fact of a proof, disturbed on a real kernel under an enrolled pod. The pod stays announced as enrolled throughout, and
//! what the agent can repair is repaired. The same table with an injector of read errors is `enrol::tests::facts`.

use std::fs;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use contract::admin::agent::PodState;
use ebpf_common::{PodConfig, ProbePorts};
use ebpf_loader::Steering;
use runtime::sys::Netns;
use strake_agent::enrol::Fact;
use strake_agent::{rules, sysctl};

use crate::node::{ADDRESSES, Node, PROBE_PORT, Pod};
use crate::roles::Conduct;
use crate::wire::Wire;
use crate::world::ip;
use crate::{DESTINATION, DESTINATION_V6, Joined, captured, enrolled};

/// A proxy's cgroup outside of pods: below it there may be pods.
const PROXY: &str = "system/ztunnel";

/// Between two looks of the watcher.
const LOOK: Duration = Duration::from_millis(2);

/// Program that repairs what a row of the table has disturbed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repair {
    Agent,
    /// The agent cannot: it reports the pod as broken until the test undoes the row.
    Test,
}

type Act = fn(&mut Node, &Pod);

/// One way in which a fact does not hold.
struct Row {
    what: &'static str,
    repair: Repair,
    disturb: Act,
    undo: Act,
}

fn by_agent(what: &'static str, disturb: Act) -> Row {
    Row { what, repair: Repair::Agent, disturb, undo: |_, _| () }
}

fn by_test(what: &'static str, disturb: Act, undo: Act) -> Row {
    Row { what, repair: Repair::Test, disturb, undo }
}

/// A pin of the node by the end of its path.
fn pin(node: &Node, end: &str) -> PathBuf {
    let pins = node.files("bpf/mesh");
    let found = pins.iter().find(|pin| pin.to_string_lossy().contains(end));
    found.unwrap_or_else(|| panic!("no pin {end}: {pins:?}")).clone()
}

fn unpin(node: &Node, end: &str) {
    fs::remove_file(pin(node, end)).unwrap();
}

fn swap(node: &Node, one: &str, other: &str) {
    let (one, other) = (pin(node, one), pin(node, other));
    let aside = one.with_file_name("aside");
    for (from, to) in [(&one, &aside), (&other, &one), (&aside, &other)] {
        fs::rename(from, to).unwrap();
    }
}

/// Another handle of the node's programs and maps. Opening it replaces the agent's programs, as another agent would.
fn steering(node: &Node) -> Steering {
    Steering::open(ebpf_loader::Config {
        cgroup_root: node.cgroup().to_owned(),
        bpffs_dir: node.path("bpf/mesh"),
        host_netns_cookie: Netns::current().unwrap().cookie().unwrap(),
    })
    .unwrap()
}

fn change_entry(node: &Node, pod: &Pod, change: impl FnOnce(&mut PodConfig)) {
    let (steering, cookie) = (steering(node), pod.netns.cookie().unwrap());
    let mut entry = steering.pod(cookie).unwrap().unwrap();
    change(&mut entry);
    steering.put_pod(cookie, &entry).unwrap();
}

/// As [`change_entry`], of the ports on which probes bypass the proxy; none: no entry.
fn put_probes(node: &Node, pod: &Pod, ports: &[u16]) {
    steering(node).put_probes(pod.netns.cookie().unwrap(), &ProbePorts::of(ports.iter().copied())).unwrap();
}

fn restart_proxy(node: &mut Node) {
    node.start_proxy(PROXY);
}

/// Starts the proxy again; the new one does this with pods that are announced to it, until [`obedient`].
fn disobedient(node: &mut Node, conduct: Conduct) {
    node.stop_proxy();
    conduct.begin(node);
    restart_proxy(node);
}

fn obedient(node: &mut Node) {
    Conduct::end(node);
}

fn on_both(pod: &Pod, arguments: &str) {
    for family in ["-4", "-6"] {
        ip(&pod.netns, &format!("{family} {arguments}"));
    }
}

/// The rows of a fact. A new fact does not compile without.
fn rows(fact: Fact) -> Vec<Row> {
    match fact {
        Fact::Connect4 => vec![
            by_agent("unpinned", |node, _| unpin(node, "root/strake_connect4")),
            by_agent("the pin of another", |node, _| swap(node, "root/strake_connect4", "root/strake_connect6")),
        ],
        Fact::Sendmsg4 => vec![by_agent("unpinned", |node, _| unpin(node, "root/strake_sendmsg4"))],
        Fact::Sendmsg6 => vec![
            by_agent("unpinned", |node, _| unpin(node, "root/strake_sendmsg6")),
            by_agent("the pin of another", |node, _| swap(node, "root/strake_sendmsg4", "root/strake_sendmsg6")),
        ],
        Fact::Recvmsg4 => vec![by_agent("unpinned", |node, _| unpin(node, "root/strake_recvmsg4"))],
        Fact::Recvmsg6 => vec![by_agent("unpinned", |node, _| unpin(node, "root/strake_recvmsg6"))],
        Fact::Getpeername4 => vec![by_agent("unpinned", |node, _| unpin(node, "root/strake_getpeer4"))],
        Fact::Getpeername6 => vec![by_agent("unpinned", |node, _| unpin(node, "root/strake_getpeer6"))],
        Fact::Bind4 => vec![by_agent("unpinned", |node, _| unpin(node, "root/strake_bind4"))],
        Fact::Bind6 => vec![by_agent("unpinned", |node, _| unpin(node, "root/strake_bind6"))],
        Fact::Connect6 => vec![
            by_agent("unpinned", |node, _| unpin(node, "root/strake_connect6")),
            by_agent("the pin of another", |node, _| swap(node, "root/strake_connect6", "root/strake_egress")),
        ],
        Fact::Egress => vec![
            by_agent("unpinned", |node, _| unpin(node, "root/strake_egress")),
            by_agent("the pin of another", |node, _| swap(node, "root/strake_egress", "root/strake_connect4")),
        ],
        Fact::Sockops => vec![
            by_agent("unpinned", |node, _| unpin(node, "root/strake_sockops")),
            by_agent("programs of another agent", |node, _| drop(steering(node))),
        ],
        Fact::PodEntry => vec![
            by_agent("no entry", |node, pod| {
                steering(node).remove_pod(pod.netns.cookie().unwrap()).unwrap();
            }),
            by_agent("captures nothing", |node, pod| change_entry(node, pod, |entry| entry.flags = 0)),
            by_agent("another port", |node, pod| change_entry(node, pod, |entry| entry.in_port = 1)),
        ],
        Fact::Probes => vec![
            by_agent("no entry", |node, pod| put_probes(node, pod, &[])),
            by_agent("a port too many", |node, pod| put_probes(node, pod, &[PROBE_PORT, PROBE_PORT + 1])),
            by_agent("another port", |node, pod| put_probes(node, pod, &[PROBE_PORT + 1])),
        ],
        Fact::SkLookup => vec![
            by_agent("detached", |node, pod| {
                assert!(steering(node).detach_pod(pod.netns.cookie().unwrap()).unwrap());
            }),
            by_agent("attached to another namespace", |node, pod| {
                let elsewhere = Netns::create().unwrap();
                steering(node).attach_pod(pod.netns.cookie().unwrap(), elsewhere.as_fd()).unwrap();
            }),
        ],
        Fact::Settings => vec![by_agent("switched off", |_, pod| {
            let off =
                || sysctl::SETTINGS.iter().try_for_each(|name| fs::write(PathBuf::from("/proc/sys").join(name), "0"));
            pod.netns.run(off).unwrap();
        })],
        Fact::Rules => vec![
            by_agent("gone", |_, pod| on_both(pod, &format!("rule del fwmark 0x111/0xfff lookup {}", rules::TABLE))),
            by_agent("behind another", |_, pod| {
                on_both(pod, &format!("rule del fwmark 0x111/0xfff lookup {}", rules::TABLE));
                on_both(pod, "rule add pref 0 lookup main");
            }),
            by_test(
                "the loopback interface is down",
                |_, pod| ip(&pod.netns, "link set lo down"),
                |_, pod| ip(&pod.netns, "link set lo up"),
            ),
        ],
        Fact::Outbound => vec![
            by_agent("no routes", |_, pod| on_both(pod, &format!("route flush table {}", rules::TABLE))),
            by_agent("no route for sockets that are bound to the interface", |_, pod| {
                on_both(pod, &format!("route del local default dev eth0 table {}", rules::TABLE));
            }),
            by_test(
                "a route of somebody else in the table",
                |_, pod| ip(&pod.netns, &format!("route add 192.0.2.0/24 dev eth0 table {}", rules::TABLE)),
                |_, pod| ip(&pod.netns, &format!("route del 192.0.2.0/24 dev eth0 table {}", rules::TABLE)),
            ),
        ],
        Fact::Address => vec![by_test(
            "gone",
            |_, pod| ip(&pod.netns, &format!("address del {}/32 dev eth0", ADDRESSES[0])),
            |_, pod| ip(&pod.netns, &format!("address add {}/32 dev eth0", ADDRESSES[0])),
        )],
        Fact::Inbound => vec![by_test(
            "not delivered",
            |_, pod| ip(&pod.netns, &format!("route del local {} table local", ADDRESSES[0])),
            |_, pod| {
                // The kernel makes the route with the address.
                for act in ["del", "add"] {
                    ip(&pod.netns, &format!("address {act} {}/32 dev eth0", ADDRESSES[0]));
                }
            },
        )],
        Fact::ProxyTag => vec![
            by_agent("unpinned", |node, _| unpin(node, "cgroups/strake_proxy")),
            by_agent("the pin of another", |node, _| swap(node, "cgroups/strake_proxy", "root/strake_connect4")),
        ],
        // A process whose cgroup's name says that it is of the pod, below the proxy's cgroup.
        Fact::ProxyCgroup => vec![by_test(
            "a process of the pod in the proxy's cgroup",
            |node, pod| node.start_intruder(&format!("{PROXY}/kubepods/pod{}/app", pod.uid)),
            |node, _| node.stop_intruder(),
        )],
        Fact::Listeners => vec![
            by_test("the proxy is gone", |node, _| node.stop_proxy(), |node, _| restart_proxy(node)),
            by_test("late", |node, _| disobedient(node, Conduct::LateListeners), |node, _| obedient(node)),
            by_test("refused", |node, _| disobedient(node, Conduct::Refuses), |node, _| obedient(node)),
        ],
        Fact::Acknowledged => vec![
            by_test("the proxy is gone", |node, _| node.stop_proxy(), |node, _| restart_proxy(node)),
            by_test("late", |node, _| disobedient(node, Conduct::LateAnswer), |node, _| obedient(node)),
            by_test("refused", |node, _| disobedient(node, Conduct::Refuses), |node, _| obedient(node)),
        ],
        // The kernel gives a namespace its cookie once: read with an injector only.
        Fact::NetnsCookie => Vec::new(),
    }
}

/// Looks all the time whether the pod is announced.
struct Watcher {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<usize>,
}

impl Watcher {
    fn start(node: &Node, pod: &Pod) -> Self {
        let (stop, overlay) = (Arc::new(AtomicBool::new(false)), node.overlay(pod));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut misses = 0;
            while !stopped.load(Ordering::Relaxed) {
                misses += usize::from(!fs::read_to_string(&overlay).is_ok_and(|text| text.contains("enabled")));
                std::thread::park_timeout(LOOK);
            }
            misses
        });
        Self { stop, thread }
    }

    /// Number of times that it was not.
    fn stop(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// Waits until connections of both families reach the proxy: of two changes, the second may be repaired a little later.
fn is_captured(node: &Node, pod: &Pod) {
    for to in [DESTINATION, DESTINATION_V6] {
        node.until("the pod's connections are captured", |node| (node.connect(pod, to) == captured(to)).then_some(()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_wrong_with_an_enrolled_pod_it_stays_announced_and_is_repaired_or_reported() {
    let Some(Joined { mut node, pod, .. }) = Joined::with_proxy(PROXY).await else { return };
    let watcher = Watcher::start(&node, &pod);
    let mut wire = Wire::start(&mut node, &pod).await;

    for (fact, row) in Fact::ALL.into_iter().flat_map(|fact| rows(fact).into_iter().map(move |row| (fact, row))) {
        let Row { what, repair, disturb, undo } = row;
        println!("{fact:?}: {what}");
        let before = repairs(&node, fact);
        wire.begin(&node, &pod);
        disturb(&mut node, &pod);
        match repair {
            Repair::Agent => node.until("it is repaired", |node| (repairs(node, fact) > before).then_some(())),
            Repair::Test => {
                node.until("it is reported", |node| {
                    let report = node.report(&pod)?;
                    let failed = report.checks.iter().any(|check| check.name == fact.name() && !check.ok);
                    (report.state == PodState::Broken && failed).then_some(())
                });
                undo(&mut node, &pod);
            }
        }
        node.until("the pod is proved again", |node| enrolled(node, &pod));
        is_captured(&node, &pod);
        wire.assert_as_the_table_says(&node, fact, what);
    }

    assert_eq!(watcher.stop(), 0, "the pod was not announced for a while");
    assert_eq!(node.count("strake_agent_withdrawals_total"), None);
    wire.leave(&mut node);
}

/// Number of times that the agent has found this fact to repair.
fn repairs(node: &Node, fact: Fact) -> usize {
    let metrics = node.get("/metrics").unwrap();
    // Routes are repaired with the rules on the kernel's notification, mostly before a proof has looked at their effect.
    let facts = [fact, if fact == Fact::Outbound { Fact::Rules } else { fact }];
    let names = facts.map(|fact| format!("strake_agent_repairs_total{{check=\"{}\"}}", fact.name()));
    let counts = metrics.lines().filter(|line| names.iter().any(|name| line.starts_with(name)));
    counts.map(|line| line.rsplit(' ').next().unwrap().parse::<usize>().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn links_that_others_make_and_remove_all_the_time_say_nothing_about_an_enrolled_pod() {
    let Some(Joined { node, pod, .. }) = Joined::new().await else { return };
    let Some(other) = Node::new() else { return };
    let watcher = Watcher::start(&node, &pod);
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, busy) = (stop.clone(), steering(&other));
    let storm = std::thread::spawn(move || {
        let mut made = 0;
        while !stopped.load(Ordering::Relaxed) {
            let netns = Netns::create().unwrap();
            let cookie = netns.cookie().unwrap();
            busy.attach_pod(cookie, netns.as_fd()).unwrap();
            busy.detach_pod(cookie).unwrap();
            made += 1;
        }
        busy.unload().unwrap();
        made
    });

    let before = node.count("strake_agent_surveys_total").unwrap();
    node.until("some surveys", |node| (node.count("strake_agent_surveys_total")? >= before + 4).then_some(()));
    let report = node.report(&pod).unwrap();
    stop.store(true, Ordering::Relaxed);
    let made = storm.join().unwrap();

    println!("{made} links made and removed meanwhile");
    assert_eq!(report.state, PodState::Enrolled, "{report:?}");
    assert_eq!(watcher.stop(), 0);
    assert_eq!(node.count("strake_agent_unverified_total"), None, "{}", node.get("/metrics").unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_without_descriptors_keeps_the_pod_announced_and_says_afterwards_that_it_could_not_look() {
    let Some(Joined { node, pod, agent, .. }) = Joined::new().await else { return };
    let watcher = Watcher::start(&node, &pod);

    let limit = node.limit_descriptors(agent, 0);
    // Longer than two rounds of proofs, and no other way to know: the agent cannot be asked meanwhile.
    std::thread::park_timeout(Duration::from_secs(8));
    assert_eq!(node.connect(&pod, DESTINATION), captured(DESTINATION), "the kernel works on");
    node.limit_descriptors(agent, limit);
    node.until("the pod is proved again", |node| enrolled(node, &pod));

    assert_eq!(watcher.stop(), 0);
    assert!(node.count("strake_agent_unverified_total") >= Some(1));
    assert_eq!(node.count("strake_agent_withdrawals_total"), None);
    assert!(node.get("/metrics").unwrap().contains(r#"strake_agent_unreadable_total{check="sk_lookup"}"#));
}
