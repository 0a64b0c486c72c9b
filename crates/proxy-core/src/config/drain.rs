//! Time that open connections have once the proxy is asked to end.

use std::time::Duration;

use super::{source::Reader, values};

/// `CONNECTION_TERMINATION_DEADLINE`, then 5 s less than `TERMINATION_GRACE_PERIOD_SECONDS`, when Kubernetes kills the pod;
/// default 5 s.
pub(super) fn deadline(reader: &mut Reader<'_>) -> Duration {
    const DEFAULT: Duration = Duration::from_secs(5);
    let explicit = reader.optional("CONNECTION_TERMINATION_DEADLINE", values::DURATION, values::duration);
    let grace: Option<u64> =
        reader.optional("TERMINATION_GRACE_PERIOD_SECONDS", "a number of seconds, such as 30", values::number);
    // What is left belongs to the end of the process: cut connections are reset and the last lines written before
    // Kubernetes kills it.
    let within = grace.map(|s| Duration::from_secs(if s > 10 { s - 5 } else { s.saturating_sub(1).max(1) }));
    explicit.or(within).unwrap_or(DEFAULT)
}
