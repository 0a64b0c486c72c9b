//! Progress of the first answer of one type, up to the point where everything has arrived. See `proto::snapshot` for the marks.

use proto::snapshot::Mark;

/// A part of a snapshot was not received. The stream must end: a new one begins with the versions held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected part {expected} of the snapshot, received part {received}")]
pub(crate) struct MissingPart {
    expected: u32,
    received: u32,
}

/// State of a type after a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// More parts of the first answer follow.
    Partial,
    /// The answer has arrived as a whole, and resources of it were refused.
    Refused,
    /// Everything has arrived and was accepted.
    Complete,
}

#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Parts of a snapshot that arrived on this stream, without a gap.
    parts: u32,
    /// A resource of these parts was refused.
    has_refusal: bool,
    /// A snapshot has arrived as a whole, on this stream or on an earlier one.
    has_ended: bool,
    /// Everything was accepted once.
    is_complete: bool,
}

impl Progress {
    /// A new stream sends the differences to what is held, from their first part.
    pub(crate) fn begin_stream(&mut self) {
        self.parts = 0;
        self.has_refusal = false;
    }

    /// Fails when parts before this one are missing.
    pub(crate) fn check(&self, mark: Option<Mark>) -> Result<(), MissingPart> {
        let expected = self.parts.saturating_add(1);
        match mark {
            Some(Mark { part, .. }) if part > expected => Err(MissingPart { expected, received: part }),
            _ => Ok(()),
        }
    }

    /// Notes a response that was applied, and whether all of it was accepted. Also returns whether the type has become
    /// complete with it, which happens once.
    pub(crate) fn applied(&mut self, mark: Option<Mark>, is_accepted: bool) -> (Standing, bool) {
        match mark {
            Some(mark) => {
                self.has_refusal |= !is_accepted;
                // A part that arrives twice says nothing new.
                if mark.part > self.parts {
                    self.parts = mark.part;
                    self.has_ended |= mark.is_last;
                }
            }
            // Between two parts there is no other response of their type.
            None if self.parts == 0 => self.has_ended = true,
            None => {}
        }
        let is_clean = is_accepted && (mark.is_none() || !self.has_refusal);
        let standing = match (self.has_ended, is_clean) {
            (false, _) => Standing::Partial,
            (true, false) => Standing::Refused,
            (true, true) => Standing::Complete,
        };
        let is_first = standing == Standing::Complete && !self.is_complete;
        self.is_complete |= is_first;
        (standing, is_first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn mark(part: u32, is_last: bool) -> Option<Mark> {
        Some(Mark { part, is_last })
    }

    #[test]
    fn a_response_without_a_mark_is_complete_as_istios_control_plane_sends_it() {
        let mut progress = Progress::default();

        assert_eq!(progress.applied(None, true), (Standing::Complete, true));
        assert_eq!(progress.applied(None, true), (Standing::Complete, false));
    }

    #[test]
    fn a_snapshot_in_parts_is_complete_with_its_last_part() {
        let mut progress = Progress::default();

        assert_eq!(progress.applied(mark(1, false), true), (Standing::Partial, false));
        assert_eq!(progress.applied(mark(1, false), true), (Standing::Partial, false), "a duplicate");
        assert_eq!(progress.applied(mark(2, true), true), (Standing::Complete, true));
    }

    #[test]
    fn parts_of_a_stream_that_was_cut_do_not_count_for_the_next_one() {
        let mut progress = Progress::default();
        progress.applied(mark(1, false), true);

        progress.begin_stream();

        assert_eq!(progress.check(mark(2, true)), Err(MissingPart { expected: 1, received: 2 }));
        assert_eq!(progress.applied(mark(1, true), true), (Standing::Complete, true));
    }

    #[test]
    fn a_refusal_in_any_part_keeps_the_snapshot_from_being_complete() {
        let mut progress = Progress::default();
        progress.applied(mark(1, false), false);

        assert_eq!(progress.applied(mark(2, true), true), (Standing::Refused, false));
        assert_eq!(progress.applied(None, true), (Standing::Complete, true), "a later response is accepted as a whole");
    }

    #[test]
    fn an_update_between_parts_completes_nothing() {
        let mut progress = Progress::default();
        progress.applied(mark(1, false), true);

        assert_eq!(progress.applied(None, true), (Standing::Partial, false));
    }
}
