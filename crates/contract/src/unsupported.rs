//! The one sentence about a setting that is requested and not supported.

use std::fmt;

use serde::{Serialize, Serializer};

/// A setting that is requested and not supported. It is serialised as its sentence.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unsupported {
    /// The setting as its author wrote it, for instance `istio.io/global=true`.
    pub what: String,
    /// Consequence as a clause, for instance `there is one cluster`.
    pub instead: String,
}

impl Unsupported {
    pub fn new(what: impl Into<String>, instead: impl Into<String>) -> Self {
        Self { what: what.into(), instead: instead.into() }
    }
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not supported: {}", self.what, self.instead)
    }
}

impl Serialize for Unsupported {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // One text everywhere (status, page, log), so that a search for it finds all of them.
        serializer.collect_str(self)
    }
}
