//! Connection pools.

use std::time::Duration;

use kube_types::istio::{ConnectionPoolSettings, H2UpgradePolicy, HttpSettings, TcpSettings};
use route::Origin;
use route::traffic::{ConnectionPool, Http2KeepAlive, HttpPool, HttpVersion, TcpKeepalive, TcpPool};

use super::layers::Part;
use super::limit;
use crate::finding::{Findings, Reason};
use crate::http_policy::time;

pub(super) fn compile(part: Option<&Part<'_, ConnectionPoolSettings>>, findings: &mut Findings) -> ConnectionPool {
    let Some(part) = part else { return ConnectionPool::default() };
    let at = part.at.at(format!("{}.connectionPool", part.at.field));
    ConnectionPool {
        tcp: part.value.tcp.as_ref().map(|settings| tcp(settings, &at, findings)).unwrap_or_default(),
        http: part.value.http.as_ref().map(|settings| http(settings, &at, findings)).unwrap_or_default(),
    }
}

fn tcp(settings: &TcpSettings, at: &Origin, findings: &mut Findings) -> TcpPool {
    let default = TcpPool::default();
    let keepalive = settings.tcp_keepalive.as_ref().map(|of| TcpKeepalive {
        probes: of.probes.filter(|probes| *probes > 0),
        time: seconds(&of.time, at, "tcp.tcpKeepalive.time", findings),
        interval: seconds(&of.interval, at, "tcp.tcpKeepalive.interval", findings),
    });
    let timeout = more_than_0(&settings.connect_timeout, at, "tcp.connectTimeout", "10s are used", findings);
    let duration = &settings.max_connection_duration;
    TcpPool {
        max_connections: limit(settings.max_connections, at, "tcp.maxConnections", findings),
        connect_timeout: timeout.unwrap_or(default.connect_timeout),
        keepalive,
        max_connection_duration: more_than_0(duration, at, "tcp.maxConnectionDuration", "there is no limit", findings),
        idle_timeout: idle(&settings.idle_timeout, default.idle_timeout, at, "tcp.idleTimeout", findings),
    }
}

fn http(settings: &HttpSettings, at: &Origin, findings: &mut Findings) -> HttpPool {
    let default = HttpPool::default();
    let upgrades = settings.h2_upgrade_policy == H2UpgradePolicy::Upgrade;
    if settings.use_client_protocol && upgrades {
        let message = "useClientProtocol and h2UpgradePolicy UPGRADE exclude each other: the client's protocol is used";
        findings.add(Reason::Invalid, at, "http.h2UpgradePolicy", message);
    }
    let version = match (settings.use_client_protocol, upgrades) {
        (true, _) => HttpVersion::Client,
        (false, true) => HttpVersion::Http2,
        (false, false) => HttpVersion::Declared,
    };
    let mut number = |value, field: &str| limit(value, at, field, findings);
    HttpPool {
        max_pending_requests: number(settings.http1_max_pending_requests, "http.http1MaxPendingRequests"),
        max_requests: number(settings.http2_max_requests, "http.http2MaxRequests"),
        max_requests_per_connection: number(settings.max_requests_per_connection, "http.maxRequestsPerConnection"),
        max_retries: number(settings.max_retries, "http.maxRetries"),
        max_concurrent_streams: number(settings.max_concurrent_streams, "http.maxConcurrentStreams"),
        idle_timeout: idle(&settings.idle_timeout, default.idle_timeout, at, "http.idleTimeout", findings),
        version,
        http2_keep_alive: keep_alive(settings, at, findings),
    }
}

fn keep_alive(settings: &HttpSettings, at: &Origin, findings: &mut Findings) -> Option<Http2KeepAlive> {
    let of = settings.http2_keep_alive.as_ref()?;
    let field = "http.http2KeepAlive";
    let none = "no PING frames are sent";
    let interval = more_than_0(&of.interval, at, &format!("{field}.interval"), none, findings);
    let timeout = more_than_0(&of.timeout, at, &format!("{field}.timeout"), none, findings);
    let both = interval.zip(timeout).map(|(interval, timeout)| Http2KeepAlive { interval, timeout });
    if both.is_none() {
        findings.add(Reason::Invalid, at, field, format!("expected interval and timeout of more than 0: {none}"));
    }
    both
}

/// Time that a `0s` switches off.
fn idle(
    text: &Option<String>,
    default: Option<Duration>,
    at: &Origin,
    field: &str,
    findings: &mut Findings,
) -> Option<Duration> {
    let Some(time) = text.as_deref().and_then(|text| time(text, at, field, "1h is used", findings)) else {
        return default;
    };
    (!time.is_zero()).then_some(time)
}

fn more_than_0(
    text: &Option<String>,
    at: &Origin,
    field: &str,
    instead: &str,
    findings: &mut Findings,
) -> Option<Duration> {
    let time = time(text.as_deref()?, at, field, instead, findings)?;
    if time.is_zero() {
        findings.add(Reason::Invalid, at, field, format!("expected more than 0: {instead}"));
    }
    (!time.is_zero()).then_some(time)
}

/// Time in whole seconds, as the kernel wants it.
fn seconds(text: &Option<String>, at: &Origin, field: &str, findings: &mut Findings) -> Option<Duration> {
    let own = "the proxy's own is used";
    let time = more_than_0(text, at, field, own, findings)?;
    if time.as_secs() == 0 {
        findings.add(Reason::Invalid, at, field, format!("expected 1s or more: {own}"));
    }
    (time.as_secs() > 0).then(|| Duration::from_secs(time.as_secs()))
}
