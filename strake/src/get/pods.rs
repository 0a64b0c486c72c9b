//! `strake get pods`: what the lab runs, joined with what each node's agent has read back from the kernel.

use std::{collections::HashMap, net::IpAddr, process::ExitCode};

use anyhow::Result;
use clap::{Args, ValueEnum};
use lab::{Lab, PodInfo};
use model::report::{Check, NodeReport, PodReport, PodState};
use serde::Serialize;

use super::table;
use crate::{admin, target::Target};

/// Exit code of `--check` when a selected pod is not proved.
const NOT_PROVED: u8 = 2;

/// Lists pods: whether the mesh carries their traffic, what the kernel says of it, and why not.
#[derive(Debug, Args)]
#[command(
    after_help = "STATE   not-selected, enrolling, enrolled (every check was read back from the kernel), leaving, failed,
        or unknown when the agent of the node does not answer or has not looked yet
PROOF   checks that hold / checks made; `-o wide` names each
Below the table: what pods ask for and do not get, whatever their state

Exit code: 0, 1 when the lab cannot be asked, 2 with --check when a selected pod is not enrolled"
)]
pub(crate) struct Pods {
    /// Only these pods
    names: Vec<String>,
    /// Namespace
    #[arg(short, long, default_value = "default", conflicts_with = "all_namespaces")]
    namespace: String,
    /// Pods of every namespace
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// How to print them
    #[arg(short, long, default_value = "table")]
    output: Format,
    /// Fail when a pod that the mesh should carry is not enrolled
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Wide,
    Json,
    Yaml,
}

/// A pod as it is listed.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Row {
    pub(crate) namespace: String,
    pub(crate) name: String,
    uid: String,
    node: String,
    pub(crate) ips: Vec<IpAddr>,
    phase: String,
    ready: bool,
    selected: bool,
    pub(crate) state: String,
    pub(crate) reason: String,
    /// What the pod asks for and does not get.
    notes: Vec<String>,
    pub(crate) checks: Vec<Check>,
    netns: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    cookie: Option<u64>,
    since: String,
}

#[derive(Debug, Serialize)]
struct Listing {
    pods: Vec<Row>,
}

/// What the agents said: a report by pod uid, or why a node has none.
#[derive(Debug, Default)]
struct Reports {
    pods: HashMap<String, PodReport>,
    silent: HashMap<String, String>,
}

impl Pods {
    pub(crate) async fn run(&self) -> Result<ExitCode> {
        let lab = self.target.attach().await?;
        let rows = list(&lab, |pod| self.wants(pod)).await?;
        let unproved = rows.iter().any(|row| row.selected && row.state != PodState::Enrolled.as_str());
        if rows.is_empty() && matches!(self.output, Format::Table | Format::Wide) {
            eprintln!(
                "no pods found{}",
                if self.all_namespaces { String::new() } else { format!(" in {}", self.namespace) }
            );
        } else {
            print!("{}", render(rows, self.output)?);
        }
        Ok(if self.check && unproved { NOT_PROVED.into() } else { ExitCode::SUCCESS })
    }

    fn wants(&self, pod: &PodInfo) -> bool {
        (self.all_namespaces || pod.namespace == self.namespace)
            && (self.names.is_empty() || self.names.contains(&pod.name))
    }
}

/// The pods that are wanted, each with what the agent of its node knows.
pub(crate) async fn list(lab: &Lab, wanted: impl Fn(&PodInfo) -> bool) -> Result<Vec<Row>> {
    let reports = ask_agents(lab).await?;
    let pods = lab.pods().await?;
    Ok(pods.into_iter().filter(wanted).map(|pod| join(pod, &reports)).collect())
}

/// The rows as `strake get pods` prints them.
pub(crate) fn table(rows: &[Row]) -> String {
    table::render(&HEADER, &rows.iter().map(short).collect::<Vec<_>>())
}

async fn ask_agents(lab: &Lab) -> Result<Reports> {
    let mut reports = Reports::default();
    for node in lab.nodes().await? {
        let socket = lab.run_dir().node(&node.name).join("agent/admin.sock");
        let answer = admin::get(&socket, "/pods").await;
        match answer.and_then(|body| Ok(serde_json::from_slice::<NodeReport>(&body)?)) {
            Ok(report) => reports.pods.extend(report.pods.into_iter().map(|pod| (pod.uid.clone(), pod))),
            Err(err) => {
                reports.silent.insert(node.name.clone(), format!("agent of {}: {err:#}", node.name));
            }
        }
    }
    Ok(reports)
}

fn join(pod: PodInfo, reports: &Reports) -> Row {
    let report = match (reports.pods.get(&pod.uid), reports.silent.get(&pod.node)) {
        (Some(report), _) => Some(report.clone()),
        (None, Some(_)) => None,
        (None, None) => Some(PodReport { reason: "the agent does not know it".into(), ..PodReport::default() }),
    };
    let silent = reports.silent.get(&pod.node).cloned().unwrap_or_default();
    let report = report.unwrap_or(PodReport { reason: silent, ..PodReport::default() });
    Row {
        namespace: pod.namespace,
        name: pod.name,
        uid: pod.uid,
        node: pod.node,
        ips: pod.ips,
        phase: if pod.terminating { "Terminating".into() } else { pod.phase.as_str().to_owned() },
        ready: pod.ready,
        selected: report.selected,
        state: report.state.as_str().to_owned(),
        reason: report.reason,
        notes: report.notes,
        checks: report.checks,
        netns: report.netns,
        cookie: report.cookie,
        since: report.since,
    }
}

fn render(rows: Vec<Row>, format: Format) -> Result<String> {
    Ok(match format {
        Format::Json => serde_json::to_string_pretty(&Listing { pods: rows })? + "\n",
        Format::Yaml => serde_saphyr::to_string(&Listing { pods: rows })?,
        Format::Table => table(&rows) + &notes(&rows),
        Format::Wide => {
            let header: Vec<_> = HEADER.into_iter().chain(["PHASE", "NETNS", "COOKIE", "CHECKS", "NOTES"]).collect();
            table::render(&header, &rows.iter().map(wide).collect::<Vec<_>>())
        }
    })
}

const HEADER: [&str; 7] = ["NAMESPACE", "NAME", "NODE", "IPS", "STATE", "PROOF", "REASON"];

fn short(row: &Row) -> Vec<String> {
    let ips: Vec<_> = row.ips.iter().map(ToString::to_string).collect();
    let holding = row.checks.iter().filter(|check| check.ok).count();
    let proof = if row.checks.is_empty() { "-".to_owned() } else { format!("{holding}/{}", row.checks.len()) };
    vec![
        row.namespace.clone(),
        row.name.clone(),
        row.node.clone(),
        ips.join(","),
        row.state.clone(),
        proof,
        or_dash(&row.reason),
    ]
}

fn wide(row: &Row) -> Vec<String> {
    let mut cells = short(row);
    let mark = |check: &Check| format!("{}={}", check.name, if check.ok { "ok" } else { "FAILED" });
    let checks: Vec<_> = row.checks.iter().map(mark).collect();
    cells.push(row.phase.clone());
    cells.push(or_dash(&row.netns));
    cells.push(row.cookie.map_or_else(|| "-".to_owned(), |cookie| cookie.to_string()));
    cells.push(or_dash(&checks.join(",")));
    cells.push(or_dash(&row.notes.join("; ")));
    cells
}

/// A line for each note, behind an empty one; nothing without notes.
fn notes(rows: &[Row]) -> String {
    let of = |row: &Row| -> Vec<String> {
        row.notes.iter().map(|note| format!("note: {}/{}: {note}\n", row.namespace, row.name)).collect()
    };
    let lines: Vec<String> = rows.iter().flat_map(of).collect();
    if lines.is_empty() { String::new() } else { format!("\n{}", lines.concat()) }
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
#[path = "pods_tests.rs"]
mod tests;
