//! A node proxy whose discovery is cut, incomplete, reordered and partly lost, while pods keep their label: not one byte of
//! theirs leaves in plaintext.

use proto::ADDRESS_TYPE_URL;
use proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use testkit::{TestLab, eventually, labs, labs::TAKES_EFFECT, manifests::client_and_server};
use tokio::sync::watch;
use xds_server::testing::{Faults, LikeIstiod, Passed, Pieces};

use crate::interposed::{CONTROL, Interposed};

const PODS: [&str; 2] = ["mesh/client", "mesh/server"];
const SERVER: &str = "/mesh/server";
const PROXY: &str = "istio-system/ztunnel-node-1";
const KILL: i32 = 9;

/// Something that the relay does to the node proxy's discovery.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    /// Streams break in the middle of the snapshot, each time before the server is announced.
    CutInTheMiddle,
    /// As Istio's control plane: everything in one response, policies last.
    Istiod,
    /// A control plane without half of its state removes the server.
    HalfTheState,
    /// Streams break at once.
    Cut,
}

struct Scripted {
    mode: watch::Receiver<Mode>,
    pieces: Pieces,
    istiod: LikeIstiod,
    server: String,
    has_removed: bool,
}

impl Faults for Scripted {
    fn request(&mut self, stream: usize, request: DeltaDiscoveryRequest) -> Vec<DeltaDiscoveryRequest> {
        let mode = *self.mode.borrow();
        match mode {
            Mode::CutInTheMiddle => self.pieces.request(stream, request),
            Mode::Istiod | Mode::HalfTheState | Mode::Cut => self.istiod.request(stream, request),
        }
    }

    fn response(&mut self, stream: usize, response: DeltaDiscoveryResponse) -> Vec<Passed> {
        let mode = *self.mode.borrow();
        match mode {
            Mode::CutInTheMiddle => {
                let pieces = self.pieces.response(stream, response);
                pieces.into_iter().map(|piece| if announces(&piece, SERVER) { Passed::Cut } else { piece }).collect()
            }
            Mode::Istiod | Mode::HalfTheState => self.istiod.response(stream, response),
            Mode::Cut => vec![Passed::Cut],
        }
    }

    fn idle(&mut self, stream: usize) -> Vec<Passed> {
        let mode = *self.mode.borrow();
        match mode {
            Mode::CutInTheMiddle => Vec::new(),
            Mode::Istiod => self.istiod.idle(stream),
            Mode::HalfTheState if !self.has_removed => {
                self.has_removed = true;
                vec![
                    DeltaDiscoveryResponse {
                        type_url: ADDRESS_TYPE_URL.to_owned(),
                        nonce: "half".to_owned(),
                        removed_resources: vec![self.server.clone()],
                        ..DeltaDiscoveryResponse::default()
                    }
                    .into(),
                ]
            }
            Mode::HalfTheState => self.istiod.idle(stream),
            Mode::Cut => vec![Passed::Cut],
        }
    }
}

fn announces(piece: &Passed, name: &str) -> bool {
    match piece {
        Passed::Response(response) => response.resources.iter().any(|resource| resource.name.ends_with(name)),
        Passed::Request(_) | Passed::Wait(_) | Passed::Cut => false,
    }
}

/// Fails unless a call gets no answer.
async fn assert_unanswered(lab: &TestLab, address: &str, when: &str) {
    for target in ["server:80", address] {
        let args = ["http", target, "--text", "/marker-discovery", "--timeout-ms", "700"];
        let report = lab.client(PODS[0], &args).await;
        assert!(report.get("error").is_some(), "{when}: {target} answered: {report}");
    }
}

async fn answered(lab: &TestLab, address: &str, when: &str) {
    for target in ["server:80", address] {
        eventually(&format!("{when}: {target} answers"), TAKES_EFFECT * 2, async || {
            let args = ["http", target, "--text", "/marker-discovery", "--timeout-ms", "3000"];
            let report = lab.client(PODS[0], &args).await;
            if report["status"] == 200 { Ok(()) } else { Err(format!("{report}")) }
        })
        .await;
    }
}

/// The node proxy of the client is restarted with discovery that never completes, then with one like Istio's, which then
/// loses the server; at last the control plane is killed and comes back.
async fn through_faults(lab: &TestLab) {
    let address = format!("{}:8080", lab.ip(PODS[1], false).await);
    let (mode, receiver) = watch::channel(Mode::CutInTheMiddle);
    let faults = Scripted {
        mode: receiver,
        pieces: Pieces::of(1),
        istiod: LikeIstiod::default(),
        server: format!("Kubernetes//Pod{SERVER}"),
        has_removed: false,
    };
    let interposed = Interposed::start(lab, PROXY, faults).await;
    let text = ["--text", "/marker-discovery", "--timeout-ms", "700", "--every-ms", "50"];
    let by_name = lab.load(PODS[0], &[&["loop", "server:80"], &text[..]].concat()).await.answered().await;
    let by_address = lab.load(PODS[0], &[&["loop", &address], &text[..]].concat()).await.answered().await;

    lab.lab().kill(PROXY, KILL).await.unwrap();
    eventually("the proxy tries discovery again and again", TAKES_EFFECT, async || match interposed.relay.streams() {
        streams if streams >= 4 => Ok(()),
        streams => Err(format!("{streams} streams")),
    })
    .await;
    assert_unanswered(lab, &address, "half a snapshot").await;
    assert!(!lab.pod(PROXY).await.ready, "ready with half a snapshot");

    mode.send_replace(Mode::Istiod);
    answered(lab, &address, "a whole snapshot in one response").await;

    mode.send_replace(Mode::HalfTheState);
    eventually("the proxy has lost the server", TAKES_EFFECT, async || {
        match lab.knows("node-1", &PODS[1..], "HBONE").await {
            Ok(()) => Err("it is still known"),
            Err(_) => Ok(()),
        }
    })
    .await;
    assert_unanswered(lab, &address, "the control plane has lost the server").await;

    interposed.step_aside();
    mode.send_replace(Mode::Cut);
    lab.lab().kill(CONTROL, KILL).await.unwrap();
    answered(lab, &address, "the control plane is back").await;
    for load in [by_name, by_address] {
        // How many of its calls fall between the faults is chance; that calls work then is asserted above.
        let report = load.stop().await;
        assert!(report["failed"].as_u64() > Some(0), "{report}");
    }
}

#[test]
fn discovery_that_is_cut_or_incomplete_or_loses_pods_puts_nothing_on_the_wire_in_plaintext() {
    labs::run_alone("xds-faults", &client_and_server(), async |lab| {
        lab.meshed(&PODS).await;

        let ((), frames) = lab.captured("node-1", through_faults(lab)).await;

        let audit = lab.audit(&frames, &PODS).await;
        assert!(audit.plain.is_empty() && audit.broken.is_empty(), "{audit:?}");
        let marker = capture::occurrences(frames.iter().map(|frame| frame.bytes.as_slice()), b"marker-discovery");
        assert_eq!(marker, 0, "{audit:?}");
        assert!(audit.protected_bytes > 0, "{audit:?}");
    });
}
