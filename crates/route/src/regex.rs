//! Regular expressions of users: RE2's syntax, matched in linear time over bytes, bounded in size.
//!
//! Envoy matches with RE2 over single bytes, not characters: `.` is one byte (measured on Envoy 1.40: `.{3}` matches `éa`).

use std::fmt;

use regex::bytes::RegexBuilder;
use serde::{Serialize, Serializer};

use crate::re2;

/// Longest pattern in bytes. The Gateway API allows 4096 for a header's value, Istio's API names no bound.
pub const MAX_PATTERN_BYTES: usize = 4096;

/// Memory in bytes that one compiled pattern may use, and again its cache. Patterns that users write need some kilobytes;
/// nested repetitions grow without bound.
const MAX_COMPILED_BYTES: usize = 1 << 20;

/// Reason for which a pattern cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    #[error("the regular expression has {bytes} bytes, at most {MAX_PATTERN_BYTES} are allowed")]
    TooLong { bytes: usize },
    #[error("the regular expression needs more than {MAX_COMPILED_BYTES} bytes of memory")]
    TooLarge,
    #[error("invalid regular expression: {0}")]
    Syntax(String),
    #[error("the replacement names group {group}, the regular expression has {groups}")]
    NoSuchGroup { group: usize, groups: usize },
    #[error("invalid replacement {0:?}: expected a digit or a backslash behind each backslash")]
    Replacement(String),
}

/// A regular expression that has to match the whole of a value.
#[derive(Clone)]
pub struct Regex {
    pattern: Box<str>,
    compiled: regex::bytes::Regex,
}

impl Regex {
    /// Compiles a pattern of RE2's syntax.
    pub fn new(pattern: &str) -> Result<Self, PatternError> {
        let compiled = compile(pattern, |syntax| format!(r"\A(?:{syntax})\z"))?;
        Ok(Self { pattern: pattern.into(), compiled })
    }

    /// Returns true if the pattern matches all of the value.
    pub fn is_match(&self, value: &[u8]) -> bool {
        self.compiled.is_match(value)
    }

    /// The pattern as it was written.
    pub fn pattern(&self) -> &str {
        &self.pattern
    }
}

impl PartialEq for Regex {
    fn eq(&self, other: &Self) -> bool {
        self.pattern == other.pattern
    }
}

impl Eq for Regex {}

impl fmt::Debug for Regex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Regex({:?})", self.pattern)
    }
}

impl Serialize for Regex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.pattern)
    }
}

/// A regular expression with a replacement for each of its matches, wherever they are in the value.
#[derive(Clone, Serialize)]
pub struct Substitution {
    pattern: Box<str>,
    replacement: Box<str>,
    #[serde(skip)]
    compiled: regex::bytes::Regex,
    #[serde(skip)]
    parts: Vec<Part>,
}

/// Part of a replacement.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    /// Text of a group; 0 is the whole match.
    Group(usize),
}

impl Substitution {
    /// Compiles a pattern of RE2's syntax and its replacement, in which `\0` to `\9` stand for groups and `\\` for a backslash.
    pub fn new(pattern: &str, replacement: &str) -> Result<Self, PatternError> {
        let compiled = compile(pattern, |syntax| format!("(?:{syntax})"))?;
        let parts = parse_replacement(replacement)?;
        let groups = compiled.captures_len() - 1;
        let named = parts.iter().filter_map(|part| match part {
            Part::Group(group) => Some(*group),
            Part::Text(_) => None,
        });
        if let Some(group) = named.into_iter().find(|group| *group > groups) {
            return Err(PatternError::NoSuchGroup { group, groups });
        }
        Ok(Self { pattern: pattern.into(), replacement: replacement.into(), compiled, parts })
    }

    /// The pattern as it was written.
    pub fn pattern(&self) -> &str {
        &self.pattern
    }

    /// The replacement as it was written.
    pub fn replacement(&self) -> &str {
        &self.replacement
    }

    /// Replaces every match.
    pub fn replace(&self, value: &str) -> String {
        let replaced = self.compiled.replace_all(value.as_bytes(), |captures: &regex::bytes::Captures<'_>| {
            let mut text = Vec::new();
            for part in &self.parts {
                match part {
                    Part::Text(part) => text.extend_from_slice(part.as_bytes()),
                    Part::Group(group) => {
                        text.extend_from_slice(captures.get(*group).map_or(&[][..], |group| group.as_bytes()));
                    }
                }
            }
            text
        });
        // A group of single bytes may cut a character in two.
        String::from_utf8_lossy(&replaced).into_owned()
    }
}

impl PartialEq for Substitution {
    fn eq(&self, other: &Self) -> bool {
        (&self.pattern, &self.replacement) == (&other.pattern, &other.replacement)
    }
}

impl Eq for Substitution {}

impl fmt::Debug for Substitution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Substitution({:?}, {:?})", self.pattern, self.replacement)
    }
}

fn compile(pattern: &str, wrap: impl Fn(&str) -> String) -> Result<regex::bytes::Regex, PatternError> {
    if pattern.len() > MAX_PATTERN_BYTES {
        return Err(PatternError::TooLong { bytes: pattern.len() });
    }
    let build = |syntax: &str| {
        RegexBuilder::new(syntax)
            .unicode(false)
            .size_limit(MAX_COMPILED_BYTES)
            .dfa_size_limit(MAX_COMPILED_BYTES)
            .build()
            .map_err(|error| match error {
                regex::Error::CompiledTooBig(_) => PatternError::TooLarge,
                // The last line says what is wrong; those before it draw the pattern.
                error => PatternError::Syntax(
                    error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned(),
                ),
            })
    };
    let syntax = re2::translate(pattern).map_err(PatternError::Syntax)?;
    // First alone: `a)(?:b` would be valid inside of a group.
    build(&syntax)?;
    build(&wrap(&syntax))
}

fn parse_replacement(replacement: &str) -> Result<Vec<Part>, PatternError> {
    let mut parts = Vec::new();
    let mut text = String::new();
    let mut characters = replacement.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            text.push(character);
            continue;
        }
        match characters.next() {
            Some('\\') => text.push('\\'),
            Some(digit) if digit.is_ascii_digit() => {
                if !text.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut text)));
                }
                parts.push(Part::Group(digit as usize - '0' as usize));
            }
            Some(_) | None => return Err(PatternError::Replacement(replacement.to_owned())),
        }
    }
    if !text.is_empty() {
        parts.push(Part::Text(text));
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, value: &str) -> bool {
        Regex::new(pattern).unwrap().is_match(value.as_bytes())
    }

    #[test]
    fn the_whole_value_has_to_match() {
        for (value, expected) in [("v12", true), ("v12x", false), ("xv12", false), ("V1", false), ("", false)] {
            assert_eq!(matches("v[0-9]+", value), expected, "{value}");
        }
        assert!(matches("^(.*?;)?(user=dev)(;.*)?$", "a=b;user=dev;c=d"));
        assert!(!matches("^(.*?;)?(user=dev)(;.*)?$", "a=b;user=developer"));
        assert!(matches("a|bc", "bc") && !matches("a|bc", "ac"), "alternatives are anchored as a whole");
        assert!(matches("(?i)abc", "aBC"));
    }

    #[test]
    fn values_are_bytes() {
        assert!(matches(".{3}", "éa") && !matches(".{3}", "éab"));
        assert!(Regex::new(".{3}").unwrap().is_match(b"\xffab"));
        assert!(matches("é+", "é") && matches("[é]{2}", "é"));
        assert!(!matches(r"\d", "٣"), "classes are those of ASCII");
    }

    #[test]
    fn patterns_are_bounded() {
        assert_eq!(Regex::new(&"a".repeat(4097)), Err(PatternError::TooLong { bytes: 4097 }));
        assert_eq!(Regex::new("((a{100}){100}){100}"), Err(PatternError::TooLarge));
        assert!(Regex::new(&"a".repeat(4096)).is_ok());
    }

    #[test]
    fn an_invalid_pattern_is_refused_in_words() {
        for pattern in ["a(", "a)(?:b", "*", "[z-a]", r"(a)\1", "(?=a)"] {
            let error = Regex::new(pattern).unwrap_err();
            assert!(matches!(error, PatternError::Syntax(_)), "{pattern}: {error}");
            assert!(!error.to_string().contains('\n'), "{error}");
        }
    }

    #[test]
    fn every_match_is_replaced() {
        for (pattern, replacement, value, expected) in [
            ("a(.)", r"<\1\0>", "/abacad", "/<bab><cac><dad>"),
            (r"^/swap/([^/]+)/([^/]+)(.*)$", r"/\2/\1\3", "/swap/one/two/three", "/two/one/three"),
            (r"(\d+)(/x)?$", r"\1-\2\\", "/n/12", r"/n/12-\"),
            ("x", "y", "/none", "/none"),
        ] {
            assert_eq!(Substitution::new(pattern, replacement).unwrap().replace(value), expected, "{pattern}");
        }
    }

    #[test]
    fn a_replacement_is_checked() {
        assert_eq!(Substitution::new("(a)", r"\2"), Err(PatternError::NoSuchGroup { group: 2, groups: 1 }));
        for replacement in [r"\x", "a\\"] {
            assert_eq!(Substitution::new("a", replacement), Err(PatternError::Replacement(replacement.to_owned())));
        }
    }
}
