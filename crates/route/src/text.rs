//! Patterns of text, as VirtualServices and routes of the Gateway API write them.

use serde::Serialize;

use crate::Regex;

/// Pattern of a value. Values are bytes; letter case counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum TextMatch {
    Exact(String),
    /// The value begins with these bytes.
    Prefix(String),
    /// The expression matches the whole value.
    Regex(Regex),
}

impl TextMatch {
    pub fn exact(text: &str) -> Self {
        Self::Exact(text.to_owned())
    }

    pub fn prefix(text: &str) -> Self {
        Self::Prefix(text.to_owned())
    }

    /// Returns true if the value matches.
    pub fn is_match(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(text) => value == text.as_bytes(),
            Self::Prefix(text) => value.starts_with(text.as_bytes()),
            Self::Regex(regex) => regex.is_match(value),
        }
    }
}

/// Pattern of a value that may be absent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum ValueMatch {
    /// Any value, also an empty one.
    Present,
    Text(TextMatch),
}

impl ValueMatch {
    /// Returns true if the value matches.
    pub fn is_match(&self, value: &[u8]) -> bool {
        match self {
            Self::Present => true,
            Self::Text(text) => text.is_match(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_of_a_pattern_are_those_of_the_api() {
        for (pattern, value, expected) in [
            (TextMatch::exact("jason"), "jason", true),
            (TextMatch::exact("jason"), "Jason", false),
            (TextMatch::exact("1"), "1,2", false),
            (TextMatch::prefix("/foo"), "/foobar", true),
            (TextMatch::prefix("/foo"), "/Foo", false),
            (TextMatch::prefix(""), "", true),
            (TextMatch::Regex(Regex::new("v[0-9]+").unwrap()), "v1", true),
            (TextMatch::Regex(Regex::new("v[0-9]+").unwrap()), "v1,v2", false),
        ] {
            assert_eq!(pattern.is_match(value.as_bytes()), expected, "{pattern:?} {value}");
        }
        assert!(ValueMatch::Present.is_match(b""));
    }
}
