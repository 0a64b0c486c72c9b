//! Circuit breakers: how much may run at a time, for all workers of this process together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use route::traffic::TrafficPolicy;

use crate::pick::Refused;

/// Limit of a connection pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// `maxConnections`
    Connections,
    /// `http1MaxPendingRequests`: requests that wait for a connection, of every version of HTTP.
    PendingRequests,
    /// `http2MaxRequests`: requests that run, of every version of HTTP.
    Requests,
    /// `maxRetries`, or the retry budget.
    Retries,
}

/// Stands for no limit.
const UNLIMITED: u32 = u32::MAX;

/// Counters of what runs, and their limits. Exact: there are never more permits than the limit, and none is refused below
/// it.
#[derive(Debug)]
pub struct Limits {
    counters: [Counter; 4],
    /// Share of the retry budget in millionths; `UNLIMITED`: no budget.
    budget_share: AtomicU32,
    budget_minimum: AtomicU32,
}

/// Each has a cache line of its own, as workers write them at the same time.
#[derive(Debug)]
#[repr(align(64))]
struct Counter {
    used: AtomicU32,
    max: AtomicU32,
}

/// Leave for one of something; it ends when it is dropped.
#[derive(Debug)]
#[must_use = "what is not kept counts no longer"]
pub struct Permit {
    limits: Arc<Limits>,
    limit: Limit,
}

impl Default for Limits {
    fn default() -> Self {
        let counter = || Counter { used: AtomicU32::new(0), max: AtomicU32::new(UNLIMITED) };
        Self {
            counters: [counter(), counter(), counter(), counter()],
            budget_share: AtomicU32::new(UNLIMITED),
            budget_minimum: AtomicU32::new(0),
        }
    }
}

impl Limits {
    /// Takes over the limits of a policy. What runs keeps running, also where it is more than a new limit.
    pub fn apply(&self, policy: &TrafficPolicy) {
        let pool = &policy.connection_pool;
        for (limit, max) in [
            (Limit::Connections, pool.tcp.max_connections),
            (Limit::PendingRequests, pool.http.max_pending_requests),
            (Limit::Requests, pool.http.max_requests),
            (Limit::Retries, pool.http.max_retries),
        ] {
            self.counter(limit).max.store(max.unwrap_or(UNLIMITED), Ordering::Relaxed);
        }
        let budget = policy.retry_budget;
        self.budget_minimum.store(budget.map_or(0, |budget| budget.min_concurrency), Ordering::Relaxed);
        self.budget_share.store(budget.map_or(UNLIMITED, |budget| budget.share.0), Ordering::Relaxed);
    }

    /// Takes leave for one more.
    ///
    /// # Errors
    ///
    /// [`Refused::Overflow`] if as many run as may.
    pub fn acquire(self: &Arc<Self>, limit: Limit) -> Result<Permit, Refused> {
        self.take(limit)?;
        Ok(Permit { limits: Arc::clone(self), limit })
    }

    /// As [`Self::acquire`], for a caller that ends with [`Self::release`].
    pub(crate) fn take(&self, limit: Limit) -> Result<(), Refused> {
        let counter = self.counter(limit);
        let max = self.max(limit);
        if max == UNLIMITED {
            counter.used.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        let next = |used: u32| (used < max).then_some(used + 1);
        let taken = counter.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        taken.map(drop).map_err(|_| Refused::Overflow(limit))
    }

    pub(crate) fn release(&self, limit: Limit) {
        self.counter(limit).used.fetch_sub(1, Ordering::Relaxed);
    }

    /// Number of permits in use.
    pub fn used(&self, limit: Limit) -> u32 {
        self.counter(limit).used.load(Ordering::Relaxed)
    }

    fn max(&self, limit: Limit) -> u32 {
        let share = self.budget_share.load(Ordering::Relaxed);
        if limit != Limit::Retries || share == UNLIMITED {
            return self.counter(limit).max.load(Ordering::Relaxed);
        }
        // Envoy's budget: a share of the requests that run and of those that wait.
        let active = u64::from(self.used(Limit::Requests)) + u64::from(self.used(Limit::PendingRequests));
        let allowed = u32::try_from(active * u64::from(share) / 1_000_000).unwrap_or(UNLIMITED - 1);
        allowed.max(self.budget_minimum.load(Ordering::Relaxed))
    }

    const fn counter(&self, limit: Limit) -> &Counter {
        let [connections, pending, requests, retries] = &self.counters;
        match limit {
            Limit::Connections => connections,
            Limit::PendingRequests => pending,
            Limit::Requests => requests,
            Limit::Retries => retries,
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.limits.release(self.limit);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use route::traffic::{Millionths, RetryBudget};

    use super::*;

    fn limits(policy: &TrafficPolicy) -> Arc<Limits> {
        let limits = Arc::new(Limits::default());
        limits.apply(policy);
        limits
    }

    fn policy(max: u32) -> TrafficPolicy {
        let mut policy = TrafficPolicy::default();
        policy.connection_pool.tcp.max_connections = Some(max);
        policy.connection_pool.http.max_pending_requests = Some(max);
        policy.connection_pool.http.max_requests = Some(max);
        policy.connection_pool.http.max_retries = Some(max);
        policy
    }

    #[test]
    fn each_limit_counts_apart_and_a_permit_that_ends_makes_room() {
        let limits = limits(&policy(1));
        for limit in [Limit::Connections, Limit::PendingRequests, Limit::Requests, Limit::Retries] {
            let first = limits.acquire(limit).unwrap();
            assert_eq!(limits.acquire(limit).unwrap_err(), Refused::Overflow(limit));
            assert_eq!(limits.used(limit), 1);
            drop(first);
            assert!(limits.acquire(limit).is_ok());
        }
    }

    #[test]
    fn without_a_limit_nothing_is_refused_and_everything_is_counted() {
        let limits = limits(&TrafficPolicy::default());
        let permits: Vec<_> = (0..5000).map(|_| limits.acquire(Limit::Requests).unwrap()).collect();
        assert_eq!(limits.used(Limit::Requests), 5000);
        drop(permits);
        assert_eq!(limits.used(Limit::Requests), 0);
    }

    #[test]
    fn a_new_limit_holds_for_what_comes_next() {
        let limits = limits(&policy(3));
        let mut running: Vec<_> = (0..3).map(|_| limits.acquire(Limit::Requests).unwrap()).collect();
        limits.apply(&policy(2));
        running.pop();
        assert!(limits.acquire(Limit::Requests).is_err(), "two still run");
        running.pop();
        assert!(limits.acquire(Limit::Requests).is_ok());
    }

    #[test]
    fn a_retry_budget_is_a_share_of_what_runs_and_replaces_the_limit() {
        let mut policy = TrafficPolicy::default();
        policy.connection_pool.http.max_retries = Some(0);
        policy.retry_budget = Some(RetryBudget { share: Millionths(200_000), min_concurrency: 3 });
        let limits = limits(&policy);
        let retries = || {
            let permits: Vec<_> = std::iter::from_fn(|| limits.acquire(Limit::Retries).ok()).collect();
            permits.len()
        };
        assert_eq!(retries(), 3, "the minimum");
        let _running: Vec<_> = (0..20).map(|_| limits.acquire(Limit::Requests).unwrap()).collect();
        assert_eq!(retries(), 4);
        let _waiting: Vec<_> = (0..10).map(|_| limits.acquire(Limit::PendingRequests).unwrap()).collect();
        assert_eq!(retries(), 6);
    }

    #[test]
    fn limits_hold_exactly_across_threads() {
        const MAX: u32 = 3;
        let limits = limits(&policy(MAX));
        let (granted, too_many) = (AtomicU32::new(0), AtomicBool::new(false));
        let running = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        let Ok(permit) = limits.acquire(Limit::Requests) else { continue };
                        if running.fetch_add(1, Ordering::SeqCst) >= MAX {
                            too_many.store(true, Ordering::SeqCst);
                        }
                        granted.fetch_add(1, Ordering::SeqCst);
                        running.fetch_sub(1, Ordering::SeqCst);
                        drop(permit);
                    }
                });
            }
        });
        assert!(!too_many.into_inner());
        assert!(granted.into_inner() > 0);
        assert_eq!(limits.used(Limit::Requests), 0);
    }
}
