//! Limit on the rate of writes. It does not wait: the caller does.

use std::time::Duration;

use tokio::time::Instant;

/// At most one write per `interval` in the long run, and up to `burst` of them at once after a pause.
#[derive(Debug)]
pub(crate) struct Limit {
    interval: Duration,
    burst: u32,
    /// Time of the next write if all were `interval` apart.
    next: Option<Instant>,
}

impl Limit {
    pub(crate) const fn new(interval: Duration, burst: u32) -> Self {
        Self { interval, burst, next: None }
    }

    /// Takes all of the burst: writes are `interval` apart from now on.
    pub(crate) fn exhaust(&mut self, now: Instant) {
        self.next = Some(now + self.interval * self.burst);
    }

    /// Takes the place of a write that begins at `now`.
    ///
    /// # Errors
    /// Returns the time at which the next one may begin.
    pub(crate) fn take(&mut self, now: Instant) -> Result<(), Instant> {
        let next = self.next.map_or(now, |next| next.max(now));
        // After a pause `next` is in the past, so that a burst may run ahead of it by so much.
        // One less: the first write of a burst begins at `now` in any case.
        let ahead = self.interval * self.burst.saturating_sub(1);
        match next.checked_sub(ahead) {
            Some(begin) if begin > now => Err(begin),
            _ => {
                self.next = Some(next + self.interval);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_at_once_and_what_follows_at_the_rate() {
        let interval = Duration::from_millis(100);
        let mut limit = Limit::new(interval, 3);
        let start = Instant::now();

        assert_eq!([(); 3].map(|()| limit.take(start)), [Ok(()); 3]);
        assert_eq!(limit.take(start), Err(start + interval));
        assert_eq!(limit.take(start + interval), Ok(()));
        assert_eq!(limit.take(start + interval), Err(start + interval * 2));

        let later = start + Duration::from_secs(60);
        assert_eq!([(); 3].map(|()| limit.take(later)), [Ok(()); 3]);
        assert_eq!(limit.take(later), Err(later + interval), "a long pause allows no more than a burst");

        let later = later + Duration::from_secs(60);
        limit.exhaust(later);
        assert_eq!(limit.take(later), Err(later + interval));
    }
}
