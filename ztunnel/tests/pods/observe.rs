//! Waits for something, and counts what a proxy has open.
#![allow(dead_code, unreachable_pub)]

use super::{PATIENCE, Pod, Proxy};
use std::process::Command;
use std::time::{Duration, Instant};

/// Polls until `holds`; returns how long it took.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::yield_now();
    }
    begun.elapsed()
}

/// Connections that the proxy works on for `pod`; none while it is not served.
pub fn open_connections(proxy: &Proxy, pod: &Pod) -> usize {
    let status = proxy.status.borrow();
    let running = status.pods.iter().find(|p| p.info.name == pod.name).and_then(|p| p.running.clone());
    running.map_or(0, |pod| pod.connections.snapshot().len())
}

/// Tunnels that are open from `pod`.
pub fn tunnels_from(pod: &Pod) -> usize {
    let words = ["netns", "exec", &pod.namespace, "ss", "-tnH", "state", "established", "dport", "=", ":15008"];
    let output = Command::new("ip").args(words).output().unwrap();
    String::from_utf8(output.stdout).unwrap().lines().count()
}
