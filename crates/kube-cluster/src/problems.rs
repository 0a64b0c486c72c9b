//! Problems that a reader has with the API server, apart from those of objects.

use std::path::PathBuf;
use std::time::SystemTime;

use kube_types::{Code, InForce, Severity, SourceProblem, Subject};

use crate::answer::ApiError;
use crate::path;
use crate::verb::Verb;
use crate::watched::Watched;

/// Place of the problems with a kind as a whole: its path in the API.
pub(crate) fn place(watched: &Watched) -> PathBuf {
    path::collection(watched.kind, path::preferred(watched.kind), watched.namespace.as_deref()).into()
}

/// Name of the resource in messages, for instance `pods` or `peerauthentications.security.istio.io`.
pub(crate) fn resource(watched: &Watched) -> String {
    let plural = watched.kind.plural();
    let group = watched.kind.group();
    let name = if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") };
    match &watched.namespace {
        Some(namespace) => format!("{name} in namespace {namespace}"),
        None => name,
    }
}

/// A read that failed. What was read at `last`, if anything was, stays in force.
pub(crate) fn failed(watched: &Watched, verb: Verb, error: &ApiError, last: Option<SystemTime>) -> SourceProblem {
    let code = match error {
        ApiError::Unreachable(_) | ApiError::Timeout(_) => Code::NoAnswer,
        ApiError::Refused(_) | ApiError::Invalid(_) => Code::Unreadable,
    };
    let in_force = last.map_or(InForce::Nothing, |since| InForce::LastGood { since });
    let message = error.explain(verb, &resource(watched));
    SourceProblem { in_force: Some(in_force), ..of_kind(watched, code, message) }
}

/// The API server does not serve the kind, of which `known` objects are in force.
pub(crate) fn absent(watched: &Watched, known: usize) -> SourceProblem {
    let resource = resource(watched);
    if known == 0 {
        let message =
            format!("the API server does not serve {resource}; they are read once their definition is installed");
        return of_kind(watched, Code::UnknownKind, message).with_severity(Severity::Note);
    }
    let message = format!(
        "the API server no longer serves {resource}; the {known} that were read stay in force until it does, or until this program restarts"
    );
    of_kind(watched, Code::UnknownKind, message).with_severity(Severity::Warning)
}

fn of_kind(watched: &Watched, code: Code, message: String) -> SourceProblem {
    let subject = Subject {
        kind: watched.kind.to_string(),
        namespace: watched.namespace.clone().unwrap_or_default(),
        ..Subject::default()
    };
    SourceProblem { subject, ..SourceProblem::of_file(&place(watched), code, message) }
}
