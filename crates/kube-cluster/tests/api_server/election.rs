//! Elections by Lease: one leader at a time, whatever happens to its requests.

use std::time::Duration;

use kube_cluster::{Election, ElectionConfig, Verb};

use crate::fake::{Fake, Fault, When};

const SECOND: Duration = Duration::from_secs(1);

fn candidate(fake: &Fake, identity: &str) -> Election {
    Election::start(ElectionConfig {
        server: fake.server(),
        namespace: "mesh".to_owned(),
        name: "control".to_owned(),
        identity: identity.to_owned(),
    })
}

/// Looks at both ten times a second; there never are two leaders. Returns the seconds that each led.
async fn watch(time: Duration, first: &Election, second: &Election) -> (f64, f64) {
    let (first, second) = (first.leadership(), second.leadership());
    let mut led = (0.0, 0.0);
    for _ in 0..time.as_millis() / 100 {
        assert!(!(first.is_leading() && second.is_leading()), "two leaders");
        led.0 += f64::from(first.is_leading()) / 10.0;
        led.1 += f64::from(second.is_leading()) / 10.0;
        tokio::time::sleep(SECOND / 10).await;
    }
    led
}

fn holder(fake: &Fake) -> String {
    fake.lease("mesh", "control").unwrap()["spec"]["holderIdentity"].as_str().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn one_of_two_leads_and_renews() {
    let fake = Fake::default();
    let first = candidate(&fake, "first");
    assert!(first.leadership().acquired().await);
    let second = candidate(&fake, "second");

    let led = watch(SECOND * 300, &first, &second).await;

    assert!(led.0 > 299.0 && led.1 == 0.0, "{led:?}");
    assert_eq!(holder(&fake), "first");
    let updates = fake.count(Verb::Update);
    assert!((55..70).contains(&updates), "{updates} renewals in 300 s");
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_vanishes_is_followed_after_its_time() {
    let fake = Fake::default();
    let first = candidate(&fake, "first");
    assert!(first.leadership().acquired().await);
    let second = candidate(&fake, "second");
    let _ = watch(SECOND * 20, &first, &second).await;

    let (leadership, started) = (second.leadership(), tokio::time::Instant::now());
    drop(first);
    assert!(second.leadership().acquired().await);

    assert!((10..25).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
    assert!(leadership.is_leading());
    assert_eq!(fake.lease("mesh", "control").unwrap()["spec"]["leaseTransitions"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_releases_is_followed_at_once() {
    let fake = Fake::default();
    let first = candidate(&fake, "first");
    let leadership = first.leadership();
    assert!(first.leadership().acquired().await);
    let second = candidate(&fake, "second");
    let _ = watch(SECOND * 20, &first, &second).await;

    first.release().await;
    assert!(!leadership.is_leading());
    let released = tokio::time::Instant::now();
    assert!(second.leadership().acquired().await);

    assert!(released.elapsed() < SECOND * 3, "{:?}", released.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_leader_without_an_api_server_stops_before_another_begins() {
    for fault in [Fault::NoAnswer, Fault::Hang, Fault::Refuse(500, None), Fault::Garbage("{"), Fault::Refuse(403, None)]
    {
        let fake = Fake::default();
        let first = candidate(&fake, "first");
        assert!(first.leadership().acquired().await);
        let second = candidate(&fake, "second");
        let _ = watch(SECOND * 7, &first, &second).await;

        // Both lose the API server, and get it back.
        for verb in [Verb::Get, Verb::Update] {
            fake.fail(When::always(verb), fault.clone());
        }
        let led = watch(SECOND * 60, &first, &second).await;
        assert!(led.0 <= 10.1 && led.1 == 0.0, "{fault:?}: {led:?}");
        fake.heal();
        let led = watch(SECOND * 60, &first, &second).await;

        assert!(led.0 + led.1 > 35.0, "{fault:?}: {led:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_arrives_and_is_not_answered_still_holds() {
    let fake = Fake::default();
    let first = candidate(&fake, "first");
    assert!(first.leadership().acquired().await);
    let second = candidate(&fake, "second");

    fake.fail(When::next(Verb::Update).times(2), Fault::Cut(1));
    let led = watch(SECOND * 60, &first, &second).await;

    assert!(led.0 > 59.0, "{led:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lease_taken_by_somebody_else_ends_the_leadership() {
    let fake = Fake::default();
    let first = candidate(&fake, "first");
    let mut leadership = first.leadership();
    assert!(leadership.acquired().await);

    let mut lease = fake.lease("mesh", "control").unwrap();
    lease["spec"]["holderIdentity"] = "somebody".into();
    fake.put_lease("mesh", "control", lease);
    tokio::time::sleep(SECOND * 12).await;

    assert!(!leadership.is_leading());
    assert_eq!(holder(&fake), "somebody");
    assert!(leadership.acquired().await, "somebody does not renew");
}

#[tokio::test(start_paused = true)]
async fn a_404_that_does_not_name_the_lease_is_no_reason_to_make_one() {
    let fake = Fake::default();
    let first = candidate(&fake, "first");
    assert!(first.leadership().acquired().await);
    let second = candidate(&fake, "second");
    let made = fake.count(Verb::Create);

    // A proxy in between, or an API server that does not serve the group now.
    for verb in [Verb::Get, Verb::Update] {
        fake.fail(When::always(verb), Fault::Refuse(404, None));
    }
    let led = watch(SECOND * 60, &first, &second).await;

    assert_eq!(fake.count(Verb::Create), made);
    assert!(led.0 <= 10.1 && led.1 == 0.0, "{led:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_cannot_be_made_is_not_asked_for_at_full_speed() {
    for fault in [Fault::NotFound, Fault::Refuse(409, None)] {
        let fake = Fake::default();
        fake.fail(When::always(Verb::Create), fault.clone());

        let first = candidate(&fake, "first");
        tokio::time::sleep(SECOND * 60).await;
        let made = fake.count(Verb::Create);

        assert!((10..30).contains(&made), "{made} attempts in a minute, answered with {fault:?}");
        assert!(!first.leadership().is_leading());
        fake.heal();
        let healed = tokio::time::Instant::now();
        assert!(first.leadership().acquired().await);
        assert!(healed.elapsed() < SECOND * 6, "{:?}", healed.elapsed());
    }
}
