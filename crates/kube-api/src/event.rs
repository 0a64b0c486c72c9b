//! What a source tells.

use std::fmt;
use std::path::PathBuf;

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
    /// Something in a file is not understood.
    Problem(SourceProblem),
    /// Every problem told of this file no longer holds.
    Solved { file: PathBuf },
}

/// What happens to the file that has the problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The whole file is refused: what it said before stays in force.
    Refused,
    /// The document is left out, the rest of the file is in force.
    Ignored,
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
        write!(f, ": {}", self.message)
    }
}
