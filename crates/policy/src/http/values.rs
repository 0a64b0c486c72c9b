//! Values that a field of a policy lists.

use serde::{Deserialize, Serialize};

/// Values of one field: one of `any_of` has to match, and none of `none_of` may.
///
/// A value that cannot be evaluated is kept as it was written. It neither matches nor fails to: see `Truth`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Values<T> {
    /// Empty, with `unreadable` empty too: any value is right.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub any_of: Vec<T>,
    /// Values of the negative form of the field, as `notPaths`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub none_of: Vec<T>,
    /// Further values of `any_of` that cannot be evaluated.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unreadable: Vec<String>,
    /// Further values of `none_of` that cannot be evaluated.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unreadable_not: Vec<String>,
}

impl<T> Default for Values<T> {
    fn default() -> Self {
        Self { any_of: Vec::new(), none_of: Vec::new(), unreadable: Vec::new(), unreadable_not: Vec::new() }
    }
}

impl<T> Values<T> {
    /// Returns true if the field lists nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.any_of.is_empty()
            && self.none_of.is_empty()
            && self.unreadable.is_empty()
            && self.unreadable_not.is_empty()
    }
}
