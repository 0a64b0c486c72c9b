//! Findings: fields that have no effect, or another effect than they say.

use std::fmt;

use route::Origin;

/// Subject of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// A value that does not parse, or fields that exclude each other.
    Invalid,
    /// A field of the API that this mesh does not support.
    Unsupported,
    /// A setting that has no effect where it stands.
    Ignored,
    /// A service, port, subset or delegate that does not exist.
    Missing,
    /// An earlier rule or another object takes all requests.
    Shadowed,
}

impl Reason {
    /// Stable: value in JSON, log key.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Invalid => "invalid_value",
            Self::Unsupported => "unsupported",
            Self::Ignored => "ignored",
            Self::Missing => "missing",
            Self::Shadowed => "shadowed",
        }
    }
}

/// Fact about a field of an object that its author should know.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Object, and path of the field.
    pub origin: Origin,
    pub reason: Reason,
    /// The fault, and what happens instead.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.origin, self.message, self.reason.code())
    }
}

/// Findings of one compilation.
#[derive(Debug, Default)]
pub(crate) struct Findings(Vec<Finding>);

impl Findings {
    pub(crate) fn add(&mut self, reason: Reason, origin: &Origin, field: &str, message: impl Into<String>) {
        let path = match (origin.field.as_str(), field) {
            (path, "") => path.to_owned(),
            ("", field) => field.to_owned(),
            (path, field) if field.starts_with('[') => format!("{path}{field}"),
            (path, field) => format!("{path}.{field}"),
        };
        self.0.push(Finding { origin: origin.at(path), reason, message: message.into() });
    }

    /// Sorted, each once: a rule is compiled for each port.
    pub(crate) fn into_sorted(mut self) -> Vec<Finding> {
        self.0.sort();
        self.0.dedup();
        self.0
    }
}
