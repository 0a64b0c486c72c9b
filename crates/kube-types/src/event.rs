//! Events of a source.

use std::path::PathBuf;

use crate::kind::{ClusterId, ObjectRef};
use crate::kinds::Resource;
use crate::problem::SourceProblem;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The object is new or differs from the last one of this key.
    Applied { cluster: ClusterId, resource: Resource },
    /// The object is gone.
    Removed { cluster: ClusterId, key: ObjectRef },
    /// All objects that existed at the start have been delivered.
    InSync { cluster: ClusterId },
    /// A manifest or a directory has a problem.
    Problem(SourceProblem),
    /// Every earlier problem of this file is over. A source without files names an object by its path in the API.
    Solved { file: PathBuf },
}
