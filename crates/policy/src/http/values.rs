//! Values that a field of a policy lists.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Truth;

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

    /// Compares each value by `is_match`. A value that matches decides, whatever else cannot be evaluated.
    pub(super) fn test(&self, mut is_match: impl FnMut(&T) -> bool) -> Truth {
        let any_of = if self.any_of.iter().any(&mut is_match) {
            Truth::Yes
        } else if !self.unreadable.is_empty() {
            Truth::Unknown
        } else if self.any_of.is_empty() {
            Truth::Yes
        } else {
            Truth::No
        };
        let none_of = if self.none_of.iter().any(&mut is_match) {
            Truth::No
        } else if self.unreadable_not.is_empty() {
            Truth::Yes
        } else {
            Truth::Unknown
        };
        Truth::all([any_of, none_of])
    }

    /// As `test`, for an attribute that the connection does not have at all: no value of it can be compared.
    pub(super) const fn test_unknown(&self) -> Truth {
        if self.is_empty() { Truth::Yes } else { Truth::Unknown }
    }
}

impl<T: fmt::Display> fmt::Display for Values<T> {
    /// Values separated by commas; behind `not` the negative ones.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |readable: &[T], unreadable: &[String]| {
            let readable = readable.iter().map(ToString::to_string);
            readable.chain(unreadable.iter().map(|text| format!("{text:?}"))).collect::<Vec<_>>().join(", ")
        };
        let any_of = list(&self.any_of, &self.unreadable);
        let none_of = list(&self.none_of, &self.unreadable_not);
        match (any_of.is_empty(), none_of.is_empty()) {
            (_, true) => f.write_str(&any_of),
            (true, false) => write!(f, "not {none_of}"),
            (false, false) => write!(f, "{any_of}; not {none_of}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(any_of: &[u16], none_of: &[u16], unreadable: &[&str], unreadable_not: &[&str]) -> Values<u16> {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Values {
            any_of: any_of.to_vec(),
            none_of: none_of.to_vec(),
            unreadable: texts(unreadable),
            unreadable_not: texts(unreadable_not),
        }
    }

    #[test]
    fn a_value_that_decides_needs_no_other() {
        let is_80 = |port: &u16| *port == 80;
        for (values, expected, text) in [
            (values(&[], &[], &[], &[]), Truth::Yes, ""),
            (values(&[80, 81], &[], &[], &[]), Truth::Yes, "80, 81"),
            (values(&[81], &[], &[], &[]), Truth::No, "81"),
            (values(&[80], &[], &["x"], &[]), Truth::Yes, "80, \"x\""),
            (values(&[81], &[], &["x"], &[]), Truth::Unknown, "81, \"x\""),
            (values(&[], &[80], &[], &[]), Truth::No, "not 80"),
            (values(&[], &[81], &[], &["x"]), Truth::Unknown, "not 81, \"x\""),
            (values(&[], &[80], &[], &["x"]), Truth::No, "not 80, \"x\""),
            (values(&[80], &[], &[], &["x"]), Truth::Unknown, "80; not \"x\""),
            (values(&[81], &[], &[], &["x"]), Truth::No, "81; not \"x\""),
        ] {
            assert_eq!(values.test(is_80), expected, "{values}");
            assert_eq!(values.to_string(), text);
        }
    }
}
