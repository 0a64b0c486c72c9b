//! When a container's probes are tried and what their results mean. The tries themselves are made by the node's prober
//! (HTTP, TCP) or run in the container (exec).

use std::{net::IpAddr, time::Duration};

use kube_api::core::{Container, IntOrString, Probe};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    process::kubelet::HttpGet,
    services::container_port,
    supervisor::prober::{Ask, Prober},
};

/// What a probe asks, with ports resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Question {
    /// Over the network, from the node.
    Network(Ask),
    /// A command in the container.
    Exec(Vec<String>),
}

/// A probe with Kubernetes' defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) question: Question,
    initial_delay: Duration,
    period: Duration,
    pub(crate) timeout: Duration,
    failures: u32,
    successes: u32,
}

impl Plan {
    /// Reads a probe of `container`; the words say what is wrong with it.
    pub(crate) fn read(probe: &Probe, container: &Container, address: IpAddr) -> Result<Self, String> {
        let seconds = |value: Option<u32>, default: u32| Duration::from_secs(value.unwrap_or(default).into());
        Ok(Self {
            question: question(probe, container, address)?,
            initial_delay: seconds(probe.initial_delay_seconds, 0),
            period: seconds(probe.period_seconds, 10).max(Duration::from_secs(1)),
            timeout: seconds(probe.timeout_seconds, 1).max(Duration::from_secs(1)),
            failures: probe.failure_threshold.unwrap_or(3).max(1),
            successes: probe.success_threshold.unwrap_or(1).max(1),
        })
    }
}

fn question(probe: &Probe, container: &Container, address: IpAddr) -> Result<Question, String> {
    let port = |port: &IntOrString| match port {
        IntOrString::Int(number) => Ok(*number),
        IntOrString::String(name) => container_port(std::slice::from_ref(container), name)
            .ok_or_else(|| format!("a probe names the port {name:?}, which the container does not have")),
    };
    let host = |host: &Option<String>| match host {
        Some(text) => text.parse().map_err(|_| format!("a probe's host {text:?} is no address")),
        None => Ok(address),
    };
    if let Some(get) = &probe.http_get {
        if get.scheme.as_deref().is_some_and(|scheme| scheme != "HTTP") {
            return Err("only probes with the scheme HTTP are run here".to_owned());
        }
        let headers = get.http_headers.iter().map(|header| (header.name.clone(), header.value.clone())).collect();
        let http = Some(HttpGet { path: get.path.clone(), headers });
        return Ok(Question::Network(Ask { address: host(&get.host)?, port: port(&get.port)?, http }));
    }
    if let Some(tcp) = &probe.tcp_socket {
        return Ok(Question::Network(Ask { address: host(&tcp.host)?, port: port(&tcp.port)?, http: None }));
    }
    match &probe.exec {
        Some(exec) if !exec.command.is_empty() => Ok(Question::Exec(exec.command.clone())),
        _ => Err("a probe has none of httpGet, tcpSocket and exec".to_owned()),
    }
}

/// Counts results until they are enough to change the verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Verdict {
    good: bool,
    same: u32,
}

impl Verdict {
    /// Takes a result; `true` when the verdict changed.
    fn take(&mut self, good: bool, plan: &Plan) -> bool {
        if good == self.good {
            self.same = 0;
            return false;
        }
        self.same += 1;
        let needed = if good { plan.successes } else { plan.failures };
        if self.same < needed {
            return false;
        }
        *self = Self { good, same: 0 };
        true
    }
}

/// A way to run a command in the container that is probed.
pub(crate) trait RunInside {
    /// Runs it to its end; the words say why it failed.
    fn run(&self, argv: &[String]) -> impl Future<Output = Result<(), String>> + Send;
}

/// Tries a readiness probe for ever; `tell` hears each result's verdict and reason.
///
/// Before the first success it tries more often than asked (as kubelet does after a start), so
/// that a lab is ready when its pods are.
pub(crate) async fn readiness(plan: &Plan, prober: &Prober, inside: &impl RunInside, tell: impl Fn(bool, String)) {
    let mut verdict = Verdict { good: false, same: 0 };
    let mut eager = Duration::from_millis(50);
    sleep(plan.initial_delay).await;
    loop {
        let started = Instant::now();
        let result = attempt(plan, prober, inside).await;
        let reason = result.clone().err().unwrap_or_default();
        verdict.take(result.is_ok(), plan);
        tell(verdict.good, reason);
        let pause = if verdict.good { plan.period } else { eager.min(plan.period) };
        eager = (eager * 2).min(plan.period);
        if verdict.good {
            eager = plan.period;
        }
        tokio::time::sleep_until(started + pause).await;
    }
}

/// Tries a liveness probe until it has failed often enough; returns why.
pub(crate) async fn liveness(plan: &Plan, prober: &Prober, inside: &impl RunInside) -> String {
    let mut verdict = Verdict { good: true, same: 0 };
    sleep(plan.initial_delay).await;
    loop {
        sleep(plan.period).await;
        let result = attempt(plan, prober, inside).await;
        verdict.take(result.is_ok(), plan);
        if let (false, Err(reason)) = (verdict.good, result) {
            return reason;
        }
    }
}

/// Waits until a startup probe has succeeded.
pub(crate) async fn startup(plan: &Plan, prober: &Prober, inside: &impl RunInside) -> Result<(), String> {
    let mut failures = 0;
    sleep(plan.initial_delay).await;
    loop {
        match attempt(plan, prober, inside).await {
            Ok(()) => return Ok(()),
            Err(reason) => {
                failures += 1;
                if failures >= plan.failures {
                    return Err(reason);
                }
            }
        }
        sleep(plan.period).await;
    }
}

async fn attempt(plan: &Plan, prober: &Prober, inside: &impl RunInside) -> Result<(), String> {
    match &plan.question {
        Question::Network(ask) => prober.ask(ask.clone(), plan.timeout).await,
        Question::Exec(argv) => match timeout(plan.timeout, inside.run(argv)).await {
            Ok(result) => result,
            Err(_) => Err(format!("the probe's command took more than {:?}", plan.timeout)),
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(probe: serde_json::Value) -> Result<Plan, String> {
        let container =
            serde_json::from_value(json!({"name": "c", "ports": [{"name": "http", "containerPort": 80}]})).unwrap();
        Plan::read(&serde_json::from_value(probe).unwrap(), &container, "10.244.1.2".parse().unwrap())
    }

    #[test]
    fn a_named_port_is_found_and_defaults_are_those_of_kubernetes() {
        let plan = read(json!({"httpGet": {"path": "/ok", "port": "http"}})).unwrap();

        let Question::Network(ask) = &plan.question else { panic!("not over the network") };
        assert_eq!((ask.address.to_string().as_str(), ask.port), ("10.244.1.2", 80));
        assert_eq!((plan.period.as_secs(), plan.timeout.as_secs(), plan.failures), (10, 1, 3));
    }

    #[test]
    fn a_probe_that_cannot_be_tried_says_why() {
        assert!(read(json!({"httpGet": {"path": "/", "port": "x"}})).unwrap_err().contains("\"x\""));
        assert!(read(json!({})).is_err());
        assert!(read(json!({"httpGet": {"path": "/", "port": 1, "scheme": "HTTPS"}})).is_err());
    }

    #[test]
    fn a_verdict_needs_as_many_results_in_a_row_as_asked() {
        let plan = read(json!({"tcpSocket": {"port": 1}, "failureThreshold": 2})).unwrap();
        let mut verdict = Verdict { good: false, same: 0 };

        assert!(verdict.take(true, &plan));
        assert!(!verdict.take(false, &plan));
        assert!(!verdict.take(true, &plan));
        assert!(!verdict.take(false, &plan));
        assert!(verdict.take(false, &plan));
        assert!(!verdict.good);
    }
}
