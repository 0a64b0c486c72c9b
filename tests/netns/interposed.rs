//! A relay of discovery in the network namespace of a node proxy: what passes between that proxy and the control plane is up
//! to the test.

use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::thread;
use std::{io, io::Write as _};

use lab::Target;
use runtime::sys::Netns;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use testkit::{
    TestLab,
    pki::{Authority, Leaf},
};
use tls::control_plane::{Acceptor, Limits, RootSource, ServingCertificate};
use tokio::net::TcpListener;
use xds_server::testing::{Faults, Relay};

/// The control plane's pod.
pub(crate) const CONTROL: &str = "istio-system/strake-control";
const HOST: &str = "strake-control.istio-system.svc";
const PORT: u16 = 15012;

fn acceptor(leaf: &Leaf) -> Acceptor {
    let chain = vec![CertificateDer::from_pem_slice(leaf.cert_pem.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(leaf.key_pem.as_bytes()).unwrap();
    Acceptor::new(ServingCertificate::new(chain, &key).unwrap()).unwrap()
}

/// Runs `nft` in a network namespace.
fn nft(netns: &Netns, script: &str) {
    let run = || -> io::Result<()> {
        let mut child = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn()?;
        child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?.write_all(script.as_bytes())?;
        let status = child.wait()?;
        if status.success() { Ok(()) } else { Err(io::Error::other(format!("nft: {status}"))) }
    };
    netns.run(run).unwrap();
}

/// A relay in the network namespace of the node proxy, to which its new connections to the control plane go.
pub(crate) struct Interposed {
    netns: Netns,
    pub(crate) relay: Relay,
}

impl Interposed {
    /// Before the proxy of this pod.
    pub(crate) async fn start(lab: &TestLab, proxy: &str, faults: impl Faults) -> Self {
        let netns = lab.lab().netns(Target::Pod { pod: proxy.to_owned(), container: None }).await.unwrap();
        let netns = Netns::from_fd(netns).unwrap();
        let ca = lab.lab().run_dir().control().join("ca");
        let (control, control6) = (lab.ip(CONTROL, false).await, lab.ip(CONTROL, true).await);
        let upstream = format!("https://{control}:{PORT}").parse().unwrap();
        let roots = RootSource::Path(ca.join("root-cert.pem"));
        let relay = Relay::to_host(upstream, roots, Some(HOST.to_owned()), faults);
        let acceptor = acceptor(&Authority::open(&ca).unwrap().issue_for_host(HOST).unwrap());
        serve(&netns, relay.clone(), acceptor);
        nft(
            &netns,
            &format!(
                "table inet relay {{ chain output {{ type nat hook output priority -100;\n\
                 ip daddr != {{ {control}, 127.0.0.1 }} tcp dport {PORT} dnat ip to 127.0.0.1:{PORT}\n\
                 ip6 daddr != {{ {control6}, ::1 }} tcp dport {PORT} dnat ip6 to [::1]:{PORT}\n}}\n}}\n"
            ),
        );
        Self { netns, relay }
    }

    /// New connections go to the control plane again.
    pub(crate) fn step_aside(&self) {
        nft(&self.netns, "delete table inet relay\n");
    }
}

/// Runs the relay on a thread of its own until the test process ends.
fn serve(netns: &Netns, relay: Relay, acceptor: Acceptor) {
    let inside = netns.try_clone().unwrap();
    let (ready, is_ready) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let run = || -> io::Result<()> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let mut serving = tokio::task::JoinSet::new();
                for local in ["127.0.0.1", "::1"] {
                    let local: IpAddr = local.parse().map_err(io::Error::other)?;
                    let listener = TcpListener::bind((local, PORT)).await?;
                    let connections = xds_server::incoming(acceptor.clone(), listener, Limits::with_descriptors(None));
                    serving.spawn(relay.service().serve_with_incoming(connections));
                }
                let _ = ready.send(());
                while serving.join_next().await.is_some() {}
                Ok(())
            })
        };
        inside.run(run)
    });
    is_ready.recv().unwrap();
}
