//! Growth of the share of new endpoints.

use std::time::{Duration, Instant};

use route::traffic::WarmUp;

/// Factor from 0 to 1 of the weight of an endpoint that was new at `since`.
pub(crate) fn factor(policy: &WarmUp, since: Instant, now: Instant) -> f64 {
    let age = now.saturating_duration_since(since);
    if age >= policy.duration {
        return 1.0;
    }
    // An endpoint of less than a millisecond counts as one of a millisecond, as in Envoy.
    let age = age.max(Duration::from_millis(1)).as_secs_f64() / policy.duration.as_secs_f64();
    age.powf(1.0 / policy.aggression.as_f64()).max(policy.minimum.as_f64()).min(1.0)
}

#[cfg(test)]
mod tests {
    use route::traffic::Millionths;

    use super::*;

    #[test]
    fn a_share_grows_from_the_minimum_along_the_curve() {
        let start = Instant::now();
        let linear = WarmUp::new(Duration::from_secs(100));
        let at = |policy: &WarmUp, seconds| factor(policy, start, start + Duration::from_secs(seconds));
        let near = |value: f64, expected: f64| assert!((value - expected).abs() < 1e-9, "{value} {expected}");
        for (seconds, expected) in [(0, 0.1), (5, 0.1), (10, 0.1), (50, 0.5), (99, 0.99), (100, 1.0), (1000, 1.0)] {
            near(at(&linear, seconds), expected);
        }
        let fast = WarmUp { aggression: Millionths(2_000_000), ..linear };
        near(at(&fast, 25), 0.5);
        let from_0 = WarmUp { minimum: Millionths(0), ..linear };
        near(at(&from_0, 0), 0.000_01);
        near(factor(&linear, start + Duration::from_secs(9), start), 0.1);
    }
}
