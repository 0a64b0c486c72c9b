//! Problems of manifests, findings about objects and conditions of policies, as far as is known now: for log, metrics and
//! admin pages.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use graph::Finding;
use kube_types::core::Condition;
use kube_types::{Code, ObjectRef, Severity, SourceProblem};
use serde_json::{Value, json};

use crate::conditions::StatusUpdate;

/// Problems of files, findings about objects, conditions of policies. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reports(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    problems: BTreeMap<PathBuf, Vec<SourceProblem>>,
    findings: BTreeMap<ObjectRef, Vec<Finding>>,
    conditions: BTreeMap<ObjectRef, Vec<Condition>>,
}

impl Reports {
    pub(crate) fn problem(&self, problem: SourceProblem) {
        let (file, code) = (problem.file.display(), problem.code.name());
        let SourceProblem { line, field, message, subject, severity, .. } = &problem;
        match severity {
            Severity::Error | Severity::Warning => tracing::warn!(
                %file, line, object = %subject, field, reason = message, code, severity = severity.name(),
                "{}", headline(&problem),
            ),
            Severity::Note => tracing::info!(
                %file, line, object = %subject, field, reason = message, code, severity = severity.name(),
                "{}", headline(&problem),
            ),
        }
        let mut inner = self.lock();
        inner.problems.entry(problem.file.clone()).or_default().push(problem);
        inner.count_problems();
    }

    /// Takes back the problems of a file; those that still hold follow.
    pub(crate) fn solved(&self, file: &Path) {
        tracing::info!(file = %file.display(), "earlier problems of the manifest are over");
        let mut inner = self.lock();
        inner.problems.remove(file);
        inner.count_problems();
    }

    pub(crate) fn findings(&self, object: ObjectRef, findings: Vec<Finding>) {
        for finding in &findings {
            let (field, code) = (finding.field.as_str(), finding.reason.code());
            match finding.severity {
                graph::Severity::Warning => tracing::warn!(object = %object, field, code, "{}", finding.message),
                graph::Severity::Info => tracing::info!(object = %object, field, code, "{}", finding.message),
            }
        }
        let mut inner = self.lock();
        if findings.is_empty() {
            inner.findings.remove(&object);
        } else {
            inner.findings.insert(object, findings);
        }
        let count = inner.findings.values().map(Vec::len).sum::<usize>();
        metrics::gauge!("strake_control_findings").set(count as f64);
    }

    /// Publishes the conditions of a policy; none when it is gone. A change of numbers alone is not logged.
    pub(crate) fn conditions(&self, update: &StatusUpdate) {
        let StatusUpdate { cluster, object, conditions, .. } = update;
        let mut inner = self.lock();
        let old = if conditions.is_empty() {
            inner.conditions.remove(object)
        } else {
            inner.conditions.insert(object.clone(), conditions.clone())
        };
        drop(inner);
        let outcome = |condition: &Condition| (condition.r#type.clone(), condition.status, condition.reason.clone());
        let old: Vec<_> = old.iter().flatten().map(outcome).collect();
        for condition in conditions.iter().filter(|condition| !old.contains(&outcome(condition))) {
            tracing::info!(
                %cluster, %object, status = condition.status.name(),
                reason = condition.reason.as_deref().unwrap_or_default(),
                "{}: {}", condition.r#type, condition.message.as_deref().unwrap_or_default(),
            );
        }
    }

    /// Conditions as JSON.
    pub(crate) fn policies_json(&self) -> Value {
        let inner = self.lock();
        let policies = inner.conditions.iter().map(|(object, conditions)| {
            let conditions = conditions.iter().map(|condition| {
                json!({
                    "type": condition.r#type, "status": condition.status,
                    "reason": condition.reason, "message": condition.message,
                })
            });
            json!({"object": object.to_string(), "conditions": conditions.collect::<Value>()})
        });
        policies.collect()
    }

    /// Problems as JSON, in the order of files.
    pub(crate) fn problems_json(&self) -> Value {
        let inner = self.lock();
        inner.problems.values().flatten().map(|problem| json!(problem)).collect()
    }

    /// Findings as JSON.
    pub(crate) fn findings_json(&self) -> Value {
        self.lock().findings.values().flatten().map(finding_json).collect()
    }

    /// Findings as JSON, with file and line of what they are about. Blocks on reading the manifests.
    pub(crate) fn located_findings_json(&self, manifests: &[PathBuf]) -> Value {
        let findings: Vec<_> = self.lock().findings.values().flatten().cloned().collect();
        let wanted: Vec<_> = findings.iter().map(|finding| (&finding.object, finding.field.as_str())).collect();
        let places = manifests::locate(manifests, &wanted);
        let located = findings.iter().zip(places).map(|(finding, place)| {
            let mut json = finding_json(finding);
            json["file"] = json!(place.as_ref().map(|place| &place.file));
            json["line"] = json!(place.map(|place| place.line));
            json
        });
        located.collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn count_problems(&self) {
        let problems = || self.problems.values().flatten();
        for severity in [Severity::Error, Severity::Warning, Severity::Note] {
            let count = problems().filter(|problem| problem.severity == severity).count();
            metrics::gauge!("strake_control_manifest_problems", "severity" => severity.name()).set(count as f64);
        }
    }
}

fn finding_json(finding: &Finding) -> Value {
    json!({
        "object": finding.object.to_string(), "severity": finding.severity.name(),
        "reason": finding.reason.code(), "field": finding.field, "message": finding.message,
    })
}

fn headline(problem: &SourceProblem) -> String {
    match (problem.severity, &problem.in_force) {
        (Severity::Error, Some(in_force)) => match in_force.last_good() {
            Some(since) => format!("invalid manifest ignored; the last good state of {since} stays in force"),
            None => "invalid manifest ignored; it is NOT in force: no good state of it is known".to_owned(),
        },
        (Severity::Error, None) => "manifest not used".to_owned(),
        (Severity::Warning, _) => "manifest has no effect here".to_owned(),
        (Severity::Note, _) if problem.code == Code::LastGoodNotSaved => {
            "last-good copies are not being saved".to_owned()
        }
        (Severity::Note, _) => "note about a manifest".to_owned(),
    }
}
