//! Figures of the mesh in one lab: how fast it is (`speed`), and what pods notice of a neighbour that misbehaves
//! (`neighbours`). `make bench` runs both with release builds; `make bench BENCH="--only neighbours"` one of them.

mod neighbours;
mod speed;

use std::{env, fs, process::ExitCode, time::Duration};

use lab::Target;
use runtime::sys::Netns;
use testkit::{TestLab, prerequisites};

/// Closed connections linger for a minute. Short samples in a row would fill the port range with them, and a sample would
/// measure those before it.
const LINGERING: &str = "16";

/// Kind and duration of a measurement.
struct Plan {
    /// Time of one sample.
    sample: Duration,
    /// Samples of each arm in each scenario.
    rounds: usize,
    speed: bool,
    neighbours: bool,
    /// Part of the title of the misbehaviours that are measured; empty for all.
    misbehaviour: String,
}

impl Plan {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut plan = Self {
            sample: Duration::from_secs(2),
            rounds: 5,
            speed: true,
            neighbours: true,
            misbehaviour: String::new(),
        };
        while let Some(arg) = args.next() {
            if arg == "--only" {
                (plan.speed, plan.neighbours) = match args.next().as_deref() {
                    Some("speed") => (true, false),
                    Some("neighbours") => (false, true),
                    _ => return Err("--only wants speed or neighbours".to_owned()),
                };
                continue;
            }
            if arg == "--misbehaviour" {
                plan.misbehaviour = args.next().ok_or("--misbehaviour wants a part of its title")?;
                continue;
            }
            let mut number =
                || args.next().and_then(|value| value.parse().ok()).filter(|value| (1..=600).contains(value));
            match arg.as_str() {
                // cargo says so to every benchmark
                "--bench" => {}
                "--seconds" => plan.sample = number().map(Duration::from_secs).ok_or("--seconds wants 1 to 600")?,
                "--rounds" => plan.rounds = number().ok_or("--rounds wants 1 to 600")? as usize,
                other => {
                    return Err(format!(
                        "{other:?}: expected --seconds N (of a sample), --rounds N (samples), --only WHAT or --misbehaviour TITLE"
                    ));
                }
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
    describe(&plan);
    if plan.speed {
        speed::run(&plan);
    }
    if plan.neighbours {
        neighbours::run(&plan);
    }
    ExitCode::SUCCESS
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
}

/// Keeps few closed connections of a pod.
async fn few_lingering(lab: &TestLab, pod: &str) {
    let netns = lab.lab().netns(Target::Pod { pod: pod.to_owned(), container: None }).await.expect("a namespace");
    let netns = Netns::from_fd(netns).expect("a namespace");
    netns.run(|| fs::write("/proc/sys/net/ipv4/tcp_max_tw_buckets", LINGERING)).expect("a setting");
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}
