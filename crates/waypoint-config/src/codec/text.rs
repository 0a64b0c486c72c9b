//! Numbers, durations, patterns and headers.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use proto::waypoint::{self as wire, path_match, path_rewrite, text_match, value_match};
use route::{HeaderChanges, PathMatch, PathRewrite, Percent, Regex, Substitution, TextMatch, ValueMatch};

use super::error::{Invalid, Problem, Within as _, each, required};

/// A number that fits into its type.
pub(super) fn number<T: TryFrom<u32>>(number: u32) -> Result<T, Problem> {
    T::try_from(number).map_err(|_| Problem::OutOfRange(number.into()))
}

/// Nanoseconds; 584 years are the end.
pub(super) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

pub(super) fn share(millionths: u32) -> Result<Percent, Problem> {
    Percent::of(millionths, 1_000_000).ok_or(Problem::OutOfRange(millionths.into()))
}

pub(super) fn encode_pattern(of: &TextMatch) -> wire::TextMatch {
    let pattern = match of {
        TextMatch::Exact(text) => text_match::Pattern::Exact(text.clone()),
        TextMatch::Prefix(text) => text_match::Pattern::Prefix(text.clone()),
        TextMatch::Regex(regex) => text_match::Pattern::Regex(regex.pattern().to_owned()),
    };
    wire::TextMatch { pattern: Some(pattern) }
}

pub(super) fn decode_pattern(of: wire::TextMatch) -> Result<TextMatch, Invalid> {
    Ok(match required("pattern", of.pattern)? {
        text_match::Pattern::Exact(text) => TextMatch::Exact(text),
        text_match::Pattern::Prefix(text) => TextMatch::Prefix(text),
        text_match::Pattern::Regex(pattern) => TextMatch::Regex(regex(&pattern)?),
    })
}

fn regex(pattern: &str) -> Result<Regex, Invalid> {
    Regex::new(pattern).map_err(Problem::from).within("regex")
}

pub(super) fn encode_value(of: &ValueMatch) -> Option<wire::ValueMatch> {
    let pattern = match of {
        ValueMatch::Present => value_match::Pattern::Present(wire::Nothing {}),
        ValueMatch::Text(text) => value_match::Pattern::Text(encode_pattern(text)),
    };
    Some(wire::ValueMatch { pattern: Some(pattern) })
}

pub(super) fn decode_value(of: Option<wire::ValueMatch>) -> Result<ValueMatch, Invalid> {
    let pattern = required("value", of.and_then(|of| of.pattern))?;
    Ok(match pattern {
        value_match::Pattern::Present(wire::Nothing {}) => ValueMatch::Present,
        value_match::Pattern::Text(text) => ValueMatch::Text(decode_pattern(text).within("value")?),
    })
}

pub(super) fn encode_path(of: &PathMatch) -> wire::PathMatch {
    let pattern = match of {
        PathMatch::Any => path_match::Pattern::Any(wire::Nothing {}),
        PathMatch::Exact(path) => path_match::Pattern::Exact(path.clone()),
        PathMatch::Prefix(path) => path_match::Pattern::Prefix(path.clone()),
        PathMatch::Elements(path) => path_match::Pattern::Elements(path.clone()),
        PathMatch::ExactIgnoreCase(path) => path_match::Pattern::ExactIgnoreCase(path.clone()),
        PathMatch::PrefixIgnoreCase(path) => path_match::Pattern::PrefixIgnoreCase(path.clone()),
        PathMatch::Regex(regex) => path_match::Pattern::Regex(regex.pattern().to_owned()),
    };
    wire::PathMatch { pattern: Some(pattern) }
}

pub(super) fn decode_path(of: Option<wire::PathMatch>) -> Result<PathMatch, Invalid> {
    Ok(match required("path", of.and_then(|of| of.pattern))? {
        path_match::Pattern::Any(wire::Nothing {}) => PathMatch::Any,
        path_match::Pattern::Exact(path) => PathMatch::Exact(path),
        path_match::Pattern::Prefix(path) => PathMatch::Prefix(path),
        path_match::Pattern::Elements(path) => PathMatch::Elements(path),
        path_match::Pattern::ExactIgnoreCase(path) => PathMatch::ExactIgnoreCase(path),
        path_match::Pattern::PrefixIgnoreCase(path) => PathMatch::PrefixIgnoreCase(path),
        path_match::Pattern::Regex(pattern) => PathMatch::Regex(regex(&pattern).within("path")?),
    })
}

pub(super) fn encode_rewrite(of: &PathRewrite) -> wire::PathRewrite {
    let rewrite = match of {
        PathRewrite::Matched(new) => path_rewrite::Rewrite::Matched(new.clone()),
        PathRewrite::Elements(new) => path_rewrite::Rewrite::Elements(new.clone()),
        PathRewrite::Full(new) => path_rewrite::Rewrite::Full(new.clone()),
        PathRewrite::Regex(of) => path_rewrite::Rewrite::Regex(wire::Substitution {
            pattern: of.pattern().to_owned(),
            replacement: of.replacement().to_owned(),
        }),
    };
    wire::PathRewrite { rewrite: Some(rewrite) }
}

pub(super) fn decode_rewrite(of: wire::PathRewrite) -> Result<PathRewrite, Invalid> {
    Ok(match required("rewrite", of.rewrite)? {
        path_rewrite::Rewrite::Matched(new) => PathRewrite::Matched(new),
        path_rewrite::Rewrite::Elements(new) => PathRewrite::Elements(new),
        path_rewrite::Rewrite::Full(new) => PathRewrite::Full(new),
        path_rewrite::Rewrite::Regex(wire::Substitution { pattern, replacement }) => {
            let substitution = Substitution::new(&pattern, &replacement);
            PathRewrite::Regex(substitution.map_err(Problem::from).within("regex")?)
        }
    })
}

pub(super) fn header_name(name: &str) -> Result<HeaderName, Invalid> {
    name.parse().map_err(|_| Problem::Header(format!("{name:?} is not a name"))).within("name")
}

pub(super) fn header_value(bytes: &[u8]) -> Result<HeaderValue, Problem> {
    HeaderValue::from_bytes(bytes).map_err(|error| Problem::Header(error.to_string()))
}

/// `None` without changes.
pub(super) fn encode_changes(of: &HeaderChanges) -> Option<wire::HeaderChanges> {
    let HeaderChanges { remove, set, add } = of;
    let lines = |lines: &[(HeaderName, HeaderValue)]| {
        let line = |(name, value): &(HeaderName, HeaderValue)| wire::HeaderLine {
            name: name.to_string(),
            value: value.as_bytes().to_vec(),
        };
        lines.iter().map(line).collect()
    };
    let encoded = || wire::HeaderChanges {
        remove: remove.iter().map(ToString::to_string).collect(),
        set: lines(set),
        add: lines(add),
    };
    (!of.is_empty()).then(encoded)
}

pub(super) fn decode_changes(field: &str, of: Option<wire::HeaderChanges>) -> Result<HeaderChanges, Invalid> {
    let Some(wire::HeaderChanges { remove, set, add }) = of else { return Ok(HeaderChanges::default()) };
    let line = |line: wire::HeaderLine| Ok((header_name(&line.name)?, header_value(&line.value).within("value")?));
    let read = || -> Result<_, Invalid> {
        Ok(HeaderChanges {
            remove: each("remove", remove, |name| header_name(&name))?,
            set: each("set", set, line)?,
            add: each("add", add, line)?,
        })
    };
    read().within(field)
}
