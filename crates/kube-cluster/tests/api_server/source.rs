//! The source, fault by fault.

use std::time::Duration;

use kube_cluster::{Rule, Verb, Watched};
use kube_types::{Code, InForce, Kind, Severity};
use serde_json::{Value, json};

use crate::consumer::Consumer;
use crate::fake::{Fake, Fault, When, pod};

const MINUTE: Duration = Duration::from_secs(60);

fn pods() -> Vec<Watched> {
    vec![Watched::all(Kind::Pod)]
}

fn namespace() -> Value {
    json!({"metadata": {}})
}

/// Pods `web-0` to `web-<count - 1>`.
fn with_pods(count: usize) -> Fake {
    let fake = Fake::default();
    for index in 0..count {
        fake.put(Kind::Pod, "app", &format!("web-{index}"), pod("n1"));
    }
    fake
}

#[tokio::test(start_paused = true)]
async fn everything_comes_in_the_order_of_keys_and_then_in_sync() {
    let fake = with_pods(7);
    fake.put(Kind::Namespace, "", "app", namespace());
    fake.put(Kind::Pod, "app-2", "web", pod("n1"));
    // The kind that comes first is the last one to answer.
    fake.fail(When::next(Verb::List).of("namespaces"), Fault::Slow(MINUTE / 2));

    let consumer = Consumer::in_sync(&fake, vec![Watched::all(Kind::Pod), Watched::all(Kind::Namespace)]).await;

    let mut expected = vec!["+Namespace app".to_owned()];
    expected.extend((0..7).map(|index| format!("+Pod app/web-{index}")));
    expected.extend(["+Pod app-2/web".to_owned(), "in sync".to_owned()]);
    assert_eq!(consumer.log, expected);
    assert_eq!(consumer.missing(), []);
}

#[tokio::test(start_paused = true)]
async fn changes_follow_and_what_nobody_reads_is_no_change() {
    let fake = with_pods(2);
    let mut consumer = Consumer::in_sync(&fake, pods()).await;
    consumer.log.clear();

    fake.delete(Kind::Pod, "app", "web-0");
    fake.put(Kind::Pod, "app", "web-2", pod("n1"));
    let mut heartbeat = pod("n1");
    heartbeat["status"]["startTime"] = "2026-01-02T03:04:05Z".into();
    fake.put(Kind::Pod, "app", "web-1", heartbeat);
    consumer.for_time(MINUTE).await;

    assert_eq!(consumer.log, ["-Pod app/web-0", "+Pod app/web-2"]);
    assert!(consumer.source.health().is_well());
}

#[tokio::test(start_paused = true)]
async fn a_selector_is_the_servers_and_what_no_longer_matches_is_gone() {
    let fake = with_pods(1);
    fake.put(Kind::Pod, "app", "elsewhere", pod("n2"));
    let watched = Watched::all(Kind::Pod).with_fields("spec.nodeName=n1");
    let mut consumer = Consumer::in_sync(&fake, vec![watched]).await;
    assert_eq!(consumer.names(), ["web-0"]);

    fake.put(Kind::Pod, "app", "elsewhere", pod("n1"));
    consumer.until("selected", |consumer| consumer.names() == ["elsewhere", "web-0"]).await;
    // The object still exists: the consumer's own check is not for selectors.
    consumer.objects.clear();
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_continues_where_it_was() {
    let fake = with_pods(4);
    let mut consumer = Consumer::in_sync(&fake, pods()).await;
    let lists = fake.count(Verb::List);

    for name in ["a", "b", "c"] {
        fake.cut_watches();
        fake.put(Kind::Pod, "app", name, pod("n1"));
        fake.delete(Kind::Pod, "app", &format!("web-{}", consumer.log.len() % 4));
        consumer.for_time(MINUTE).await;
        assert_eq!(consumer.missing(), []);
    }

    assert_eq!(consumer.objects.len(), fake.objects().len());
    assert_eq!(fake.count(Verb::List), lists, "nothing is listed again");
}

#[tokio::test(start_paused = true)]
async fn bookmarks_move_the_position_of_a_quiet_kind() {
    let fake = with_pods(1);
    let mut consumer = Consumer::in_sync(&fake, pods()).await;
    let lists = fake.count(Verb::List);
    fake.put(Kind::Node, "", "busy", namespace());
    consumer.for_time(MINUTE * 2).await;

    // Everything before the bookmark is forgotten, and so is the list's own position.
    fake.compact();
    fake.bookmark();
    consumer.for_time(MINUTE).await;
    fake.cut_watches();
    fake.put(Kind::Pod, "app", "new", pod("n1"));
    consumer.until("the new pod", |consumer| consumer.objects.len() == 2).await;

    assert_eq!(fake.count(Verb::List), lists);
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_position_is_listed_anew_and_only_differences_are_told() {
    for in_stream in [false, true] {
        let fake = with_pods(8);
        let mut consumer = Consumer::in_sync(&fake, pods()).await;
        consumer.log.clear();

        fake.fail(When::always(Verb::Watch), Fault::NoAnswer);
        fake.cut_watches();
        consumer.for_time(MINUTE).await;
        fake.delete(Kind::Pod, "app", "web-3");
        fake.put(Kind::Pod, "app", "web-8", pod("n1"));
        fake.put(Kind::Pod, "app", "web-5", pod("n2"));
        // Same name, another pod.
        fake.delete(Kind::Pod, "app", "web-6");
        fake.put(Kind::Pod, "app", "web-6", pod("n1"));
        if in_stream {
            fake.heal();
            fake.fail(When::next(Verb::Watch), Fault::ExpiredInStream);
        } else {
            fake.compact();
            fake.heal();
        }
        consumer.for_time(MINUTE).await;

        let changes: Vec<_> = consumer.log.iter().filter(|line| line.contains("Pod app/")).collect();
        assert_eq!(changes, ["-Pod app/web-3", "+Pod app/web-5", "+Pod app/web-6", "+Pod app/web-8"], "{in_stream}");
        assert_eq!(consumer.missing(), []);
        assert_eq!(consumer.messages(), [""; 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_that_fails_says_nothing_about_objects() {
    let faults = [
        Fault::NoAnswer,
        Fault::Hang,
        Fault::Cut(300),
        Fault::Garbage("<html>bad gateway</html>"),
        Fault::Garbage(r#"{"kind":"PodList","metadata":{},"items":[]}"#),
        Fault::Garbage(r#"{"kind":"PodList","metadata":{"resourceVersion":"999"},"items":[{"metadata":{}}]}"#),
        Fault::Refuse(429, Some(20)),
        Fault::Refuse(500, None),
        Fault::Refuse(403, None),
        Fault::Refuse(410, None),
    ];
    // The first, the second and the last page of three.
    for (fault, page) in faults.into_iter().flat_map(|fault| [0, 1, 2].map(|page| (fault.clone(), page))) {
        let fake = with_pods(8);
        let mut consumer = Consumer::in_sync(&fake, pods()).await;
        consumer.log.clear();
        let before = fake.count(Verb::List);

        fake.fail(When::next(Verb::List).after(page).times(2), fault.clone());
        fake.compact();
        fake.cut_watches();
        consumer.for_time(MINUTE * 5).await;

        assert!(fake.count(Verb::List) > before, "{fault:?}");
        let changes: Vec<_> = consumer.log.iter().filter(|line| line.starts_with(['+', '-'])).collect();
        assert!(changes.is_empty(), "{fault:?} on page {page}: {changes:?}");
        // A fault that only ends with the test keeps the list waiting.
        fake.heal();
        fake.put(Kind::Pod, "app", "new", pod("n1"));
        consumer.until("the new pod", |consumer| consumer.objects.len() == 9).await;
        consumer.for_time(MINUTE).await;
        assert_eq!(consumer.messages(), [""; 0], "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn pages_that_come_too_slowly_are_asked_for_in_one_piece() {
    let fake = with_pods(8);
    fake.fail(When::next(Verb::List).after(1).times(1), Fault::Slow(MINUTE / 2));
    let mut consumer = Consumer::open(&fake, pods());

    consumer.for_time(MINUTE / 4).await;
    fake.delete(Kind::Pod, "app", "web-0");
    fake.compact();
    consumer.until("in sync", |consumer| consumer.is_in_sync).await;

    assert_eq!(consumer.missing(), []);
    assert_eq!(consumer.objects.len(), 7, "web-0 was on the first page of a list that never ended");
    assert!(!fake.asked().last().is_none_or(|asked| asked.query.contains_key("limit")));
}

#[tokio::test(start_paused = true)]
async fn events_may_come_late_split_twice_or_as_garbage() {
    let faults = [
        Fault::Slow(MINUTE / 2),
        Fault::Split(1),
        Fault::Split(97),
        Fault::Twice,
        Fault::Again(4),
        Fault::Garbage("{"),
        Fault::Garbage(r#"{"type":"EVENT","object":{}}"#),
        Fault::Garbage(r#"{"type":"DELETED","object":{"metadata":{"name":"web-1"}}}"#),
        Fault::Garbage(r#"{"type":"ERROR","object":{"kind":"Status","code":500}}"#),
        Fault::Cut(1),
        Fault::Cut(250),
        Fault::Cut(1000),
        Fault::Refuse(429, Some(3)),
    ];
    for fault in faults {
        let fake = with_pods(3);
        fake.fail(When::next(Verb::Watch).times(3), fault.clone());
        let mut consumer = Consumer::in_sync(&fake, pods()).await;

        for round in 0..6 {
            fake.delete(Kind::Pod, "app", &format!("web-{round}"));
            fake.put(Kind::Pod, "app", &format!("web-{}", round + 3), pod("n1"));
            consumer.for_time(MINUTE / 3).await;
        }
        fake.heal();
        consumer.for_time(MINUTE).await;

        assert_eq!(consumer.missing(), [], "{fault:?}");
        assert_eq!(consumer.objects.len(), 3, "{fault:?}");
        assert_eq!(consumer.messages(), [""; 0], "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_that_breaks_every_watch_is_read_by_a_list() {
    let fake = with_pods(1);
    fake.fail(When::always(Verb::Watch), Fault::Garbage("{"));
    let mut consumer = Consumer::in_sync(&fake, pods()).await;

    fake.put(Kind::Pod, "app", "new", pod("n1"));
    consumer.until("the new pod", |consumer| consumer.objects.len() == 2).await;

    assert!(fake.count(Verb::List) >= 2);
}

#[tokio::test(start_paused = true)]
async fn a_silent_watch_is_opened_again() {
    let fake = with_pods(1);
    let mut consumer = Consumer::in_sync(&fake, pods()).await;
    consumer.for_time(MINUTE / 6).await;
    let before = fake.count(Verb::Watch);
    fake.fail(When::next(Verb::Watch), Fault::Hang);
    fake.cut_watches();

    consumer.for_time(MINUTE * 3).await;

    assert_eq!(fake.count(Verb::Watch), before + 2, "one that never answered, and one that did");
    assert!(consumer.source.health().is_well());
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_is_away_changes_nothing_and_is_told() {
    let fake = with_pods(3);
    let mut consumer = Consumer::in_sync(&fake, pods()).await;
    consumer.log.clear();
    for verb in [Verb::List, Verb::Watch] {
        fake.fail(When::always(verb), Fault::NoAnswer);
    }

    fake.cut_watches();
    consumer.for_time(Duration::from_secs(5)).await;
    assert!(consumer.source.health().is_well() && consumer.messages().is_empty(), "a moment is no loss");
    consumer.for_time(MINUTE * 60).await;

    assert!(!consumer.source.health().is_well());
    let problem = consumer.problems.values().flatten().next().unwrap().clone();
    assert_eq!((problem.code, problem.severity), (Code::NoAnswer, Severity::Error));
    assert_eq!(problem.file.to_str(), Some("/api/v1/pods"));
    assert!(problem.message.starts_with("failed to watch pods: no answer from the API server"), "{problem}");
    assert!(matches!(problem.in_force, Some(InForce::LastGood { .. })), "{problem}");
    assert_eq!(consumer.log.len(), 1, "told once, and nothing else: {:#?}", consumer.log);
    let per_hour = fake.count(Verb::Watch);
    assert!((100..300).contains(&per_hour), "{per_hour} attempts");
    fake.heal();
    fake.delete(Kind::Pod, "app", "web-1");
    consumer.until("solved", |consumer| consumer.problems.is_empty() && consumer.objects.len() == 2).await;
    assert!(consumer.source.health().is_well());
}

#[tokio::test(start_paused = true)]
async fn a_refused_kind_is_named_and_holds_up_in_sync_until_it_is_granted() {
    let fake = with_pods(2);
    fake.put(Kind::Namespace, "", "app", namespace());
    let rule = |resource: &str, verbs: &[Verb]| Rule {
        namespace: None,
        api_group: String::new(),
        resource: resource.to_owned(),
        names: Vec::new(),
        verbs: verbs.to_vec(),
    };
    let all = [Verb::List, Verb::Watch];
    fake.allow(vec![rule("namespaces", &all), rule("pods", &[Verb::Watch])]);
    let watched = vec![Watched::all(Kind::Pod), Watched::all(Kind::Namespace)];
    let mut consumer = Consumer::open(&fake, watched);

    consumer.for_time(MINUTE * 10).await;

    assert!(!consumer.is_in_sync && consumer.objects.is_empty());
    let [message] = consumer.messages().try_into().unwrap();
    for part in [
        "failed to list pods",
        "system:serviceaccount:mesh:test",
        "allow list of pods to this ServiceAccount",
        "NOT in force",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    // The list alone is not enough to follow.
    fake.allow(vec![rule("namespaces", &all), rule("pods", &[Verb::List])]);
    consumer.until("in sync", |consumer| consumer.is_in_sync).await;
    consumer.for_time(MINUTE).await;
    assert!(consumer.messages()[0].contains("failed to watch pods"), "{:?}", consumer.messages());
    assert!(!consumer.source.health().is_well());
    fake.allow(vec![rule("namespaces", &all), rule("pods", &all)]);
    consumer.until("solved", |consumer| consumer.problems.is_empty()).await;
    assert!(consumer.source.health().is_well());

    // Taken away again, nothing is removed.
    fake.allow(Vec::new());
    fake.compact();
    fake.cut_watches();
    consumer.until("told", |consumer| consumer.problems.len() == 2).await;
    assert_eq!(consumer.objects.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_is_not_served_is_a_note_and_read_once_it_is() {
    let fake = with_pods(1);
    fake.serve(Kind::PeerAuthentication, "v1", false);
    fake.put(Kind::PeerAuthentication, "app", "strict", json!({"metadata": {}, "spec": {"mtls": {"mode": "STRICT"}}}));
    let watched = vec![Watched::all(Kind::Pod), Watched::all(Kind::PeerAuthentication)];

    let mut consumer = Consumer::in_sync(&fake, watched).await;

    assert_eq!(consumer.names(), ["web-0"]);
    consumer.until("told", |consumer| consumer.problems.len() == 1).await;
    let problem = consumer.problems.values().flatten().next().unwrap();
    assert_eq!((problem.severity, problem.code), (Severity::Note, Code::UnknownKind));
    assert!(problem.message.contains("does not serve peerauthentications.security.istio.io"), "{problem}");
    consumer.for_time(MINUTE * 10).await;
    assert!(consumer.source.health().is_well());
    // An older Istio has only this version.
    fake.serve(Kind::PeerAuthentication, "v1beta1", true);
    consumer.until("read", |consumer| consumer.names() == ["strict", "web-0"] && consumer.problems.is_empty()).await;

    // An API server that starts does not know its custom resources yet.
    fake.serve(Kind::PeerAuthentication, "v1beta1", false);
    fake.cut_watches();
    consumer.until("told", |consumer| consumer.problems.len() == 1).await;
    assert!(consumer.messages()[0].contains("the 1 that were read stay in force"), "{:?}", consumer.messages());
    fake.delete(Kind::PeerAuthentication, "app", "strict");
    fake.serve(Kind::PeerAuthentication, "v1", true);
    consumer.until("read", |consumer| consumer.names() == ["web-0"] && consumer.problems.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn an_object_that_cannot_be_decoded_keeps_its_last_good_state() {
    let fake = with_pods(2);
    let broken = || json!({"metadata": {}, "spec": {"nodeName": "n1", "hostNetwork": "yes"}});
    fake.put(Kind::Pod, "app", "never-good", broken());
    let mut consumer = Consumer::in_sync(&fake, pods()).await;
    assert_eq!(consumer.names(), ["web-0", "web-1"]);
    let never_good = "/api/v1/namespaces/app/pods/never-good: Pod app/never-good: spec.hostNetwork: expected true or false, \
                      found the string \"yes\"; it is NOT in force: no good state of it is known";
    assert_eq!(consumer.messages(), [never_good]);

    fake.put(Kind::Pod, "app", "web-0", broken());
    consumer.until("told", |consumer| consumer.problems.len() == 2).await;
    assert_eq!(consumer.names(), ["web-0", "web-1"]);
    assert!(consumer.messages()[1].contains("the last good state of 20"), "{:?}", consumer.messages());

    fake.put(Kind::Pod, "app", "never-good", pod("n1"));
    fake.put(Kind::Pod, "app", "web-0", pod("n1"));
    consumer.until("solved", |consumer| consumer.problems.is_empty()).await;
    assert_eq!(consumer.names(), ["never-good", "web-0", "web-1"]);

    fake.put(Kind::Pod, "app", "web-1", broken());
    consumer.until("told", |consumer| consumer.problems.len() == 1).await;
    fake.delete(Kind::Pod, "app", "web-1");
    consumer.until("gone", |consumer| consumer.problems.is_empty()).await;
    assert_eq!(consumer.names(), ["never-good", "web-0"]);
}

#[tokio::test(start_paused = true)]
async fn requests_end_with_the_source() {
    let fake = with_pods(1);
    let consumer = Consumer::in_sync(&fake, vec![Watched::all(Kind::Pod), Watched::all(Kind::Node)]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(fake.watches(), 2);

    drop(consumer);
    // A connection notices when it next has something to send.
    tokio::time::sleep(MINUTE * 2).await;

    assert_eq!(fake.watches(), 0);
}
