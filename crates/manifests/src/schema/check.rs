//! Checks a value against the fields and types of its kind. It names every mistake, not the first one.

use kube_types::similar::nearest;
use kube_types::{Code, Kind};
use serde_json::{Map, Value};

use super::{Fields, SCHEMA, Type};
use crate::document::Step;
use crate::mistake::{Mistake, found};

/// Mistakes of an object. `null` counts as absent, as for an API server.
pub(crate) fn check(kind: Kind, value: &Value) -> Vec<Mistake> {
    let mut checker = Checker { path: Vec::new(), mistakes: Vec::new() };
    if let (Some(fields), Value::Object(object)) = (SCHEMA.fields(kind.name()), value) {
        checker.object(fields, object, true);
    }
    checker.mistakes
}

struct Checker {
    path: Vec<Step>,
    mistakes: Vec<Mistake>,
}

impl Checker {
    fn report(&mut self, code: Code, message: String) {
        self.mistakes.push(Mistake { path: self.path.clone(), message, code });
    }

    fn within(&mut self, step: Step, check: impl FnOnce(&mut Self)) {
        self.path.push(step);
        check(self);
        self.path.pop();
    }

    fn object(&mut self, fields: &'static Fields, object: &Map<String, Value>, is_root: bool) {
        for (name, value) in object {
            // `decode::head` has read them.
            if is_root && matches!(name.as_str(), "apiVersion" | "kind") {
                continue;
            }
            self.within(Step::Field(name.clone()), |checker| match fields.get(name.as_str()) {
                Some(form) => checker.value(form, value),
                None => checker.unknown(name, fields, is_root),
            });
        }
    }

    fn unknown(&mut self, name: &str, fields: &'static Fields, is_root: bool) {
        // Sorted, so that the guess does not depend on the order of a hash map.
        let mut known: Vec<&str> = fields.keys().copied().collect();
        known.sort_unstable();
        let meant = nearest(name, known.iter().copied());
        let in_spec = || {
            let spec = fields.get("spec").filter(|_| is_root)?;
            let Type::Object(index) = spec else { return None };
            SCHEMA.types.get(*index)?.contains_key(name).then(|| format!("spec.{name}"))
        };
        let hint = match (meant.map(str::to_owned).or_else(in_spec), known.len()) {
            (Some(meant), _) => format!("; did you mean {meant:?}?"),
            // Longer lists are not read in a log line.
            (None, 1..=6) => format!("; expected {}", known.join(", ")),
            (None, _) => String::new(),
        };
        self.report(Code::UnknownField, format!("unknown field {name:?}{hint}"));
    }

    fn value(&mut self, form: &'static Type, value: &Value) {
        match (form, value) {
            // An API server drops nulls before it validates. Strict kinds are checked for them elsewhere.
            (_, Value::Null) | (Type::Any, _) => {}
            (Type::List(form), Value::Array(items)) => {
                for (index, item) in items.iter().enumerate() {
                    self.within(Step::Index(index), |checker| match item {
                        Value::Null => checker.report(Code::InvalidValue, "the list has an empty item".to_owned()),
                        item => checker.value(form, item),
                    });
                }
            }
            (Type::Map(form), Value::Object(entries)) => {
                for (key, entry) in entries {
                    self.within(Step::Field(key.clone()), |checker| checker.value(form, entry));
                }
            }
            (Type::Object(index), Value::Object(object)) => {
                if let Some(fields) = SCHEMA.types.get(*index) {
                    self.object(fields, object, false);
                }
            }
            (Type::Choice(values), Value::String(text)) => {
                if !values.contains(&text.as_str()) {
                    let meant = nearest(text, values.iter().copied());
                    let hint = meant.map(|meant| format!("; did you mean {meant}?")).unwrap_or_default();
                    let message = format!("unknown value {text:?}: expected {}{hint}", values.join(", "));
                    self.report(Code::InvalidValue, message);
                }
            }
            (form, value) if has_type(form, value) => {}
            // Without what was found: messages go to logs and pages.
            (Type::Secret, _) => self.report(Code::InvalidValue, "expected a string; put it in quotes".to_owned()),
            (form, value) => {
                let message = format!("expected {}, found {}{}", expected(form), found(value), remedy(form, value));
                self.report(Code::InvalidValue, message);
            }
        }
    }
}

fn has_type(form: &Type, value: &Value) -> bool {
    match (form, value) {
        (Type::String | Type::Time | Type::Bytes | Type::Secret, Value::String(_)) | (Type::Bool, Value::Bool(_)) => {
            true
        }
        // `intstr.IntOrString` and `resource.Quantity` take both forms.
        (Type::Port, Value::String(_)) | (Type::Quantity, Value::Number(_)) => true,
        (Type::Int | Type::Port, Value::Number(number)) => !number.is_f64(),
        (Type::Quantity, Value::String(text)) => is_quantity(text),
        _ => false,
    }
}

const fn expected(form: &Type) -> &'static str {
    match form {
        Type::String | Type::Choice(_) | Type::Secret => "a string",
        Type::Int => "an integer",
        Type::Bool => "true or false",
        Type::Quantity => "a quantity, for example 500m or 1Gi",
        Type::Port => "a number or a name",
        Type::Time => "a time, for example \"2026-01-02T03:04:05Z\"",
        Type::Bytes => "a string in base64",
        Type::Any => "a value",
        Type::List(_) => "a list",
        Type::Map(_) | Type::Object(_) => "a mapping",
    }
}

/// The usual reason of the mistake, where there is one.
fn remedy(form: &Type, value: &Value) -> &'static str {
    match (form, value) {
        (Type::String | Type::Choice(_), Value::Number(_)) => "; put it in quotes",
        (Type::String | Type::Choice(_), Value::Bool(_)) => {
            "; put it in quotes (yes, no, on, off, y and n are booleans, too)"
        }
        (Type::Int, Value::String(text)) if text.parse::<i64>().is_ok() => "; remove the quotes",
        (Type::Bool, Value::String(text)) if matches!(text.as_str(), "true" | "false") => "; remove the quotes",
        _ => "",
    }
}

/// A Kubernetes quantity: a decimal number with a suffix.
fn is_quantity(text: &str) -> bool {
    // As `resource.Quantity` of Kubernetes; `k` is small, `Ki` is not.
    const SUFFIXES: [&str; 16] = ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let has_digits = number.bytes().any(|byte| byte.is_ascii_digit()) && number.matches('.').count() <= 1;
    let exponent = suffix.strip_prefix(['e', 'E']).map(|rest| rest.strip_prefix(['+', '-']).unwrap_or(rest));
    let is_exponent = exponent.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()));
    has_digits && (is_exponent || SUFFIXES.contains(&suffix))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::document::display_path;

    fn mistakes(kind: Kind, value: &Value) -> Vec<(String, String)> {
        check(kind, value).into_iter().map(|mistake| (display_path(&mistake.path), mistake.message)).collect()
    }

    #[test]
    fn a_misspelt_field_is_named_with_the_one_that_was_meant() {
        let found = mistakes(
            Kind::Service,
            &json!({"spec": {"ports": [{"port": 80, "targetport": 8080}], "seletcor": {"a": "b"}, "speed": 1}}),
        );

        assert_eq!(
            found,
            [
                (
                    "spec.ports[0].targetport".to_owned(),
                    "unknown field \"targetport\"; did you mean \"targetPort\"?".to_owned()
                ),
                ("spec.seletcor".to_owned(), "unknown field \"seletcor\"; did you mean \"selector\"?".to_owned()),
                ("spec.speed".to_owned(), "unknown field \"speed\"".to_owned()),
            ]
        );
    }

    #[test]
    fn a_field_of_the_specification_beside_it_is_recognised() {
        let found = mistakes(Kind::Deployment, &json!({"metadata": {"name": "d"}, "replicas": 2}));

        assert_eq!(found[0].1, "unknown field \"replicas\"; did you mean \"spec.replicas\"?");
    }

    #[test]
    fn values_of_the_wrong_type_are_named_in_a_users_words() {
        let container = json!({
            "name": "c", "image": 5, "command": "x", "tty": "yes", "imagePullPolicy": true,
            "env": [{"name": "A", "value": 8080}, null],
            "resources": {"limits": {"cpu": "12x", "memory": "1Gi"}, "requests": {"cpu": 0.5}},
            "ports": [{"containerPort": "80"}],
        });
        let found =
            mistakes(Kind::Pod, &json!({"spec": {"containers": [container], "priority": 1.5, "hostNetwork": "true"}}));

        let messages: Vec<_> = found.iter().map(|(path, message)| format!("{path}: {message}")).collect();
        let expected = [
            "spec.containers[0].command: expected a list, found the string \"x\"",
            "spec.containers[0].env[0].value: expected a string, found the number 8080; put it in quotes",
            "spec.containers[0].env[1]: the list has an empty item",
            "spec.containers[0].image: expected a string, found the number 5; put it in quotes",
            "spec.containers[0].imagePullPolicy: expected a string, found true; put it in quotes (yes, no, on, off, y and n are booleans, too)",
            "spec.containers[0].ports[0].containerPort: expected an integer, found the string \"80\"; remove the quotes",
            "spec.containers[0].resources.limits.cpu: expected a quantity, for example 500m or 1Gi, found the string \"12x\"",
            "spec.containers[0].tty: expected true or false, found the string \"yes\"",
            "spec.hostNetwork: expected true or false, found the string \"true\"; remove the quotes",
            "spec.priority: expected an integer, found the number 1.5",
        ];
        let mut messages = messages;
        messages.sort();
        assert_eq!(messages, expected);
    }

    #[test]
    fn a_string_with_few_values_lists_them() {
        let found = mistakes(Kind::Service, &json!({"spec": {"ports": [{"port": 80, "protocol": "tcp"}]}}));

        assert_eq!(found[0].1, "unknown value \"tcp\": expected TCP, UDP, SCTP; did you mean TCP?");
    }

    #[test]
    fn quantities_are_those_of_kubernetes() {
        for good in ["1", "1.5", ".5", "5.", "-1", "+1Ki", "500m", "1e3", "1E-3", "12Ei", "0"] {
            assert!(is_quantity(good), "{good}");
        }
        for bad in ["", "m", "1 Gi", "1gi", "1KB", "1.2.3", "1e", "--1"] {
            assert!(!is_quantity(bad), "{bad}");
        }
    }
}
