//! The analysis of manifests: the files are read as a lab reads them, and given to the control plane's code.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use compile::Compiler;
use contract::admin::control::{PROBLEMS_PATH, Severity as PageSeverity};
use graph::{Mesh, Reason};
use kube_types::{Resource, SourceProblem};
use tokio::time::timeout;

use super::{Report, concerns, finding};
use crate::{admin, mesh::LabMesh};

/// Findings that depend on what is elsewhere: in another repository, or made by hand.
const ELSEWHERE: [Reason; 2] = [Reason::UnknownNamespace, Reason::UnknownServiceAccount];

/// Time for the control plane of a lab to answer.
const DEADLINE: Duration = Duration::from_secs(20);

/// Analyzes files and directories.
///
/// # Errors
/// When one cannot be read.
pub(super) fn analyze(paths: &[PathBuf]) -> Result<Report> {
    let (mut objects, mut problems) = (Vec::new(), Vec::new());
    for path in paths {
        let read = manifests::load_directory(path).with_context(|| format!("failed to read {}", path.display()))?;
        objects.extend(read.objects.into_iter().map(|object| object.resource));
        problems.extend(read.problems);
    }
    for problem in &mut problems {
        // Nothing is in force here, whatever the file says.
        problem.in_force = None;
    }
    let findings = findings(objects.iter().cloned());
    let wanted: Vec<_> = findings.iter().map(|finding| (&finding.object, finding.field.as_str())).collect();
    let places = manifests::locate(paths, &wanted);
    let findings = findings.iter().zip(places).map(|(found, place)| {
        let mut shown = finding(found, place);
        if ELSEWHERE.contains(&found.reason) {
            shown.severity = PageSeverity::Info;
            shown.message.push_str(" (in these manifests)");
        }
        shown
    });
    problems.sort();
    Ok(Report { objects: objects.len(), problems, findings: findings.collect() })
}

/// The findings of the control plane of a lab, with the problems of its manifests.
///
/// # Errors
/// When it does not answer.
pub(super) async fn of_lab(mesh: &LabMesh, namespace: Option<&str>) -> Result<Report> {
    let socket = admin::control(&mesh.lab);
    let asked = async {
        let problems: Vec<SourceProblem> = serde_json::from_slice(&admin::get(&socket, PROBLEMS_PATH).await?)?;
        Ok::<_, anyhow::Error>((problems, mesh.findings().await?))
    };
    let (mut problems, mut findings) =
        timeout(DEADLINE, asked).await.context("the control plane does not answer")??;
    problems.retain(|problem| namespace.is_none_or(|wanted| problem.subject.namespace == wanted));
    findings.retain(|finding| concerns(&finding.object, namespace));
    let objects = mesh.objects().await?;
    Ok(Report { objects, problems, findings })
}

/// Everything that the control plane would say of these objects, in their order.
pub(super) fn findings(objects: impl IntoIterator<Item = Resource>) -> Vec<graph::Finding> {
    let mut compiler = Compiler::new(Mesh::default());
    objects.into_iter().for_each(|object| compiler.apply(object));
    let mut found: Vec<_> = compiler.settle().findings.into_iter().flat_map(|(_, findings)| findings).collect();
    found.sort();
    found
}
