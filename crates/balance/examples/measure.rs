//! Cost of a choice, of a permit and of a change, by number of endpoints and threads:
//! `cargo run --release -p balance --example measure`. Arms take turns, forwards and backwards; medians of CPU time are
//! printed, which other load on the machine changes less than the time that passes.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use balance::{Balancer, Endpoint, Limit, Limits, PickRequest, Place};
use route::traffic::{Algorithm, HashKey, HashTable, LoadBalancer, OutlierDetection, TrafficPolicy};

const SAMPLES: usize = 7;
const PICKS: u32 = 300_000;
/// Number of permits for each choice of the other arms.
const PERMITS: u32 = 20;

/// One row of the table.
struct Arm {
    name: String,
    threads: usize,
    /// Number of choices or permits of each thread.
    operations: u32,
    work: Box<dyn Fn(u64) + Sync>,
    nanoseconds: Vec<f64>,
}

fn main() {
    let mut arms = Vec::new();
    for threads in [1, 2] {
        for (name, policy) in policies() {
            for count in [10, 1000, 10_000] {
                arms.push(arm(format!("{name}, {count} endpoints"), threads, PICKS, picks(policy.clone(), count)));
            }
        }
        for (name, limited) in [("permit without a limit", false), ("permit within a limit", true)] {
            arms.push(arm(name.to_owned(), threads, PICKS * PERMITS, permits(limited)));
        }
    }
    for sample in 0..SAMPLES {
        let mut order: Vec<_> = arms.iter_mut().collect();
        if sample % 2 == 1 {
            order.reverse();
        }
        order.into_iter().for_each(measure);
    }
    println!("ns per choice or permit, of each thread: median (least to most) of {SAMPLES}");
    for arm in &mut arms {
        arm.nanoseconds.sort_by(f64::total_cmp);
        let (least, most) = (arm.nanoseconds[0], arm.nanoseconds[SAMPLES - 1]);
        println!(
            "{:<50} {} thread(s) {:>7.1} ({least:.1} to {most:.1})",
            arm.name,
            arm.threads,
            arm.nanoseconds[SAMPLES / 2]
        );
    }
    println!("ms per change of all endpoints, and per ejection: least of {SAMPLES}");
    for (name, policy) in policies() {
        for count in [10, 1000, 10_000] {
            let (change, ejection) = change(&policy, count);
            println!("{name:<35} {count:>6} endpoints {change:>9.3} {ejection:>9.3}");
        }
    }
}

fn arm(name: String, threads: usize, operations: u32, work: Box<dyn Fn(u64) + Sync>) -> Arm {
    Arm { name, threads, operations, work, nanoseconds: Vec::new() }
}

fn measure(arm: &mut Arm) {
    let work = &arm.work;
    let spent: f64 = std::thread::scope(|scope| {
        let thread = |number: usize| {
            scope.spawn(move || {
                let before = cpu_nanoseconds();
                work(number as u64);
                cpu_nanoseconds() - before
            })
        };
        let threads: Vec<_> = (0..arm.threads).map(thread).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or(f64::NAN)).sum()
    });
    arm.nanoseconds.push(spent / arm.threads as f64 / f64::from(arm.operations));
}

/// CPU time of this thread, exact to a tick of the scheduler: 1 to 4 ms. No number where it cannot be read.
fn cpu_nanoseconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(f64::NAN)
}

fn policies() -> Vec<(&'static str, TrafficPolicy)> {
    let hash = |table| Algorithm::ConsistentHash { key: HashKey::SourceAddress, table };
    let ring = HashTable::default();
    let maglev = HashTable::Maglev { size: HashTable::DEFAULT_MAGLEV_SIZE };
    let algorithms = [
        ("round robin", Algorithm::RoundRobin),
        ("random", Algorithm::Random),
        ("least request", Algorithm::LeastRequest),
        ("ring", hash(ring)),
        ("maglev", hash(maglev)),
    ];
    let policy = |algorithm| TrafficPolicy {
        load_balancer: LoadBalancer { algorithm, ..LoadBalancer::default() },
        outlier_detection: Some(OutlierDetection::default()),
        ..TrafficPolicy::default()
    };
    algorithms.into_iter().map(|(name, algorithm)| (name, policy(algorithm))).collect()
}

fn endpoints(count: usize) -> Vec<Endpoint<()>> {
    let endpoint = |number: usize| {
        let id: Arc<str> = format!("10.{}.{}.{}:8080", number >> 16, number >> 8 & 255, number & 255).into();
        let (hash_key, place) = (Arc::clone(&id), Place::default());
        Endpoint { id, hash_key, weight: 1, is_healthy: true, place, target: () }
    };
    (0..count).map(endpoint).collect()
}

fn picks(policy: TrafficPolicy, count: usize) -> Box<dyn Fn(u64) + Sync> {
    let now = Instant::now();
    let balancer = Balancer::new(7, now);
    balancer.apply(Arc::new(policy), Place::default(), Vec::new(), endpoints(count), now);
    Box::new(move |thread| {
        for number in 0..PICKS {
            let random = (u64::from(number) << 8 | thread).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let request = PickRequest { hash: Some(random), ..PickRequest::new(random, now) };
            if let Ok(pick) = balancer.pick(&request) {
                pick.on_answer(200, now);
                black_box(pick.endpoint().weight);
            }
        }
    })
}

fn permits(limited: bool) -> Box<dyn Fn(u64) + Sync> {
    let mut policy = TrafficPolicy::default();
    policy.connection_pool.http.max_requests = limited.then_some(1024);
    let limits = Arc::new(Limits::default());
    limits.apply(&policy);
    // Many for each turn of the arm: one costs less than the clock can tell.
    Box::new(move |_| (0..PICKS * PERMITS).for_each(|_| drop(black_box(limits.acquire(Limit::Requests)))))
}

fn change(policy: &TrafficPolicy, count: usize) -> (f64, f64) {
    let now = Instant::now();
    let balancer = Balancer::new(7, now);
    let mut policy = policy.clone();
    // Every error ejects.
    let outliers =
        OutlierDetection { consecutive_5xx: Some(1), max_ejection_percent: 100, ..OutlierDetection::default() };
    policy.outlier_detection = Some(outliers);
    let policy = Arc::new(policy);
    let (mut changes, mut ejections) = (Vec::new(), Vec::new());
    for sample in 0..SAMPLES {
        let endpoints = endpoints(count);
        let begin = Instant::now();
        balancer.apply(Arc::clone(&policy), Place::default(), Vec::new(), endpoints, now);
        changes.push(begin.elapsed());
        if let Ok(pick) = balancer.pick(&PickRequest::new(sample as u64, now)) {
            let begin = Instant::now();
            pick.on_answer(500, now);
            ejections.push(begin.elapsed());
        }
    }
    let least = |times: Vec<Duration>| times.into_iter().min().unwrap_or_default().as_secs_f64() * 1e3;
    (least(changes), least(ejections))
}
