//! Waiting for what should become true, with a deadline and the last reason why it is not.

use std::{
    fmt::Display,
    time::{Duration, Instant},
};

/// Pause between two looks.
const POLL: Duration = Duration::from_millis(25);

/// Looks until `look` succeeds.
///
/// # Panics
/// After `deadline`, with `what` and the last reason.
pub async fn eventually<T, E: Display>(
    what: &str,
    deadline: Duration,
    mut look: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let begun = Instant::now();
    let mut tick = tokio::time::interval(POLL);
    loop {
        tick.tick().await;
        match look().await {
            Ok(found) => return found,
            Err(reason) if begun.elapsed() > deadline => panic!("not within {deadline:?}: {what}: {reason}"),
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn success_after_a_few_looks_is_returned() {
        let mut looks = 0;

        let found = eventually("third look", Duration::from_secs(5), async || {
            looks += 1;
            if looks == 3 { Ok(looks) } else { Err("not yet") }
        });

        assert_eq!(found.await, 3);
    }

    #[tokio::test]
    #[should_panic(expected = "the moon: too far")]
    async fn the_last_reason_is_told() {
        eventually::<(), _>("the moon", Duration::ZERO, async || Err("too far")).await;
    }
}
