//! Waiting for what should become true, with a deadline and the last reason why it is not.

use std::{
    fmt::Display,
    time::{Duration, Instant},
};

use serde_json::Value;

/// Pause between two looks.
const POLL: Duration = Duration::from_millis(25);

/// Looks until `look` succeeds.
///
/// # Panics
/// After `deadline`, with `what` and the last reason.
pub async fn eventually<T, E: Display>(what: &str, deadline: Duration, look: impl AsyncFnMut() -> Result<T, E>) -> T {
    let found = within(deadline, look).await;
    found.unwrap_or_else(|reason| panic!("not within {deadline:?}: {what}: {reason}"))
}

/// As [`eventually`], for callers who go on without.
///
/// # Errors
/// The last reason, after `deadline`.
pub async fn within<T, E>(deadline: Duration, mut look: impl AsyncFnMut() -> Result<T, E>) -> Result<T, E> {
    let begun = Instant::now();
    // The first tick is due at once: what is true already costs no pause.
    let mut tick = tokio::time::interval(POLL);
    loop {
        tick.tick().await;
        match look().await {
            // The look that was begun before the deadline counts, also when it ends after it.
            Err(_) if begun.elapsed() <= deadline => {}
            done => return done,
        }
    }
}

/// Fails unless a client's report says that it was turned away: its connection was reset. An end, or a wait in vain, is no answer.
///
/// # Panics
/// When the report says anything else.
#[track_caller]
pub fn assert_turned_away(what: &str, report: &Value) {
    assert_eq!(report["kind"], "ConnectionReset", "{what}: {report}");
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
