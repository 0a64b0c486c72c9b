//! What can go wrong between a lab and its user.

use std::{io, path::PathBuf, time::Duration};

/// Why a lab, or a request to it, failed.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// An option or argument that cannot work.
    #[error("{0}")]
    Invalid(String),
    /// A path among the options that cannot be used.
    #[error("cannot use {path}: {source}", path = path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No lab of that name runs.
    #[error("no lab named {name:?} is running")]
    NotRunning {
        /// Its name.
        name: String,
    },
    /// A lab of that name runs already.
    #[error("a lab named {name:?} is running already; `strake lab down` ends it")]
    Running {
        /// Its name.
        name: String,
    },
    /// The supervisor did not come up.
    #[error("the lab did not start: {reason}")]
    Start {
        /// What it said last.
        reason: String,
    },
    /// Something that should run and be ready is not.
    #[error("not ready after {waited:?}:\n{}", reasons.join("\n"))]
    NotReady {
        /// How long was waited.
        waited: Duration,
        /// A line for each pod or problem.
        reasons: Vec<String>,
    },
    /// The supervisor refused.
    #[error("{0}")]
    Refused(String),
    /// The supervisor went away in the middle of a request.
    #[error("the lab ended while it was asked")]
    Gone,
    /// The connection to the supervisor, or a file of the lab.
    #[error("{0}")]
    Io(#[from] io::Error),
}
