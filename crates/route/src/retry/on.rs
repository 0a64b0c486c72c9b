//! `retryOn`: the list of conditions as Envoy and Istio write it.

use serde::{Serialize, Serializer};

macro_rules! conditions {
    ($($(#[doc = $doc:literal])* $condition:ident = $name:literal,)*) => {
        /// Condition for a retry.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Condition {
            $($(#[doc = $doc])* $condition,)*
        }

        impl Condition {
            /// Every condition.
            pub const ALL: &[Self] = &[$(Self::$condition,)*];

            /// Name in `retryOn`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$condition => $name,)*
                }
            }
        }
    };
}

conditions! {
    /// Status 5xx, and failures without an answer.
    Status5xx = "5xx",
    /// Status 502, 503 or 504, and failures without an answer.
    GatewayError = "gateway-error",
    /// Failures without an answer.
    Reset = "reset",
    /// No connection, or it ended before anything of the request was sent.
    ResetBeforeRequest = "reset-before-request",
    /// No connection.
    ConnectFailure = "connect-failure",
    /// The endpoint refused the stream.
    RefusedStream = "refused-stream",
    /// Status 409.
    Retriable4xx = "retriable-4xx",
    /// The answer has `x-envoy-ratelimited`.
    EnvoyRateLimited = "envoy-ratelimited",
    /// The statuses of the list. Without any it has no effect.
    RetriableStatusCodes = "retriable-status-codes",
    /// Headers that the route lists; Istio's API cannot list any, so it has no effect.
    RetriableHeaders = "retriable-headers",
    /// Failures of HTTP/3 behind the handshake. There is no HTTP/3 to endpoints, so it has no effect.
    Http3PostConnectFailure = "http3-post-connect-failure",
    /// gRPC status 1.
    Cancelled = "cancelled",
    /// gRPC status 4.
    DeadlineExceeded = "deadline-exceeded",
    /// gRPC status 13.
    Internal = "internal",
    /// gRPC status 8.
    ResourceExhausted = "resource-exhausted",
    /// gRPC status 14.
    Unavailable = "unavailable",
}

/// Conditions for a retry, joined by OR.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryOn {
    conditions: Vec<Condition>,
    statuses: Vec<u16>,
}

impl Default for RetryOn {
    /// Conditions of Istio for routes that have none.
    fn default() -> Self {
        let conditions = vec![
            Condition::ConnectFailure,
            Condition::RefusedStream,
            Condition::RetriableStatusCodes,
            Condition::Cancelled,
            Condition::Unavailable,
        ];
        Self { conditions, statuses: Vec::new() }
    }
}

impl RetryOn {
    pub fn new(conditions: &[Condition], statuses: &[u16]) -> Self {
        let mut on = Self { conditions: conditions.to_vec(), statuses: statuses.to_vec() };
        on.sort();
        on
    }

    /// Reads a list: names, and numbers of HTTP statuses. Returns the items that are neither, too.
    pub fn parse(list: &str) -> (Self, Vec<String>) {
        let mut on = Self { conditions: Vec::new(), statuses: Vec::new() };
        let mut unknown = Vec::new();
        for item in list.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let condition = Condition::ALL.iter().copied().find(|condition| condition.name() == item);
            let status = item.parse().ok().filter(|status| (100..600).contains(status));
            match (condition, status) {
                (Some(condition), _) => on.conditions.push(condition),
                (None, Some(status)) => on.statuses.push(status),
                (None, None) => unknown.push(item.to_owned()),
            }
        }
        on.sort();
        (on, unknown)
    }

    fn sort(&mut self) {
        if !self.statuses.is_empty() {
            self.conditions.push(Condition::RetriableStatusCodes);
        }
        self.conditions.sort_unstable();
        self.conditions.dedup();
        self.statuses.sort_unstable();
        self.statuses.dedup();
    }

    /// The conditions in the order of their declaration.
    pub fn conditions(&self) -> &[Condition] {
        &self.conditions
    }

    /// HTTP statuses that are retried besides those of the conditions.
    pub fn statuses(&self) -> &[u16] {
        &self.statuses
    }

    pub(super) fn has_any(&self, of: &[Condition]) -> bool {
        self.conditions.iter().any(|condition| of.contains(condition))
    }
}

impl Serialize for RetryOn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let names = self.conditions.iter().map(|condition| condition.name().to_owned());
        serializer.collect_seq(names.chain(self.statuses.iter().map(u16::to_string)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_names_and_statuses() {
        let (on, unknown) = RetryOn::parse("gateway-error, connect-failure,refused-stream,503,,503, 5XX,99");
        assert_eq!(
            on.conditions(),
            [
                Condition::GatewayError,
                Condition::ConnectFailure,
                Condition::RefusedStream,
                Condition::RetriableStatusCodes
            ]
        );
        assert_eq!(on.statuses(), [503]);
        assert_eq!(unknown, ["5XX", "99"]);
    }

    #[test]
    fn the_default_is_that_of_istio() {
        let text = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes";
        assert_eq!(RetryOn::parse(text), (RetryOn::default(), Vec::new()));
    }

    #[test]
    fn every_name_is_read() {
        for condition in Condition::ALL.iter().copied() {
            let (on, unknown) = RetryOn::parse(condition.name());
            assert_eq!((on.conditions(), unknown.len()), (&[condition][..], 0), "{condition:?}");
        }
    }

    #[test]
    fn a_dump_has_the_form_of_the_list() {
        let on = RetryOn::parse("reset,429").0;
        assert_eq!(serde_json::to_value(on).unwrap(), serde_json::json!(["reset", "retriable-status-codes", "429"]));
    }
}
