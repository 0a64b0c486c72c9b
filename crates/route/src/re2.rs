//! RE2's syntax in that of the `regex` crate, which is nearly the same. The differences are here.

use std::iter::Peekable;
use std::str::Chars;

/// Writes a pattern so that the `regex` crate, without Unicode, reads it as RE2 does over bytes:
///
/// - `{` that begins no repetition is itself, as in `/users/{id}`;
/// - in a class, `[`, `&&`, `--` and `~~` are characters;
/// - characters outside of ASCII are their bytes in UTF-8;
/// - `\C` is any byte, `\Q...\E` is literal text, `\<` and `\>` are characters;
/// - of the flags there are `i`, `m`, `s` and `U`.
pub(crate) fn translate(pattern: &str) -> Result<String, String> {
    let mut out = String::with_capacity(pattern.len());
    let mut rest = pattern.chars().peekable();
    while let Some(character) = rest.next() {
        match character {
            '\\' => escape(&mut rest, &mut out)?,
            '[' => class(&mut rest, &mut out)?,
            '{' if !is_repetition(rest.clone()) => out.push_str(r"\{"),
            '(' if rest.peek() == Some(&'?') => {
                out.push('(');
                check_flags(rest.clone())?;
            }
            character => literal(character, &mut out),
        }
    }
    Ok(out)
}

/// Writes the bytes of a character: a class of the `regex` crate without Unicode has no others.
fn literal(character: char, out: &mut String) {
    if character.is_ascii() {
        out.push(character);
        return;
    }
    // Together, so that a repetition behind them repeats the last byte only, as RE2 does.
    let mut bytes = [0; 4];
    for byte in character.encode_utf8(&mut bytes).bytes() {
        out.push_str(&format!(r"\x{byte:02x}"));
    }
}

/// Reads what is behind a backslash outside of a class.
fn escape(rest: &mut Peekable<Chars<'_>>, out: &mut String) -> Result<(), String> {
    match rest.next() {
        None => return Err("trailing backslash".to_owned()),
        Some('C') => out.push_str("(?s:.)"),
        Some('Q') => quoted(rest, out),
        Some(mark @ ('<' | '>')) => out.push(mark),
        Some('p' | 'P') => return Err("Unicode classes are not supported: values are bytes".to_owned()),
        Some(character) => {
            out.push('\\');
            literal(character, out);
        }
    }
    Ok(())
}

/// Reads literal text to `\E` or to the end.
fn quoted(rest: &mut Peekable<Chars<'_>>, out: &mut String) {
    while let Some(character) = rest.next() {
        if character == '\\' && rest.peek() == Some(&'E') {
            rest.next();
            return;
        }
        member(character, out);
    }
}

/// Writes one character that has no special meaning.
fn member(character: char, out: &mut String) {
    if character.is_ascii_punctuation() && !matches!(character, '<' | '>') {
        out.push('\\');
    }
    literal(character, out);
}

/// Reads a class behind its `[`.
fn class(rest: &mut Peekable<Chars<'_>>, out: &mut String) -> Result<(), String> {
    out.push('[');
    if rest.next_if_eq(&'^').is_some() {
        out.push('^');
    }
    let mut is_first = true;
    loop {
        match rest.next() {
            None => return Err("missing ] of a class".to_owned()),
            Some(']') if !is_first => {
                out.push(']');
                return Ok(());
            }
            // A range, unless it stands first or last.
            Some('-') if !is_first && rest.peek().is_some_and(|next| *next != ']') => {
                out.push('-');
                end_of_range(rest, out)?;
            }
            Some('[') if rest.peek() == Some(&':') => named_class(rest, out)?,
            Some('\\') => class_escape(rest, out)?,
            Some(character) => member(character, out),
        }
        is_first = false;
    }
}

fn end_of_range(rest: &mut Peekable<Chars<'_>>, out: &mut String) -> Result<(), String> {
    match rest.next() {
        None => Err("missing ] of a class".to_owned()),
        Some('\\') => class_escape(rest, out),
        Some(character) => {
            member(character, out);
            Ok(())
        }
    }
}

fn class_escape(rest: &mut Peekable<Chars<'_>>, out: &mut String) -> Result<(), String> {
    match rest.next() {
        None => return Err("trailing backslash".to_owned()),
        Some('p' | 'P') => return Err("Unicode classes are not supported: values are bytes".to_owned()),
        Some(mark @ ('<' | '>')) => out.push(mark),
        Some(character) => {
            out.push('\\');
            literal(character, out);
        }
    }
    Ok(())
}

/// Reads `[:alpha:]` behind its `[`; a `[:` without end is two characters.
fn named_class(rest: &mut Peekable<Chars<'_>>, out: &mut String) -> Result<(), String> {
    let name: String = rest.clone().skip(1).take_while(|character| *character != ':' && *character != ']').collect();
    let end = name.chars().count() + 1;
    let mut behind = rest.clone().skip(end);
    if behind.next() != Some(':') || behind.next() != Some(']') {
        out.push_str(r"\[");
        return Ok(());
    }
    out.push_str(&format!("[:{name}:]"));
    (0..end + 2).for_each(|_| {
        rest.next();
    });
    Ok(())
}

/// Returns true if the text behind a `{` makes it a repetition: `2}`, `2,}`, `2,3}`.
fn is_repetition(rest: Peekable<Chars<'_>>) -> bool {
    let text: String = rest.take_while(|character| *character != '}').collect();
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.split_once(',') {
        None => is_number(&text),
        Some((least, most)) => is_number(least) && (most.is_empty() || is_number(most)),
    }
}

/// Refuses flags that RE2 does not have.
fn check_flags(rest: Peekable<Chars<'_>>) -> Result<(), String> {
    let flags = rest.skip(1).take_while(|character| character.is_ascii_alphabetic());
    match flags.into_iter().find(|flag| !matches!(flag, 'i' | 'm' | 's' | 'U' | 'P')) {
        Some(flag) => Err(format!("unknown flag {flag:?}: expected i, m, s or U")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syntax_that_differs_is_written_anew() {
        for (pattern, expected) in [
            ("v[0-9]+", r"v[0-9]+"),
            ("/users/{id}", r"/users/\{id}"),
            ("a{2}b{2,}c{2,3}d{,3}", r"a{2}b{2,}c{2,3}d\{,3}"),
            ("[[a]", r"[\[a]"),
            ("[a&&b~~c]", r"[a\&\&b\~\~c]"),
            ("[[:alpha:]_]", r"[[:alpha:]\_]"),
            ("[[:a]", r"[\[\:a]"),
            ("[]a-]", r"[\]a\-]"),
            ("[^]]", r"[^\]]"),
            ("[+--]", r"[\+-\-]"),
            ("é", r"\xc3\xa9"),
            (r"\Qa.b\E.", r"a\.b."),
            (r"a\C\/\<", r"a(?s:.)\/<"),
            (r"[\d\]\-]", r"[\d\]\-]"),
            ("(?i)a(?P<n>b)(?:c)", "(?i)a(?P<n>b)(?:c)"),
        ] {
            assert_eq!(translate(pattern).as_deref(), Ok(expected), "{pattern}");
        }
    }

    #[test]
    fn syntax_that_is_not_supported_is_refused() {
        for pattern in [r"\p{Greek}", r"[\pL]", "[a", "(?x)a", "a\\", "[a-"] {
            assert!(translate(pattern).is_err(), "{pattern}");
        }
    }
}
