//! The manager with a source that answers when the test says so, in a time that the test moves.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ca_client::{CertificateError, CertificateManager, CertificateSource, Priority, SourceError};
use ca_server::testing::FixedRoot;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use identity::{Identity, TrustDomain};
use parking_lot::Mutex;
use tls::WorkloadCertificate;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

const HOUR: Duration = Duration::from_secs(3600);

fn id(name: &str) -> Identity {
    Identity::new(&TrustDomain::default(), "default", name).unwrap()
}

/// Answers of a fake source: in order of the calls, one permit of `gate` each.
struct Fake {
    root: FixedRoot,
    asked: Mutex<Vec<Identity>>,
    fails: Mutex<VecDeque<bool>>,
    gate: Semaphore,
    called: Notify,
}

impl Fake {
    fn new(permits: usize) -> Arc<Self> {
        Arc::new(Self {
            root: FixedRoot::new(TrustDomain::default(), 2 * HOUR).unwrap(),
            asked: Mutex::default(),
            fails: Mutex::default(),
            gate: Semaphore::new(permits),
            called: Notify::new(),
        })
    }

    fn fail_next(&self, times: usize) {
        self.fails.lock().extend(std::iter::repeat_n(true, times));
    }

    fn asked(&self) -> Vec<Identity> {
        self.asked.lock().clone()
    }

    /// Until the source was asked this often.
    async fn asked_times(&self, times: usize) {
        while self.asked.lock().len() < times {
            self.called.notified().await;
        }
    }
}

impl CertificateSource for Fake {
    fn fetch(&self, identity: &Identity) -> BoxFuture<'_, Result<WorkloadCertificate, SourceError>> {
        let identity = identity.clone();
        async move {
            self.asked.lock().push(identity.clone());
            self.called.notify_one();
            self.gate.acquire().await.unwrap().forget();
            if self.fails.lock().pop_front().unwrap_or(false) {
                return Err(SourceError::NoRoots(1));
            }
            self.root.certificate(&identity)
        }
        .boxed()
    }
}

/// A manager whose time of day moves with tokio's clock.
fn manager(source: &Arc<Fake>) -> CertificateManager {
    let (wall, start) = (SystemTime::now(), Instant::now());
    CertificateManager::spawn_with_clock(Arc::clone(source) as _, Arc::new(move || wall + start.elapsed()))
}

fn states(manager: &CertificateManager) -> Vec<String> {
    let name = |identity: &Identity| identity.service_account().to_owned();
    manager.snapshot().iter().map(|status| format!("{} {}", name(&status.identity), status.state)).collect()
}

#[tokio::test(start_paused = true)]
async fn many_who_want_one_certificate_cause_one_fetch() {
    let source = Fake::new(1);
    let manager = manager(&source);

    let (web, db) = (id("web"), id("web"));
    let (first, second) = tokio::join!(manager.get(&web, Priority::RealTime), manager.get(&db, Priority::RealTime));

    assert!(Arc::ptr_eq(&first.unwrap(), &second.unwrap()));
    assert_eq!(source.asked().len(), 1);
    assert!(manager.current(&web).is_some());
    assert_eq!(states(&manager), ["web Available"]);
}

#[tokio::test(start_paused = true)]
async fn at_most_eight_fetches_run_and_the_urgent_ones_come_first() {
    let source = Fake::new(0);
    let manager = manager(&source);
    for number in 0..10 {
        assert!(manager.prefetch(&id(&format!("early-{number}"))));
    }
    source.asked_times(8).await;
    let urgent = id("urgent");
    let (urgent_one, raised) = (manager.get(&urgent, Priority::RealTime), id("early-9"));
    let raised_one = manager.get(&raised, Priority::RealTime);
    tokio::pin!(urgent_one, raised_one);
    assert!(urgent_one.as_mut().now_or_never().is_none());
    assert!(raised_one.as_mut().now_or_never().is_none());
    assert_eq!(source.asked().len(), 8);

    source.gate.add_permits(100);
    urgent_one.await.unwrap();
    raised_one.await.unwrap();
    source.asked_times(11).await;

    let order: Vec<String> = source.asked()[8..].iter().map(|id| id.service_account().to_owned()).collect();
    assert_eq!(order, ["urgent", "early-9", "early-8"]);
}

#[tokio::test(start_paused = true)]
async fn prefetches_beyond_the_limit_are_dropped_but_not_wanted_ones() {
    let source = Fake::new(0);
    let manager = manager(&source);

    let taken = (0..400).filter(|number| manager.prefetch(&id(&format!("w{number}")))).count();
    let wanted = id("wanted");
    let wait = manager.get(&wanted, Priority::RealTime);
    tokio::pin!(wait);

    assert_eq!(taken, 256);
    assert!(wait.as_mut().now_or_never().is_none());
    source.gate.add_permits(1000);
    wait.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_certificate_is_renewed_at_half_its_life_and_served_meanwhile() {
    let source = Fake::new(1);
    let manager = manager(&source);
    let web = id("web");
    let start = Instant::now();
    let first = manager.get(&web, Priority::RealTime).await.unwrap();

    source.asked_times(2).await;

    let elapsed = start.elapsed();
    assert!(elapsed > HOUR - Duration::from_secs(180) && elapsed <= HOUR + Duration::from_secs(1), "{elapsed:?}");
    let meanwhile = manager.get(&web, Priority::RealTime).await.unwrap();
    assert!(Arc::ptr_eq(&first, &meanwhile));
    source.gate.add_permits(1);
    source.asked_times(3).await;
    let renewed = manager.get(&web, Priority::RealTime).await.unwrap();
    assert_ne!(renewed.leaf().serial, first.leaf().serial);
}

#[tokio::test(start_paused = true)]
async fn a_failed_renewal_keeps_the_old_certificate_until_it_expires() {
    let source = Fake::new(1);
    let manager = manager(&source);
    let web = id("web");
    let first = manager.get(&web, Priority::RealTime).await.unwrap();
    source.gate.add_permits(10_000);
    source.fail_next(10_000);

    tokio::time::advance(HOUR).await;
    source.asked_times(4).await;

    let served = manager.get(&web, Priority::RealTime).await.unwrap();
    assert!(Arc::ptr_eq(&first, &served));
    assert_eq!(states(&manager), ["web Available"]);
    let before = source.asked().len();
    tokio::time::advance(2 * HOUR).await;
    source.asked_times(before + 1).await;
    tokio::task::yield_now().await;

    let error = manager.get(&web, Priority::RealTime).await.unwrap_err();
    assert_eq!(error.code(), "ca_no_roots");
    assert!(states(&manager)[0].starts_with("web Unavailable: "), "{:?}", states(&manager));
    assert!(manager.current(&web).is_none());
}

#[tokio::test(start_paused = true)]
async fn an_error_is_told_at_once_and_remembered_until_the_next_try() {
    let source = Fake::new(100);
    let manager = manager(&source);
    let web = id("web");
    source.fail_next(3);
    let start = Instant::now();

    assert!(manager.get(&web, Priority::RealTime).await.is_err());
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert!(manager.get(&web, Priority::RealTime).await.is_err());
    assert_eq!(source.asked().len(), 1);
    source.asked_times(4).await;

    // 0.1 s + 0.2 s + 0.4 s, each up to a fifth shorter.
    let elapsed = start.elapsed().as_secs_f64();
    assert!((0.56..=0.71).contains(&elapsed), "{elapsed}");
    assert!(manager.get(&web, Priority::RealTime).await.is_ok());
    assert_eq!(states(&manager), ["web Available"]);
}

#[tokio::test(start_paused = true)]
async fn a_connection_of_a_new_pod_waits_for_the_attempts_after_a_refusal() {
    let source = Fake::new(100);
    let manager = manager(&source);
    let web = id("web");
    source.fail_next(3);
    let start = Instant::now();
    let until = start + Duration::from_secs(5);

    let (one, other) =
        tokio::join!(manager.get_by(&web, Priority::RealTime, until), manager.get_by(&web, Priority::RealTime, until),);

    assert!(Arc::ptr_eq(&one.unwrap(), &other.unwrap()));
    assert_eq!(source.asked().len(), 4, "both wait for the same attempts");
    assert!(start.elapsed() <= Duration::from_secs(1), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_an_authority_that_goes_on_refusing() {
    let source = Fake::new(10_000);
    let manager = manager(&source);
    let web = id("web");
    source.fail_next(10_000);
    let patience = Duration::from_secs(5);
    let wait = async || {
        let start = Instant::now();
        let error = manager.get_by(&web, Priority::RealTime, start + patience).await.unwrap_err();
        assert_eq!(error.code(), "ca_no_roots");
        start.elapsed()
    };

    assert!(wait().await <= patience);
    // Pauses have grown beyond that time.
    tokio::time::advance(Duration::from_secs(600)).await;
    source.asked_times(10).await;

    assert_eq!(wait().await, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_failed_renewal_is_tried_again_after_a_second() {
    let source = Fake::new(100);
    let manager = manager(&source);
    let web = id("web");
    manager.get(&web, Priority::RealTime).await.unwrap();
    source.fail_next(1);

    source.asked_times(2).await;
    let failed = Instant::now();
    source.asked_times(3).await;

    let pause = failed.elapsed().as_secs_f64();
    assert!((0.79..=1.01).contains(&pause), "{pause}");
}

#[tokio::test(start_paused = true)]
async fn one_identitys_failure_does_not_delay_another() {
    let source = Fake::new(100);
    let manager = manager(&source);
    source.fail_next(1);
    assert!(manager.get(&id("bad"), Priority::RealTime).await.is_err());
    let start = Instant::now();

    manager.get(&id("good"), Priority::RealTime).await.unwrap();

    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_never_answers_is_an_error_after_its_deadline() {
    let source = Fake::new(0);
    let manager = manager(&source);
    let start = Instant::now();

    let error = manager.get(&id("web"), Priority::RealTime).await.unwrap_err();

    assert_eq!(error.code(), "ca_timeout");
    assert_eq!(start.elapsed(), Duration::from_secs(30));
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_forgotten_identity_is_told() {
    let source = Fake::new(0);
    let manager = manager(&source);
    let web = id("web");
    let waiting = manager.get(&web, Priority::RealTime);
    tokio::pin!(waiting);
    assert!(waiting.as_mut().now_or_never().is_none());
    assert_eq!(states(&manager), ["web Initializing"]);
    source.asked_times(1).await;

    manager.forget(&web);

    assert!(matches!(waiting.await, Err(CertificateError::Forgotten)));
    assert!(manager.snapshot().is_empty());
    source.gate.add_permits(2);
    let again = manager.get(&web, Priority::RealTime).await.unwrap();
    assert_eq!(again.identity(), &web);
    assert_eq!(source.asked().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_identity_is_not_renewed() {
    let source = Fake::new(100);
    let manager = manager(&source);
    let (web, other) = (id("web"), id("other"));
    manager.get(&web, Priority::RealTime).await.unwrap();
    manager.get(&other, Priority::RealTime).await.unwrap();

    manager.forget(&web);
    source.asked_times(3).await;

    assert_eq!(source.asked(), [web, other.clone(), other]);
}

/// Panics on every call.
struct Dying;

impl CertificateSource for Dying {
    fn fetch(&self, _: &Identity) -> BoxFuture<'_, Result<WorkloadCertificate, SourceError>> {
        async { panic!("a defect of the source") }.boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_panics_is_an_error_and_the_manager_lives_on() {
    let manager = CertificateManager::spawn(Arc::new(Dying));

    for number in 0..20 {
        let error = manager.get(&id(&format!("w{number}")), Priority::RealTime).await.unwrap_err();
        assert_eq!(error.code(), "ca_fetch_died");
    }
}

#[tokio::test]
async fn two_processes_with_the_fixed_root_trust_each_other() {
    let one = FixedRoot::new(TrustDomain::default(), HOUR).unwrap().certificate(&id("web")).unwrap();
    let two = FixedRoot::new(TrustDomain::default(), HOUR).unwrap().certificate(&id("db")).unwrap();

    let (server, client) = (tls::server_config(&one).unwrap(), tls::client_config(&two, &[id("web")]).unwrap());
    handshake(server, client);
}

/// Both halves in memory until neither has anything to say.
fn handshake(server: Arc<rustls::ServerConfig>, client: Arc<rustls::ClientConfig>) {
    let mut server = rustls::ServerConnection::new(server).unwrap();
    let mut client = rustls::ClientConnection::new(client, tls::server_name()).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets().unwrap();
        wire.clear();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets().unwrap();
    }
    assert_eq!(tls::peer_identity(&server), Some(id("db")));
}
