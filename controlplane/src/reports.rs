//! What is wrong with the manifests, as far as is known now: for log, metrics and admin pages.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use graph::Finding;
use kube_api::{ObjectRef, Severity, SourceProblem};
use serde_json::{Value, json};

/// Problems of files and findings about objects. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reports(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    problems: BTreeMap<PathBuf, Vec<SourceProblem>>,
    findings: BTreeMap<ObjectRef, Vec<Finding>>,
}

impl Reports {
    pub(crate) fn problem(&self, problem: SourceProblem) {
        tracing::warn!(
            file = %problem.file.display(), line = problem.line, field = problem.field,
            reason = problem.message, code = severity(problem.severity),
            "{}", headline(&problem),
        );
        let mut inner = self.lock();
        inner.problems.entry(problem.file.clone()).or_default().push(problem);
        inner.count_problems();
    }

    pub(crate) fn solved(&self, file: &Path) {
        tracing::info!(file = %file.display(), "manifest understood");
        let mut inner = self.lock();
        inner.problems.remove(file);
        inner.count_problems();
    }

    pub(crate) fn findings(&self, object: ObjectRef, findings: Vec<Finding>) {
        for finding in &findings {
            tracing::warn!(object = %object, code = finding.reason.code(), "{}", finding.message);
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

    /// Problems as JSON.
    pub(crate) fn problems_json(&self) -> Value {
        let inner = self.lock();
        let problems = inner.problems.values().flatten().map(|problem| {
            json!({
                "file": problem.file, "line": problem.line, "field": problem.field,
                "message": problem.message, "severity": severity(problem.severity),
                "lastGood": problem.in_force.and_then(|in_force| in_force.last_good()),
            })
        });
        problems.collect()
    }

    /// Findings as JSON.
    pub(crate) fn findings_json(&self) -> Value {
        let inner = self.lock();
        let findings = inner.findings.values().flatten().map(|finding| {
            let severity = match finding.severity {
                graph::Severity::Warning => "warning",
            };
            json!({
                "object": finding.object.to_string(), "severity": severity,
                "reason": finding.reason.code(), "message": finding.message,
            })
        });
        findings.collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn count_problems(&self) {
        let count = self.problems.values().map(Vec::len).sum::<usize>();
        metrics::gauge!("strake_control_manifest_problems").set(count as f64);
    }
}

const fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Refused => "refused",
        Severity::Ignored => "ignored",
        Severity::Noted => "noted",
    }
}

fn headline(problem: &SourceProblem) -> String {
    match (problem.severity, &problem.in_force) {
        (Severity::Refused, Some(in_force)) => format!("manifest not understood; {in_force}"),
        (Severity::Refused, None) => "manifests not read".to_owned(),
        (Severity::Ignored, _) => "manifest not understood; it is left out".to_owned(),
        (Severity::Noted, _) => "manifests are not kept for the next start".to_owned(),
    }
}
