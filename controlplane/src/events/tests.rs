//! Events against an API server in memory that can fail.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use graph::ObjectStatus;
use http::{Method, StatusCode};
use kube_types::core::{Condition, ConditionStatus};
use kube_types::{ClusterId, Kind};
use serde_json::{Value, json};

use super::*;
use crate::testing::api_server;

const SECOND: Duration = Duration::from_secs(1);

#[derive(Default)]
struct State {
    refusal: Option<u16>,
    requests: usize,
    events: BTreeMap<String, Value>,
}

/// Clones share their Events.
#[derive(Clone, Default)]
struct Fake(Arc<Mutex<State>>);

impl Fake {
    fn answer(&self, method: &Method, path: &str, body: &[u8]) -> (StatusCode, Value) {
        let mut state = self.0.lock();
        state.requests += 1;
        if let Some(code) = state.refusal {
            return (StatusCode::from_u16(code).unwrap(), json!({"code": code, "reason": "Scripted"}));
        }
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        if *method == Method::POST {
            let at = format!("{path}/{}", body["metadata"]["name"].as_str().unwrap());
            assert_eq!(path, format!("/api/v1/namespaces/{}/events", body["metadata"]["namespace"].as_str().unwrap()));
            state.events.insert(at, body.clone());
            return (StatusCode::CREATED, body);
        }
        let Some(event) = state.events.get_mut(path) else {
            return (StatusCode::NOT_FOUND, json!({"code": 404, "reason": "NotFound"}));
        };
        for (field, value) in body.as_object().into_iter().flatten() {
            event[field] = value.clone();
        }
        (StatusCode::OK, event.clone())
    }

    fn objects(&self) -> Objects {
        let fake = self.clone();
        Objects::new(&api_server(move |method, path, body| fake.answer(method, path, body)))
    }

    /// Reason, message and count of each Event.
    fn events(&self) -> Vec<(String, String, u64)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let state = self.0.lock();
        let events = state.events.values();
        events
            .map(|event| (text(&event["reason"]), text(&event["message"]), event["count"].as_u64().unwrap()))
            .collect()
    }

    fn requests(&self) -> usize {
        self.0.lock().requests
    }
}

fn run(events: &Events, fake: &Fake) -> (Arc<AtomicBool>, tokio::task::JoinHandle<()>) {
    let leads = Arc::new(AtomicBool::new(true));
    let is_leading = {
        let leads = Arc::clone(&leads);
        move || leads.load(Ordering::Relaxed)
    };
    (leads, tokio::spawn(events.clone().run(fake.objects(), is_leading, "control-1".to_owned())))
}

fn condition(name: &str, reason: &str, message: &str) -> StatusUpdate {
    let condition = Condition {
        r#type: graph::ENFORCED.to_owned(),
        status: ConditionStatus::False,
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        ..Condition::default()
    };
    StatusUpdate {
        cluster: ClusterId::default(),
        object: ObjectRef::new(Kind::AuthorizationPolicy, "app", name),
        status: ObjectStatus { conditions: vec![condition], addresses: Vec::new() },
        current: ObjectStatus::default(),
    }
}

fn said(reason: &str, message: &str, count: u64) -> (String, String, u64) {
    (reason.to_owned(), format!("not enforced: {message}"), count)
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_is_not_enforced_has_one_event_that_is_repeated_while_it_stands() {
    let (events, fake) = (Events::default(), Fake::default());
    let _task = run(&events, &fake);

    events.conditions(&condition("web", "Shadowed", "a"));
    sleep(SECOND * 5).await;
    assert_eq!(fake.events(), [], "it may be true for a moment only");
    sleep(SECOND * 10).await;
    assert_eq!(fake.events(), [said("Shadowed", "a", 1)]);

    for message in ["b", "c"] {
        events.conditions(&condition("web", "Shadowed", message));
        sleep(SECOND).await;
    }
    assert_eq!(fake.events(), [said("Shadowed", "a", 1)]);
    sleep(SECOND * 400).await;
    assert_eq!(fake.events(), [said("Shadowed", "c", 2)]);

    let fine = StatusUpdate { status: ObjectStatus::default(), ..condition("web", "", "") };
    events.conditions(&fine);
    let before = fake.requests();
    sleep(SECOND * 7200).await;
    assert_eq!(fake.requests(), before, "nothing is said of what is over");
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_leads_next_finds_what_was_said() {
    let (first, second, fake) = (Events::default(), Events::default(), Fake::default());
    let (leads, _first) = run(&first, &fake);
    first.conditions(&condition("web", "Shadowed", "a"));
    second.conditions(&condition("web", "Shadowed", "a"));
    sleep(SECOND * 20).await;
    leads.store(false, Ordering::Relaxed);

    let _second = run(&second, &fake);
    sleep(SECOND * 20).await;

    assert_eq!(fake.events(), [said("Shadowed", "a", 1)]);
    // The other one is asleep until its fact is due again, and does not write then.
    first.conditions(&condition("db", "Shadowed", "a"));
    sleep(SECOND * 20).await;
    assert_eq!(fake.events().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn events_are_limited_in_number_and_wait_for_the_api_server() {
    let (events, fake) = (Events::default(), Fake::default());
    let _task = run(&events, &fake);
    fake.0.lock().refusal = Some(503);
    for index in 0..100 {
        events.conditions(&condition(&format!("p{index:02}"), "Shadowed", "a"));
    }
    sleep(SECOND * 130).await;
    let asked = fake.requests();
    assert!((3..30).contains(&asked), "{asked} requests in two minutes to an API server that fails");

    fake.0.lock().refusal = None;
    for second in 0..180 {
        let before = fake.events().len();
        sleep(SECOND).await;
        let new = fake.events().len() - before;
        assert!(new <= 6, "{new} Events in second {second}");
    }
    assert_eq!(fake.events().len(), 100);
}
