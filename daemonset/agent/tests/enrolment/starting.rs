//! A pod's way into the mesh before any process of it runs, at the wish of a CNI plugin.

use std::thread;
use std::time::{Duration, Instant};

use contract::cni::{AddRequest, AddResponse, Outcome, PLUGIN_TIMEOUT};
use strake_agent::rules;

use crate::node::{Node, Pod};
use crate::plugin::Plugin;
use crate::{DESTINATION, DESTINATION_V6, PROXY_CGROUP, captured, enrolled};

/// Far less than an agent waits for what is late.
const AT_ONCE: Duration = Duration::from_secs(1);

/// A node with an agent, and a pod that has a network and nothing else.
async fn node(ambient: bool) -> Option<(Node, Plugin, Pod)> {
    let mut node = Node::new()?;
    node.label_namespace(ambient);
    node.start_agent();
    let (plugin, pod) = (Plugin::of(&node), node.start_sandbox("web", 1).await);
    Some((node, plugin, pod))
}

/// Fails unless the pod is proved to be in the mesh, and its very first connections are captured.
fn assert_captured(node: &Node, pod: &Pod) {
    assert!(enrolled(node, pod).is_some(), "{:?}", node.report(pod));
    assert_eq!(node.connect(pod, DESTINATION), captured(DESTINATION));
    assert_eq!(node.connect(pod, DESTINATION_V6), captured(DESTINATION_V6));
}

type Answer = Result<(u16, AddResponse), String>;

#[track_caller]
fn assert_allowed(answer: Answer) {
    let (status, response) = answer.unwrap();
    assert_eq!((status, response.outcome), (200, Outcome::Enrolled), "{response:?}");
}

#[track_caller]
fn assert_refused(answer: Answer, status: u16, outcome: Outcome, why: &str) {
    let (found, response) = answer.unwrap();
    assert_eq!((found, response.outcome), (status, outcome), "{response:?}");
    assert!(response.reason.contains(why), "{response:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_without_processes_and_without_an_address_in_its_status_is_enrolled_when_the_answer_comes() {
    let Some((mut node, plugin, pod)) = node(true).await else { return };
    node.start_proxy(PROXY_CGROUP);
    node.schedule(&pod);

    assert_allowed(plugin.ask(&Plugin::request(&pod)));

    assert_captured(&node, &pod);
    let answered = r#"istio_cni_plugin_requests_total{response_code="200"} 1"#;
    assert!(node.get("/metrics").unwrap().contains(answered));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_comes_before_the_cluster_has_told_of_the_pod_waits_for_it() {
    let Some((mut node, plugin, pod)) = node(true).await else { return };
    node.start_proxy(PROXY_CGROUP);
    let request = Plugin::request(&pod);
    let early = thread::spawn(move || plugin.ask(&request));
    node.until("the agent has the request", |node| {
        node.get("/metrics").filter(|text| text.contains("strake_agent_cni_requests_waiting 1"))
    });

    node.schedule(&pod);

    assert_allowed(early.join().unwrap());
    assert_captured(&node, &pod);
}

#[tokio::test(flavor = "multi_thread")]
async fn istios_request_without_a_uid_means_the_pod_of_that_name() {
    let Some((mut node, plugin, pod)) = node(true).await else { return };
    node.start_proxy(PROXY_CGROUP);
    node.schedule(&pod);
    let mut request = Plugin::request(&pod);
    request.pod_uid = None;

    assert_allowed(plugin.ask(&request));

    assert_captured(&node, &pod);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_not_labelled_is_refused_at_once() {
    let Some((node, plugin, pod)) = node(false).await else { return };
    node.schedule(&pod);
    node.until("the pod is known", |node| node.report(&pod));

    let begun = Instant::now();
    let answer = plugin.ask(&Plugin::request(&pod));

    assert_refused(answer, 500, Outcome::NotSelected, "label");
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    assert_eq!(rules::leftovers(&pod.netns).await.unwrap(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_proxy_the_answer_says_so_before_the_plugin_gives_up_and_the_next_one_is_good() {
    let Some((mut node, plugin, pod)) = node(true).await else { return };
    node.schedule(&pod);

    let begun = Instant::now();
    let answer = plugin.ask(&Plugin::request(&pod));

    assert_refused(answer, 500, Outcome::Failed, "no ztunnel connection");
    assert!(begun.elapsed() < PLUGIN_TIMEOUT, "{:?}", begun.elapsed());
    assert!(!node.is_annotated(&pod));
    node.start_proxy(PROXY_CGROUP);
    assert_allowed(plugin.ask(&Plugin::request(&pod)));
    assert_captured(&node, &pod);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_at_the_same_time_and_one_whose_plugin_has_gone_enrol_the_pod_once() {
    let Some((mut node, plugin, pod)) = node(true).await else { return };
    let request = Plugin::request(&pod);
    drop(plugin.send(&serde_json::to_string(&request).unwrap()).unwrap());
    let ask = || {
        let (plugin, request) = (plugin.clone(), request.clone());
        thread::spawn(move || plugin.ask(&request))
    };
    let asked = [ask(), ask(), ask()];
    node.schedule(&pod);
    node.start_proxy(PROXY_CGROUP);

    for answer in asked {
        assert_allowed(answer.join().unwrap());
    }
    assert_captured(&node, &pod);
    assert_eq!(node.count("strake_agent_enrolments_total"), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_deleted_meanwhile_is_refused_and_leaves_nothing() {
    let Some((node, plugin, pod)) = node(true).await else { return };
    node.schedule(&pod);
    let request = Plugin::request(&pod);
    let asked = thread::spawn(move || plugin.ask(&request));
    node.until("the agent is at work", |node| node.report(&pod).filter(|report| report.reason.contains("announce")));

    node.forget(&pod);

    assert_refused(asked.join().unwrap(), 500, Outcome::Failed, "gone");
    node.until("nothing is left", |node| node.report(&pod).is_none().then_some(()));
    assert_eq!(rules::leftovers(&pod.netns).await.unwrap(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_dies_over_a_request_leaves_it_unanswered_and_its_successor_answers_the_next() {
    let Some(mut node) = Node::new() else { return };
    node.label_namespace(true);
    let agent = node.start_agent();
    let (plugin, pod) = (Plugin::of(&node), node.start_sandbox("web", 1).await);
    node.schedule(&pod);
    let (early, request) = (plugin.clone(), Plugin::request(&pod));
    let asked = thread::spawn(move || early.ask(&request));
    node.until("the agent is at work", |node| node.report(&pod).filter(|report| report.reason.contains("announce")));

    node.kill(agent);

    asked.join().unwrap().unwrap_err();
    plugin.ask(&Plugin::request(&pod)).unwrap_err();
    node.start_agent();
    node.start_proxy(PROXY_CGROUP);
    assert_allowed(plugin.ask(&Plugin::request(&pod)));
    assert_captured(&node, &pod);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_sandbox_of_a_pod_takes_the_place_of_the_old_one() {
    let Some((mut node, plugin, pod)) = node(true).await else { return };
    node.start_proxy(PROXY_CGROUP);
    node.schedule(&pod);
    assert_allowed(plugin.ask(&Plugin::request(&pod)));
    let next = node.start_sandbox("web", 1).await;

    assert_allowed(plugin.ask(&Plugin::request(&next)));

    assert_captured(&node, &next);
    assert_eq!(rules::leftovers(&pod.netns).await.unwrap(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_cannot_be_right_is_refused_with_what_was_expected() {
    let Some((node, plugin, pod)) = node(true).await else { return };
    node.schedule(&pod);
    let good = Plugin::request(&pod);
    let own = Pod { netns: runtime::sys::Netns::create().unwrap(), uid: pod.uid.clone(), name: pod.name.clone() };
    let with = |change: &dyn Fn(&mut AddRequest)| {
        let mut request = good.clone();
        change(&mut request);
        plugin.ask(&request)
    };

    for (answer, outcome, why) in [
        (with(&|request| request.ips.clear()), Outcome::Failed, "at least one in IPs"),
        (with(&|request| request.netns = "/nowhere".to_owned()), Outcome::Failed, "/nowhere"),
        (with(&|request| request.netns = "/proc/self/ns/net".to_owned()), Outcome::Failed, "the node's own"),
        (with(&|request| request.netns = Plugin::request(&own).netns), Outcome::Failed, "none of the pod's addresses"),
    ] {
        assert_refused(answer, 500, outcome, why);
    }
    for body in ["", "{}", "[1]", r#"{"Netns": 1}"#] {
        let (status, answer) = plugin.post(body).unwrap();
        assert!(status == 400 && answer.contains("invalid request"), "{body}: {status} {answer}");
    }
    let other = with(&|request| request.pod_uid = Some("00000000-0000-4000-9000-000000000002".to_owned()));
    assert_refused(other, 500, Outcome::Failed, "another pod of this name");
}
