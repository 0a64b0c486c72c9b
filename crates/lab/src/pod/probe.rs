//! When a container's probes are tried and what their results mean. The tries themselves are made by the node's prober
//! (HTTP, TCP, gRPC) or run in the container (exec).

use std::{fmt, net::IpAddr, time::Duration};

use kube_types::core::{Container, GrpcAction, HttpGetAction, IntOrString, Probe, TcpSocketAction};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::{
    prober::{Ask, Prober},
    process::kubelet::{HttpGet, Question},
    services::container_port,
};

/// Pause before the second try of a probe that has not passed yet; each further one is twice as long, up to the period.
const EAGER: Duration = Duration::from_millis(50);

/// Purpose of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProbeKind {
    Startup,
    Liveness,
    Readiness,
}

impl fmt::Display for ProbeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Startup => "startup probe",
            Self::Liveness => "liveness probe",
            Self::Readiness => "readiness probe",
        })
    }
}

/// Action of a probe or a lifecycle hook, with ports resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Over the network, from the node.
    Network(Ask),
    /// A command in the container.
    Exec(Vec<String>),
}

/// A probe with Kubernetes' defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) action: Action,
    initial_delay: Duration,
    period: Duration,
    pub(crate) timeout: Duration,
    failures: u32,
    successes: u32,
    /// For the container's end when this probe ends it; the pod's where it is absent.
    pub(crate) grace: Option<Duration>,
}

impl Plan {
    /// Reads a probe of `container`; the words say what is wrong with it.
    pub(crate) fn read(probe: &Probe, container: &Container, address: IpAddr) -> Result<Self, String> {
        // The API server fills in its default for 0 as well.
        let or_default = |value: Option<u32>, default: u32| value.filter(|value| *value != 0).unwrap_or(default);
        let seconds = |value: Option<u32>, default: u32| Duration::from_secs(or_default(value, default).into());
        let target = Target { container, address };
        let action = match (&probe.http_get, &probe.tcp_socket, &probe.grpc, &probe.exec) {
            (Some(get), _, _, _) => target.http(get)?,
            (None, Some(tcp), _, _) => target.tcp(tcp)?,
            (None, None, Some(grpc), _) => target.grpc(grpc),
            (None, None, None, Some(exec)) if !exec.command.is_empty() => Action::Exec(exec.command.clone()),
            (None, None, None, _) => return Err("it has none of httpGet, tcpSocket, grpc and exec".to_owned()),
        };
        Ok(Self {
            action,
            initial_delay: seconds(probe.initial_delay_seconds, 0),
            period: seconds(probe.period_seconds, 10),
            timeout: seconds(probe.timeout_seconds, 1),
            failures: or_default(probe.failure_threshold, 3),
            successes: or_default(probe.success_threshold, 1),
            grace: probe.termination_grace_period_seconds.map(Duration::from_secs),
        })
    }
}

/// Whom probes and hooks of a container ask.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) container: &'a Container,
    pub(crate) address: IpAddr,
}

impl Target<'_> {
    pub(crate) fn http(&self, get: &HttpGetAction) -> Result<Action, String> {
        let tls = match get.scheme.as_deref().unwrap_or("HTTP") {
            "HTTP" => false,
            "HTTPS" => true,
            other => return Err(format!("its scheme {other:?} is neither HTTP nor HTTPS")),
        };
        let headers = get.http_headers.iter().map(|header| (header.name.clone(), header.value.clone())).collect();
        let question = Question::Http { get: HttpGet { path: get.path.clone(), headers }, tls };
        Ok(Action::Network(Ask { address: self.host(get.host.as_ref())?, port: self.port(&get.port)?, question }))
    }

    fn tcp(&self, tcp: &TcpSocketAction) -> Result<Action, String> {
        let (address, port) = (self.host(tcp.host.as_ref())?, self.port(&tcp.port)?);
        Ok(Action::Network(Ask { address, port, question: Question::Tcp }))
    }

    fn grpc(&self, grpc: &GrpcAction) -> Action {
        let question = Question::Grpc { service: grpc.service.clone().unwrap_or_default() };
        Action::Network(Ask { address: self.address, port: grpc.port, question })
    }

    fn port(&self, port: &IntOrString) -> Result<u16, String> {
        match port {
            IntOrString::Int(number) => Ok(*number),
            IntOrString::String(name) => container_port(std::slice::from_ref(self.container), name)
                .ok_or_else(|| format!("it names the port {name:?}, which the container does not have")),
        }
    }

    fn host(&self, host: Option<&String>) -> Result<IpAddr, String> {
        match host {
            Some(text) => text.parse().map_err(|_| format!("its host {text:?} is not an IP address")),
            None => Ok(self.address),
        }
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
        // Only results in a row count: one that agrees with the verdict makes the others forgotten.
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
    let mut eager = EAGER;
    sleep(plan.initial_delay).await;
    loop {
        let started = Instant::now();
        let result = attempt(&plan.action, plan.timeout, prober, inside).await;
        let reason = result.clone().err().unwrap_or_default();
        verdict.take(result.is_ok(), plan);
        tell(verdict.good, reason);
        // Counted from the start of the try, so that a slow answer does not stretch the period.
        let pause = if verdict.good { plan.period } else { eager.min(plan.period) };
        eager = (eager * 2).min(plan.period);
        if verdict.good {
            eager = plan.period;
        }
        sleep_until(started + pause).await;
    }
}

/// Tries a liveness probe until it has failed often enough; returns why.
pub(crate) async fn liveness(plan: &Plan, prober: &Prober, inside: &impl RunInside) -> String {
    let mut verdict = Verdict { good: true, same: 0 };
    sleep(plan.initial_delay).await;
    loop {
        let started = Instant::now();
        let result = attempt(&plan.action, plan.timeout, prober, inside).await;
        verdict.take(result.is_ok(), plan);
        if let (false, Err(reason)) = (verdict.good, result) {
            return reason;
        }
        sleep_until(started + plan.period).await;
    }
}

/// Waits until a startup probe has succeeded. Between the tries that count there are others, so that a container that is
/// up early is not waited for.
pub(crate) async fn startup(plan: &Plan, prober: &Prober, inside: &impl RunInside) -> Result<(), String> {
    sleep(plan.initial_delay).await;
    let mut counts_at = Instant::now();
    let mut eager = EAGER;
    let mut failures = 0;
    loop {
        let started = Instant::now();
        // Failures of the tries in between do not count: `failureThreshold` periods stay as long as the manifest says.
        let counts = started >= counts_at;
        match attempt(&plan.action, plan.timeout, prober, inside).await {
            Ok(()) => return Ok(()),
            Err(reason) if counts => {
                failures += 1;
                if failures >= plan.failures {
                    return Err(reason);
                }
                counts_at = started + plan.period;
            }
            Err(_) => {}
        }
        sleep_until((started + eager).min(counts_at)).await;
        eager = (eager * 2).min(plan.period);
    }
}

/// Carries out an action once.
pub(crate) async fn attempt(
    action: &Action,
    limit: Duration,
    prober: &Prober,
    inside: &impl RunInside,
) -> Result<(), String> {
    match action {
        Action::Network(ask) => prober.ask(ask.clone(), limit).await,
        Action::Exec(argv) => match timeout(limit, inside.run(argv)).await {
            Ok(result) => result,
            Err(_) => Err(format!("the command took more than {limit:?}")),
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

    fn ask(probe: serde_json::Value) -> Ask {
        match read(probe).unwrap().action {
            Action::Network(ask) => ask,
            Action::Exec(argv) => panic!("not over the network: {argv:?}"),
        }
    }

    #[test]
    fn a_zero_is_the_default_as_for_the_api_server() {
        let probe = json!({"tcpSocket": {"port": 80}, "periodSeconds": 0, "timeoutSeconds": 0, "failureThreshold": 0});
        let plan = read(probe).unwrap();

        assert_eq!((plan.period.as_secs(), plan.timeout.as_secs(), plan.failures), (10, 1, 3));
    }

    #[test]
    fn a_named_port_is_found_and_defaults_are_those_of_kubernetes() {
        let plan = read(json!({"httpGet": {"path": "/ok", "port": "http"}})).unwrap();

        let ask = ask(json!({"httpGet": {"path": "/ok", "port": "http"}}));
        assert_eq!((ask.address.to_string().as_str(), ask.port), ("10.244.1.2", 80));
        assert_eq!((plan.period.as_secs(), plan.timeout.as_secs(), plan.failures), (10, 1, 3));
    }

    #[test]
    fn each_handler_asks_its_own_question() {
        let service = |service: &str| Question::Grpc { service: service.to_owned() };
        assert_eq!(ask(json!({"grpc": {"port": 9}})).question, service(""));
        assert_eq!(ask(json!({"grpc": {"port": 9, "service": "s"}})).question, service("s"));
        assert_eq!(ask(json!({"tcpSocket": {"port": 9}})).question, Question::Tcp);
        let https = ask(json!({"httpGet": {"path": "/", "port": 1, "scheme": "HTTPS", "host": "fd00::1"}}));
        assert!(matches!(https.question, Question::Http { tls: true, .. }));
        assert_eq!(https.address.to_string(), "fd00::1");
    }

    #[test]
    fn a_probe_that_cannot_be_tried_says_why() {
        assert!(read(json!({"httpGet": {"path": "/", "port": "x"}})).unwrap_err().contains("\"x\""));
        assert!(read(json!({})).unwrap_err().contains("none of httpGet"));
        assert!(read(json!({"exec": {"command": []}})).is_err());
        assert!(read(json!({"httpGet": {"path": "/", "port": 1, "scheme": "FTP"}})).unwrap_err().contains("\"FTP\""));
    }

    #[test]
    fn a_verdict_needs_as_many_results_in_a_row_as_asked() {
        let plan = read(json!({"tcpSocket": {"port": 1}, "failureThreshold": 2, "successThreshold": 2})).unwrap();
        let mut verdict = Verdict { good: false, same: 0 };

        assert!(!verdict.take(true, &plan));
        assert!(verdict.take(true, &plan));
        assert!(!verdict.take(false, &plan));
        assert!(!verdict.take(true, &plan));
        assert!(!verdict.take(false, &plan));
        assert!(verdict.take(false, &plan));
        assert!(!verdict.good);
    }
}
