//! Log format, filter and levels.

use ::telemetry::logging::LogFormat;
use serde::Serialize;

use super::source::Reader;

/// Logs.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TelemetryConfig {
    /// `LOG_FORMAT=json`; default plain.
    pub json_logs: bool,
    /// `RUST_LOG`: levels by scope, such as `debug` or `info,access=off,ztunnel::proxy=debug`; `ztunnel` is all of the proxy's
    /// code. Default `info`.
    pub log_filter: String,
    /// `AUTHZ_POLICY_INFO_LOGGING=true`: policy decisions are logged at `info`.
    pub log_policy_decisions: bool,
}

impl TelemetryConfig {
    pub(super) fn parse(reader: &mut Reader<'_>) -> Self {
        let json_logs = reader.optional("LOG_FORMAT", "json or plain", |value| match value {
            "json" => Some(true),
            "" | "plain" => Some(false),
            _ => None,
        });
        Self {
            json_logs: json_logs.unwrap_or(false),
            log_filter: reader.text("RUST_LOG").unwrap_or_else(|| "info".to_owned()),
            log_policy_decisions: reader.flag("AUTHZ_POLICY_INFO_LOGGING", false),
        }
    }

    /// For `telemetry::logging::init`.
    #[must_use]
    pub const fn format(&self) -> LogFormat {
        if self.json_logs { LogFormat::Json } else { LogFormat::Plain }
    }

    /// For `policy::ConnectionRegistry::new`.
    #[must_use]
    pub const fn policy_logging(&self) -> policy::Logging {
        if self.log_policy_decisions { policy::Logging::Info } else { policy::Logging::Debug }
    }
}
