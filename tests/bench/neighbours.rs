//! Latency of two pods while a third one misbehaves: quiet and hostile by turns, in one lab. The client and the hostile pod
//! have one node proxy, the server and the pod that is flooded the other.

use std::time::Duration;

use testkit::{
    TestLab, labs,
    manifests::{app, idle, namespace},
    pki::{Authority, Validity},
};

use crate::{Plan, few_lingering, median};

/// Connections of the pods that are measured, at a time.
const PARALLEL: &str = "4";

/// From the start of a flood to the sample: what it holds is held by then.
const ONSET: Duration = Duration::from_secs(3);

/// Identity of the pod outside of the mesh, which speaks HBONE itself.
const OUTSIDER: &str = "spiffe://cluster.local/ns/outside/sa/outsider";

/// Origin of a flood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    /// Nobody: how much the figures differ by themselves.
    Nobody,
    /// A pod in the mesh, through its own proxy.
    Pod,
    /// A peer outside of it, against the HBONE port of the pod that is flooded.
    Peer,
}

struct Misbehaviour {
    title: &'static str,
    from: From,
    kind: &'static str,
    port: u16,
    per_second: &'static str,
    hold: &'static str,
}

const fn misbehaviour(
    title: &'static str,
    from: From,
    kind: &'static str,
    port: u16,
    per_second: &'static str,
) -> Misbehaviour {
    Misbehaviour { title, from, kind, port, per_second, hold: "1000" }
}

const MISBEHAVIOURS: [Misbehaviour; 8] = [
    misbehaviour("nobody", From::Nobody, "", 0, ""),
    misbehaviour("connections, 500/s, 1000 held", From::Pod, "connections", 7000, "500"),
    misbehaviour("resets, 500/s", From::Pod, "resets", 7000, "500"),
    Misbehaviour { hold: "200", ..misbehaviour("200 readers that do not read", From::Pod, "readers", 7003, "200") },
    misbehaviour("half handshakes, 500/s", From::Peer, "hellos", 15008, "500"),
    misbehaviour("streams reset, 400/s", From::Peer, "streams", 15008, "400"),
    misbehaviour("streams reset, 2000/s", From::Peer, "streams", 15008, "2000"),
    misbehaviour("headers of 7 KiB, 500/s", From::Peer, "headers", 15008, "500"),
];

/// Figures of the calm pods.
const MEASURED: [&str; 2] = ["requests", "connections"];

/// 99th percentiles in milliseconds: of requests and of new connections.
type Latency = [f64; 2];

/// Measures each misbehaviour and prints a line for it.
pub(crate) fn run(plan: &Plan) {
    labs::run_alone("neighbours", &manifests(), async |lab| {
        lab.meshed(&["mesh/client", "mesh/server", "mesh/hostile", "mesh/prey"]).await;
        for pod in ["mesh/client", "mesh/server", "mesh/hostile", "mesh/prey"] {
            few_lingering(lab, pod).await;
        }
        // Tunnels are open then.
        calm(lab, Duration::from_millis(200)).await;
        println!("{:<34}{:>30}{:>30}", "p99 in ms, quiet -> hostile (factor)", "request", "new connection and request");
        for misbehaviour in MISBEHAVIOURS.iter().filter(|one| one.title.contains(&plan.misbehaviour)) {
            println!("{}", line(misbehaviour.title, &measure(lab, misbehaviour, plan).await));
        }
    });
}

fn manifests() -> String {
    namespace("mesh", true)
        + &namespace("outside", false)
        + &idle("mesh", "client", "node-1")
        + &app("mesh", "server", "node-2")
        + &idle("mesh", "hostile", "node-1")
        + &app("mesh", "prey", "node-2")
        + &idle("outside", "outsider", "node-1")
}

/// One sample of the calm pods.
async fn calm(lab: &TestLab, duration: Duration) -> Latency {
    let target = format!("{}:7008", lab.ip("mesh/server", false).await);
    let time = duration.as_millis().to_string();
    let mut latency = [0.0; 2];
    for (p99, what) in latency.iter_mut().zip(MEASURED) {
        let args = ["measure", what, &target, "--parallel", PARALLEL, "--milliseconds", &time];
        let report = lab.testapp("mesh/client", &args).await;
        *p99 = report["p99_us"].as_f64().unwrap_or_else(|| panic!("{what}: {report}")) / 1000.0;
    }
    latency
}

/// Samples by turns: quiet, hostile, quiet, hostile.
async fn measure(lab: &TestLab, misbehaviour: &Misbehaviour, plan: &Plan) -> Vec<[Latency; 2]> {
    let mut samples = Vec::new();
    for _ in 0..plan.rounds {
        let quiet = calm(lab, plan.sample).await;
        let flood = flood(lab, misbehaviour).await;
        let hostile = calm(lab, plan.sample).await;
        if let Some(flood) = flood {
            let report = flood.stop().await;
            assert!(report["done"].as_u64() > Some(0), "{}: {report}", misbehaviour.title);
        }
        samples.push([quiet, hostile]);
    }
    samples
}

/// Starts the flood; returns when it has lasted for [`ONSET`].
async fn flood(lab: &TestLab, misbehaviour: &Misbehaviour) -> Option<labs::Load> {
    let Misbehaviour { from, kind, port, per_second, hold, .. } = misbehaviour;
    let ip = lab.ip("mesh/prey", false).await;
    let (target, authority) = (format!("{ip}:{port}"), format!("{ip}:7000"));
    let mut args = vec![*kind, &target, "--per-second", per_second, "--hold", hold];
    let paths;
    let pod = match from {
        From::Nobody => return None,
        From::Pod => "mesh/hostile",
        From::Peer => {
            let authority = Authority::open(&lab.lab().run_dir().control().join("ca")).expect("the lab's root");
            let leaf = authority.issue(OUTSIDER, Validity::Now).expect("a certificate");
            paths = leaf.write(lab.manifests(), "outsider").expect("a file");
            args.extend(["--cert", &paths.0, "--key", &paths.1]);
            "outside/outsider"
        }
    };
    args.extend(["--authority", &authority]);
    let load = lab.flood(pod, &args).await;
    tokio::time::sleep(ONSET).await;
    Some(load)
}

/// Medians of both arms and of the factor between them.
fn line(title: &str, samples: &[[Latency; 2]]) -> String {
    let cell = |index: usize| {
        let arm = |arm: usize| median(samples.iter().map(|pair| pair[arm][index]));
        let (quiet, hostile) = (arm(0), arm(1));
        let mark = if hostile > 2.0 * quiet { " !" } else { "" };
        format!("{quiet:.2} -> {hostile:.2} ({:.2}{mark})", hostile / quiet)
    };
    format!("{title:<34}{:>30}{:>30}", cell(0), cell(1))
}
