//! Problems of manifests, findings about objects and conditions of policies, as far as is known now: for log, metrics and
//! admin pages.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use contract::admin::control as page;
use graph::Finding;
use kube_types::core::{Condition, ConditionStatus};
use kube_types::{Code, Kind, ObjectRef, Severity, SourceProblem};
use parking_lot::Mutex;

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
        let mut inner = self.0.lock();
        inner.problems.entry(problem.file.clone()).or_default().push(problem);
        inner.count_problems();
    }

    /// Takes back the problems of a file; those that still hold follow.
    pub(crate) fn solved(&self, file: &Path) {
        tracing::info!(file = %file.display(), "problems of the manifest resolved");
        let mut inner = self.0.lock();
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
        let mut inner = self.0.lock();
        if findings.is_empty() {
            inner.findings.remove(&object);
        } else {
            inner.findings.insert(object, findings);
        }
        let count = inner.findings.values().map(Vec::len).sum::<usize>();
        metrics::gauge!("strake_control_findings").set(count as f64);
    }

    /// Publishes the conditions of an object; none when it is gone. A change of numbers alone is not logged.
    pub(crate) fn conditions(&self, update: &StatusUpdate) {
        let StatusUpdate { cluster, object, status, .. } = update;
        let conditions = &status.conditions;
        let mut inner = self.0.lock();
        let old = if conditions.is_empty() {
            inner.conditions.remove(object)
        } else {
            inner.conditions.insert(object.clone(), conditions.clone())
        };
        // Not while the lock is held: log lines may block on their writer.
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

    /// Policies with their conditions, for the admin page.
    pub(crate) fn policies(&self) -> Vec<page::Policy> {
        let inner = self.0.lock();
        let policies = inner.conditions.iter().filter(|(object, _)| is_policy(object.kind));
        let policies = policies.map(|(object, conditions)| page::Policy {
            object: object.to_string(),
            conditions: conditions.iter().map(condition_page).collect(),
        });
        policies.collect()
    }

    /// Problems, in the order of files.
    pub(crate) fn problems(&self) -> Vec<SourceProblem> {
        self.0.lock().problems.values().flatten().cloned().collect()
    }

    /// Findings without file and line, for the admin page.
    pub(crate) fn findings_list(&self) -> Vec<page::Finding> {
        self.0.lock().findings.values().flatten().map(|finding| finding_page(finding, None)).collect()
    }

    /// Findings with file and line of their objects. Blocks on reading the manifests.
    pub(crate) fn located_findings(&self, manifests: &[PathBuf]) -> Vec<page::Finding> {
        let findings: Vec<_> = self.0.lock().findings.values().flatten().cloned().collect();
        let wanted: Vec<_> = findings.iter().map(|finding| (&finding.object, finding.field.as_str())).collect();
        // Without the lock: reading files takes long, and the pipeline reports findings meanwhile.
        let places = manifests::locate(manifests, &wanted);
        findings.iter().zip(places).map(|(finding, place)| finding_page(finding, place)).collect()
    }
}

const fn is_policy(kind: Kind) -> bool {
    matches!(kind, Kind::PeerAuthentication | Kind::AuthorizationPolicy)
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

fn finding_page(finding: &Finding, place: Option<manifests::Place>) -> page::Finding {
    let severity = match finding.severity {
        graph::Severity::Warning => page::Severity::Warning,
        graph::Severity::Info => page::Severity::Info,
    };
    let file = place.as_ref().map(|place| place.file.display().to_string());
    page::Finding {
        object: finding.object.to_string(),
        severity,
        reason: finding.reason.code().to_owned(),
        field: finding.field.clone(),
        message: finding.message.clone(),
        file,
        line: place.map(|place| place.line),
    }
}

fn condition_page(condition: &Condition) -> page::Condition {
    let status = match condition.status {
        ConditionStatus::True => page::ConditionStatus::True,
        ConditionStatus::False => page::ConditionStatus::False,
        ConditionStatus::Unknown => page::ConditionStatus::Unknown,
    };
    let Condition { r#type, reason, message, .. } = condition.clone();
    page::Condition { r#type, status, reason, message }
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
