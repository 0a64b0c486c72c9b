//! How fast pods of two nodes reach each other under our own steering: the same two programs outside of the mesh and in
//! it, in one lab, in turns. It prints figures and judges none; `make bench` runs it with release builds.
//!
//! Everything shares one machine: client, server and both proxies compete for the same cores, so a ratio says what the mesh
//! costs where there is no core to spare.

use std::{env, fs, process::ExitCode, time::Duration};

use lab::Target;
use runtime::sys::Netns;
use testkit::{
    TestLab, labs,
    manifests::{app, idle, namespace},
    prerequisites,
};

/// One path from node-1 to node-2.
#[derive(Debug, Clone, Copy)]
enum Arm {
    Outside,
    Inside,
}

impl Arm {
    const ALL: [Self; 2] = [Self::Outside, Self::Inside];

    const fn namespace(self) -> &'static str {
        match self {
            Self::Outside => "outside",
            Self::Inside => "inside",
        }
    }
}

/// What is measured, with how many connections.
struct Scenario {
    what: &'static str,
    port: u16,
    parallel: u32,
    title: &'static str,
}

const fn scenario(what: &'static str, port: u16, parallel: u32, title: &'static str) -> Scenario {
    Scenario { what, port, parallel, title }
}

const SCENARIOS: [Scenario; 6] = [
    scenario("bulk", 7007, 1, "bulk, 1 stream, Gbit/s"),
    scenario("bulk", 7007, 64, "bulk, 64 streams, Gbit/s"),
    scenario("requests", 7008, 1, "requests/s, 1 connection"),
    scenario("requests", 7008, 16, "requests/s, 16 connections"),
    scenario("requests", 7008, 64, "requests/s, 64 connections"),
    scenario("connections", 7008, 16, "new connections/s, 16 at a time"),
];

/// Of an arm before it is measured: tunnels are open then.
const WARM_UP: Duration = Duration::from_millis(200);

/// Closed connections linger for a minute. Short samples in a row would fill the port range with them, and a sample would
/// measure those before it.
const LINGERING: &str = "16";

struct Plan {
    /// Time of one sample.
    sample: Duration,
    /// Samples of each arm in each scenario.
    rounds: usize,
}

impl Plan {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut plan = Self { sample: Duration::from_secs(2), rounds: 5 };
        while let Some(arg) = args.next() {
            let mut number =
                || args.next().and_then(|value| value.parse().ok()).filter(|value| (1..=600).contains(value));
            match arg.as_str() {
                // cargo says so to every benchmark
                "--bench" => {}
                "--seconds" => plan.sample = number().map(Duration::from_secs).ok_or("--seconds wants 1 to 600")?,
                "--rounds" => plan.rounds = number().ok_or("--rounds wants 1 to 600")? as usize,
                other => return Err(format!("{other:?}: expected --seconds N (of a sample) or --rounds N (samples)")),
            }
        }
        Ok(plan)
    }
}

fn main() -> ExitCode {
    let plan = match Plan::parse(env::args().skip(1)) {
        Ok(plan) => plan,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::from(2);
        }
    };
    labs::run_alone("bench", &manifests(), async |lab| {
        lab.meshed(&["inside/client", "inside/server"]).await;
        for arm in Arm::ALL {
            prepare(lab, arm).await;
        }
        describe(&plan);
        for scenario in &SCENARIOS {
            let samples = measure(lab, scenario, &plan).await;
            println!("{}", line(scenario.title, &samples));
        }
    });
    ExitCode::SUCCESS
}

fn manifests() -> String {
    Arm::ALL
        .map(|arm| {
            let name = arm.namespace();
            namespace(name, matches!(arm, Arm::Inside))
                + &idle(name, "client", "node-1")
                + &app(name, "server", "node-2")
        })
        .concat()
}

/// Warms an arm up, and makes sure that it is what it is called.
async fn prepare(lab: &TestLab, arm: Arm) {
    let pods = ["client", "server"].map(|name| format!("{}/{name}", arm.namespace()));
    for pod in &pods {
        let netns = lab.lab().netns(Target::Pod { pod: pod.clone(), container: None }).await.expect("a namespace");
        let netns = Netns::from_fd(netns).expect("a namespace");
        netns.run(|| fs::write("/proc/sys/net/ipv4/tcp_max_tw_buckets", LINGERING)).expect("a setting");
    }
    for scenario in &SCENARIOS {
        sample(lab, arm, scenario, WARM_UP).await;
    }
    let (_, frames) = lab.captured("node-1", sample(lab, arm, &SCENARIOS[5], WARM_UP)).await;
    let audit = lab.audit(&frames, &pods.each_ref().map(String::as_str)).await;
    let as_called = match arm {
        Arm::Outside => audit.tunnels + audit.records == 0 && !audit.plain.is_empty(),
        Arm::Inside => audit.plain.is_empty() && audit.broken.is_empty() && audit.frames > 0,
    };
    assert!(as_called, "{arm:?}: the wire shows {audit:?}");
}

/// One sample: a rate. A connection that fails ends the run.
async fn sample(lab: &TestLab, arm: Arm, scenario: &Scenario, duration: Duration) -> f64 {
    let space = arm.namespace();
    let target = format!("{}:{}", lab.ip(&format!("{space}/server"), false).await, scenario.port);
    let (parallel, time) = (scenario.parallel.to_string(), duration.as_millis().to_string());
    let args = ["measure", scenario.what, &target, "--parallel", &parallel, "--milliseconds", &time];
    let report = lab.testapp(&format!("{space}/client"), &args).await;
    report["per_second"].as_f64().unwrap_or_else(|| panic!("{arm:?}, {}: {report}", scenario.title))
}

/// Samples of both arms, in pairs; who comes first alternates.
async fn measure(lab: &TestLab, scenario: &Scenario, plan: &Plan) -> Vec<[f64; 2]> {
    let mut samples = Vec::new();
    for round in 0..plan.rounds {
        let mut pair = [0.0; 2];
        let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        for index in order {
            pair[index] = sample(lab, Arm::ALL[index], scenario, plan.sample).await;
        }
        samples.push(pair);
    }
    samples
}

fn describe(plan: &Plan) {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!(
        "pods of two nodes of one machine: {cores} cores, Linux {}, programs from {}; {} samples of {:?} each, in turns",
        kernel.trim(),
        prerequisites::bin_dir().display(),
        plan.rounds,
        plan.sample
    );
    println!("{:<34}{:>16}{:>16}   ratio (lowest to highest)", "", "outside", "in the mesh");
}

/// Medians of both arms and of the pairs' ratios.
fn line(title: &str, samples: &[[f64; 2]]) -> String {
    let [outside, inside] = [0, 1].map(|index| median(samples.iter().map(|pair| pair[index])));
    let ratios = || samples.iter().map(|[outside, inside]| inside / outside);
    let (lowest, highest) = (ratios().fold(f64::INFINITY, f64::min), ratios().fold(0.0, f64::max));
    let digits = if outside < 1000.0 { 2 } else { 0 };
    let ratio = median(ratios());
    format!("{title:<34}{outside:>16.digits$}{inside:>16.digits$}   {ratio:.2} ({lowest:.2} to {highest:.2})")
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}
