//! Measures how fast pods of two nodes reach each other: the same two programs alternately outside and inside the mesh,
//! in one lab. It judges nothing.
//!
//! Everything shares one machine: client, server and both proxies compete for the same cores, so a ratio says what the mesh
//! costs where there is no core to spare.

use std::time::Duration;

use testkit::{
    TestLab, labs,
    manifests::{app, idle, namespace},
};

use crate::{Plan, few_lingering, median};

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

/// Kind of measurement, and number of connections.
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

/// Measures all scenarios and prints a line for each.
pub(crate) fn run(plan: &Plan) {
    labs::run_alone("bench", &manifests(), async |lab| {
        lab.meshed(&["inside/client", "inside/server"]).await;
        for arm in Arm::ALL {
            prepare(lab, arm).await;
        }
        println!("{:<34}{:>16}{:>16}   ratio (lowest to highest)", "", "outside", "in the mesh");
        for scenario in &SCENARIOS {
            let samples = measure(lab, scenario, plan).await;
            println!("{}", line(scenario.title, &samples));
        }
    });
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
        few_lingering(lab, pod).await;
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

/// Medians of both arms and of the pairs' ratios.
fn line(title: &str, samples: &[[f64; 2]]) -> String {
    let [outside, inside] = [0, 1].map(|index| median(samples.iter().map(|pair| pair[index])));
    let ratios = || samples.iter().map(|[outside, inside]| inside / outside);
    let (lowest, highest) = (ratios().fold(f64::INFINITY, f64::min), ratios().fold(0.0, f64::max));
    let digits = if outside < 1000.0 { 2 } else { 0 };
    let ratio = median(ratios());
    format!("{title:<34}{outside:>16.digits$}{inside:>16.digits$}   {ratio:.2} ({lowest:.2} to {highest:.2})")
}
