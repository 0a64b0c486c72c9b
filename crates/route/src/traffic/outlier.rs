//! Ejection of endpoints that fail.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Passive health checks: endpoints that fail several times in a row get no traffic for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct OutlierDetection {
    /// Number of server errors in a row; failures without an answer count too unless they are split. `None`: not counted.
    pub consecutive_5xx: Option<u32>,
    /// Number of answers 502, 503 and 504 in a row, and failures without an answer. `None`: not counted.
    pub consecutive_gateway_errors: Option<u32>,
    /// Counts failures without an answer (connections that cannot be made, resets, timeouts) apart from answers.
    pub split_local_origin: bool,
    /// Number of failures without an answer in a row, where they are split. `None`: not counted.
    pub consecutive_local_origin_failures: Option<u32>,
    /// Statuses that count as server errors, instead of 500 to 599. Empty: 500 to 599.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub error_codes: Vec<u16>,
    /// Time between two sweeps, which end ejections. More than 0.
    pub interval: Duration,
    /// Length of the first ejection; the nth lasts n times as long.
    pub base_ejection_time: Duration,
    /// Share of the endpoints that may be ejected at a time, in percent: 0 to 100. An endpoint is ejected only if the share
    /// with it is not larger, so that 10 ejects none of fewer than 10 endpoints.
    pub max_ejection_percent: u8,
    /// Least share of healthy endpoints, in percent: 0 to 100. Below it health is ignored, and all endpoints of all
    /// localities get traffic. 0: never.
    pub min_health_percent: u8,
}

impl OutlierDetection {
    /// Longest ejection unless the base is longer, Envoy's default.
    pub const MAX_EJECTION_TIME: Duration = Duration::from_secs(300);

    /// Length of the ejection that is the nth of an endpoint.
    pub fn ejection_time(&self, number: u32) -> Duration {
        let longest = Self::MAX_EJECTION_TIME.max(self.base_ejection_time);
        self.base_ejection_time.saturating_mul(number).min(longest)
    }

    /// Returns true if so many ejected endpoints of so many are allowed.
    pub fn allows(&self, ejected: usize, total: usize) -> bool {
        ejected.saturating_mul(100) <= total.saturating_mul(self.max_ejection_percent.into())
    }
}

impl Default for OutlierDetection {
    /// Istio's values for a policy with an empty `outlierDetection`.
    fn default() -> Self {
        Self {
            consecutive_5xx: Some(5),
            consecutive_gateway_errors: None,
            split_local_origin: false,
            consecutive_local_origin_failures: Some(5),
            error_codes: Vec::new(),
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_percent: 10,
            min_health_percent: 0,
        }
    }
}
