//! Updates, responses and answers, one step after the other, at times that the tests choose.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use compile::Compiler;
use contract::labels::{REDIRECTION_ANNOTATION, REDIRECTION_ENABLED};
use graph::Mesh;
use identity::Caller;
use kube_types::core::Pod;
use kube_types::istio::{AuthorizationPolicy, MutualTls, PeerAuthentication, TlsMode, WorkloadSelector};
use kube_types::{Kind, ObjectRef, Resource};
use proto::{ADDRESS_TYPE_URL as ADDRESS, AUTHORIZATION_TYPE_URL as POLICY, Change};
use tokio::sync::mpsc;
use tokio::time::Instant;
use xds_server::{Peer, Report};

use super::state::State;
use super::unacked::ANSWERS_WITHIN;
use super::{Acks, Action, Event, Origin, Type};
use crate::conditions;
use crate::events::Events;
use crate::reports::Reports;

pub(crate) const WEB: &str = "Kubernetes//Pod/app/web";
const STATIC_STRICT: &str = "istio-system/istio_converted_static_strict";

/// A compiler and the state behind the conditions.
struct Bench {
    compiler: Compiler,
    state: State,
    now: Instant,
    /// Versions by type and name.
    served: BTreeMap<(&'static str, String), String>,
    nonce: u32,
    /// Reason and message of `Enforced`, by policy.
    said: HashMap<ObjectRef, (String, String)>,
    deadline: Option<Instant>,
}

impl Bench {
    fn new(resources: impl IntoIterator<Item = Resource>) -> Self {
        let mut bench = Self {
            compiler: Compiler::new(Mesh::default()),
            state: State::default(),
            now: Instant::now(),
            served: BTreeMap::new(),
            nonce: 0,
            said: HashMap::new(),
            deadline: None,
        };
        bench.apply(resources);
        bench
    }

    fn apply(&mut self, resources: impl IntoIterator<Item = Resource>) {
        for resource in resources {
            self.compiler.apply(resource);
        }
        let update = self.compiler.settle();
        for (kind, changes) in [(POLICY, &update.authorizations), (ADDRESS, &update.addresses)] {
            for change in changes {
                match change.clone() {
                    Change::Upsert { name, version, .. } => drop(self.served.insert((kind, name), version)),
                    Change::Remove { name } => drop(self.served.remove(&(kind, name))),
                }
            }
        }
        self.state.on_update(&update, &HashMap::new(), self.now);
        self.look();
    }

    /// Reads the conditions that changed.
    fn look(&mut self) {
        let (changed, deadline) = self.state.changed_conditions(self.now);
        self.deadline = deadline;
        for wanted in changed {
            let enforced = wanted.status.conditions.into_iter().find(|condition| condition.r#type == "Enforced");
            let Some(enforced) = enforced else {
                // The policy is gone.
                self.said.remove(&wanted.object);
                continue;
            };
            let status_and_reason = format!("{} {}", enforced.status, enforced.reason.unwrap());
            self.said.insert(wanted.object, (status_and_reason, enforced.message.unwrap()));
        }
    }

    fn report(&mut self, report: Report) {
        self.state.on_report(&report, self.now);
        self.look();
    }

    fn connect(&mut self, node: &str, connection: u64) -> Peer {
        let peer = peer(node, connection, "ztunnel");
        self.report(Report::Connected { peer: peer.clone() });
        peer
    }

    /// Sends what is served of a name, and returns the nonce.
    fn send(&mut self, peer: &Peer, kind: &'static str, name: &str) -> String {
        self.nonce += 1;
        let version = self.served[&(kind, name.to_owned())].as_str().into();
        let (type_url, nonce) = (kind.to_owned(), self.nonce.to_string());
        let resources = vec![(name.into(), version)];
        self.report(Report::Sent { peer: peer.clone(), type_url, nonce, resources, removed: Vec::new() });
        self.nonce.to_string()
    }

    fn ack(&mut self, peer: &Peer, kind: &str, nonce: &str) {
        self.report(Report::Acked { peer: peer.clone(), type_url: kind.to_owned(), nonce: nonce.to_owned() });
    }

    fn nack(&mut self, peer: &Peer, kind: &str, nonce: &str, error: &str) {
        let (type_url, nonce) = (kind.to_owned(), nonce.to_owned());
        self.report(Report::Nacked { peer: peer.clone(), type_url, nonce, error: error.to_owned() });
    }

    /// Sends everything, and has it acknowledged.
    fn catch_up(&mut self, peer: &Peer) {
        let all: Vec<_> = self.served.keys().cloned().collect();
        for (kind, name) in all {
            let nonce = self.send(peer, kind, &name);
            self.ack(peer, kind, &nonce);
        }
    }

    fn says(&self, policy: &ObjectRef) -> &str {
        &self.said[policy].0
    }
}

pub(crate) fn peer(node: &str, connection: u64, account: &str) -> Peer {
    let identity = format!("spiffe://cluster.local/ns/istio-system/sa/{account}").parse().unwrap();
    Peer {
        connection,
        caller: Caller { node: node.to_owned(), identity },
        node_id: String::new(),
        version: String::new(),
    }
}

/// Makes a pod in the mesh.
pub(crate) fn pod(name: &str, node: &str) -> Pod {
    let mut pod = Pod::default();
    pod.metadata.name = name.to_owned();
    pod.metadata.namespace = "app".to_owned();
    pod.metadata.labels.insert("app".to_owned(), name.to_owned());
    let enrolled = (REDIRECTION_ANNOTATION.to_owned(), REDIRECTION_ENABLED.to_owned());
    pod.metadata.annotations.extend([enrolled]);
    pod.spec.node_name = Some(node.to_owned());
    pod.status.pod_ip = Some("10.0.0.1".to_owned());
    pod
}

pub(crate) fn web() -> Resource {
    Resource::Pod(Arc::new(pod("web", "n1")))
}

/// Another version of it, to which no policy has anything to say.
fn web_of_another_account() -> Resource {
    let mut pod = pod("web", "n1");
    pod.spec.service_account_name = Some("other".to_owned());
    Resource::Pod(Arc::new(pod))
}

/// Allows nothing to these, or to the whole namespace.
pub(crate) fn allow(name: &str, app: Option<&str>) -> Resource {
    let mut policy = AuthorizationPolicy::default();
    policy.metadata.name = name.to_owned();
    policy.metadata.namespace = "app".to_owned();
    policy.spec.selector =
        app.map(|app| WorkloadSelector { match_labels: [("app".to_owned(), app.to_owned())].into() });
    Resource::AuthorizationPolicy(Arc::new(policy))
}

fn peer_authentication(mode: TlsMode) -> Resource {
    let mut policy = PeerAuthentication::default();
    policy.metadata.name = "default".to_owned();
    policy.metadata.namespace = "app".to_owned();
    policy.spec.mtls = Some(MutualTls { mode });
    Resource::PeerAuthentication(Arc::new(policy))
}

fn authorization(name: &str) -> ObjectRef {
    ObjectRef::new(Kind::AuthorizationPolicy, "app", name)
}

#[test]
fn a_policy_needs_an_answer_to_itself_and_to_the_workload_that_refers_to_it() {
    let policy = authorization("one");
    let mut bench = Bench::new([web(), allow("one", Some("web"))]);
    assert_eq!(bench.says(&policy), "Unknown ProxyGone");
    let n1 = bench.connect("n1", 1);
    assert_eq!(bench.says(&policy), "Unknown Pending");

    let nonce = bench.send(&n1, POLICY, "app/one");
    bench.ack(&n1, ADDRESS, &nonce);
    bench.ack(&n1, POLICY, "99");
    let address = bench.send(&n1, ADDRESS, WEB);
    bench.ack(&n1, ADDRESS, &address);
    assert_eq!(bench.says(&policy), "Unknown Pending", "the policy itself was not answered");
    bench.ack(&n1, POLICY, &nonce);
    assert_eq!(bench.says(&policy), "True Enforced");

    bench.apply([allow("two", Some("web"))]);
    let (one, two) = (policy, authorization("two"));
    let nonce = bench.send(&n1, POLICY, "app/two");
    bench.ack(&n1, POLICY, &nonce);
    assert_eq!(bench.says(&two), "Unknown Pending", "the workload does not refer to it yet");
    assert_eq!(bench.says(&one), "True Enforced", "nothing changed for it");
    let nonce = bench.send(&n1, ADDRESS, WEB);
    assert_eq!(bench.says(&one), "True Enforced", "both versions refer to it");
    bench.ack(&n1, ADDRESS, &nonce);
    assert_eq!(bench.says(&two), "True Enforced");
    bench.report(Report::Disconnected { peer: n1 });
    assert_eq!(
        bench.said[&two].1,
        "acknowledged for 0 of 1 workloads in the mesh; no connection to the proxy of node n1"
    );
}

#[test]
fn a_proxy_that_does_not_answer_in_time_is_called_silent_at_that_time() {
    let policy = authorization("one");
    let mut bench = Bench::new([web(), allow("one", None)]);
    let n1 = bench.connect("n1", 1);
    bench.catch_up(&n1);
    assert_eq!((bench.says(&policy), bench.deadline), ("True Enforced", None));

    bench.apply([web_of_another_account(), allow("two", None)]);
    bench.send(&n1, POLICY, "app/two");
    let (told, two) = (bench.now, authorization("two"));
    assert_eq!((bench.says(&two), bench.deadline), ("Unknown Pending", Some(told + ANSWERS_WITHIN)));
    assert_eq!(bench.says(&policy), "True Enforced", "the workload is still what it refers to");
    bench.now += ANSWERS_WITHIN;
    bench.look();

    assert_eq!((bench.says(&two), bench.says(&policy)), ("Unknown NotAcknowledged", "Unknown NotAcknowledged"));
    for policy in [&policy, &two] {
        let message = &bench.said[policy].1;
        assert!(message.contains("for 0 of 1 workloads") && message.contains("node n1 has not acknowledged for 10 s"));
    }
    assert_eq!(bench.deadline, None);
    bench.catch_up(&n1);
    assert_eq!((bench.says(&two), bench.says(&policy)), ("True Enforced", "True Enforced"));
}

#[test]
fn a_refusal_tells_what_the_proxy_said_until_another_version_is_acknowledged() {
    let policy = authorization("one");
    let mut bench = Bench::new([web(), allow("one", None)]);
    let n1 = bench.connect("n1", 1);
    bench.catch_up(&n1);

    bench.apply([allow("one", Some("web"))]);
    bench.catch_up(&n1);
    let nonce = bench.send(&n1, POLICY, "app/one");
    bench.nack(&n1, POLICY, &nonce, "app/other: is bad");
    assert_eq!(bench.says(&policy), "Unknown Refused", "it may have been taken beside the other");
    let nonce = bench.send(&n1, POLICY, "app/one");
    bench.nack(&n1, POLICY, &nonce, "app/one: no such match");

    assert_eq!(bench.says(&policy), "False Refused");
    assert!(bench.said[&policy].1.ends_with("rejected by node n1: app/one: no such match"));
    bench.apply([allow("one", None)]);
    assert_eq!(bench.says(&policy), "Unknown Pending");
    bench.catch_up(&n1);
    assert_eq!(bench.says(&policy), "True Enforced");
}

#[test]
fn a_workload_that_is_refused_keeps_what_it_had_only_when_the_refusal_is_about_something_else() {
    let policy = authorization("one");
    let mut bench = Bench::new([web(), allow("one", Some("web"))]);
    let n1 = bench.connect("n1", 1);
    bench.catch_up(&n1);
    bench.apply([web_of_another_account()]);

    let nonce = bench.send(&n1, ADDRESS, WEB);
    bench.nack(&n1, ADDRESS, &nonce, "Kubernetes//Pod/app/other: is bad");
    assert_eq!(bench.says(&policy), "True Enforced");
    let nonce = bench.send(&n1, ADDRESS, WEB);
    bench.nack(&n1, ADDRESS, &nonce, "Kubernetes//Pod/app/web: is bad");

    assert_eq!(bench.says(&policy), "False Refused");
}

#[test]
fn a_version_that_comes_back_while_another_was_on_its_way_needs_an_answer_again() {
    let policy = authorization("one");
    let mut bench = Bench::new([web(), allow("one", None)]);
    let n1 = bench.connect("n1", 1);
    bench.catch_up(&n1);

    bench.apply([allow("one", Some("web"))]);
    bench.send(&n1, POLICY, "app/one");
    bench.apply([allow("one", None)]);

    assert_eq!(bench.says(&policy), "Unknown Pending", "the proxy may hold either");
}

#[test]
fn a_mode_holds_when_the_workload_refers_to_what_enforces_it_or_no_longer_does() {
    let policy = ObjectRef::new(Kind::PeerAuthentication, "app", "default");
    let mut bench = Bench::new([web(), peer_authentication(TlsMode::Permissive)]);
    let n1 = bench.connect("n1", 1);
    bench.catch_up(&n1);
    assert_eq!(bench.says(&policy), "True Enforced");

    for mode in [TlsMode::Strict, TlsMode::Permissive] {
        bench.apply([peer_authentication(mode)]);
        assert_eq!(bench.says(&policy), "Unknown Pending", "{mode:?}");
        let nonce = bench.send(&n1, ADDRESS, WEB);
        assert_eq!(bench.says(&policy), "Unknown Pending", "{mode:?}");
        bench.ack(&n1, ADDRESS, &nonce);
        assert_eq!(bench.says(&policy), "True Enforced", "{mode:?}");
    }
    bench.apply([peer_authentication(TlsMode::Strict)]);
    let nonce = bench.send(&n1, ADDRESS, WEB);
    bench.ack(&n1, ADDRESS, &nonce);
    bench.send(&n1, POLICY, STATIC_STRICT);
    assert_eq!(bench.says(&policy), "Unknown Pending", "what enforces it is on its way");
}

#[test]
fn the_newest_connection_of_a_node_counts_and_what_it_says_it_holds() {
    let policy = authorization("one");
    let mut bench = Bench::new([web(), allow("one", Some("web"))]);
    let first = bench.connect("n1", 1);
    bench.catch_up(&first);

    let second = bench.connect("n1", 2);
    assert_eq!(bench.says(&policy), "Unknown Pending");
    for (kind, name) in [(POLICY, "app/one"), (ADDRESS, WEB)] {
        let resources = vec![(name.into(), bench.served[&(kind, name.to_owned())].as_str().into())];
        bench.report(Report::Holds { peer: second.clone(), type_url: kind.to_owned(), resources });
    }
    assert_eq!(bench.says(&policy), "True Enforced");
    bench.report(Report::Disconnected { peer: first });
    assert_eq!(bench.says(&policy), "True Enforced");
}

#[test]
fn a_pod_that_goes_to_another_node_needs_the_answer_of_that_one() {
    let policy = authorization("one");
    let mut bench = Bench::new([web(), allow("one", Some("web"))]);
    let [n1, n2] = [("n1", 1), ("n2", 2)].map(|(node, connection)| bench.connect(node, connection));
    bench.catch_up(&n1);
    bench.catch_up(&n2);
    assert_eq!(bench.says(&policy), "True Enforced");

    bench.apply([Resource::Pod(Arc::new(pod("web", "n2")))]);
    assert!(bench.said[&policy].1.ends_with("on its way to the proxy of node n2"), "{:?}", bench.said);
    bench.catch_up(&n2);
    assert_eq!(bench.says(&policy), "True Enforced");
    bench.report(Report::Disconnected { peer: n1 });
    bench.compiler.remove(&ObjectRef::new(Kind::Pod, "app", "web"));
    bench.apply([]);
    assert_eq!(bench.says(&policy), "False NoWorkload");
    bench.report(Report::Disconnected { peer: n2 });
    assert!(bench.state.nodes.is_empty() && bench.state.counts.is_empty(), "nothing is left behind");
}

/// Time stands still but for the timers.
#[tokio::test(start_paused = true)]
async fn conditions_change_by_time_alone_and_only_node_proxies_count() {
    let policy = authorization("one");
    let acks = Acks::new(&[("istio-system".to_owned(), "ztunnel".to_owned())]);
    let mut compiler = Compiler::new(Mesh::default());
    compiler.apply(web());
    compiler.apply(allow("one", Some("web")));
    let (sender, mut given) = mpsc::channel::<conditions::StatusUpdate>(8);
    tokio::spawn(acks.clone().run(Reports::default(), Events::default(), sender));
    let mut reason = async || {
        let wanted = given.recv().await.unwrap();
        assert_eq!(wanted.object, policy);
        wanted.status.conditions.last().and_then(|condition| condition.reason.clone()).unwrap()
    };

    acks.on_report(&Report::Connected { peer: peer("n1", 1, "stranger") });
    acks.on_update(&compiler.settle(), &HashMap::new());
    assert_eq!(reason().await, "ProxyGone");
    acks.on_report(&Report::Connected { peer: peer("n1", 2, "ztunnel") });

    assert_eq!(reason().await, "Pending");
    assert_eq!(reason().await, "NotAcknowledged");
}

#[test]
fn an_answer_has_only_policies_of_its_node_looked_at() {
    let db = Resource::Pod(Arc::new(pod("db", "n2")));
    let mut bench = Bench::new([web(), db, allow("one", Some("web")), allow("two", Some("db"))]);
    let [n1, n2] = [("n1", 1), ("n2", 2)].map(|(node, connection)| bench.connect(node, connection));
    bench.catch_up(&n1);
    bench.catch_up(&n2);
    let nonce = bench.send(&n1, POLICY, "app/one");

    let answer = Report::Acked { peer: n1, type_url: POLICY.to_owned(), nonce };
    assert!(bench.state.on_report(&answer, bench.now));

    assert_eq!(bench.state.outdated(bench.now), [authorization("one")]);
    assert!(bench.state.outdated(bench.now).is_empty());
}

#[test]
fn a_policy_that_is_back_before_the_proxy_was_told_of_its_end_is_what_the_proxy_still_has() {
    let policy = authorization("one");
    let mut bench = Bench::new([web(), allow("one", None)]);
    let n1 = bench.connect("n1", 1);
    bench.catch_up(&n1);

    bench.compiler.remove(&policy);
    bench.apply([]);
    bench.apply([allow("one", None)]);

    // Discovery sends nothing: the proxy holds this version.
    assert_eq!(bench.says(&policy), "True Enforced");
    let gone = Report::Sent {
        peer: n1,
        type_url: POLICY.to_owned(),
        nonce: "99".to_owned(),
        resources: Vec::new(),
        removed: vec!["app/one".into()],
    };
    bench.report(gone);
    assert_eq!(bench.says(&policy), "Unknown Pending");
}

#[test]
fn nothing_is_left_of_a_pod_that_goes_while_a_version_of_it_is_on_its_way() {
    let mut bench = Bench::new([web(), allow("one", None)]);
    let n1 = bench.connect("n1", 1);
    let nonce = bench.send(&n1, ADDRESS, WEB);
    bench.compiler.remove(&ObjectRef::new(Kind::Pod, "app", "web"));
    bench.apply([]);
    bench.ack(&n1, ADDRESS, &nonce);
    assert!(bench.state.nodes["n1"].remembers(Type::Address, WEB));

    bench.report(Report::Sent {
        peer: n1,
        type_url: ADDRESS.to_owned(),
        nonce: "99".to_owned(),
        resources: Vec::new(),
        removed: vec![WEB.into()],
    });

    assert!(!bench.state.nodes["n1"].remembers(Type::Address, WEB));
}

/// The replica that n1's proxy is connected to, and one that follows it; both serve the same.
struct Pair {
    there: Bench,
    here: Bench,
    events: mpsc::Receiver<Event>,
    n1: Peer,
}

fn other(name: &str) -> Origin {
    Origin::Replica(name.into())
}

impl Pair {
    fn new(resources: impl IntoIterator<Item = Resource> + Clone) -> Self {
        let (mut there, here) = (Bench::new(resources.clone()), Bench::new(resources));
        let n1 = there.connect("n1", 7);
        let (sender, events) = mpsc::channel(64);
        let mut pair = Self { here, events, n1, there };
        let history = pair.there.state.follow(sender);
        pair.tell(&history);
        pair
    }

    fn tell(&mut self, events: &[Event]) {
        for event in events {
            self.here.state.on_event(&other("b"), event, self.here.now);
        }
        self.here.look();
    }

    /// Passes on what happened meanwhile.
    fn pass(&mut self) {
        let events: Vec<_> = std::iter::from_fn(|| self.events.try_recv().ok()).collect();
        self.tell(&events);
    }

    /// Begins anew, as after a connection that broke.
    fn begin_anew(&mut self) {
        self.here.state.forget_replica(&other("b"));
        self.here.look();
        let (sender, events) = mpsc::channel(64);
        self.events = events;
        let history = self.there.state.follow(sender);
        self.tell(&history);
    }

    fn catch_up(&mut self) {
        self.there.catch_up(&self.n1);
    }
}

#[test]
fn what_a_proxy_of_another_replica_acknowledges_counts_while_that_replica_is_followed() {
    let policy = authorization("one");
    let mut pair = Pair::new([web(), allow("one", Some("web"))]);
    assert_eq!(pair.here.says(&policy), "Unknown Pending");
    pair.catch_up();
    assert_eq!(pair.here.says(&policy), "Unknown Pending", "nothing was passed on yet");
    pair.pass();
    assert_eq!(pair.here.says(&policy), "True Enforced");

    pair.here.state.forget_replica(&other("b"));
    pair.here.look();
    assert_eq!(pair.here.says(&policy), "Unknown ProxyGone");
    pair.begin_anew();
    assert_eq!(pair.here.says(&policy), "True Enforced");
    pair.there.report(Report::Disconnected { peer: pair.n1.clone() });
    pair.pass();
    assert_eq!(pair.here.says(&policy), "Unknown ProxyGone");
}

#[test]
fn a_history_leads_to_the_conditions_of_the_replica_that_tells_it() {
    let policies = ["one", "two"].map(authorization);
    let mut pair = Pair::new([web(), allow("one", Some("web")), allow("two", None)]);
    pair.catch_up();
    pair.begin_anew();
    let same = |pair: &Pair| {
        for policy in &policies {
            assert_eq!(pair.here.said[policy], pair.there.said[policy]);
        }
    };
    same(&pair);

    let nonce = pair.there.send(&pair.n1, POLICY, "app/one");
    pair.begin_anew();
    assert_eq!(pair.here.says(&policies[0]), "Unknown Pending");
    same(&pair);
    pair.there.nack(&pair.n1, POLICY, &nonce, "app/one: is bad");
    pair.begin_anew();
    assert_eq!(pair.here.says(&policies[0]), "False Refused");
    same(&pair);
    // The answer to what was in flight when the history was told.
    let nonce = pair.there.send(&pair.n1, POLICY, "app/one");
    pair.begin_anew();
    pair.there.ack(&pair.n1, POLICY, &nonce);
    pair.pass();
    assert_eq!(pair.here.says(&policies[0]), "True Enforced");
}

#[test]
fn a_version_that_this_replica_serves_only_later_counts_from_then_on() {
    let policy = authorization("two");
    let mut pair = Pair::new([web(), allow("one", Some("web"))]);
    pair.catch_up();
    pair.pass();

    pair.there.apply([allow("two", Some("web"))]);
    pair.catch_up();
    pair.pass();
    assert_eq!(pair.here.says(&authorization("one")), "Unknown Pending", "what the new version refers to is not known");
    pair.here.apply([allow("two", Some("web"))]);

    assert_eq!(pair.here.says(&policy), "True Enforced");
    assert_eq!(pair.here.says(&authorization("one")), "True Enforced");
}

#[test]
fn a_replica_that_serves_something_else_confirms_nothing() {
    let policy = authorization("one");
    let mut pair = Pair::new([web(), allow("one", Some("web"))]);
    pair.there.apply([allow("one", None)]);
    pair.catch_up();
    pair.pass();

    assert_eq!(pair.here.says(&policy), "Unknown Pending");
}

#[test]
fn events_that_come_twice_change_nothing_and_those_of_unknown_connections_are_nothing() {
    let policy = authorization("one");
    let mut pair = Pair::new([web(), allow("one", Some("web"))]);
    pair.catch_up();
    let events: Vec<_> = std::iter::from_fn(|| pair.events.try_recv().ok()).collect();
    pair.tell(&events);
    pair.tell(&events);
    assert_eq!(pair.here.says(&policy), "True Enforced");

    pair.here.state.forget_replica(&other("b"));
    pair.tell(&events);
    assert_eq!(pair.here.says(&policy), "Unknown ProxyGone", "the beginning was lost");
    assert!(pair.here.state.on_event(
        &other("b"),
        &Event { node: "n9".to_owned(), connection: 1, action: Action::Disconnected },
        pair.here.now
    ));
    pair.here.look();
    assert!(!pair.here.state.nodes.contains_key("n9"), "nothing is left behind");
}

#[test]
fn a_node_with_connections_to_two_replicas_needs_the_answers_of_both() {
    let policy = authorization("one");
    let mut pair = Pair::new([web(), allow("one", Some("web"))]);
    pair.catch_up();
    pair.pass();
    assert_eq!(pair.here.says(&policy), "True Enforced");

    let here = pair.here.connect("n1", 1);
    assert_eq!(pair.here.says(&policy), "Unknown Pending", "it may be the proxy that the pods have now");
    pair.here.catch_up(&here);
    assert_eq!(pair.here.says(&policy), "True Enforced");
    let nonce = pair.there.send(&pair.n1, POLICY, "app/one");
    pair.pass();
    assert_eq!(pair.here.says(&policy), "Unknown Pending");
    pair.there.nack(&pair.n1, POLICY, &nonce, "app/one: is bad");
    pair.pass();
    assert_eq!(pair.here.says(&policy), "False Refused");
    pair.here.state.forget_replica(&other("b"));
    pair.here.look();
    assert_eq!(pair.here.says(&policy), "True Enforced");
}

#[test]
fn a_follower_that_falls_behind_hears_the_end() {
    let mut bench = Bench::new([web(), allow("one", None)]);
    let n1 = bench.connect("n1", 1);
    let (sender, mut events) = mpsc::channel(2);
    bench.state.follow(sender);

    for _ in 0..3 {
        bench.send(&n1, POLICY, "app/one");
    }

    assert!(events.try_recv().is_ok() && events.try_recv().is_ok());
    assert_eq!(events.try_recv(), Err(mpsc::error::TryRecvError::Disconnected));
}

#[test]
fn nothing_is_told_of_pods_of_other_nodes() {
    let db = Resource::Pod(Arc::new(pod("db", "n2")));
    let mut pair = Pair::new([web(), db, allow("one", None)]);
    pair.catch_up();

    let events: Vec<_> = std::iter::from_fn(|| pair.events.try_recv().ok()).collect();

    let names = events.iter().flat_map(|event| match &event.action {
        Action::Sent { resources, .. } => resources.as_slice(),
        _ => &[],
    });
    assert_eq!(names.map(|(name, _)| &**name).collect::<Vec<_>>(), ["app/one", WEB]);
}
