//! SPDX licence expressions, as far as packages use them: `AND`, `OR` (also written `/`), `WITH`, parentheses.

/// Tells if an expression can be satisfied with allowed licences. `X WITH Y` is one name.
pub(super) fn is_allowed(expression: &str, allowed: &dyn Fn(&str) -> bool) -> Result<bool, String> {
    // Old packages write `MIT/Apache-2.0`, which means OR.
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut words = spaced.split_whitespace().collect::<Vec<_>>().into_iter().peekable();
    let result = either(&mut words, allowed)?;
    match words.next() {
        None => Ok(result),
        Some(word) => Err(format!("unexpected {word:?}")),
    }
}

type Words<'a> = std::iter::Peekable<std::vec::IntoIter<&'a str>>;

fn either(words: &mut Words<'_>, allowed: &dyn Fn(&str) -> bool) -> Result<bool, String> {
    let mut result = both(words, allowed)?;
    // Both sides are read in any case: a mistake behind the first is still a mistake.
    while words.next_if_eq(&"OR").is_some() {
        result |= both(words, allowed)?;
    }
    Ok(result)
}

fn both(words: &mut Words<'_>, allowed: &dyn Fn(&str) -> bool) -> Result<bool, String> {
    let mut result = one(words, allowed)?;
    while words.next_if_eq(&"AND").is_some() {
        result &= one(words, allowed)?;
    }
    Ok(result)
}

fn one(words: &mut Words<'_>, allowed: &dyn Fn(&str) -> bool) -> Result<bool, String> {
    match words.next() {
        Some("(") => {
            let result = either(words, allowed)?;
            words.next_if_eq(&")").ok_or("expected )")?;
            Ok(result)
        }
        Some(name) if !["OR", "AND", "WITH", ")"].contains(&name) => {
            if words.next_if_eq(&"WITH").is_none() {
                return Ok(allowed(name));
            }
            let exception = words.next().ok_or("expected an exception")?;
            Ok(allowed(&format!("{name} WITH {exception}")))
        }
        other => Err(format!("expected a licence, found {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(expression: &str) -> Result<bool, String> {
        is_allowed(expression, &|name| ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"].contains(&name))
    }

    #[test]
    fn one_alternative_is_enough_and_every_part_is_needed() {
        assert_eq!(with("Apache-2.0 OR MIT"), Ok(true));
        assert_eq!(with("Apache-2.0/MIT"), Ok(true));
        assert_eq!(with("Apache-2.0 AND MIT"), Ok(false));
        assert_eq!(with("ISC AND (Apache-2.0 OR ISC OR MIT)"), Ok(true));
        assert_eq!(with("Apache-2.0 WITH LLVM-exception"), Ok(true));
    }

    #[test]
    fn and_binds_more_than_or() {
        assert_eq!(with("MIT OR Apache-2.0 AND BSD-3-Clause"), Ok(true));
        assert_eq!(with("(MIT OR Apache-2.0) AND BSD-3-Clause"), Ok(false));
    }

    #[test]
    fn nonsense_is_an_error() {
        for text in ["", "MIT OR", "(MIT", "MIT)", "MIT ISC"] {
            assert!(with(text).is_err(), "{text}");
        }
    }
}
