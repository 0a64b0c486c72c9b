//! Path normalisation: one spelling for a path, before anything compares it.
//!
//! The level is Istio's `BASE`, as measured on Envoy 1.40: dot segments are resolved, escapes of unreserved characters are
//! decoded, `\` is a slash. Repeated slashes, `%2f`, `;x=1` and letter case stay. Two things differ from Envoy, because there
//! a path that is normalised twice can be another one, and with it the answer of a policy that comes later:
//! `%2e%2e;` is a dot segment like `..;`, and nothing is decoded that would complete an escape (`%%34%31`).

use std::borrow::Cow;

/// Reason for which a request has no path that can be routed. Its answer is 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("the path does not begin with a slash")]
    NotAbsolute,
    #[error("the path has a character that must be escaped, at byte {at}")]
    InvalidCharacter { at: usize },
    #[error("the path has an escaped NUL, at byte {at}")]
    Nul { at: usize },
}

/// Normalises the path of a request target; the query behind the first `?` stays as it is.
pub fn normalise(target: &str) -> Result<Cow<'_, str>, PathError> {
    let (path, query) = target.find('?').map_or((target, ""), |at| target.split_at(at));
    if !path.starts_with('/') {
        return Err(PathError::NotAbsolute);
    }
    let invalid = |byte: u8| byte <= b' ' || byte == b'#' || byte >= 0x7f;
    if let Some(at) = target.bytes().position(invalid) {
        return Err(PathError::InvalidCharacter { at });
    }
    if is_normal(path) {
        return Ok(Cow::Borrowed(target));
    }
    let decoded = decode(path)?;
    let mut normal = String::with_capacity(target.len());
    resolve_dots(&decoded, &mut normal);
    normal.push_str(query);
    Ok(Cow::Owned(normal))
}

/// Returns true if there is certainly nothing to do: nearly all paths.
fn is_normal(path: &str) -> bool {
    let bytes = path.as_bytes();
    let is_special = |byte: &u8| matches!(byte, b'%' | b'\\' | b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}');
    !bytes.iter().any(is_special) && !bytes.windows(2).any(|pair| pair == b"/.")
}

/// Decodes what needs no escape, and escapes what does.
fn decode(path: &str) -> Result<String, PathError> {
    let bytes = path.as_bytes();
    let mut out = String::with_capacity(path.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at).copied() {
        let escape = bytes.get(at..at + 3).filter(|_| byte == b'%').and_then(escaped);
        match (escape, byte) {
            (Some(0), _) => return Err(PathError::Nul { at }),
            (Some(decoded), _) => {
                if is_unreserved(decoded) && !completes_escape(&out, decoded) {
                    out.push(decoded.into());
                } else {
                    out.push_str(&path[at..at + 3]);
                }
                at += 3;
                continue;
            }
            (None, b'\\') => out.push('/'),
            (None, b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}') => out.push_str(&format!("%{byte:02X}")),
            (None, _) => out.push(byte.into()),
        }
        at += 1;
    }
    Ok(out)
}

/// Byte that `%XX` stands for.
fn escaped(text: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let [_, high, low] = *text else { return None };
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~')
}

/// Returns true if a `%` without its two digits stands before, and this is one of them.
fn completes_escape(out: &str, next: u8) -> bool {
    let is_open = match out.as_bytes() {
        [.., b'%'] => true,
        [.., b'%', digit] => digit.is_ascii_hexdigit(),
        _ => false,
    };
    is_open && next.is_ascii_hexdigit()
}

/// Resolves `.` and `..`, also with parameters (`..;x=1`), which some servers ignore. A last one leaves its slash.
fn resolve_dots(path: &str, out: &mut String) {
    let segments = path.strip_prefix('/').unwrap_or(path);
    let last = segments.matches('/').count();
    for (index, segment) in segments.split('/').enumerate() {
        match segment.split(';').next() {
            Some(".") => {}
            Some("..") => out.truncate(out.rfind('/').unwrap_or(0)),
            Some(_) | None => {
                out.push('/');
                out.push_str(segment);
                continue;
            }
        }
        if index == last {
            out.push('/');
        }
    }
    if out.is_empty() {
        out.push('/');
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_are_as_measured_on_envoy() {
        for (path, expected) in [
            ("/", "/"),
            ("/a/../b", "/b"),
            ("/a/./b", "/a/b"),
            ("/a/%2e%2e/b", "/b"),
            ("/a/%2E./b", "/b"),
            ("/a/..;/b", "/b"),
            ("/a/..;x=1/b", "/b"),
            ("/a/.;x/b", "/a/b"),
            ("/a/b;x/..", "/a/"),
            ("/..", "/"),
            ("/../../x", "/x"),
            ("/a/..", "/"),
            ("/a/.", "/a/"),
            ("/a/../", "/"),
            ("/a/...", "/a/..."),
            ("/a/..b", "/a/..b"),
            ("/a//../b", "/a/b"),
            ("//a//b", "//a//b"),
            ("/a/%", "/a/%"),
            ("/a/%2", "/a/%2"),
            ("/a/%zz", "/a/%zz"),
            ("/a/%41%7e%7E%2d%5f%2e%5f", "/a/A~~-_._"),
            ("/a/%2f%5c%25%3b%3B", "/a/%2f%5c%25%3b%3B"),
            (r"/a\b\..\c", "/a/c"),
            (r#"/a/{b}|^`<>""#, "/a/%7Bb%7D%7C%5E%60%3C%3E%22"),
            ("/a/[b]!$&'()*+,;=:@~", "/a/[b]!$&'()*+,;=:@~"),
            ("/a/%c3%a9", "/a/%c3%a9"),
            (r"/a?x=/../b%41\", r"/a?x=/../b%41\"),
            ("/a/..?q", "/?q"),
            ("/a/%2e", "/a/"),
            ("/a/%2e/", "/a/"),
            ("/a/b/%2e%2e", "/a/"),
            ("/.", "/"),
            ("/%2e%2e/..;/c", "/c"),
            ("/x/..%2fadmin", "/x/..%2fadmin"),
            ("/ADMIN", "/ADMIN"),
            ("/%70lain", "/plain"),
        ] {
            assert_eq!(normalise(path).as_deref(), Ok(expected), "{path}");
        }
    }

    #[test]
    fn two_spellings_that_envoy_changes_only_the_second_time_are_safe() {
        assert_eq!(normalise("/a/%2e%2e;/b").as_deref(), Ok("/b"));
        assert_eq!(normalise("/a/%%34%31").as_deref(), Ok("/a/%%341"));
        assert_eq!(normalise("/a/%4%31").as_deref(), Ok("/a/%4%31"));
    }

    #[test]
    fn a_path_that_cannot_be_compared_is_refused() {
        for (path, expected) in [
            ("", PathError::NotAbsolute),
            ("*", PathError::NotAbsolute),
            ("http://host/", PathError::NotAbsolute),
            ("/a/%00b", PathError::Nul { at: 3 }),
            ("/a#f", PathError::InvalidCharacter { at: 2 }),
            ("/a/\u{e9}", PathError::InvalidCharacter { at: 3 }),
            ("/a\tb", PathError::InvalidCharacter { at: 2 }),
            ("/a b", PathError::InvalidCharacter { at: 2 }),
            ("/a?b c", PathError::InvalidCharacter { at: 4 }),
            ("/a/\u{7f}", PathError::InvalidCharacter { at: 3 }),
        ] {
            assert_eq!(normalise(path), Err(expected), "{path:?}");
        }
    }

    #[test]
    fn an_ordinary_path_is_not_copied() {
        for path in ["/", "/productpage", "/api/v1/products/0?x=%41", "/a.b/c;d=1"] {
            assert!(matches!(normalise(path), Ok(Cow::Borrowed(_))), "{path}");
        }
    }

    proptest! {
        #[test]
        fn a_normal_path_stays_as_it_is(path in r"(/|[ab.;]|%2[eEfF]|%4|%|%3[124]|\\|\{|\?){0,24}") {
            if let Ok(once) = normalise(&format!("/{path}")) {
                let again = normalise(&once).map(Cow::into_owned);
                prop_assert_eq!(again.as_deref(), Ok(once.as_ref()));
            }
        }

        #[test]
        fn no_dot_segment_is_left(path in r"(/|[a.;]|%2[eE]|\\){0,24}") {
            let target = format!("/{path}");
            let normal = normalise(&target).unwrap();
            let is_dots = |segment: &str| matches!(segment.split(';').next(), Some("." | ".."));
            prop_assert!(normal.starts_with('/') && !normal.split('/').any(is_dots), "{}", normal);
        }
    }
}
