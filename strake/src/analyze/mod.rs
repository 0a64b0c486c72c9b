//! `strake analyze`: problems of manifests, and findings of the control plane's own analysis, without a control plane.

mod cluster;
mod directory;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use contract::admin::control::{self as page, Finding};
use kube_types::{Code, Severity, SourceProblem, summary};
use serde::Serialize;

use crate::{
    check::finding_text,
    mesh::{Choice, Mesh},
};
pub(crate) use cluster::{of_cluster, routes_of_cluster};

/// Looks for mistakes in manifests, or in the objects of a mesh
#[derive(Debug, Args)]
#[command(
    after_help = "With paths nothing but these files is read: no cluster, no lab, no root. With -A or -n the objects of a cluster or lab are.
A namespace or service account that a policy names and that the files do not have is `info`: it may be elsewhere.
docs/reference/conditions.md explains each code.

Exit code: 0 when there is no error; 1 for an error, or when something cannot be read; 2 for a wrong command line.
Warnings and infos are no errors; with --strict a warning is one"
)]
pub(crate) struct Analyze {
    /// Files and directories of manifests
    #[arg(value_name = "PATH", conflicts_with_all = ["all_namespaces", "namespace"])]
    paths: Vec<PathBuf>,
    /// Analyze the objects of all namespaces of a cluster or lab
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Analyze the objects of a cluster or lab, and show what concerns this namespace
    #[arg(short, long, conflicts_with = "all_namespaces")]
    namespace: Option<String>,
    /// Exit with 1 for warnings, too
    #[arg(long)]
    strict: bool,
    /// Form of the output; default: text
    #[arg(short, long, value_enum)]
    output: Option<Output>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Json,
    Yaml,
}

/// The outcome of an analysis.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    /// Number of objects that were read.
    pub(crate) objects: usize,
    /// In the order of files and lines.
    pub(crate) problems: Vec<SourceProblem>,
    /// In the order of objects.
    pub(crate) findings: Vec<Finding>,
}

impl Analyze {
    pub(crate) async fn run(&self, choice: &Choice) -> Result<ExitCode> {
        let report = self.report(choice).await?;
        match self.output {
            Some(Output::Json) => println!("{}", serde_json::to_string_pretty(&report)?),
            Some(Output::Yaml) => print!("{}", serde_saphyr::to_string(&report)?),
            None => print!("{}", text(&report)),
        }
        Ok(if report.is_bad(self.strict) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    async fn report(&self, choice: &Choice) -> Result<Report> {
        if !self.paths.is_empty() {
            return directory::analyze(&self.paths);
        }
        if !self.all_namespaces && self.namespace.is_none() {
            bail!(
                "nothing to analyze: expected files or directories, or --all-namespaces or --namespace for a cluster or lab"
            );
        }
        let namespace = self.namespace.as_deref();
        match choice.connect().await? {
            Mesh::Cluster(mesh) => of_cluster(mesh.server(), namespace).await,
            Mesh::Lab(mesh) => directory::of_lab(&mesh, namespace).await,
        }
    }
}

impl Report {
    fn is_bad(&self, strict: bool) -> bool {
        let worst = if strict { Severity::Warning } else { Severity::Error };
        let is_warning = |finding: &Finding| finding.severity == page::Severity::Warning;
        self.problems.iter().any(|problem| problem.severity <= worst)
            || (strict && self.findings.iter().any(is_warning))
    }
}

/// Findings of a graph.
fn finding(finding: &graph::Finding, place: Option<manifests::Place>) -> Finding {
    Finding {
        object: finding.object.to_string(),
        severity: match finding.severity {
            graph::Severity::Warning => page::Severity::Warning,
            graph::Severity::Info => page::Severity::Info,
        },
        reason: finding.reason.code().to_owned(),
        field: finding.field.clone(),
        message: finding.message.clone(),
        file: place.as_ref().map(|place| place.file.display().to_string()),
        line: place.map(|place| place.line),
    }
}

/// Returns true if something about an object (`Kind namespace/name`) is of interest to a namespace.
fn concerns(object: &str, namespace: Option<&str>) -> bool {
    let Some(namespace) = namespace else { return true };
    let Some((kind, key)) = object.split_once(' ') else { return true };
    match key.split_once('/') {
        Some((of, _)) => of == namespace,
        None => kind != "Namespace" || key == namespace,
    }
}

fn text(report: &Report) -> String {
    let Report { objects, problems, findings } = report;
    // Kinds that nobody here reads are many in every repository, and no mistake: one line for all.
    let (unread, others): (Vec<_>, Vec<_>) = problems.iter().partition(|problem| problem.code == Code::UnsupportedKind);
    let mut text = String::new();
    let lines = summary(others.iter().copied());
    let (notes, problems_said): (Vec<_>, Vec<_>) =
        lines.into_iter().partition(|(severity, _)| *severity == Severity::Note);
    for (severity, line) in &problems_said {
        text.push_str(&format!("{}: {line}\n", severity.name()));
    }
    for wanted in [page::Severity::Warning, page::Severity::Info] {
        for finding in findings.iter().filter(|finding| finding.severity == wanted) {
            text.push_str(&format!("{}\n", finding_text(finding)));
        }
    }
    for (_, line) in &notes {
        text.push_str(&format!("note: {line}\n"));
    }
    text.push_str(&not_read(&unread));
    if !text.is_empty() {
        text.push('\n');
    }
    text.push_str(&format!("{} read: {}\n", plural(*objects, "object"), counts(report)));
    text
}

fn not_read(problems: &[&SourceProblem]) -> String {
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for problem in problems {
        *kinds.entry(&problem.subject.kind).or_default() += 1;
    }
    if kinds.is_empty() {
        return String::new();
    }
    let named: Vec<_> = kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    let files: BTreeSet<_> = problems.iter().map(|problem| &problem.file).collect();
    format!(
        "note: {} in {} of kinds that have no meaning for the mesh: {}\n",
        plural(problems.len(), "object"),
        plural(files.len(), "file"),
        named.join(", ")
    )
}

fn plural(count: usize, word: &str) -> String {
    format!("{count} {word}{}", if count == 1 { "" } else { "s" })
}

fn counts(report: &Report) -> String {
    let problems = |severity| report.problems.iter().filter(|problem| problem.severity == severity).count();
    let findings = |severity| report.findings.iter().filter(|finding| finding.severity == severity).count();
    let errors = problems(Severity::Error);
    let warnings = problems(Severity::Warning) + findings(page::Severity::Warning);
    format!(
        "{}, {}, {}",
        plural(errors, "error"),
        plural(warnings, "warning"),
        plural(findings(page::Severity::Info), "info")
    )
}

#[cfg(test)]
mod tests;
