//! Connections to endpoints, and limits. Limits hold for one waypoint process: with several replicas each has its own.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Limits and times of the connections to one set of endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ConnectionPool {
    pub tcp: TcpPool,
    pub http: HttpPool,
}

/// Settings for connections of every protocol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct TcpPool {
    /// Number of connections at a time. `None`: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u32>,
    /// Time for a connection, from the first packet to the answer of the tunnel's CONNECT. More than 0.
    pub connect_timeout: Duration,
    /// `None`: the proxy's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keepalive: Option<TcpKeepalive>,
    /// Age at which a connection ends. `None`: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connection_duration: Option<Duration>,
    /// Time without any byte after which a TCP connection that is relayed ends. `None`: no limit.
    pub idle_timeout: Option<Duration>,
}

/// Keepalive probes of TCP. `None` leaves the proxy's own value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct TcpKeepalive {
    /// Number of probes without an answer before the connection is dead (`TCP_KEEPCNT`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probes: Option<u32>,
    /// Idle time before the first probe (`TCP_KEEPIDLE`, whole seconds).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<Duration>,
    /// Time between probes (`TCP_KEEPINTVL`, whole seconds).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<Duration>,
}

/// Settings for HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct HttpPool {
    /// Number of requests that may wait for a connection, whatever the protocol. `None`: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_pending_requests: Option<u32>,
    /// Number of requests at a time, whatever the protocol. `None`: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_requests: Option<u32>,
    /// Number of requests after which a connection is not used again; 1 switches keep-alive off. `None`: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_requests_per_connection: Option<u32>,
    /// Number of retries at a time; a retry budget replaces it. `None`: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_retries: Option<u32>,
    /// Time without any request after which a connection ends. `None`: no limit.
    pub idle_timeout: Option<Duration>,
    pub version: HttpVersion,
    /// Number of streams of an HTTP/2 connection at a time; the endpoint's own limit holds too. `None`: the endpoint's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_concurrent_streams: Option<u32>,
    /// PING frames on HTTP/2 connections. `None`: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http2_keep_alive: Option<Http2KeepAlive>,
}

/// Version of HTTP to endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HttpVersion {
    /// As the port is declared: HTTP/2 for `http2` and `grpc`, otherwise HTTP/1.1.
    #[default]
    Declared,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// That of the client.
    Client,
}

/// PING frames of HTTP/2 that prove that the endpoint answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Http2KeepAlive {
    /// Time between PING frames. More than 0.
    pub interval: Duration,
    /// Time for the answer; a connection without it ends. More than 0.
    pub timeout: Duration,
}

/// Idle time of connections, Envoy's default.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

impl Default for TcpPool {
    fn default() -> Self {
        Self {
            max_connections: None,
            // `connectTimeout` of Istio's mesh configuration.
            connect_timeout: Duration::from_secs(10),
            keepalive: None,
            max_connection_duration: None,
            idle_timeout: Some(IDLE_TIMEOUT),
        }
    }
}

impl Default for HttpPool {
    fn default() -> Self {
        Self {
            max_pending_requests: None,
            max_requests: None,
            max_requests_per_connection: None,
            max_retries: None,
            idle_timeout: Some(IDLE_TIMEOUT),
            version: HttpVersion::Declared,
            max_concurrent_streams: None,
            http2_keep_alive: None,
        }
    }
}
