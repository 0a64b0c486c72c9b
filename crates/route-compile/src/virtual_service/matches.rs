//! Matches of a VirtualService's HTTP rule to conditions.

use http::HeaderName;
use kube_types::istio::{HttpMatchRequest, StringMatch};
use route::{
    ClaimMatch, Conditions, HeaderMatch, Origin, PathMatch, PatternError, QueryMatch, Regex, TextMatch, ValueMatch,
};

use crate::finding::{Findings, Reason};

/// Names in `headers` that mean other fields, and that Istio ignores.
const FIELDS: [&str; 4] = ["uri", "scheme", "method", "authority"];

const CLAIMS: &str = "@request.auth.claims";

/// A condition that cannot be compiled, with its finding made: the match never matches.
#[derive(Debug)]
pub(crate) struct Never;

/// Compiles a match; `at` is its field.
pub(crate) fn conditions(of: &HttpMatchRequest, at: &Origin, findings: &mut Findings) -> Result<Conditions, Never> {
    let mut compiler = Compiler { at, findings };
    let path = compiler.path(of.uri.as_ref(), of.ignore_uri_case);
    let method = compiler.text("method", of.method.as_ref());
    let scheme = compiler.text("scheme", of.scheme.as_ref());
    let authority = compiler.text("authority", of.authority.as_ref());
    let mut conditions = Conditions {
        source_labels: of.source_labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        source_namespace: (!of.source_namespace.is_empty()).then(|| of.source_namespace.clone()),
        ..Conditions::default()
    };
    // All are compiled before any decides, so that every mistake is reported.
    let mut is_valid = true;
    for (map, field, invert) in [(&of.headers, "headers", false), (&of.without_headers, "withoutHeaders", true)] {
        for (name, pattern) in map {
            is_valid &= compiler.header(&mut conditions, field, name, pattern, invert).is_ok();
        }
    }
    for (name, pattern) in &of.query_params {
        match compiler.value(&format!("queryParams[{name:?}]"), pattern) {
            Ok(value) => conditions.query.push(QueryMatch { name: name.clone(), value }),
            Err(Never) => is_valid = false,
        }
    }
    if !of.stat_prefix.is_empty() {
        compiler.findings.add(Reason::Unsupported, at, "statPrefix", "there are no statistics for single routes");
    }
    (conditions.path, conditions.method, conditions.scheme, conditions.authority) =
        (path?, method?, scheme?, authority?);
    if is_valid { Ok(conditions) } else { Err(Never) }
}

struct Compiler<'a> {
    at: &'a Origin,
    findings: &'a mut Findings,
}

impl Compiler<'_> {
    fn never(&mut self, field: &str, message: impl std::fmt::Display) -> Never {
        self.findings.add(Reason::Invalid, self.at, field, format!("{message}: the match never matches"));
        Never
    }

    fn regex(&mut self, field: &str, pattern: &str) -> Result<Regex, Never> {
        Regex::new(pattern).map_err(|error: PatternError| self.never(field, error))
    }

    fn path(&mut self, uri: Option<&StringMatch>, ignore_case: bool) -> Result<PathMatch, Never> {
        let Some(form) = uri.map(|uri| self.form("uri", uri)).transpose()? else {
            return Ok(PathMatch::Any);
        };
        Ok(match form {
            Form::Present => PathMatch::Any,
            // Every path begins with a slash.
            Form::Prefix("/" | "") => PathMatch::Any,
            Form::Exact(path) if ignore_case => PathMatch::ExactIgnoreCase(path.to_owned()),
            Form::Prefix(path) if ignore_case => PathMatch::PrefixIgnoreCase(path.to_owned()),
            Form::Exact(path) => PathMatch::Exact(path.to_owned()),
            Form::Prefix(path) => PathMatch::Prefix(path.to_owned()),
            Form::Regex(pattern) => PathMatch::Regex(self.regex("uri.regex", pattern)?),
        })
    }

    fn text(&mut self, field: &str, pattern: Option<&StringMatch>) -> Result<Option<TextMatch>, Never> {
        let Some(pattern) = pattern else { return Ok(None) };
        Ok(match self.form(field, pattern)? {
            Form::Present => None,
            Form::Exact(text) => Some(TextMatch::exact(text)),
            Form::Prefix(text) => Some(TextMatch::prefix(text)),
            Form::Regex(pattern) => Some(TextMatch::Regex(self.regex(&format!("{field}.regex"), pattern)?)),
        })
    }

    fn value(&mut self, field: &str, pattern: &StringMatch) -> Result<ValueMatch, Never> {
        Ok(match self.form(field, pattern)? {
            Form::Present | Form::Regex("*") => ValueMatch::Present,
            Form::Exact(text) => ValueMatch::Text(TextMatch::exact(text)),
            Form::Prefix(text) => ValueMatch::Text(TextMatch::prefix(text)),
            Form::Regex(pattern) => ValueMatch::Text(TextMatch::Regex(self.regex(&format!("{field}.regex"), pattern)?)),
        })
    }

    fn header(
        &mut self,
        conditions: &mut Conditions,
        map: &str,
        name: &str,
        pattern: &StringMatch,
        invert: bool,
    ) -> Result<(), Never> {
        let field = format!("{map}[{name:?}]");
        if FIELDS.contains(&name) {
            let message = format!("{name} is a field of the match, not a header: the condition is ignored");
            self.findings.add(Reason::Ignored, self.at, &field, message);
            return Ok(());
        }
        let mut value = self.value(&field, pattern)?;
        // An empty exact text stands for any value of the header, as in Istio.
        if value == ValueMatch::Text(TextMatch::exact("")) {
            value = ValueMatch::Present;
        }
        if let Some(claim) = name.strip_prefix(CLAIMS) {
            let Some(path) = claim_path(claim) else {
                return Err(
                    self.never(&field, "expected @request.auth.claims.NAME or @request.auth.claims[NAME][NAME]")
                );
            };
            conditions.claims.push(ClaimMatch { path, value, invert });
            return Ok(());
        }
        let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else {
            return Err(self.never(&field, "invalid header name"));
        };
        conditions.headers.push(HeaderMatch { name, value, invert });
        Ok(())
    }

    fn form<'p>(&mut self, field: &str, pattern: &'p StringMatch) -> Result<Form<'p>, Never> {
        match (pattern.exact.as_deref(), pattern.prefix.as_deref(), pattern.regex.as_deref()) {
            (None, None, None) => Ok(Form::Present),
            (Some(text), None, None) => Ok(Form::Exact(text)),
            (None, Some(text), None) => Ok(Form::Prefix(text)),
            (None, None, Some(pattern)) => Ok(Form::Regex(pattern)),
            _ => Err(self.never(field, "only one of exact, prefix and regex may be set")),
        }
    }
}

/// Form of a pattern.
enum Form<'a> {
    Present,
    Exact(&'a str),
    Prefix(&'a str),
    Regex(&'a str),
}

/// Names of a claim from `.a.b` or `[a][b]`.
fn claim_path(text: &str) -> Option<Vec<String>> {
    let names: Vec<String> = if let Some(dotted) = text.strip_prefix('.') {
        dotted.split('.').map(str::to_owned).collect()
    } else {
        text.strip_prefix('[')?.strip_suffix(']')?.split("][").map(str::to_owned).collect()
    };
    names.iter().all(|name| !name.is_empty()).then_some(names)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn compile(of: Value) -> (Option<Conditions>, Vec<String>) {
        let mut findings = Findings::default();
        let at = Origin { field: "match[0]".into(), ..Origin::default() };
        let conditions = conditions(&serde_json::from_value(of).unwrap(), &at, &mut findings).ok();
        let line = |finding: &crate::Finding| format!("{} {}", finding.origin.field, finding.reason.code());
        (conditions, findings.into_sorted().iter().map(line).collect())
    }

    #[test]
    fn each_form_of_a_path_is_compiled() {
        for (of, expected) in [
            (json!({}), PathMatch::Any),
            (json!({"uri": {}}), PathMatch::Any),
            (json!({"uri": {"prefix": "/"}}), PathMatch::Any),
            (json!({"uri": {"prefix": "/a"}}), PathMatch::Prefix("/a".into())),
            (json!({"uri": {"exact": "/a"}}), PathMatch::Exact("/a".into())),
            (json!({"uri": {"exact": "/a"}, "ignoreUriCase": true}), PathMatch::ExactIgnoreCase("/a".into())),
            (json!({"uri": {"prefix": "/a"}, "ignoreUriCase": true}), PathMatch::PrefixIgnoreCase("/a".into())),
            (json!({"uri": {"regex": "/a+"}, "ignoreUriCase": true}), PathMatch::Regex(Regex::new("/a+").unwrap())),
        ] {
            let (conditions, findings) = compile(of.clone());
            assert_eq!((conditions.map(|conditions| conditions.path), findings.len()), (Some(expected), 0), "{of}");
        }
    }

    #[test]
    fn each_form_of_a_value_is_compiled() {
        for (pattern, expected) in [
            (json!({}), ValueMatch::Present),
            (json!({"regex": "*"}), ValueMatch::Present),
            (json!({"exact": ""}), ValueMatch::Present),
            (json!({"exact": "jason"}), ValueMatch::Text(TextMatch::exact("jason"))),
            (json!({"prefix": "j"}), ValueMatch::Text(TextMatch::prefix("j"))),
            (json!({"regex": ".*"}), ValueMatch::Text(TextMatch::Regex(Regex::new(".*").unwrap()))),
        ] {
            for (field, invert) in [("headers", false), ("withoutHeaders", true)] {
                let (conditions, _) = compile(json!({field: {"End-User": pattern}}));
                let name = HeaderName::from_static("end-user");
                assert_eq!(
                    conditions.unwrap().headers,
                    [HeaderMatch { name, value: expected.clone(), invert }],
                    "{pattern}"
                );
            }
        }
    }

    #[test]
    fn claims_are_headers_with_a_special_name() {
        for (name, path) in [
            ("@request.auth.claims.sub", &["sub"][..]),
            ("@request.auth.claims.realm.role", &["realm", "role"]),
            ("@request.auth.claims[example.com/role]", &["example.com/role"]),
            ("@request.auth.claims[a][b]", &["a", "b"]),
        ] {
            let (conditions, _) = compile(json!({"headers": {name: {"exact": "x"}}}));
            assert_eq!(conditions.unwrap().claims[0].path, path, "{name}");
        }
        assert!(compile(json!({"headers": {"@request.auth.claims": {"exact": "x"}}})).0.is_none());
    }

    #[test]
    fn the_client_is_matched_by_its_own_labels_and_namespace() {
        let (conditions, findings) = compile(json!({"sourceLabels": {"app": "a"}, "sourceNamespace": "shop"}));
        let conditions = conditions.unwrap();
        assert_eq!(conditions.source_labels.get("app").map(String::as_str), Some("a"));
        assert_eq!(conditions.source_namespace.as_deref(), Some("shop"));
        assert!(findings.is_empty());
    }

    #[test]
    fn a_match_that_cannot_be_compiled_never_matches() {
        for (of, field) in [
            (json!({"uri": {"regex": "("}}), "match[0].uri.regex"),
            (json!({"uri": {"exact": "/a", "prefix": "/b"}}), "match[0].uri"),
            (json!({"headers": {"a b": {"exact": "x"}}}), "match[0].headers[\"a b\"]"),
            (json!({"queryParams": {"q": {"regex": "["}}}), "match[0].queryParams[\"q\"].regex"),
            (json!({"method": {"regex": "["}}), "match[0].method.regex"),
        ] {
            let (conditions, findings) = compile(of.clone());
            assert_eq!((conditions, findings), (None, vec![format!("{field} invalid_value")]), "{of}");
        }
    }

    #[test]
    fn fields_without_effect_are_reported() {
        let (conditions, findings) = compile(json!({"headers": {"uri": {"exact": "x"}}, "statPrefix": "s"}));
        assert_eq!(conditions, Some(Conditions::default()));
        assert_eq!(findings, ["match[0].headers[\"uri\"] ignored", "match[0].statPrefix unsupported"]);
    }
}
