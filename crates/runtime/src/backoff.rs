//! Growing pauses between tries. It does not wait: the caller does.

use std::time::Duration;

use rand::RngExt as _;

/// Share of a pause that is drawn at random, so that many clients do not return at once.
const JITTER: f64 = 0.2;

/// Pauses that double from `min` to `max`, each shortened by up to 20 % at random.
#[derive(Debug, Clone)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    /// The first pause is `min`, none is longer than `max`.
    #[must_use]
    pub fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, next: min }
    }

    /// The pause to take now; the one after it is twice as long.
    pub fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (self.next * 2).min(self.max);
        pause.mul_f64(1.0 - JITTER * rand::rng().random::<f64>())
    }

    /// Starts over after a success.
    pub fn reset(&mut self) {
        self.next = self.min;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_limit_and_start_over() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(300));

        for limit in [100, 200, 300, 300] {
            let pause = backoff.pause().as_millis();
            assert!(pause <= limit && pause >= limit * 8 / 10, "{pause} of {limit}");
        }
        backoff.reset();

        assert!(backoff.pause().as_millis() <= 100);
    }
}
