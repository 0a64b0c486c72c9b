//! Problems of manifests: where each one is, which object it is about, and what is in force instead.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::code::Code;
use crate::kind::ObjectRef;

/// Consequence of a problem. Ordered from the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something that the user wrote is not in force.
    Error,
    /// All fields are in force; one that protects or routes traffic elsewhere has no effect here.
    Warning,
    /// All fields are in force; one of them has no effect here.
    Note,
}

impl Severity {
    /// Name in JSON and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// State in force where a manifest has an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum InForce {
    /// The last good state, read for the first time at `since`.
    LastGood { since: SystemTime },
    /// Nothing is in force: no good state is known.
    Nothing,
}

impl InForce {
    /// Time at which the last good state was first read, as RFC 3339 in whole seconds of UTC.
    pub fn last_good(&self) -> Option<String> {
        match self {
            Self::LastGood { since } => {
                let since = OffsetDateTime::from(*since);
                // 0 is always valid; the alternative only avoids a panic.
                since.replace_nanosecond(0).unwrap_or(since).format(&Rfc3339).ok()
            }
            Self::Nothing => None,
        }
    }
}

/// The object that a problem is about. Fields are empty as far as they are not known.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Subject {
    pub kind: String,
    /// Empty for cluster-scoped kinds, too.
    pub namespace: String,
    pub name: String,
    /// As the API server gave it; manifests have none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

impl Subject {
    /// Returns true if nothing is known of the object, or the problem is not about one.
    pub fn is_unknown(&self) -> bool {
        self.kind.is_empty() && self.name.is_empty()
    }
}

impl From<&ObjectRef> for Subject {
    fn from(key: &ObjectRef) -> Self {
        let (namespace, name) = (key.namespace.clone(), key.name.clone());
        Self { kind: key.kind.to_string(), namespace, name, uid: String::new() }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.kind.is_empty() { "object" } else { &self.kind };
        match (self.name.is_empty(), self.namespace.is_empty()) {
            (true, _) => f.write_str(kind),
            (false, true) => write!(f, "{kind} {}", self.name),
            (false, false) => write!(f, "{kind} {}/{}", self.namespace, self.name),
        }
    }
}

/// One problem of a manifest.
///
/// As JSON: `{"file": "/manifests/web.yaml", "line": 7, "kind": "AuthorizationPolicy", "namespace": "app", "name": "web",
/// "field": "spec.rule", "message": "...", "severity": "error", "code": "unknown_field", "inForce": "last_good",
/// "lastGood": "2026-01-02T03:04:05Z"}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "wire::Problem", into = "wire::Problem")]
pub struct SourceProblem {
    /// Location in the source: a file, or the path of an object in the API.
    pub file: PathBuf,
    /// Line, from 1; 0 when the problem is about the file as a whole.
    pub line: usize,
    pub subject: Subject,
    /// Path of the field, as `spec.ports[0].port`; empty when it is about the document.
    pub field: String,
    /// The fault and what was expected.
    pub message: String,
    pub severity: Severity,
    pub code: Code,
    /// Set by a source for each error that keeps something out of force.
    pub in_force: Option<InForce>,
}

impl SourceProblem {
    /// An error of a file (or directory) as a whole.
    pub fn of_file(file: &Path, code: Code, message: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            line: 0,
            subject: Subject::default(),
            field: String::new(),
            message: message.into(),
            severity: Severity::Error,
            code,
            in_force: None,
        }
    }

    /// The same with another severity.
    pub fn with_severity(self, severity: Severity) -> Self {
        Self { severity, ..self }
    }
}

impl fmt::Display for SourceProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if !self.subject.is_unknown() {
            write!(f, ": {}", self.subject)?;
        }
        if !self.field.is_empty() {
            write!(f, ": {}", self.field)?;
        }
        write!(f, ": {}", self.message)?;
        // Without a subject the whole document is out of force, not one object that could be named.
        let what = if self.subject.is_unknown() { "nothing of it is in force" } else { "it is NOT in force" };
        match &self.in_force {
            Some(in_force) => match in_force.last_good() {
                Some(since) => write!(f, "; the last good state of {since} stays in force"),
                None => write!(f, "; {what}: no good state of it is known"),
            },
            None => Ok(()),
        }
    }
}

/// Lines for people: errors and warnings one by one, then notes, of which those that say the same about several objects
/// become one line.
pub fn summary<'a>(problems: impl IntoIterator<Item = &'a SourceProblem>) -> Vec<(Severity, String)> {
    const NAMED: usize = 8;
    let (mut lines, mut notes) = (Vec::new(), Vec::<(&SourceProblem, Vec<&SourceProblem>)>::new());
    let mut index = std::collections::HashMap::new();
    for problem in problems {
        let groups = matches!(problem.code, Code::UnsupportedKind | Code::UnsupportedField | Code::NotEnforced);
        if !groups {
            lines.push((problem.severity, problem.to_string()));
            continue;
        }
        // The index keeps this linear: a directory may have thousands of equal notes.
        let at = *index.entry((problem.code, &problem.subject.kind, &problem.message)).or_insert(notes.len());
        match notes.get_mut(at) {
            Some((_, members)) => members.push(problem),
            None => notes.push((problem, vec![problem])),
        }
    }
    lines.extend(notes.into_iter().map(|(first, members)| {
        let place = format!("{}:{}", first.file.display(), first.line);
        if members.len() == 1 {
            return (first.severity, first.to_string());
        }
        let names = members.iter().take(NAMED).map(|problem| match problem.subject.namespace.as_str() {
            "" => problem.subject.name.clone(),
            namespace => format!("{namespace}/{}", problem.subject.name),
        });
        let names = names.collect::<Vec<_>>().join(", ");
        let more = match members.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let count = members.len();
        (
            first.severity,
            format!("{place} and others: {count} of kind {} ({names}{more}): {}", first.subject.kind, first.message),
        )
    }));
    // A stable sort: within one severity the order of files stays.
    lines.sort_by_key(|(severity, _)| *severity);
    lines
}

/// The form in JSON.
mod wire {
    use super::*;

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "camelCase")]
    pub(super) struct Problem {
        file: PathBuf,
        line: usize,
        #[serde(flatten)]
        subject: Subject,
        field: String,
        message: String,
        severity: Severity,
        code: Code,
        in_force: Option<Form>,
        last_good: Option<String>,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Form {
        LastGood,
        Nothing,
    }

    impl From<SourceProblem> for Problem {
        fn from(problem: SourceProblem) -> Self {
            let SourceProblem { file, line, subject, field, message, severity, code, in_force } = problem;
            let last_good = in_force.as_ref().and_then(InForce::last_good);
            let in_force = in_force.map(|in_force| match in_force {
                InForce::LastGood { .. } => Form::LastGood,
                InForce::Nothing => Form::Nothing,
            });
            Self { file, line, subject, field, message, severity, code, in_force, last_good }
        }
    }

    impl From<Problem> for SourceProblem {
        fn from(problem: Problem) -> Self {
            let Problem { file, line, subject, field, message, severity, code, in_force, last_good } = problem;
            let since = last_good.and_then(|since| OffsetDateTime::parse(&since, &Rfc3339).ok());
            let in_force = in_force.map(|form| match (form, since) {
                (Form::LastGood, Some(since)) => InForce::LastGood { since: since.into() },
                // A last good state without a readable time is not invented: the worse of the two is shown.
                (Form::LastGood | Form::Nothing, _) => InForce::Nothing,
            });
            Self { file, line, subject, field, message, severity, code, in_force }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn problem() -> SourceProblem {
        SourceProblem {
            line: 3,
            subject: Subject {
                kind: "PeerAuthentication".to_owned(),
                namespace: "app".to_owned(),
                name: "strict".to_owned(),
                ..Subject::default()
            },
            field: "spec.mode".to_owned(),
            in_force: Some(InForce::Nothing),
            ..SourceProblem::of_file(Path::new("p.yaml"), Code::UnknownField, "unknown field \"mode\"")
        }
    }

    #[test]
    fn a_refused_object_tells_which_state_is_in_force() {
        let mut problem = problem();
        assert_eq!(
            problem.to_string(),
            "p.yaml:3: PeerAuthentication app/strict: spec.mode: unknown field \"mode\"; it is NOT in force: no good state of it is known"
        );

        let since = SystemTime::UNIX_EPOCH + Duration::from_millis(86_400_500);
        problem.in_force = Some(InForce::LastGood { since });

        assert!(
            problem.to_string().ends_with("; the last good state of 1970-01-02T00:00:00Z stays in force"),
            "{problem}"
        );
    }

    #[test]
    fn the_form_in_json_is_stable_and_can_be_read_back() {
        let since = SystemTime::UNIX_EPOCH + Duration::from_secs(86_400);
        let problem = SourceProblem { in_force: Some(InForce::LastGood { since }), ..problem() };

        let json = serde_json::to_value(&problem).unwrap();

        assert_eq!(
            json,
            serde_json::json!({
                "file": "p.yaml", "line": 3, "kind": "PeerAuthentication", "namespace": "app", "name": "strict",
                "field": "spec.mode", "message": "unknown field \"mode\"", "severity": "error", "code": "unknown_field",
                "inForce": "last_good", "lastGood": "1970-01-02T00:00:00Z",
            })
        );
        assert_eq!(serde_json::from_value::<SourceProblem>(json).unwrap(), problem);
    }

    #[test]
    fn notes_that_say_the_same_of_several_objects_are_one_line() {
        let note = |name: &str| {
            let mut note = SourceProblem { message: "is not supported".to_owned(), in_force: None, ..problem() };
            note.subject.name = name.to_owned();
            SourceProblem { code: Code::UnsupportedKind, field: String::new(), ..note.with_severity(Severity::Note) }
        };
        let all = [note("a"), problem(), note("b"), SourceProblem { message: "other".to_owned(), ..note("c") }];

        let lines = summary(&all);

        assert_eq!(lines.len(), 3, "{lines:?}");
        assert_eq!(lines[0].0, Severity::Error);
        assert_eq!(lines[1].1, "p.yaml:3 and others: 2 of kind PeerAuthentication (app/a, app/b): is not supported");
    }
}
