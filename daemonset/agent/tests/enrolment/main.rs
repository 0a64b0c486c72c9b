//! The agent as a process, with the real kernel programs, against a proxy that only listens and tells where
//! connections were going.

mod node;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use model::report::PodState;
use node::{Node, Pod};
use runtime::sys::Netns;
use socket2::{Domain, SockRef, Socket, Type};
use strake_agent::cgroups::CgroupTree;
use strake_agent::finder::{FindError, Finder};
use strake_agent::rules;
use zds::client::{Client, Command};

/// Set for the process that plays the proxy: the agent's socket.
const PROXY: &str = "STRAKE_TEST_PROXY";
/// Set for the process that plays an application: where it connects.
const CLIENT: &str = "STRAKE_TEST_CLIENT";
const PROXY_CGROUP: &str = "kubepods/pod99999999-9999-4999-8999-999999999999/ztunnel";
const DESTINATION: &str = "10.1.2.3:80";
/// The proxy leaves connections to this address open.
const HELD: &str = "10.1.2.3:81";
const DESTINATION_V6: &str = "[fd01::3]:80";

/// Not a test: this process when it plays the proxy.
#[tokio::test]
async fn proxy_process() {
    let Some(path) = std::env::var_os(PROXY) else { return };
    let mut pods: Vec<(zds::PodId, Vec<TcpListener>)> = Vec::new();
    loop {
        let Ok(mut client) = Client::connect(Path::new(&path)).await else {
            std::thread::park_timeout(zds::RECONNECT_MIN);
            continue;
        };
        while let Ok(command) = client.next().await {
            let outcome = match command {
                Command::Add { uid, .. } if pods.iter().any(|(known, _)| *known == uid) => Ok(()),
                Command::Add { uid, netns, .. } => listen(netns).map(|listeners| pods.push((uid, listeners))),
                Command::Del { uid } => {
                    for (_, listeners) in pods.extract_if(.., |(known, _)| *known == uid) {
                        listeners.iter().for_each(|listener| {
                            let _: std::io::Result<()> = SockRef::from(listener).shutdown(std::net::Shutdown::Both);
                        });
                    }
                    Ok(())
                }
                Command::Keep { .. } | Command::SnapshotSent => Ok(()),
            };
            if client.ack(outcome.map_err(|error| error.to_string())).await.is_err() {
                break;
            }
        }
    }
}

/// A proxy's listeners in a pod; each tells every connection where it was going.
fn listen(netns: std::os::fd::OwnedFd) -> std::io::Result<Vec<TcpListener>> {
    Netns::from_fd(netns)?.run(|| {
        [15001, 15006, 15008]
            .into_iter()
            .map(|port| {
                let socket = Socket::new(Domain::IPV6, Type::STREAM, None)?;
                runtime::sys::socket::set_transparent(&socket)?;
                socket.set_reuse_address(true)?;
                socket.bind(&SocketAddr::from(([0_u16; 8], port)).into())?;
                socket.listen(16)?;
                let listener = TcpListener::from(socket);
                let accepting = listener.try_clone()?;
                std::thread::spawn(move || {
                    while let Ok((mut stream, _)) = accepting.accept() {
                        let to = stream.local_addr().map(runtime::sys::socket::canonical);
                        let _: std::io::Result<()> = write!(stream, "port {port} for {to:?}");
                        if to.is_ok_and(|to| to.to_string() == HELD) {
                            // Until the application ends it.
                            std::thread::spawn(move || stream.read(&mut [0]));
                        }
                    }
                });
                Ok(listener)
            })
            .collect()
    })
}

/// Not a test: this process when it plays an application.
#[test]
fn client_process() {
    let Ok(to) = std::env::var(CLIENT) else { return };
    let connected = TcpStream::connect_timeout(&to.parse().unwrap(), Duration::from_secs(5));
    if to == HELD {
        let mut stream = connected.unwrap();
        stream.read_exact(&mut [0; 4]).unwrap();
        println!("client: holding");
        // Until the proxy, or whoever started us, ends it.
        let _: std::io::Result<usize> = stream.read_to_end(&mut Vec::new());
        return;
    }
    let answer = connected.and_then(|mut stream| {
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut text = String::new();
        stream.read_to_string(&mut text).map(|_| text)
    });
    match answer {
        Ok(text) => println!("client: {text}"),
        Err(error) => println!("client: error {error}"),
    }
}

fn captured(to: &str) -> String {
    format!("port 15001 for Ok({to})")
}

fn enrolled(node: &Node, pod: &Pod) -> Option<()> {
    let report = node.report(pod)?;
    let proved = !report.checks.is_empty() && report.checks.iter().all(|check| check.ok);
    (report.state == PodState::Enrolled && proved && node.is_annotated(pod)).then_some(())
}

/// Link and program of the pod's namespace, as the report has them.
fn lookup(node: &Node, pod: &Pod) -> (String, String) {
    let checks = node.report(pod).unwrap().checks;
    let detail = checks.into_iter().find(|check| check.name == "sk_lookup").unwrap().detail;
    let number = |noun: &str| detail.split(noun).nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    (number("link "), number("program "))
}

fn outside(node: &Node, pod: &Pod) -> Option<()> {
    (node.report(pod)?.state == PodState::NotSelected && !node.is_annotated(pod)).then_some(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_pod_joins_and_leaves_with_the_label_of_its_namespace() {
    let Some(mut node) = Node::new() else { return };
    node.label_namespace(false);
    let pod = node.start_pod("web").await;
    node.start_agent();
    node.start_proxy(PROXY_CGROUP);
    node.until("the pod is known", |node| outside(node, &pod));
    assert!(node.report(&pod).unwrap().reason.contains("label"));
    assert!(node.connect(&pod, DESTINATION).starts_with("error"));
    node.until("the proxy is connected", |node| {
        node.get("/metrics").filter(|text| text.contains("ztunnel_connected 1"))
    });

    let begun = Instant::now();
    node.label_namespace(true);
    node.until("the pod is enrolled", |node| enrolled(node, &pod));
    let took = begun.elapsed();
    println!("enrolled {took:?} after the label");
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(node.connect(&pod, DESTINATION), captured(DESTINATION));
    assert_eq!(node.connect(&pod, DESTINATION_V6), captured(DESTINATION_V6));

    node.label_namespace(false);
    node.until("the pod has left", |node| outside(node, &pod));
    assert_eq!(rules::leftovers(&pod.netns).await.unwrap(), Vec::<String>::new());
    assert!(node.connect(&pod, DESTINATION).starts_with("error"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_leaves_keeps_its_rules_until_its_last_connection_has_ended() {
    let Some(mut node) = Node::new() else { return };
    node.label_namespace(true);
    let pod = node.start_pod("web").await;
    node.start_agent();
    node.start_proxy(PROXY_CGROUP);
    node.until("the pod is enrolled", |node| enrolled(node, &pod));
    let client = node.hold_connection(&pod);
    assert!(strake_agent::connections::proxied(&pod.netns).unwrap() > 0);

    node.label_namespace(false);
    node.until("the pod is leaving", |node| node.report(&pod).filter(|report| report.state == PodState::Leaving));
    assert!(!node.is_annotated(&pod));
    assert!(node.connect(&pod, DESTINATION).starts_with("error"), "a new connection was captured");
    assert_eq!(node.report(&pod).unwrap().state, PodState::Leaving);
    assert!(!rules::leftovers(&pod.netns).await.unwrap().is_empty());
    let begun = Instant::now();
    node.kill(client);
    node.until("the pod has left", |node| outside(node, &pod));

    assert!(begun.elapsed() < Duration::from_secs(5), "the grace period was waited for");
    assert_eq!(rules::leftovers(&pod.netns).await.unwrap(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_namespace_of_a_pod_is_the_one_that_holds_its_address() {
    let Some(mut node) = Node::new() else { return };
    let pod = node.start_pod("web").await;
    let foreign = Netns::create().unwrap();
    node.start_process_in(&pod, &foreign);
    let host = Netns::current().unwrap();
    let finder = Finder::new(CgroupTree::new(node.cgroup()), host.id());
    let ips = node::ADDRESSES.map(|ip| ip.parse().unwrap());

    let found = finder.find(&pod.uid, &ips).await.unwrap();
    let elsewhere = finder.find(&pod.uid, &["10.9.9.9".parse().unwrap()]).await;
    let unknown = finder.find("00000000-0000-4000-8000-ffffffffffff", &ips).await;
    let early = finder.find(&pod.uid, &[]).await;

    assert_eq!(found.netns.id(), pod.netns.id());
    assert!(matches!(elsewhere, Err(FindError::ForeignNamespace { candidates: 2 })), "{elsewhere:?}");
    assert!(matches!(unknown, Err(FindError::NoProcess)));
    assert!(matches!(early, Err(FindError::NoAddress)));
    let at_home = Finder::new(CgroupTree::new(node.cgroup()), pod.netns.id()).find(&pod.uid, &ips).await;
    assert!(at_home.is_err(), "the node's own namespace is nobody's");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_agent_finds_everything_and_interrupts_nothing() {
    let Some(mut node) = Node::new() else { return };
    node.label_namespace(true);
    let pod = node.start_pod("web").await;
    let agent = node.start_agent();
    node.start_proxy(PROXY_CGROUP);
    node.until("the pod is enrolled", |node| enrolled(node, &pod));
    let written = std::fs::metadata(node.overlay(&pod)).unwrap().modified().unwrap();
    let before = lookup(&node, &pod);

    assert!(node.terminate(agent));
    assert_eq!(node.connect(&pod, DESTINATION), captured(DESTINATION));
    let agent = node.start_agent();
    node.until("the pod is enrolled again", |node| enrolled(node, &pod));
    let after = lookup(&node, &pod);
    assert!(before.0 == after.0 && before.1 != after.1, "{before:?} {after:?}");
    node.kill(agent);
    assert_eq!(node.connect(&pod, DESTINATION), captured(DESTINATION));
    node.start_agent();
    node.until("the pod is enrolled a third time", |node| enrolled(node, &pod));

    assert_eq!(node.connect(&pod, DESTINATION), captured(DESTINATION));
    assert_eq!(
        std::fs::metadata(node.overlay(&pod)).unwrap().modified().unwrap(),
        written,
        "the claim was written anew"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_that_somebody_removes_come_back() {
    let Some(mut node) = Node::new() else { return };
    node.label_namespace(true);
    let pod = node.start_pod("web").await;
    node.start_agent();
    node.start_proxy(PROXY_CGROUP);
    node.until("the pod is enrolled", |node| enrolled(node, &pod));

    rules::remove(&pod.netns).await.unwrap();
    node.until("the repair is counted", |node| {
        node.get("/metrics").filter(|text| text.contains(r#"strake_agent_repairs_total{check="rules"} 1"#))
    });
    node.until("the pod is enrolled again", |node| enrolled(node, &pod));

    assert_eq!(node.connect(&pod, DESTINATION), captured(DESTINATION));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_proxy_the_pod_is_closed_and_a_new_proxy_opens_it() {
    let Some(mut node) = Node::new() else { return };
    node.label_namespace(true);
    let pod = node.start_pod("web").await;
    node.start_agent();
    let proxy = node.start_proxy(PROXY_CGROUP);
    node.until("the pod is enrolled", |node| enrolled(node, &pod));

    node.kill(proxy);
    assert!(node.connect(&pod, DESTINATION_V6).starts_with("error"));
    node.start_proxy(PROXY_CGROUP);
    node.until("the pod is served again", |node| {
        (node.connect(&pod, DESTINATION_V6) == captured(DESTINATION_V6)).then_some(())
    });

    node.until("the pod is proved again", |node| enrolled(node, &pod));
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_newer_of_two_proxies_ends_the_older_is_caught_up_with() {
    let Some(mut node) = Node::new() else { return };
    node.label_namespace(true);
    let pod = node.start_pod("web").await;
    node.start_agent();
    node.start_proxy(PROXY_CGROUP);
    node.until("the pod is enrolled", |node| enrolled(node, &pod));

    // The listeners of the second cannot be bound beside those of the first: it is connected and refuses the pod.
    let newer = node.start_proxy(PROXY_CGROUP);
    node.until("two are connected", |node| node.get("/metrics").filter(|text| text.contains("ztunnel_connected 2")));
    node.kill(newer);

    node.until("the older serves the pod", |node| enrolled(node, &pod));
    assert_eq!(node.connect(&pod, DESTINATION), captured(DESTINATION));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_in_the_cgroup_of_an_enrolled_pod_is_told_nothing() {
    let Some(mut node) = Node::new() else { return };
    node.label_namespace(true);
    let pod = node.start_pod("web").await;
    node.start_agent();
    node.until("the pod waits for a proxy", |node| {
        node.report(&pod).filter(|report| report.state == PodState::Failed && report.reason.contains("no ztunnel"))
    });

    node.start_proxy(&format!("kubepods/pod{}/sidecar", pod.uid));

    node.until("the refusal is counted", |node| {
        node.get("/metrics")
            .filter(|text| text.contains(r#"strake_agent_proxies_refused_total{reason="shares_cgroup"}"#))
    });
    assert!(!node.is_annotated(&pod));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_pod_leaves_no_entry_and_no_annotation() {
    let Some(mut node) = Node::new() else { return };
    node.label_namespace(true);
    let pod = node.start_pod("web").await;
    node.start_agent();
    node.start_proxy(PROXY_CGROUP);
    node.until("the pod is enrolled", |node| enrolled(node, &pod));

    node.forget(&pod);
    node.until("the pod is forgotten", |node| {
        (node.report(&pod).is_none() && !node.overlay(&pod).exists()).then_some(())
    });

    assert_eq!(rules::leftovers(&pod.netns).await.unwrap(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn uninstalling_leaves_nothing_on_the_node() {
    let Some(mut node) = Node::new() else { return };
    node.label_namespace(true);
    let pod = node.start_pod("web").await;
    let agent = node.start_agent();
    node.start_proxy(PROXY_CGROUP);
    node.until("the pod is enrolled", |node| enrolled(node, &pod));

    node.kill(agent);
    assert!(node.uninstall());

    assert!(!node.is_annotated(&pod));
    assert_eq!(rules::leftovers(&pod.netns).await.unwrap(), Vec::<String>::new());
    let pins = std::fs::read_dir(node.path("bpf/mesh")).map(Iterator::count).unwrap_or_default();
    assert_eq!(pins, 0, "pins are left");
    assert!(node.connect(&pod, DESTINATION).starts_with("error"));
}
