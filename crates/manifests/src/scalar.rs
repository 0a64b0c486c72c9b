//! Types of plain YAML scalars as kubectl finds them: by the rules of YAML 1.1 as the library of Kubernetes applies them
//! (`sigs.k8s.io/yaml`), so that `0755` is 493 and `on` is true here, too.

use serde_json::{Number, Value};

/// A plain scalar that JSON cannot express.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotFinite;

/// Value of a plain scalar; `None` when it is a string.
pub(crate) fn resolve(text: &str) -> Result<Option<Value>, NotFinite> {
    Ok(Some(match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Value::Bool(true),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Value::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Err(NotFinite),
        _ if matches!(text.trim_start_matches(['+', '-']), ".inf" | ".Inf" | ".INF") => return Err(NotFinite),
        _ => return Ok(number(text)),
    }))
}

fn number(text: &str) -> Option<Value> {
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '.' | '+' | '-')) {
        return None;
    }
    // YAML 1.1 allows underscores in numbers.
    let digits = text.replace('_', "");
    integer(&digits).or_else(|| float(&digits)).map(Value::Number)
}

fn integer(text: &str) -> Option<Number> {
    let (negative, magnitude) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let prefix = |lower: &str, upper: &str| magnitude.strip_prefix(lower).or_else(|| magnitude.strip_prefix(upper));
    let (digits, radix) = if let Some(digits) = prefix("0x", "0X") {
        (digits, 16)
    } else if let Some(digits) = prefix("0b", "0B") {
        (digits, 2)
    } else if let Some(digits) = prefix("0o", "0O") {
        (digits, 8)
    } else if let Some(digits) = magnitude.strip_prefix('0').filter(|digits| !digits.is_empty()) {
        // YAML 1.1: a leading zero means octal. `0` alone is the number.
        (digits, 8)
    } else {
        (magnitude, 10)
    };
    // The standard library takes a sign here, too.
    if digits.starts_with(['+', '-']) {
        return None;
    }
    // `08` is not octal, and numbers beyond 64 bits are not integers: `float` decides next.
    let value = u64::from_str_radix(digits, radix).ok()?;
    if !negative {
        return Some(value.into());
    }
    0_i64.checked_sub_unsigned(value).map(Number::from)
}

/// Decimal numbers with a point or an exponent, and integers that are too large. One without a fraction is an integer
/// in JSON.
fn float(text: &str) -> Option<Number> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let is_number = match mantissa.split_once('.') {
        Some((whole, fraction)) => digits(whole) && digits(fraction) && !(whole.is_empty() && fraction.is_empty()),
        None => digits(mantissa) && !mantissa.is_empty(),
    };
    if !is_number || exponent.is_some_and(|exponent| exponent.is_empty() || !digits(exponent)) {
        return None;
    }
    text.parse::<f64>().ok().filter(|value| value.is_finite()).and_then(whole_or_float)
}

/// A number as JSON writes it: without a fraction it is an integer, as far as integers reach.
pub(crate) fn whole_or_float(value: f64) -> Option<Number> {
    // 2^63 is a float; the cast is exact below it.
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if value.fract() == 0.0 && (-LIMIT..LIMIT).contains(&value) {
        #[expect(clippy::cast_possible_truncation, reason = "the range was checked")]
        return Some((value as i64).into());
    }
    Number::from_f64(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scalars and what `kubectl` (`sigs.k8s.io/yaml` 1.6.0) makes of them.
    const KUBECTL: &str = include_str!("scalar_kubectl.txt");

    #[test]
    fn every_plain_scalar_has_the_type_that_kubectl_gives_it() {
        let mut count = 0;
        for line in KUBECTL.lines().filter(|line| !line.starts_with('#')) {
            let (text, json) = line.split_once('\t').unwrap();
            let expected: Value = serde_json::from_str(json).unwrap();

            let found = resolve(text).unwrap().unwrap_or_else(|| text.into());

            // Floats of the same value are equal, however they are written.
            let is_equal = found == expected || found.as_f64().is_some() && found.as_f64() == expected.as_f64();
            assert!(is_equal, "{text}: {found}, kubectl: {expected}");
            count += 1;
        }
        assert!(count > 90, "{count}");
    }

    #[test]
    fn what_json_cannot_express_is_refused() {
        for text in [".inf", "-.inf", "+.Inf", ".nan", ".NaN"] {
            assert_eq!(resolve(text), Err(NotFinite), "{text}");
        }
    }
}
