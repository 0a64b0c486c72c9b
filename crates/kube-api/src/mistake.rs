//! What is wrong in an object, and where.

use crate::document::Step;

/// A mistake in one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mistake {
    pub(crate) path: Vec<Step>,
    pub(crate) message: String,
}

impl Mistake {
    pub(crate) fn at(path: &[&str], message: impl Into<String>) -> Self {
        Self { path: path.iter().map(|name| Step::Field((*name).to_owned())).collect(), message: message.into() }
    }

    /// A field, or an entry of a list, that nobody knows.
    pub(crate) fn unknown_field(path: Vec<Step>) -> Self {
        let message = match path.last() {
            Some(Step::Field(name)) => format!("unknown field {name:?}"),
            Some(Step::Index(_)) | None => "unknown entry".to_owned(),
        };
        Self { path, message }
    }
}
