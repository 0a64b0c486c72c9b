//! Errors of a lab, as its user reads them.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

/// Error of a lab, or of a request to it.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// An option or argument that cannot work.
    #[error("{0}")]
    Invalid(String),
    /// A path among the options that cannot be used.
    #[error("cannot use {path}: {reason}", path = path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// Reason, in words.
        reason: String,
    },
    /// Only root may make network namespaces, cgroups and kernel programs, or ask a lab that has.
    #[error("{path}: permission denied: a lab is root's, run this command as root", path = path.display())]
    NotRoot {
        /// File or directory that may not be used.
        path: PathBuf,
    },
    /// No lab of that name runs.
    #[error("no lab named {name:?} is running; {}", instead(name, others))]
    NotRunning {
        /// Its name.
        name: String,
        /// Labs that there are.
        others: Vec<String>,
    },
    /// A lab of that name runs already.
    #[error("a lab named {name:?} is running already; `strake lab down --lab {name}` ends it")]
    Running {
        /// Its name.
        name: String,
    },
    /// The supervisor did not come up.
    #[error("the lab did not start: {reason}")]
    Start {
        /// Its last message.
        reason: String,
    },
    /// Something that should run and be ready is not.
    #[error("not ready after {seconds:.1} s:\n{}", reasons.join("\n"), seconds = waited.as_secs_f64())]
    NotReady {
        /// Time that was waited.
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
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl LabError {
    /// An error of the file system at `path`.
    pub(crate) fn of(err: io::Error, path: &Path) -> Self {
        match err.kind() {
            io::ErrorKind::PermissionDenied => Self::NotRoot { path: path.to_owned() },
            _ => Self::Path { path: path.to_owned(), reason: err.to_string() },
        }
    }
}

/// Advice about a lab that does not exist.
fn instead(name: &str, others: &[String]) -> String {
    if others.is_empty() {
        return format!("`strake lab up DIR --lab {name}` starts one");
    }
    format!("there is {}: choose one with --lab or STRAKE_LAB", others.join(", "))
}
