//! When to connect again, by how the last connection ended. It does not wait.

use std::time::Duration;

use tonic::{Code, Status};

/// First and last pause.
const MIN: Duration = Duration::from_millis(10);
const MAX: Duration = Duration::from_secs(15);

/// End of a connection.
#[derive(Debug)]
pub(crate) enum End {
    /// It was never there, or the call was refused.
    NotConnected,
    /// The stream broke, after the server had said something (or not).
    Broken { status: Status, useful: bool },
    /// The server has closed the stream in good order, after it had said something (or not).
    Closed { useful: bool },
}

impl End {
    /// Value of the label `reason`.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::NotConnected => "ConnectionError",
            Self::Broken { status, .. } if is_routine(status) => "Reconnect",
            Self::Broken { .. } => "Error",
            Self::Closed { .. } => "Complete",
        }
    }
}

/// The pause before the next connection.
#[derive(Debug)]
pub(crate) struct Pause {
    last: Duration,
    /// Streams in a row that the server closed in good order without a word.
    silent_ends: u32,
}

impl Pause {
    pub(crate) fn new() -> Self {
        Self { last: MIN, silent_ends: 0 }
    }

    /// The pause after a connection that ended so.
    pub(crate) fn after(&mut self, end: &End) -> Duration {
        self.silent_ends = if matches!(end, End::Closed { useful: false }) { self.silent_ends + 1 } else { 0 };
        match end {
            End::Closed { useful: true } => {
                self.last = MIN;
                Duration::ZERO
            }
            // The first one is followed at once, as the contract says. A server that closes every stream at once must not
            // be asked in a loop.
            End::Closed { useful: false } if self.silent_ends == 1 => Duration::ZERO,
            End::Broken { status, .. } if is_routine(status) => {
                self.last = MIN;
                MIN
            }
            End::Broken { useful, .. } => {
                // Failures before this stream say nothing about the server any more.
                if *useful {
                    self.last = MIN;
                }
                self.double()
            }
            End::NotConnected | End::Closed { useful: false } => self.double(),
        }
    }

    fn double(&mut self) -> Duration {
        self.last = (self.last * 2).min(MAX);
        self.last
    }
}

/// Control planes end streams now and then by design; these are the ways it looks.
fn is_routine(status: &Status) -> bool {
    match status.code() {
        Code::Unknown | Code::Cancelled | Code::DeadlineExceeded => true,
        Code::Unavailable => {
            let text = status.message();
            text.contains("transport is closing") || text.contains("received prior goaway")
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_double_the_pause_up_to_fifteen_seconds() {
        let mut pause = Pause::new();

        let pauses: Vec<u128> = (0..12).map(|_| pause.after(&End::NotConnected).as_millis()).collect();

        assert_eq!(pauses[..3], [20, 40, 80]);
        assert_eq!(pauses[11], 15_000);
    }

    #[test]
    fn routine_ends_are_followed_by_ten_milliseconds_and_start_over() {
        let mut pause = Pause::new();
        pause.after(&End::NotConnected);

        for status in [
            Status::unknown("x"),
            Status::cancelled("x"),
            Status::deadline_exceeded("x"),
            Status::unavailable("transport is closing"),
            Status::unavailable("received prior goaway: code: NO_ERROR"),
        ] {
            let end = End::Broken { status, useful: true };
            assert_eq!(pause.after(&end), MIN);
            assert_eq!(end.reason(), "Reconnect");
        }
        assert_eq!(pause.after(&End::NotConnected).as_millis(), 20);
    }

    #[test]
    fn other_errors_wait_longer_each_time() {
        let mut pause = Pause::new();
        let end = End::Broken { status: Status::unavailable("no such host"), useful: false };

        assert_eq!(end.reason(), "Error");
        assert_eq!(pause.after(&end).as_millis(), 20);
        assert_eq!(pause.after(&end).as_millis(), 40);
    }

    #[test]
    fn an_error_of_a_stream_that_was_of_use_does_not_pay_for_failures_before_it() {
        let mut pause = Pause::new();
        for _ in 0..12 {
            pause.after(&End::NotConnected);
        }

        let end = End::Broken { status: Status::internal("x"), useful: true };

        assert_eq!(pause.after(&end).as_millis(), 20);
    }

    #[test]
    fn a_clean_end_reconnects_at_once_and_a_server_that_never_says_a_word_is_not_asked_in_a_loop() {
        let mut pause = Pause::new();
        let silent = End::Closed { useful: false };

        assert_eq!(pause.after(&End::Closed { useful: true }), Duration::ZERO);
        assert_eq!(pause.after(&silent), Duration::ZERO);
        assert_eq!(pause.after(&silent).as_millis(), 20);
        assert_eq!(pause.after(&silent).as_millis(), 40);
        assert_eq!(silent.reason(), "Complete");
    }
}
