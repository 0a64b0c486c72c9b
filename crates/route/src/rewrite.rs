//! Rewrites of the path that a destination sees. The query stays.

use serde::Serialize;

use crate::{PathMatch, Substitution};

/// Rewrite of a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum PathRewrite {
    /// Replaces what the route's pattern matched, byte for byte: `/a/` to `/` makes `//b` of `/a//b` (VirtualService).
    Matched(String),
    /// Replaces the elements that the route's pattern matched; slashes are neither doubled nor lost (Gateway API).
    Elements(String),
    /// Replaces the whole path (Gateway API).
    Full(String),
    /// Replaces what an expression matches, wherever it is in the path.
    Regex(Substitution),
}

/// A rewrite made a path that does not begin with a slash. The request's answer is 400.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the rewritten path {0:?} does not begin with a slash")]
pub struct NotAbsolute(pub String);

impl PathRewrite {
    /// Rewrites a request's target; `pattern` is the one that its path matched.
    pub fn rewrite(&self, pattern: &PathMatch, target: &str) -> Result<String, NotAbsolute> {
        let (path, query) = target.find('?').map_or((target, ""), |at| target.split_at(at));
        let matched = pattern.matched(path).unwrap_or_default();
        let rest = path.get(matched..).unwrap_or_default();
        let rewritten = match self {
            Self::Matched(new) => format!("{new}{rest}"),
            Self::Elements(new) => replace_elements(pattern, path, new),
            Self::Full(new) => new.clone(),
            Self::Regex(substitution) => substitution.replace(path),
        };
        if !rewritten.starts_with('/') {
            return Err(NotAbsolute(rewritten));
        }
        Ok(rewritten + query)
    }
}

fn replace_elements(pattern: &PathMatch, path: &str, new: &str) -> String {
    let rest = match pattern {
        PathMatch::Any => path,
        other => other.matched(path).and_then(|matched| path.get(matched..)).unwrap_or_default(),
    };
    let joined = format!("{}{rest}", new.trim_end_matches('/'));
    if joined.is_empty() { "/".to_owned() } else { joined }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Regex;

    #[test]
    fn a_matched_part_is_replaced_as_measured_on_envoy() {
        let prefix = |prefix: &str| PathMatch::Prefix(prefix.to_owned());
        for (pattern, new, target, expected) in [
            (prefix("/w/pre"), "/new", "/w/pre/a?q=/w/pre", "/new/a?q=/w/pre"),
            (prefix("/w/pre"), "/new", "/w/prea", "/newa"),
            (prefix("/a/"), "/", "/a//b", "//b"),
            (PathMatch::PrefixIgnoreCase("/W/ci".into()), "/new", "/w/CI/a?x", "/new/a?x"),
            (PathMatch::Exact("/w/exact".into()), "/new", "/w/exact?q", "/new?q"),
            (PathMatch::Regex(Regex::new("/w/re/.*").unwrap()), "/new", "/w/re/abc?q", "/new?q"),
            (PathMatch::elements("/w/sep"), "/new/", "/w/sep/a", "/new//a"),
            (PathMatch::elements("/w/sep"), "/new/", "/w/sep", "/new/"),
            (PathMatch::Any, "/new/", "/a/b", "/new/a/b"),
        ] {
            let rewritten = PathRewrite::Matched(new.to_owned()).rewrite(&pattern, target);
            assert_eq!(rewritten.as_deref(), Ok(expected), "{pattern:?} {target}");
        }
    }

    /// The table of `ReplacePrefixMatch` in the reference of the Gateway API.
    #[test]
    fn elements_are_replaced_as_the_gateway_api_says() {
        for (target, pattern, new, expected) in [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "/", "/"),
            ("/foo/bar?x=/foo", "/foo", "/", "/bar?x=/foo"),
            ("/foo/bar", "/", "/xyz", "/xyz/foo/bar"),
            ("/", "/", "/xyz", "/xyz/"),
        ] {
            let rewritten = PathRewrite::Elements(new.to_owned()).rewrite(&PathMatch::elements(pattern), target);
            assert_eq!(rewritten.as_deref(), Ok(expected), "{target} {pattern} {new}");
        }
    }

    #[test]
    fn an_expression_is_replaced_in_the_path_alone() {
        for (expression, replacement, target, expected) in [
            ("a(.)", r"<\1\0>", "/w/abacad?abab", "/w/<bab><cac><dad>?abab"),
            (r"^/w/(\d+)(/x)?$", r"/n/\1\2", "/w/12/x?y", "/n/12/x?y"),
            (r"^/w/(\d+)$", r"/n/\1", "/w/zz", "/w/zz"),
        ] {
            let rewrite = PathRewrite::Regex(Substitution::new(expression, replacement).unwrap());
            assert_eq!(rewrite.rewrite(&PathMatch::Any, target).as_deref(), Ok(expected), "{expression}");
        }
        let full = PathRewrite::Full("/one".into());
        assert_eq!(full.rewrite(&PathMatch::elements("/a"), "/a/b?q=1").as_deref(), Ok("/one?q=1"));
    }

    #[test]
    fn a_path_without_a_slash_is_refused() {
        let rewrite = PathRewrite::Regex(Substitution::new("^/w/", "").unwrap());
        assert_eq!(rewrite.rewrite(&PathMatch::Any, "/w/a?q"), Err(NotAbsolute("a".into())));
    }
}
