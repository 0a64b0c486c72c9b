//! A request for an endpoint, and the endpoint that it got.

use std::sync::Arc;
use std::time::Instant;

use route::traffic::OutlierDetection;

use crate::endpoint::{Endpoint, Host};
use crate::limits::Limit;
use crate::outlier::{self, Failure};

/// Properties of a request or a connection that decide about its endpoint.
#[derive(Clone, Copy, Debug)]
pub struct PickRequest<'a> {
    /// Hash of the request; see [`crate::hash`]. Counts only where the policy is a consistent hash.
    pub hash: Option<u64>,
    /// Endpoints of earlier tries. Another one is taken if there is one on the same level.
    pub previous: &'a [Arc<str>],
    /// Levels of earlier tries that another one is wanted for, as bits: bit 0 is the nearest level. They are used all the
    /// same if no other has an endpoint.
    pub avoid_levels: u64,
    /// Limit that counts the use: requests, or connections for TCP.
    pub limit: Limit,
    /// A random number.
    pub random: u64,
    pub now: Instant,
}

impl PickRequest<'_> {
    /// A first try of a request without a hash.
    pub const fn new(random: u64, now: Instant) -> Self {
        Self { hash: None, previous: &[], avoid_levels: 0, limit: Limit::Requests, random, now }
    }
}

/// Refusal: nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The service, or the subset, has no endpoint.
    #[error("no endpoint")]
    NoEndpoint,
    /// No endpoint is ready, or all are ejected.
    #[error("no healthy endpoint")]
    NoHealthyEndpoint,
    /// As many run as the policy allows.
    #[error("limit of {}", .0.name())]
    Overflow(Limit),
}

impl Refused {
    /// Stable: metric label, log key.
    pub const fn code(self) -> &'static str {
        match self {
            Self::NoEndpoint => "no_endpoint",
            Self::NoHealthyEndpoint => "no_healthy_endpoint",
            Self::Overflow(_) => "overflow",
        }
    }

    /// Response flag of Envoy's access log.
    pub const fn flag(self) -> &'static str {
        match self {
            Self::NoEndpoint | Self::NoHealthyEndpoint => "UH",
            Self::Overflow(_) => "UO",
        }
    }

    /// Response code details of Envoy's access log.
    pub const fn details(self) -> &'static str {
        match self {
            Self::NoEndpoint | Self::NoHealthyEndpoint => "no_healthy_upstream",
            Self::Overflow(_) => "upstream_reset_before_response_started{overflow}",
        }
    }
}

impl Limit {
    /// Name in an error.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::PendingRequests => "pending requests",
            Self::Requests => "requests",
            Self::Retries => "retries",
        }
    }
}

/// An endpoint in use. While it is kept it counts as one active request of the endpoint and of the limit.
#[derive(Debug)]
#[must_use = "a request that is not kept is not counted"]
pub struct Pick<T> {
    host: Arc<Host<T>>,
    level: usize,
    limit: Limit,
}

impl<T> Pick<T> {
    /// Takes an endpoint into use.
    pub(crate) fn new(host: &Arc<Host<T>>, level: usize, limit: Limit) -> Result<Self, Refused> {
        host.limits.take(limit)?;
        host.state.begin();
        Ok(Self { host: Arc::clone(host), level, limit })
    }

    pub fn endpoint(&self) -> &Endpoint<T> {
        &self.host.endpoint
    }

    /// Level of the endpoint; 0 is the nearest.
    pub const fn level(&self) -> usize {
        self.level
    }

    /// Reports the status of an answer of the endpoint: for gRPC the one of HTTP that its status stands for.
    pub fn on_answer(&self, status: u16, now: Instant) {
        self.count(now, |policy| outlier::count_answer(&self.host.state, policy, status));
    }

    /// Reports that there will be no answer because of the endpoint. Not for a refusal of a limit, nor when the client leaves.
    pub fn on_failure(&self, failure: Failure, now: Instant) {
        self.count(now, |policy| outlier::count_failure(&self.host.state, policy, failure));
    }

    /// Reports a connection whose answers this proxy does not understand: TCP.
    pub fn on_connected(&self) {
        if let Some(policy) = &self.host.policy.outlier_detection {
            outlier::count_connection(&self.host.state, policy);
        }
    }

    fn count(&self, now: Instant, count: impl FnOnce(&OutlierDetection) -> bool) {
        let has_reached = self.host.policy.outlier_detection.as_ref().is_some_and(count);
        // Without a balancer there is nothing to eject it from.
        if has_reached && let Some(core) = self.host.core.upgrade() {
            core.eject(&self.host, now);
        }
    }
}

impl<T> Drop for Pick<T> {
    fn drop(&mut self) {
        self.host.state.end();
        self.host.limits.release(self.limit);
    }
}
