//! Outcomes of questions: their metric, and the lines of the log that say what was lost. It asks nothing.

use std::time::{Duration, Instant};

use model::NetworkAddress;
use parking_lot::Mutex;
use xds_client::DemandError;

/// Pause between two lines about the same outcome: a client can cause one with each connection.
const REPORT_EVERY: Duration = Duration::from_secs(10);
/// The same for what lasts as long as the control plane is not another one.
const REPORT_LASTING_EVERY: Duration = Duration::from_secs(3600);

/// Outcome of a connection to an address that the mesh did not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Discovery knows the address: the connection is routed as it says.
    Known,
    /// Discovery says that nobody in the mesh has it.
    Absent,
    /// As [`Outcome::Absent`], and it was said less than a second ago.
    Remembered,
    /// Discovery knows the address, and what it says cannot be read: the connection is refused.
    Unreadable,
    /// No answer came in time, or the last question had none.
    Unanswered,
    /// There is no stream to the control plane.
    Disconnected,
    /// The control plane does not answer questions about single addresses.
    Unsupported,
    /// Too many questions wait.
    Full,
}

impl Outcome {
    const COUNT: usize = 8;

    /// As a label.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Known => "known",
            Self::Absent => "absent",
            Self::Remembered => "remembered",
            Self::Unreadable => "unreadable",
            Self::Unanswered => "unanswered",
            Self::Disconnected => "disconnected",
            Self::Unsupported => "unsupported",
            Self::Full => "full",
        }
    }
}

impl From<DemandError> for Outcome {
    fn from(error: DemandError) -> Self {
        match error {
            DemandError::Ended => Self::Disconnected,
            DemandError::Unsupported => Self::Unsupported,
            DemandError::Unreadable => Self::Unreadable,
            DemandError::TooMany => Self::Full,
        }
    }
}

/// When a line about each outcome is due, and how many connections it will speak for.
#[derive(Debug, Default)]
pub(super) struct Reports(Mutex<[Due; Outcome::COUNT]>);

#[derive(Debug, Default)]
struct Due {
    after: Option<Instant>,
    connections: u64,
}

impl Reports {
    /// Counts a connection, and logs now and then what was lost.
    pub(super) fn count(&self, outcome: Outcome, address: &NetworkAddress) {
        metrics::counter!("strake_address_lookups_total", "outcome" => outcome.as_str()).increment(1);
        match outcome {
            Outcome::Known | Outcome::Absent | Outcome::Remembered => {}
            // Refused, which the access log says of each connection.
            Outcome::Unreadable => {}
            Outcome::Unanswered => {
                if let Some(connections) = self.due(outcome, Instant::now()) {
                    tracing::warn!(
                        %address, connections, code = "address_unanswered",
                        "discovery did not say in time whether a pod of the mesh has this address; \
                         connections passed through without the mesh's encryption"
                    );
                }
            }
            Outcome::Disconnected => {
                if let Some(connections) = self.due(outcome, Instant::now()) {
                    tracing::warn!(
                        %address, connections, code = "address_not_asked",
                        "no stream to the control plane that could say whether a pod of the mesh has this address; \
                         connections passed through without the mesh's encryption"
                    );
                }
            }
            Outcome::Unsupported => {
                if let Some(connections) = self.due(outcome, Instant::now()) {
                    tracing::info!(
                        %address, connections, code = "address_lookup_unsupported",
                        "this control plane cannot be asked whether a pod of the mesh has this address; \
                         connections passed through without the mesh's encryption"
                    );
                }
            }
            Outcome::Full => {
                if let Some(connections) = self.due(outcome, Instant::now()) {
                    tracing::warn!(
                        %address, connections, code = "address_lookups_full",
                        "too many questions about addresses wait for the control plane; \
                         connections passed through without the mesh's encryption"
                    );
                }
            }
        }
    }

    /// Number of connections since the last line, when one is due now.
    fn due(&self, outcome: Outcome, now: Instant) -> Option<u64> {
        let mut all = self.0.lock();
        let due = all.get_mut(outcome as usize)?;
        due.connections += 1;
        if due.after.is_some_and(|after| now < after) {
            return None;
        }
        due.after = Some(now + if outcome == Outcome::Unsupported { REPORT_LASTING_EVERY } else { REPORT_EVERY });
        Some(std::mem::take(&mut due.connections))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_speaks_for_the_connections_since_the_last_one_of_its_outcome() {
        let (reports, now) = (Reports::default(), Instant::now());

        assert_eq!(reports.due(Outcome::Unanswered, now), Some(1));
        assert_eq!(reports.due(Outcome::Full, now), Some(1));
        for _ in 0..3 {
            assert_eq!(reports.due(Outcome::Unanswered, now + REPORT_EVERY / 2), None);
        }
        assert_eq!(reports.due(Outcome::Unanswered, now + REPORT_EVERY), Some(4));
    }
}
