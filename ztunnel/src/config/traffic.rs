//! What is carried and how: mode, marks, source addresses, TCP options, HBONE settings.

use std::{path::PathBuf, str::FromStr, time::Duration};

use serde::Serialize;

use super::{
    source::Reader,
    values::{self, DURATION, serialize_duration},
};

/// Mark of all sockets that the proxy opens in pods, unless `PACKET_MARK` says otherwise.
const DEFAULT_MARK: u32 = 1337;

/// For whom the proxy works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Mode {
    /// For all pods that the agent enrols.
    Shared,
    /// For one workload, in the namespace of the process.
    Dedicated(WorkloadInfo),
}

/// `PROXY_WORKLOAD_INFO`: `namespace/name/service-account`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadInfo {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Service account.
    pub service_account: String,
}

impl FromStr for WorkloadInfo {
    type Err = ();
    fn from_str(value: &str) -> Result<Self, ()> {
        let parts: Vec<&str> = value.split('/').collect();
        match parts.as_slice() {
            [namespace, name, account] if parts.iter().all(|part| !part.is_empty()) => Ok(Self {
                namespace: (*namespace).to_owned(),
                name: (*name).to_owned(),
                service_account: (*account).to_owned(),
            }),
            _ => Err(()),
        }
    }
}

/// `ENABLE_ORIG_SRC`: do applications see their clients' addresses?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum PreserveSource {
    /// `true`: yes, and it is an error if that is not possible.
    Required,
    /// `false`: no.
    Never,
    /// Unset: where it is possible.
    Auto,
}

/// What is carried.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TrafficConfig {
    /// `PROXY_MODE`, `shared` (default) or `dedicated`.
    pub mode: Mode,
    /// `PACKET_MARK`; default 1337 in shared mode, none in dedicated mode.
    pub packet_mark: Option<u32>,
    /// `ENABLE_ORIG_SRC`.
    pub preserve_source: PreserveSource,
    /// `INPOD_UDS`; default `/var/run/ztunnel/ztunnel.sock`.
    pub zds_socket: PathBuf,
    /// `INPOD_PORT_REUSE`; default true.
    pub port_reuse: bool,
    /// `LOCALHOST_APP_TUNNEL`; default true: what comes through a PROXY tunnel is delivered to loopback.
    pub localhost_app_tunnel: bool,
    /// `ENABLE_RESPONSE_BAGGAGE`; default true.
    pub response_baggage: bool,
}

/// TCP options.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SocketsConfig {
    /// `KEEPALIVE_ENABLED`; default true.
    pub keepalive: bool,
    /// `KEEPALIVE_TIME`; default 180 s, at least 1 s.
    #[serde(serialize_with = "serialize_duration")]
    pub keepalive_time: Duration,
    /// `KEEPALIVE_INTERVAL`; default 180 s, at least 1 s.
    #[serde(serialize_with = "serialize_duration")]
    pub keepalive_interval: Duration,
    /// `KEEPALIVE_RETRIES`; default 9, 1 to 127.
    pub keepalive_retries: u32,
    /// `USER_TIMEOUT_ENABLED`; default false: TCP_USER_TIMEOUT of time + retries x interval.
    pub user_timeout: bool,
}

/// HBONE.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TunnelsConfig {
    /// `POOL_MAX_STREAMS_PER_CONNECTION`; default 100, at least 1.
    pub max_streams_per_tunnel: u16,
    /// `POOL_UNUSED_RELEASE_TIMEOUT`; default 5 min.
    #[serde(serialize_with = "serialize_duration")]
    pub unused_release_timeout: Duration,
    /// `HTTP2_STREAM_WINDOW_SIZE`, bytes; default 4 MiB, up to 2^31 - 1.
    pub stream_window_bytes: u32,
    /// `HTTP2_CONNECTION_WINDOW_SIZE`, bytes; default 16 MiB, up to 2^31 - 1. Keep it several times the stream window.
    pub connection_window_bytes: u32,
    /// `HTTP2_FRAME_SIZE`, bytes; default 1 MiB, 16384 to 2^24 - 1.
    pub frame_bytes: u32,
}

impl TrafficConfig {
    /// Reads the section. `ENABLE_PROXY` must be true, its default: there is nothing else to run.
    pub(super) fn parse(reader: &mut Reader<'_>) -> Self {
        let mode = mode(reader);
        let mark = reader.optional("PACKET_MARK", "a number from 0 to 4294967295", values::number);
        let default_mark = (mode == Mode::Shared).then_some(DEFAULT_MARK);
        if !reader.flag("ENABLE_PROXY", true) {
            reader.problems.push("ENABLE_PROXY", "false", "true: there is nothing else to run");
        }
        if reader.flag("UNSTABLE_ENABLE_SOCKS5", false) {
            reader.unsupported("UNSTABLE_ENABLE_SOCKS5", "there is no SOCKS5 listener");
        }
        let preserve_source = match reader.optional_flag("ENABLE_ORIG_SRC") {
            Some(true) => PreserveSource::Required,
            Some(false) => PreserveSource::Never,
            None => PreserveSource::Auto,
        };
        Self {
            mode,
            packet_mark: mark.or(default_mark),
            preserve_source,
            zds_socket: reader.path("INPOD_UDS").unwrap_or_else(|| PathBuf::from("/var/run/ztunnel/ztunnel.sock")),
            port_reuse: reader.flag("INPOD_PORT_REUSE", true),
            localhost_app_tunnel: reader.flag("LOCALHOST_APP_TUNNEL", true),
            response_baggage: reader.flag("ENABLE_RESPONSE_BAGGAGE", true),
        }
    }
}

fn mode(reader: &mut Reader<'_>) -> Mode {
    const INFO: &str = "PROXY_WORKLOAD_INFO";
    const EXPECTED: &str = "namespace/name/service-account, in dedicated mode";
    let info = reader.optional(INFO, EXPECTED, |value| value.parse::<WorkloadInfo>().ok());
    let dedicated = reader.optional("PROXY_MODE", "shared or dedicated", |value| match value {
        "" | "shared" => Some(false),
        "dedicated" => Some(true),
        _ => None,
    });
    match (dedicated, info) {
        (Some(true), Some(info)) => Mode::Dedicated(info),
        (Some(true), None) => {
            if reader.raw(INFO).is_none() {
                reader.problems.push(INFO, "", EXPECTED);
            }
            Mode::Shared
        }
        (Some(false) | None, _) => Mode::Shared,
    }
}

impl SocketsConfig {
    pub(super) fn parse(reader: &mut Reader<'_>) -> Self {
        const DEFAULT: Duration = Duration::from_secs(180);
        const AT_LEAST: &str = "a duration of at least 1s, such as 180s";
        let at_least = |value: &str| values::duration(value).filter(|d| *d >= Duration::from_secs(1));
        let retries = |value: &str| values::number(value).filter(|n| (1..=127).contains(n));
        Self {
            keepalive: reader.flag("KEEPALIVE_ENABLED", true),
            keepalive_time: reader.optional("KEEPALIVE_TIME", AT_LEAST, at_least).unwrap_or(DEFAULT),
            keepalive_interval: reader.optional("KEEPALIVE_INTERVAL", AT_LEAST, at_least).unwrap_or(DEFAULT),
            keepalive_retries: reader.optional("KEEPALIVE_RETRIES", "a number from 1 to 127", retries).unwrap_or(9),
            user_timeout: reader.flag("USER_TIMEOUT_ENABLED", false),
        }
    }

    /// The value of TCP_USER_TIMEOUT, if it is to be set.
    #[must_use]
    pub fn user_timeout(&self) -> Option<Duration> {
        self.user_timeout.then(|| self.keepalive_time + self.keepalive_interval * self.keepalive_retries)
    }
}

impl TunnelsConfig {
    pub(super) fn parse(reader: &mut Reader<'_>) -> Self {
        const WINDOW: &str = "a number of bytes from 1 to 2147483647";
        const FRAME: &str = "a number of bytes from 16384 to 16777215";
        let window = |value: &str| values::number::<u32>(value).filter(|n| (1..=0x7fff_ffff).contains(n));
        let frame = |value: &str| values::number::<u32>(value).filter(|n| (16_384..=0xff_ffff).contains(n));
        let streams = |value: &str| values::number::<u16>(value).filter(|n| *n > 0);
        let streams = reader.optional("POOL_MAX_STREAMS_PER_CONNECTION", "a number from 1 to 65535", streams);
        let release = reader.optional("POOL_UNUSED_RELEASE_TIMEOUT", DURATION, values::duration);
        Self {
            max_streams_per_tunnel: streams.unwrap_or(100),
            unused_release_timeout: release.unwrap_or(Duration::from_secs(300)),
            stream_window_bytes: reader.optional("HTTP2_STREAM_WINDOW_SIZE", WINDOW, window).unwrap_or(4 << 20),
            connection_window_bytes: reader
                .optional("HTTP2_CONNECTION_WINDOW_SIZE", WINDOW, window)
                .unwrap_or(16 << 20),
            frame_bytes: reader.optional("HTTP2_FRAME_SIZE", FRAME, frame).unwrap_or(1 << 20),
        }
    }
}
