//! Streams end when they are old, and when the token that they began with is no longer good.

mod common;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use common::{Seen, Served, ask, client, policy, raw, run, serve_with, soon, upsert};
use proto::{ADDRESS_TYPE_URL as ADDRESS, AUTHORIZATION_TYPE_URL as POLICY};
use tls::control_plane::{Credential, ShownCredential, Token, Validity};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::Code;
use xds_client::Interest;
use xds_server::{Ages, Cache, Report};

const LONG: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(20);

/// A credential of which the test says what it is worth, and that counts its checks.
struct Shown {
    validity: watch::Receiver<Validity>,
    checks: watch::Sender<usize>,
}

impl Credential for Shown {
    fn check(&self) -> Pin<Box<dyn Future<Output = Validity> + Send + '_>> {
        self.checks.send_modify(|checks| *checks += 1);
        Box::pin(std::future::ready(self.validity.borrow().clone()))
    }
}

async fn serve(ages: Ages, credential: Option<ShownCredential>) -> Served {
    let cache = Cache::new();
    cache.apply(POLICY, vec![policy("p", "1")]);
    cache.mark_synced();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    serve_with(listener, cache, true, ages, credential)
}

#[tokio::test]
async fn a_stream_ends_in_good_order_at_its_maximum_age() {
    let served = serve(Ages { max_age: SHORT, check_every: LONG }, None).await;
    let mut raw = raw(served.address).await.unwrap();
    raw.send(ask(POLICY)).await;
    raw.hear().await;

    assert_eq!(raw.next().await.unwrap(), None);
}

#[tokio::test]
async fn a_client_comes_back_after_the_maximum_age_and_misses_nothing() {
    let mut served = serve(Ages { max_age: Duration::from_millis(500), check_every: LONG }, None).await;
    let seen = Seen::new();
    let _running = run(client(served.address.port(), Token::None, &seen, Interest::All));

    let (mut connections, mut version) = (0, 0);
    while connections < 3 {
        version += 1;
        let version = version.to_string();
        served.cache.apply(ADDRESS, vec![upsert("a", &version)]);
        seen.holds(&[("p", "1"), ("a", &version)]).await;
        while let Ok(report) = served.reports.try_recv() {
            connections += usize::from(matches!(report, Report::Connected { .. }));
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_stream_ends_when_its_token_is_no_longer_good_and_not_when_that_cannot_be_checked() {
    let (validity, receiver) = watch::channel(Validity::Unknown("the file cannot be read".to_owned()));
    let (checks, mut checked) = watch::channel(0);
    let credential = ShownCredential(Arc::new(Shown { validity: receiver, checks }));
    let served = serve(Ages { max_age: LONG, check_every: SHORT }, Some(credential)).await;
    let mut raw = raw(served.address).await.unwrap();
    raw.send(ask(POLICY)).await;
    raw.hear().await;

    soon(checked.wait_for(|checks| *checks > 2)).await.unwrap();
    served.cache.apply(POLICY, vec![policy("q", "1")]);
    assert_eq!(raw.hear().await.resources, ["q@1"], "the stream goes on");
    validity.send_replace(Validity::Valid);
    let before = *checked.borrow();
    soon(checked.wait_for(|checks| *checks > before + 2)).await.unwrap();
    served.cache.apply(POLICY, vec![policy("r", "1")]);
    assert_eq!(raw.hear().await.resources, ["r@1"], "the stream goes on");

    validity.send_replace(Validity::Revoked("its pod is gone".to_owned()));
    assert_eq!(raw.next().await.unwrap_err().code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_stream_outlives_its_age_while_its_token_cannot_be_checked() {
    let (validity, receiver) = watch::channel(Validity::Unknown("no answer from the API server".to_owned()));
    let (checks, mut checked) = watch::channel(0);
    let credential = ShownCredential(Arc::new(Shown { validity: receiver, checks }));
    let ages = Ages { max_age: SHORT * 3, check_every: SHORT };
    let served = serve(ages, Some(credential)).await;
    let mut raw = raw(served.address).await.unwrap();
    raw.send(ask(POLICY)).await;
    raw.hear().await;

    soon(checked.wait_for(|checks| *checks > 10)).await.unwrap();
    served.cache.apply(POLICY, vec![policy("q", "1")]);
    assert_eq!(raw.hear().await.resources, ["q@1"], "nobody could begin another stream now");

    validity.send_replace(Validity::Valid);
    assert_eq!(raw.next().await.unwrap(), None);
}
