//! Errors of reading, with the path of the field.

use std::fmt;

use route::PatternError;

/// A field that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// Path from the resource, as `ports[0].routes.rules[1].fault`; empty for the whole resource.
    pub field: String,
    pub problem: Problem,
}

/// Fault of a field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("not readable: {0}")]
    Unreadable(String),
    #[error("{0} bytes of fields that this version does not know")]
    UnknownFields(usize),
    #[error("content of a kind that this version does not know")]
    UnknownContent,
    #[error("the content is about another object than the name")]
    OtherObject,
    #[error("missing")]
    Missing,
    #[error("found twice")]
    Twice,
    #[error("{0} is out of range")]
    OutOfRange(i64),
    #[error("{0:?} is not known")]
    Unknown(String),
    #[error("invalid header: {0}")]
    Header(String),
    #[error(transparent)]
    Pattern(#[from] PatternError),
    #[error("invalid JSON: {0}")]
    Json(String),
}

impl From<Problem> for Invalid {
    fn from(problem: Problem) -> Self {
        Self { field: String::new(), problem }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, problem } = self;
        if field.is_empty() { problem.fmt(f) } else { write!(f, "{field}: {problem}") }
    }
}

impl std::error::Error for Invalid {}

/// Adds where a field is.
pub(super) trait Within<T> {
    fn within(self, field: impl AsRef<str>) -> Result<T, Invalid>;
}

impl<T, E: Into<Invalid>> Within<T> for Result<T, E> {
    fn within(self, field: impl AsRef<str>) -> Result<T, Invalid> {
        self.map_err(|error| {
            let Invalid { field: inner, problem } = error.into();
            let outer = field.as_ref();
            let field = if inner.is_empty() { outer.to_owned() } else { format!("{outer}.{inner}") };
            Invalid { field, problem }
        })
    }
}

/// Reads each item of a list.
pub(super) fn each<W, T>(
    field: &str,
    items: Vec<W>,
    read: impl Fn(W) -> Result<T, Invalid>,
) -> Result<Vec<T>, Invalid> {
    let item = |(index, item)| read(item).within(format!("{field}[{index}]"));
    items.into_iter().enumerate().map(item).collect()
}

/// A field that must be there.
pub(super) fn required<T>(field: &str, value: Option<T>) -> Result<T, Invalid> {
    value.ok_or(Problem::Missing).within(field)
}

/// Reads a field that may be absent.
pub(super) fn optional<W, T>(
    field: &str,
    value: Option<W>,
    read: impl FnOnce(W) -> Result<T, Invalid>,
) -> Result<Option<T>, Invalid> {
    value.map(read).transpose().within(field)
}
