//! Values and errors of deserializers in a user's words.

use serde_json::Value;

/// Longest text of a value that a message quotes.
const QUOTED: usize = 80;

/// A value as a message names it.
pub fn found(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => format!("the number {number}"),
        // In characters, since a cut through one would panic.
        Value::String(text) if text.chars().count() > QUOTED => {
            format!("the string {:?}...", text.chars().take(QUOTED).collect::<String>())
        }
        Value::String(text) => format!("the string {text:?}"),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a mapping".to_owned(),
    }
}

/// An error of a deserializer in a user's words; `value` is what it was given.
pub fn in_words(error: &str, value: Option<&Value>) -> String {
    if let Some(rest) = error.strip_prefix("unknown variant `")
        && let Some((name, expected)) = rest.split_once("`, expected ")
    {
        return format!("unknown value {name:?}: expected {}", expected.replace('`', ""));
    }
    // From the right: the value that serde quotes may have the word in it.
    let Some((_, expected)) = error.rsplit_once(", expected ") else {
        return error.to_owned();
    };
    let found = value.map_or_else(|| "another value".to_owned(), found);
    format!("expected {}, found {found}", type_in_words(expected))
}

fn type_in_words(expected: &str) -> &str {
    match expected {
        "u8" => "an integer from 0 to 255",
        "u16" => "an integer from 0 to 65535",
        "u32" | "u64" | "usize" => "a non-negative integer",
        "i8" | "i16" | "i32" | "i64" | "isize" => "an integer",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "a map" => "a mapping",
        // The author of a manifest does not know the names of Rust types.
        _ if expected.starts_with("struct ") => "a mapping",
        _ => expected,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn no_message_has_a_word_of_the_programs_language() {
        for (error, value, message) in [
            (
                "invalid value: integer `-1`, expected u32",
                json!(-1),
                "expected a non-negative integer, found the number -1",
            ),
            (
                "invalid type: string \"x\", expected struct PodSpec",
                json!("x"),
                "expected a mapping, found the string \"x\"",
            ),
            (
                "invalid value: integer `70000`, expected u16",
                json!(70000),
                "expected an integer from 0 to 65535, found the number 70000",
            ),
            ("invalid type: map, expected a sequence", json!({}), "expected a list, found a mapping"),
            (
                "unknown variant `SOFT`, expected one of `A`, `B`",
                json!("SOFT"),
                "unknown value \"SOFT\": expected one of A, B",
            ),
        ] {
            assert_eq!(in_words(error, Some(&value)), message);
        }
    }
}
