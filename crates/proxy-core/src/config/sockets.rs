//! TCP options of the sockets that carry applications' connections.

use std::time::Duration;

use serde::Serialize;

use super::{
    source::Reader,
    values::{self, serialize_duration},
};

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

impl SocketsConfig {
    pub(super) fn parse(reader: &mut Reader<'_>) -> Self {
        const DEFAULT: Duration = Duration::from_secs(180);
        const AT_LEAST: &str = "a duration of at least 1s, such as 180s";
        let at_least = |value: &str| values::duration(value).filter(|d| *d >= Duration::from_secs(1));
        // 127 is the kernel's limit (`MAX_TCP_KEEPCNT`).
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
