//! Patterns of paths: text with `*` at one end, or a template.

use std::fmt;
use std::str::FromStr;

use model::StringMatch;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Pattern of a normalised path without its query. Letter case counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PathMatch {
    Text(StringMatch),
    Template(PathTemplate),
}

impl PathMatch {
    /// Returns true if the path matches.
    #[must_use]
    pub fn is_match(&self, path: &str) -> bool {
        match self {
            Self::Text(text) => text.matches(path),
            Self::Template(template) => template.is_match(path),
        }
    }
}

impl fmt::Display for PathMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => text.fmt(f),
            Self::Template(template) => template.fmt(f),
        }
    }
}

/// Reason for which a text is not a template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error("a path template begins with a slash")]
    NotAbsolute,
    #[error("{0:?}: expected {{*}}, {{**}} or a text without braces and stars as a whole segment")]
    Segment(String),
    #[error("{{**}} must be the last operator")]
    NotLast,
}

/// Path in which the segment `{*}` stands for one segment that is not empty, and `{**}` for any text, also an empty one and
/// with slashes. `{**}` is the last operator; literal segments may follow it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathTemplate {
    text: Box<str>,
    /// Segments before `{**}`, or all.
    head: Vec<Segment>,
    /// Text behind `{**}`, with the slash before it; empty at the end of the template. `None` without `{**}`.
    tail: Option<Box<str>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Literal(Box<str>),
    /// `{*}`
    One,
}

const ONE: &str = "{*}";
const ANY: &str = "{**}";

impl PathTemplate {
    /// Returns true if a pattern of the API is a template.
    #[must_use]
    pub fn is_template(text: &str) -> bool {
        text.contains(['{', '}'])
    }

    /// The template as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns true if the template matches the whole path.
    #[must_use]
    pub fn is_match(&self, path: &str) -> bool {
        let Some(mut rest) = path.strip_prefix('/') else { return false };
        for (index, segment) in self.head.iter().enumerate() {
            let is_last = index + 1 == self.head.len() && self.tail.is_none();
            let (found, behind) = match rest.split_once('/') {
                Some(_) if is_last => return false,
                Some((found, behind)) => (found, behind),
                None if is_last => (rest, ""),
                None => return false,
            };
            let is_match = match segment {
                Segment::Literal(text) => found == &**text,
                Segment::One => !found.is_empty(),
            };
            if !is_match {
                return false;
            }
            rest = behind;
        }
        self.tail.as_deref().is_none_or(|tail| rest.ends_with(tail))
    }
}

impl FromStr for PathTemplate {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let segments = text.strip_prefix('/').ok_or(TemplateError::NotAbsolute)?;
        let (mut head, mut tail) = (Vec::new(), None::<String>);
        for segment in segments.split('/') {
            match (segment, &mut tail) {
                (ONE | ANY, Some(_)) => return Err(TemplateError::NotLast),
                (ONE, None) => head.push(Segment::One),
                (ANY, tail @ None) => *tail = Some(String::new()),
                _ if segment.contains(['{', '}', '*']) => return Err(TemplateError::Segment(segment.to_owned())),
                (_, Some(tail)) => {
                    tail.push('/');
                    tail.push_str(segment);
                }
                (_, None) => head.push(Segment::Literal(segment.into())),
            }
        }
        Ok(Self { text: text.into(), head, tail: tail.map(Into::into) })
    }
}

impl fmt::Display for PathTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for PathTemplate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for PathTemplate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_matches_whole_segments() {
        for (template, path, expected) in [
            ("/a/{*}", "/a/b", true),
            ("/a/{*}", "/a/b/c", false),
            ("/a/{*}", "/a/", false),
            ("/a/{*}", "/a", false),
            ("/a/{*}", "/ab/c", false),
            ("/a/{*}/c", "/a/b/c", true),
            ("/a/{*}/c", "/a//c", false),
            ("/a/{*}/c", "/a/b/c/", false),
            ("/a/{*}/c", "/a/b/cd", false),
            ("/{*}/{*}", "/a/b", true),
            ("/{*}/{*}", "/a", false),
            ("/a/{**}", "/a/", true),
            ("/a/{**}", "/a/b/c", true),
            ("/a/{**}", "/a", false),
            ("/a/{**}", "/ab", false),
            ("/a/{**}/z", "/a/b/c/z", true),
            ("/a/{**}/z", "/a//z", true),
            ("/a/{**}/z", "/a/z", false),
            ("/a/{**}/z", "/a/b/zz", false),
            ("/a/{**}/", "/a/b/", true),
            ("/a/{**}/", "/a/b", false),
            ("/a/{*}/b/{**}", "/a/x/b/", true),
            ("/a/{*}/b/{**}", "/a/x/b/y/z", true),
            ("/a/{*}/b/{**}", "/a/x/y/b/z", false),
            ("/{**}", "/", true),
            ("/{**}", "/a//b", true),
            ("/{*}", "/", false),
            ("/a/{*}", "/A/b", false),
        ] {
            assert_eq!(template.parse::<PathTemplate>().unwrap().is_match(path), expected, "{template} {path}");
        }
    }

    #[test]
    fn a_template_that_is_ambiguous_is_refused() {
        for (text, expected) in [
            ("a/{*}", TemplateError::NotAbsolute),
            ("{*}", TemplateError::NotAbsolute),
            ("/a{*}", TemplateError::Segment("a{*}".to_owned())),
            ("/{*}b", TemplateError::Segment("{*}b".to_owned())),
            ("/*/{*}", TemplateError::Segment("*".to_owned())),
            ("/{*}/a*", TemplateError::Segment("a*".to_owned())),
            ("/{a}", TemplateError::Segment("{a}".to_owned())),
            ("/{", TemplateError::Segment("{".to_owned())),
            ("/{***}", TemplateError::Segment("{***}".to_owned())),
            ("/{**}/{*}", TemplateError::NotLast),
            ("/{**}/{**}", TemplateError::NotLast),
        ] {
            assert_eq!(text.parse::<PathTemplate>(), Err(expected), "{text}");
            assert!(PathTemplate::is_template(text));
        }
        assert!(!PathTemplate::is_template("/a*"));
    }
}
