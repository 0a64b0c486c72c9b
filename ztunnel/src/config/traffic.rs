//! Traffic of the node: for whom the proxy works, marks, source addresses.

use std::{path::PathBuf, str::FromStr};

use proxy_core::config::{Reader, values};
use serde::Serialize;

/// Mark of all sockets that the proxy opens in pods, unless `PACKET_MARK` says otherwise.
const DEFAULT_MARK: u32 = 1337;

/// Further attempts of a connection to a service, unless `CONNECT_RETRY_ATTEMPTS` says otherwise.
const DEFAULT_RETRIES: u8 = 3;

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

/// Traffic of the node.
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
    /// `CONNECT_RETRY_ATTEMPTS`; default 3, 0 to 10: a connection to a service whose endpoint cannot be connected to is tried at
    /// so many others.
    pub connect_retries: u8,
}

impl TrafficConfig {
    /// Reads the section. `ENABLE_PROXY` must be true, its default: a proxy that answers only DNS questions is not supported.
    pub(super) fn parse(reader: &mut Reader<'_>) -> Self {
        let mode = mode(reader);
        let mark = reader.optional("PACKET_MARK", "a number from 0 to 4294967295", values::number);
        let default_mark = (mode == Mode::Shared).then_some(DEFAULT_MARK);
        if !reader.flag("ENABLE_PROXY", true) {
            reader.problems.push(
                "ENABLE_PROXY",
                "false",
                "true: a proxy that answers only DNS questions is not supported",
            );
        }
        if reader.flag("UNSTABLE_ENABLE_SOCKS5", false) {
            reader.unsupported("UNSTABLE_ENABLE_SOCKS5", "no SOCKS5 listener is opened");
        }
        let preserve_source = match reader.optional_flag("ENABLE_ORIG_SRC") {
            Some(true) => PreserveSource::Required,
            Some(false) => PreserveSource::Never,
            None => PreserveSource::Auto,
        };
        let retries = |value: &str| values::number::<u8>(value).filter(|number| *number <= 10);
        let retries = reader.optional("CONNECT_RETRY_ATTEMPTS", "a number from 0 to 10", retries);
        Self {
            mode,
            packet_mark: mark.or(default_mark),
            preserve_source,
            zds_socket: reader.path("INPOD_UDS").unwrap_or_else(|| PathBuf::from("/var/run/ztunnel/ztunnel.sock")),
            port_reuse: reader.flag("INPOD_PORT_REUSE", true),
            localhost_app_tunnel: reader.flag("LOCALHOST_APP_TUNNEL", true),
            response_baggage: reader.flag("ENABLE_RESPONSE_BAGGAGE", true),
            connect_retries: retries.unwrap_or(DEFAULT_RETRIES),
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
            // A value that cannot be read is a problem already; that there is none is one in dedicated mode only.
            if reader.raw(INFO).is_none() {
                reader.problems.push(INFO, "", EXPECTED);
            }
            Mode::Shared
        }
        (Some(false) | None, _) => Mode::Shared,
    }
}
