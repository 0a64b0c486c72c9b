//! What a source tells.

use std::fmt;
use std::path::PathBuf;
use std::time::SystemTime;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::kind::{ClusterId, ObjectRef};
use crate::resource::Resource;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The object is new or differs from what was told before.
    Applied { cluster: ClusterId, resource: Resource },
    /// The object is gone.
    Removed { cluster: ClusterId, key: ObjectRef },
    /// Everything that existed at the start has been told.
    InSync { cluster: ClusterId },
    /// Something in a file is not understood, or a directory is not there.
    Problem(SourceProblem),
    /// Every problem told of this file no longer holds.
    Solved { file: PathBuf },
}

/// What happens to the file that has the problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The whole file (or directory) is refused: what it said before stays in force.
    Refused,
    /// The document is left out, the rest of the file is in force.
    Ignored,
    /// The file is in force; something that belongs to it is not as it should be.
    Noted,
}

/// What is in force of a file that is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum InForce {
    /// What it said before, read for the first time at `since`.
    LastGood { since: SystemTime },
    /// Nothing: no good state of it is known.
    Nothing,
}

impl InForce {
    /// When the last good state was first read, as RFC 3339 in whole seconds of UTC.
    pub fn last_good(&self) -> Option<String> {
        match self {
            Self::LastGood { since } => {
                let since = OffsetDateTime::from(*since);
                since.replace_nanosecond(0).unwrap_or(since).format(&Rfc3339).ok()
            }
            Self::Nothing => None,
        }
    }
}

impl fmt::Display for InForce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.last_good() {
            Some(since) => write!(f, "the last good state of {since} stays in force"),
            None => f.write_str("nothing of the file is in force: no good state of it is known"),
        }
    }
}

/// One mistake in a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SourceProblem {
    pub file: PathBuf,
    /// From 1; 0 when it is about the file as a whole.
    pub line: usize,
    /// Path of the field, as `spec.ports[0].port`; empty when it is about the document.
    pub field: String,
    /// What is wrong and what was expected.
    pub message: String,
    pub severity: Severity,
    /// Told by a [`crate::Source`] for each file that is refused.
    pub in_force: Option<InForce>,
}

impl fmt::Display for SourceProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if !self.field.is_empty() {
            write!(f, ": {}", self.field)?;
        }
        write!(f, ": {}", self.message)?;
        match &self.in_force {
            Some(in_force) => write!(f, "; {in_force}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_refused_file_tells_which_state_is_in_force() {
        let mut problem = SourceProblem {
            file: "p.yaml".into(),
            line: 3,
            field: "spec.mode".to_owned(),
            message: "unknown".to_owned(),
            severity: Severity::Refused,
            in_force: Some(InForce::Nothing),
        };
        assert_eq!(
            problem.to_string(),
            "p.yaml:3: spec.mode: unknown; nothing of the file is in force: no good state of it is known"
        );

        let since = SystemTime::UNIX_EPOCH + Duration::from_millis(86_400_500);
        problem.in_force = Some(InForce::LastGood { since });

        assert_eq!(
            problem.to_string(),
            "p.yaml:3: spec.mode: unknown; the last good state of 1970-01-02T00:00:00Z stays in force"
        );
    }
}
