//! Statuses: what is written, how often, and by whom.

use std::time::Duration;

use kube_cluster::{Election, ElectionConfig, Owned, StatusConfig, Verb, Versions, Watched, status};
use kube_types::{Kind, ObjectRef, Status};
use serde_json::{Value, json};

use crate::consumer::Consumer;
use crate::fake::{Fake, Fault, When, pod};

const ANNOTATION: &str = "ambient.istio.io/redirection";
const SECOND: Duration = Duration::from_secs(1);

fn config(fake: &Fake) -> StatusConfig {
    StatusConfig {
        server: fake.server(),
        manager: "strake-test".to_owned(),
        kinds: vec![Kind::Pod, Kind::PeerAuthentication],
        owned: Owned {
            annotations: vec![ANNOTATION.to_owned()],
            conditions: vec!["Enforced".to_owned()],
            ..Owned::default()
        },
        versions: Versions::default(),
        leadership: None,
    }
}

fn policy(name: &str) -> ObjectRef {
    ObjectRef::new(Kind::PeerAuthentication, "app", name)
}

fn web() -> ObjectRef {
    ObjectRef::new(Kind::Pod, "app", "web")
}

fn conditions(message: &str) -> Value {
    json!({"status": {"conditions": [{"type": "Enforced", "status": "True", "message": message, "observedGeneration": 3}]}})
}

fn redirection(value: Option<&str>) -> Value {
    json!({"metadata": {"annotations": {ANNOTATION: value}}})
}

/// A condition of another controller, with fields that nobody here knows.
fn theirs() -> Value {
    json!({"type": "Theirs", "status": "True", "more": {"than": "known"}})
}

/// Sets the conditions of the policy `strict`, as somebody else.
fn set_conditions(fake: &Fake, conditions: Value) {
    let object = json!({"metadata": {"generation": 3}, "spec": {}, "status": {"conditions": conditions}});
    fake.put(Kind::PeerAuthentication, "app", "strict", object);
}

fn all_conditions(fake: &Fake) -> Value {
    fake.object(Kind::PeerAuthentication, "app", "strict").unwrap()["status"]["conditions"].clone()
}

fn replica(fake: &Fake, identity: &str) -> (Election, Status) {
    let election = Election::start(ElectionConfig {
        server: fake.server(),
        namespace: "mesh".to_owned(),
        name: "control".to_owned(),
        identity: identity.to_owned(),
    });
    let leadership = Some(election.leadership());
    (election, status(StatusConfig { leadership, ..config(fake) }))
}

/// A server with the policy `strict`.
fn with_policy() -> Fake {
    let fake = Fake::default();
    fake.put(Kind::PeerAuthentication, "app", "strict", json!({"metadata": {}, "spec": {}}));
    fake
}

fn written(fake: &Fake, name: &str) -> Value {
    let object = fake.object(Kind::PeerAuthentication, "app", name).unwrap();
    object["status"]["conditions"][0]["message"].clone()
}

fn error(result: Result<(), kube_types::StatusError>) -> String {
    result.unwrap_err().source.to_string()
}

#[tokio::test(start_paused = true)]
async fn conditions_are_written_and_cleared() {
    let fake = with_policy();
    let status = status(config(&fake));

    status.apply(&policy("strict"), conditions("a")).await.unwrap();

    assert_eq!(written(&fake, "strict"), "a");
    let asked = fake.asked().pop().unwrap();
    assert_eq!((asked.query["fieldManager"].as_str(), asked.subresource.as_str()), ("strake-test", "status"));
    status.clear(&policy("strict")).await.unwrap();
    assert_eq!(written(&fake, "strict"), Value::Null);
}

#[tokio::test(start_paused = true)]
async fn the_annotation_of_a_pod_is_that_of_this_pod_only() {
    let fake = Fake::default();
    let uid = fake.put(Kind::Pod, "app", "web", pod("n1"));
    let status = status(config(&fake));
    let annotation = || fake.object(Kind::Pod, "app", "web").unwrap()["metadata"]["annotations"][ANNOTATION].clone();

    status.apply_to(&web(), &uid, redirection(Some("enabled"))).await.unwrap();
    assert_eq!(annotation(), "enabled");
    status.apply_to(&web(), &uid, redirection(None)).await.unwrap();
    assert_eq!(annotation(), Value::Null);
    status.apply_to(&web(), &uid, redirection(Some("enabled"))).await.unwrap();
    status.clear(&web()).await.unwrap();
    assert_eq!(annotation(), Value::Null);

    fake.delete(Kind::Pod, "app", "web");
    fake.put(Kind::Pod, "app", "web", pod("n1"));
    status.apply_to(&web(), &uid, redirection(Some("enabled"))).await.unwrap();
    assert_eq!(annotation(), Value::Null, "another pod of the same name");
    fake.delete(Kind::Pod, "app", "web");
    status.apply_to(&web(), &uid, redirection(Some("enabled"))).await.unwrap();
    status.clear(&web()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_the_object_has_is_not_written_again() {
    let fake = with_policy();
    let mut consumer = Consumer::in_sync(&fake, vec![Watched::all(Kind::PeerAuthentication)]).await;
    let status = status(StatusConfig { versions: consumer.versions.clone(), ..config(&fake) });
    let key = policy("strict");

    for _ in 0..3 {
        status.apply(&key, conditions("a")).await.unwrap();
        consumer.for_time(SECOND).await;
    }
    assert_eq!(fake.count(Verb::Patch), 1);

    // Somebody takes it away: the same patch is needed again.
    fake.put(Kind::PeerAuthentication, "app", "strict", json!({"metadata": {}, "spec": {}}));
    consumer.for_time(SECOND).await;
    status.apply(&key, conditions("a")).await.unwrap();
    assert_eq!((fake.count(Verb::Patch), written(&fake, "strict")), (2, "a".into()));
    status.apply(&key, conditions("b")).await.unwrap();
    assert_eq!((fake.count(Verb::Patch), written(&fake, "strict")), (3, "b".into()));
}

#[tokio::test(start_paused = true)]
async fn a_write_is_tried_until_it_succeeds() {
    let faults = [
        Fault::NoAnswer,
        Fault::Hang,
        Fault::Cut(3),
        Fault::Garbage("{"),
        Fault::Refuse(409, None),
        Fault::Refuse(429, Some(5)),
        Fault::Refuse(503, None),
        Fault::Refuse(403, None),
    ];
    for fault in faults {
        let fake = with_policy();
        let status = status(config(&fake));
        fake.fail(When::next(Verb::Patch).times(2), fault.clone());

        let result = status.apply(&policy("strict"), conditions("a")).await;
        tokio::time::sleep(SECOND * 120).await;

        assert_eq!(written(&fake, "strict"), "a", "{fault:?}");
        // The caller of a write that takes long hears so.
        if let Err(error) = result {
            assert!(error.source.to_string().ends_with("; trying again"), "{fault:?}: {}", error.source);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn while_the_api_server_is_away_callers_hear_it_at_once_and_the_newest_patch_wins() {
    let fake = with_policy();
    fake.put(Kind::PeerAuthentication, "app", "other", json!({"metadata": {}, "spec": {}}));
    let status = status(config(&fake));
    fake.fail(When::always(Verb::Patch), Fault::NoAnswer);
    assert!(error(status.apply(&policy("strict"), conditions("a")).await).contains("trying again"));

    let began = tokio::time::Instant::now();
    for message in ["b", "c"] {
        let text = error(status.apply(&policy("strict"), conditions(message)).await);
        assert!(text.contains("failed to patch peerauthentications/status of app/strict: no answer"), "{text}");
    }
    assert!(error(status.apply(&policy("other"), conditions("d")).await).contains("trying again"));
    assert!(began.elapsed() < SECOND, "{:?}", began.elapsed());
    fake.heal();
    tokio::time::sleep(SECOND * 60).await;

    assert_eq!((written(&fake, "strict"), written(&fake, "other")), ("c".into(), "d".into()));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_an_error_and_is_not_repeated() {
    let fake = with_policy();
    let status = status(config(&fake));
    fake.fail(When::next(Verb::Patch), Fault::Refuse(422, None));

    let text = error(status.apply(&policy("strict"), conditions("a")).await);
    tokio::time::sleep(SECOND * 60).await;

    assert!(text.contains("422 Scripted: scripted fault"), "{text}");
    assert_eq!(fake.count(Verb::Patch), 1);
    assert!(error(status.apply_to(&policy("strict"), "uid", json!({})).await).contains("does not compare uids"));
    let service = ObjectRef::new(Kind::Service, "app", "web");
    assert!(error(status.apply(&service, json!({})).await).contains("does not write about objects of kind Service"));
}

#[tokio::test(start_paused = true)]
async fn writes_are_limited_in_number() {
    let fake = Fake::default();
    let status = status(config(&fake));
    for index in 0..400 {
        fake.put(Kind::PeerAuthentication, "app", &format!("p{index}"), json!({"metadata": {}, "spec": {}}));
    }
    let began = tokio::time::Instant::now();

    let keys: Vec<_> = (0..400).map(|index| policy(&format!("p{index}"))).collect();
    let writes = keys.iter().map(|key| status.apply(key, conditions("a")));
    for result in futures::future::join_all(writes).await {
        result.unwrap();
    }

    // 100 at once, and 50 a second.
    assert_eq!(began.elapsed().as_secs(), 6, "{:?}", began.elapsed());
    assert_eq!(fake.count(Verb::Patch), 400);
}

#[tokio::test(start_paused = true)]
async fn only_the_leader_writes_and_the_next_one_has_everything() {
    let fake = with_policy();
    let (first, first_status) = replica(&fake, "first");
    assert!(first.leadership().acquired().await);
    let (second, second_status) = replica(&fake, "second");
    tokio::time::sleep(SECOND * 5).await;

    second_status.apply(&policy("strict"), conditions("second")).await.unwrap();
    tokio::time::sleep(SECOND * 5).await;
    assert_eq!(fake.count(Verb::Patch), 0);
    first_status.apply(&policy("strict"), conditions("first")).await.unwrap();
    assert_eq!(written(&fake, "strict"), "first");

    drop(first);
    assert!(second.leadership().acquired().await);
    tokio::time::sleep(SECOND).await;
    assert_eq!(written(&fake, "strict"), "second");
    // The old one has lost it, and does not write any more.
    first_status.apply(&policy("strict"), conditions("first")).await.unwrap();
    tokio::time::sleep(SECOND * 5).await;
    assert_eq!(written(&fake, "strict"), "second");
}

#[tokio::test(start_paused = true)]
async fn conditions_of_other_writers_stay() {
    let fake = Fake::default();
    set_conditions(&fake, json!([theirs()]));
    let status = status(config(&fake));
    let ours = |message: &str| conditions(message)["status"]["conditions"][0].clone();

    status.apply(&policy("strict"), conditions("a")).await.unwrap();
    assert_eq!(all_conditions(&fake), json!([theirs(), ours("a")]));
    // Another controller writes while the patch is on its way: both are there at last.
    fake.fail(When::next(Verb::Patch), Fault::Slow(SECOND));
    let write = async { status.apply(&policy("strict"), conditions("b")).await.unwrap() };
    let meanwhile = async {
        tokio::time::sleep(SECOND / 2).await;
        set_conditions(&fake, json!([ours("a"), theirs(), {"type": "New"}]));
    };
    tokio::join!(write, meanwhile);
    assert_eq!(all_conditions(&fake), json!([ours("b"), theirs(), {"type": "New"}]));
    status.clear(&policy("strict")).await.unwrap();
    assert_eq!(all_conditions(&fake), json!([theirs(), {"type": "New"}]));
}

#[tokio::test(start_paused = true)]
async fn an_object_that_says_it_already_is_not_written() {
    let fake = Fake::default();
    let mut there = conditions("a")["status"]["conditions"][0].clone();
    there["lastTransitionTime"] = "2026-01-01T00:00:00Z".into();
    set_conditions(&fake, json!([there]));
    let status = status(config(&fake));
    let mut wanted = conditions("a");
    wanted["status"]["conditions"][0]["lastTransitionTime"] = "2026-02-02T00:00:00Z".into();

    status.apply(&policy("strict"), wanted.clone()).await.unwrap();
    assert_eq!(fake.count(Verb::Patch), 0);

    wanted["status"]["conditions"][0]["message"] = "b".into();
    status.apply(&policy("strict"), wanted).await.unwrap();
    assert_eq!(all_conditions(&fake)[0]["lastTransitionTime"], "2026-01-01T00:00:00Z", "the status is the same");
    // A replica that lags behind does not overwrite what is about a later specification.
    let mut late = conditions("late");
    late["status"]["conditions"][0]["observedGeneration"] = 2.into();
    status.apply(&policy("strict"), late).await.unwrap();
    assert_eq!((fake.count(Verb::Patch), written(&fake, "strict")), (1, "b".into()));
}

#[tokio::test(start_paused = true)]
async fn a_failed_read_is_no_reason_to_write() {
    let faults = [
        Fault::NoAnswer,
        Fault::Hang,
        Fault::Cut(3),
        Fault::Garbage("{"),
        // Of a path that is not served now: it says nothing about the object.
        Fault::Refuse(404, None),
        Fault::Refuse(429, Some(5)),
        Fault::Refuse(503, None),
        Fault::Refuse(403, None),
    ];
    for fault in faults {
        let fake = Fake::default();
        set_conditions(&fake, json!([theirs()]));
        let status = status(config(&fake));
        fake.fail(When::always(Verb::Get), fault.clone());

        let late = status.apply(&policy("strict"), conditions("a")).await;
        assert!(late.is_err(), "{fault:?}");
        tokio::time::sleep(SECOND * 120).await;
        assert_eq!(fake.count(Verb::Patch), 0, "{fault:?}");
        fake.heal();
        tokio::time::sleep(SECOND * 60).await;

        assert_eq!(all_conditions(&fake)[0], theirs(), "{fault:?}");
        assert_eq!(all_conditions(&fake)[1]["message"], "a", "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_lost_while_an_object_is_read_keeps_it_from_being_written() {
    let fake = with_policy();
    let (first, status) = replica(&fake, "first");
    assert!(first.leadership().acquired().await);

    fake.fail(When::next(Verb::Get), Fault::Slow(SECOND * 14));
    fake.fail(When::always(Verb::Update), Fault::NoAnswer);
    status.apply(&policy("strict"), conditions("a")).await.unwrap();
    tokio::time::sleep(SECOND * 30).await;
    assert_eq!(fake.count(Verb::Patch), 0);

    // It is kept until this replica leads again.
    fake.heal();
    tokio::time::sleep(SECOND * 30).await;
    assert_eq!(written(&fake, "strict"), "a");
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_writes_at_an_even_rate() {
    let fake = Fake::default();
    let (first, first_status) = replica(&fake, "first");
    assert!(first.leadership().acquired().await);
    let (second, second_status) = replica(&fake, "second");
    for index in 0..150 {
        fake.put(Kind::PeerAuthentication, "app", &format!("p{index}"), json!({"metadata": {}, "spec": {}}));
        second_status.apply(&policy(&format!("p{index}")), conditions("a")).await.unwrap();
    }
    drop(first_status);
    first.release().await;

    assert!(second.leadership().acquired().await);
    let patches = |fake: &Fake| fake.count(Verb::Patch);
    let before = patches(&fake);
    tokio::time::sleep(SECOND).await;

    let in_a_second = patches(&fake) - before;
    assert!((45..=55).contains(&in_a_second), "{in_a_second} writes in the first second");
    tokio::time::sleep(SECOND * 3).await;
    assert_eq!(patches(&fake), 150);
}

#[tokio::test(start_paused = true)]
async fn what_another_writer_has_replaced_is_written_again_but_not_at_once() {
    let fake = with_policy();
    let mut consumer = Consumer::in_sync(&fake, vec![Watched::all(Kind::PeerAuthentication)]).await;
    let status = status(StatusConfig { versions: consumer.versions.clone(), ..config(&fake) });
    status.apply(&policy("strict"), conditions("a")).await.unwrap();
    let ours = all_conditions(&fake)[0].clone();

    for round in 1..4 {
        set_conditions(&fake, json!([theirs()]));
        consumer.for_time(SECOND * 60).await;
        assert_eq!(all_conditions(&fake), json!([theirs()]), "no race with the other writer");
        consumer.for_time(SECOND * 600).await;
        assert_eq!(all_conditions(&fake), json!([theirs(), ours]));
        assert_eq!(fake.count(Verb::Patch), 1 + round);
    }
    let gets = fake.count(Verb::Get);
    consumer.for_time(SECOND * 3600).await;
    assert_eq!(fake.count(Verb::Get), gets, "nothing has changed");
}

#[tokio::test(start_paused = true)]
async fn writes_that_panic_hold_up_no_other_and_are_tried_again() {
    let fake = Fake::default();
    let names: Vec<_> = (0..12).map(|index| format!("p{index:02}")).collect();
    for name in &names {
        fake.put(Kind::PeerAuthentication, "app", name, json!({"metadata": {}, "spec": {}}));
    }
    fake.panic(http::Method::PATCH, 10);
    let status = status(config(&fake));

    for name in &names {
        let applied = status.apply(&policy(name), conditions("of this test")).await;
        assert_eq!(applied.is_err(), name.as_str() < "p10", "{name}: {applied:?}");
    }
    tokio::time::sleep(SECOND * 60).await;

    for name in &names {
        assert!(fake.object(Kind::PeerAuthentication, "app", name).unwrap()["status"].is_object(), "{name}");
    }
}
