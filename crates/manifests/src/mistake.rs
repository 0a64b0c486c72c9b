//! A mistake in one object, and its place.

use crate::document::Step;
use kube_types::Code;
pub(crate) use kube_types::wording::{found, in_words};

/// A mistake in one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mistake {
    pub(crate) path: Vec<Step>,
    pub(crate) message: String,
    pub(crate) code: Code,
}

impl Mistake {
    pub(crate) fn at(path: &[&str], code: Code, message: impl Into<String>) -> Self {
        let path = path.iter().map(|name| Step::Field((*name).to_owned())).collect();
        Self { path, message: message.into(), code }
    }

    /// A value that its field does not take.
    pub(crate) fn value(path: Vec<Step>, message: impl Into<String>) -> Self {
        Self { path, message: message.into(), code: Code::InvalidValue }
    }
}
