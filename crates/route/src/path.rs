//! Patterns of paths, and how much of a path they match: a rewrite of a prefix replaces that part.

use serde::Serialize;

use crate::Regex;

/// Pattern of a normalised path without its query.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum PathMatch {
    /// Any path. A rewrite of the prefix replaces the first slash.
    #[default]
    Any,
    Exact(String),
    /// The path begins with these bytes: `/foo` also matches `/foobar` (VirtualService).
    Prefix(String),
    /// The path begins with these elements: `/foo` matches `/foo/bar` and not `/foobar` (Gateway API). Without a last slash.
    Elements(String),
    /// As `Exact`, for any case of ASCII letters.
    ExactIgnoreCase(String),
    /// As `Prefix`, for any case of ASCII letters.
    PrefixIgnoreCase(String),
    /// The expression matches the whole path.
    Regex(Regex),
}

impl PathMatch {
    /// A prefix of elements. A slash at the end has no meaning, so `/` is any path.
    pub fn elements(prefix: &str) -> Self {
        match prefix.trim_end_matches('/') {
            "" => Self::Any,
            prefix => Self::Elements(prefix.to_owned()),
        }
    }

    /// Returns true if the path matches.
    pub fn is_match(&self, path: &str) -> bool {
        self.matched(path).is_some()
    }

    /// Length in bytes of the part of the path that a rewrite of the prefix replaces, if the path matches. An expression
    /// and an exact path match all of it.
    pub fn matched(&self, path: &str) -> Option<usize> {
        let begins_ignoring_case = |prefix: &str| {
            path.as_bytes().get(..prefix.len()).is_some_and(|p| p.eq_ignore_ascii_case(prefix.as_bytes()))
        };
        match self {
            Self::Any => Some(usize::from(path.starts_with('/'))),
            Self::Exact(exact) => (path == exact).then_some(path.len()),
            Self::Prefix(prefix) => path.starts_with(prefix.as_str()).then_some(prefix.len()),
            Self::Elements(prefix) => {
                let rest = path.strip_prefix(prefix.as_str())?;
                (rest.is_empty() || rest.starts_with('/')).then_some(prefix.len())
            }
            Self::ExactIgnoreCase(exact) => path.eq_ignore_ascii_case(exact).then_some(path.len()),
            Self::PrefixIgnoreCase(prefix) => begins_ignoring_case(prefix).then_some(prefix.len()),
            Self::Regex(regex) => regex.is_match(path.as_bytes()).then_some(path.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_matches_as_the_api_of_the_pattern_says() {
        let regex = PathMatch::Regex(Regex::new(r"/re/(\w+)").unwrap());
        for (pattern, path, expected) in [
            (PathMatch::Any, "/", Some(1)),
            (PathMatch::Any, "/a/b", Some(1)),
            (PathMatch::Exact("/a".into()), "/a", Some(2)),
            (PathMatch::Exact("/a".into()), "/A", None),
            (PathMatch::Exact("/a".into()), "/a/", None),
            (PathMatch::Prefix("/foo".into()), "/foobar", Some(4)),
            (PathMatch::Prefix("/foo".into()), "/Foo", None),
            (PathMatch::Prefix("/foo/".into()), "/foo", None),
            (PathMatch::ExactIgnoreCase("/Foo".into()), "/fOO", Some(4)),
            (PathMatch::ExactIgnoreCase("/Foo".into()), "/foo/", None),
            (PathMatch::PrefixIgnoreCase("/H2".into()), "/h2/x", Some(3)),
            (PathMatch::PrefixIgnoreCase("/H2".into()), "/h", None),
            (PathMatch::elements("/sep"), "/sep", Some(4)),
            (PathMatch::elements("/sep"), "/sep/", Some(4)),
            (PathMatch::elements("/sep"), "/sep/a", Some(4)),
            (PathMatch::elements("/sep"), "/sepa", None),
            (PathMatch::elements("/sep/"), "/sep", Some(4)),
            (PathMatch::elements("/"), "/anything", Some(1)),
            (regex.clone(), "/re/abc", Some(7)),
            (regex, "/re/abc/d", None),
        ] {
            assert_eq!(pattern.matched(path), expected, "{pattern:?} {path}");
        }
    }
}
