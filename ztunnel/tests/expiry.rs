//! Certificates that end, are renewed or change their root while tunnels are open. Certificates live for seconds here, and
//! every peer speaks real TLS.

mod pods;

use ca_client::{CertificateManager, CertificateSource, SourceError};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::HeaderMap;
use identity::Identity;
use pods::dialer::{Dialer, identity, local};
use pods::observe::{eventually, tunnels_from};
use pods::{PATIENCE, Pod, Proxy, echo_server, exchange, state, two_pods};
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use tls::WorkloadCertificate;
use tokio::time::timeout;

/// Length of a leaf's life where a test waits for its end; a certificate's times are whole seconds.
const SHORT: Duration = Duration::from_secs(4);

/// An authority of the tests, whose leaves begin and end when a test says so.
struct Authority {
    issuer: rcgen::Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
}

impl Authority {
    fn new() -> Arc<Self> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name = DistinguishedName::new();
        let root = params.self_signed(&key).unwrap().der().clone();
        Arc::new(Self { issuer: rcgen::Issuer::new(params, key), root })
    }

    fn issue(
        &self,
        identity: &Identity,
        from: SystemTime,
        to: SystemTime,
        roots: Vec<CertificateDer<'static>>,
    ) -> WorkloadCertificate {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(identity.as_str().try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        (params.not_before, params.not_after) = (from.into(), to.into());
        let leaf = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        WorkloadCertificate::new(vec![leaf], &key, roots).unwrap()
    }
}

/// Present behaviour of the proxies' certificate authority.
#[derive(Clone)]
struct Issuing {
    signer: Arc<Authority>,
    trusted: Vec<CertificateDer<'static>>,
    lifetime: Duration,
    away: bool,
}

/// The source of the proxies' certificates.
struct Source(Mutex<Issuing>);

impl Source {
    fn new(signer: &Arc<Authority>, lifetime: Duration) -> Arc<Self> {
        let (signer, trusted) = (signer.clone(), vec![signer.root.clone()]);
        Arc::new(Self(Mutex::new(Issuing { signer, trusted, lifetime, away: false })))
    }

    fn change(&self, change: impl FnOnce(&mut Issuing)) {
        change(&mut self.0.lock());
    }
}

impl CertificateSource for Source {
    fn fetch(&self, identity: &Identity) -> BoxFuture<'_, Result<WorkloadCertificate, SourceError>> {
        let now = self.0.lock().clone();
        let begin = SystemTime::now();
        let issued = (!now.away)
            .then(|| now.signer.issue(identity, begin, begin + now.lifetime, now.trusted))
            .ok_or(SourceError::Died);
        std::future::ready(issued).boxed()
    }
}

/// A proxy of both pods that gets its certificates from `source`, and its certificates.
fn start(source: &Arc<Source>, client: &Pod, server: &Pod) -> (Proxy, CertificateManager) {
    let mut manager = None;
    let source = Arc::clone(source);
    let proxy = Proxy::start_on(1, state(client, server, "HBONE"), &[client, server], |shared| {
        shared.certificates = CertificateManager::spawn(source);
        manager = Some(shared.certificates.clone());
    });
    echo_server(server.listen("0.0.0.0:8080"));
    (proxy, manager.unwrap())
}

/// Opens a connection to the server's application and reads its first line.
fn open(client: &Pod) -> std::io::Result<TcpStream> {
    let mut socket = client.connect("10.77.0.2:8080")?;
    socket.read_exact(&mut [0; 10])?;
    Ok(socket)
}

fn echoes(socket: &mut TcpStream) -> bool {
    socket.write_all(b"x").is_ok() && socket.read_exact(&mut [0]).is_ok()
}

#[test]
fn a_tunnel_whose_peers_certificate_ends_takes_no_new_stream_and_is_cut_a_lifetime_later() {
    let Some((client, server)) = two_pods("ends") else { return };
    let authority = Authority::new();
    let (_proxy, _) = start(&Source::new(&authority, Duration::from_secs(3600)), &client, &server);
    let from = SystemTime::now();
    let end = from + SHORT;
    let certificate = authority.issue(&identity(&client), from, end, vec![authority.root.clone()]);

    local(async {
        let tunnel = Dialer::with_certificate(&client, &server, &certificate).tunnel().await.unwrap();
        let connect = async || tunnel.connect("10.77.0.2:8080", HeaderMap::new()).await;
        let (mut send, mut recv) = connect().await.unwrap().stream.split();
        assert_eq!(recv.data().await.unwrap().unwrap(), "10.77.0.1\n");

        let goes_away = async {
            while tunnel.is_usable() {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, goes_away).await.expect("the tunnel is drained");
        // A certificate's times are whole seconds.
        assert!(SystemTime::now() + Duration::from_secs(1) >= end, "drained before the certificate has ended");
        assert!(connect().await.is_err(), "a new stream by a certificate that has ended");
        send.send("still here".into()).await.unwrap();
        assert_eq!(recv.data().await.unwrap().unwrap(), "still here", "an open stream goes on");

        let cut = timeout(PATIENCE, recv.data()).await.expect("the open stream is cut at last");
        assert!(cut.unwrap_err().to_string().len() > 1, "a cut looks like an end");
        assert!(SystemTime::now() + Duration::from_secs(1) >= end + SHORT, "cut before a lifetime has passed");
    });
}

#[test]
fn after_a_renewal_new_connections_get_a_new_tunnel_and_open_ones_go_on() {
    let Some((client, server)) = two_pods("renewed") else { return };
    let (_proxy, certificates) = start(&Source::new(&Authority::new(), 2 * SHORT), &client, &server);
    let mut before = open(&client).unwrap();
    let first = certificates.current(&identity(&client)).unwrap();
    assert_eq!(tunnels_from(&client), 1);

    eventually("the certificate is renewed at half its life", || {
        certificates.current(&identity(&client)).is_some_and(|now| !Arc::ptr_eq(&now, &first))
    });
    let mut after = open(&client).unwrap();

    assert_eq!(tunnels_from(&client), 2, "the new connection is not on the tunnel with the old certificate");
    assert!(echoes(&mut before) && echoes(&mut after));
    drop(before);
    eventually("the old tunnel closes with its last stream", || tunnels_from(&client) == 1);
    assert!(echoes(&mut after));
}

#[test]
fn while_the_authority_is_away_open_connections_outlive_the_certificate_and_new_ones_are_refused() {
    let Some((client, server)) = two_pods("away") else { return };
    let source = Source::new(&Authority::new(), SHORT);
    let (_proxy, certificates) = start(&source, &client, &server);
    let mut before = open(&client).unwrap();
    source.change(|now| now.away = true);

    eventually("both certificates have ended", || {
        [&client, &server].iter().all(|pod| certificates.current(&identity(pod)).is_none())
    });

    assert!(echoes(&mut before), "an open connection ends with the certificate");
    let refused = open(&client).map(drop).map_err(|e| e.kind());
    assert_eq!(refused, Err(ErrorKind::ConnectionReset), "a new connection without a certificate");
    source.change(|now| now.away = false);
    let end = Instant::now() + 2 * PATIENCE;
    while open(&client).is_err() {
        assert!(Instant::now() < end, "no connection though the authority is back");
    }
}

#[test]
fn a_root_is_replaced_in_three_steps_without_a_failed_connection() {
    const LIFETIME: Duration = Duration::from_secs(8);
    let Some((client, server)) = two_pods("root") else { return };
    let (old, new) = (Authority::new(), Authority::new());
    let source = Source::new(&old, LIFETIME);
    let (_proxy, certificates) = start(&source, &client, &server);
    let (stop, carried) = (AtomicBool::new(false), AtomicUsize::new(0));
    let traffic = || {
        while !stop.load(Ordering::Relaxed) {
            let carries = client.connect("10.77.0.2:8080").map(|socket| exchange(socket, 1000).1);
            assert_eq!(carries.map_err(|e| e.kind()), Ok(1000), "after {carried:?} connections");
            carried.fetch_add(1, Ordering::Relaxed);
        }
    };
    let both = || [&client, &server].map(|pod| certificates.current(&identity(pod)));
    // Nobody shows a certificate of the step before any more, and traffic has met those of this step.
    let step = |signer: &Arc<Authority>, trusted: &[&Arc<Authority>]| {
        let before = both();
        source.change(|now| {
            now.signer = signer.clone();
            now.trusted = trusted.iter().map(|authority| authority.root.clone()).collect();
        });
        let is_new = |(now, before): (Option<Arc<_>>, &Option<Arc<_>>)| match (now, before) {
            (Some(now), Some(before)) => !Arc::ptr_eq(&now, before),
            (now, _) => now.is_some(),
        };
        eventually("all certificates are of this step", || both().into_iter().zip(&before).all(is_new));
        let seen = carried.load(Ordering::Relaxed);
        eventually("connections go on", || carried.load(Ordering::Relaxed) > seen + 3);
    };

    std::thread::scope(|scope| {
        let traffic = scope.spawn(traffic);
        eventually("connections are carried", || carried.load(Ordering::Relaxed) > 3 || traffic.is_finished());
        let stops = Stops(&stop);
        step(&old, &[&old, &new]);
        step(&new, &[&new, &old]);
        step(&new, &[&new]);
        drop(stops);
        traffic.join().expect("no connection failed");
    });

    let roots = both().map(|certificate| certificate.unwrap().roots().to_vec());
    assert_eq!(roots, [vec![new.root.clone()], vec![new.root.clone()]], "the old root is out");
}

/// Ends the traffic, also when a step has failed.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
