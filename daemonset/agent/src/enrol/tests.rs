//! The order of enrolment and of leaving against a node that can fail at any step.

mod bench;
mod entering;
mod facts;
mod fake;
mod leaving;
mod proving;
mod restarting;

pub(crate) use bench::{pod, until};
pub(crate) use fake::Fake;

use std::time::Duration;

use super::{Step, Timing};

const GRACE: Duration = Duration::from_secs(10);
pub(crate) const TIMING: Timing = Timing {
    unenrol_grace: GRACE,
    proof_interval: Duration::from_secs(3),
    retry_min: Duration::from_millis(25),
    retry_max: Duration::from_secs(2),
};

/// Every step that can fail on the way in, in order.
const ENTRY_STEPS: [Step; 7] =
    [Step::Locate, Step::Tag, Step::Entry, Step::Rules, Step::Link, Step::Announce, Step::Annotate];
/// Every step that can fail on the way out, in order.
const EXIT_STEPS: [Step; 6] =
    [Step::Annotate, Step::Entry, Step::Drain, Step::Unlink, Step::RemoveRules, Step::RemoveEntry];
