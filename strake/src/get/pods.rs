//! `strake get pods`: what the lab or the cluster runs, joined with what each node's agent has read back from the kernel.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    process::ExitCode,
};

use anyhow::{Result, bail};
use clap::Args;
use contract::admin::agent::{Check, NodeReport, PodReport, PodState};
use lab::{Lab, Phase};
use serde::Serialize;

use super::{
    listing::{self, Format, Item, Listing},
    table::{self, or_dash},
};
use crate::{
    check,
    intent::Intent,
    mesh::{self, ByNode, Mesh, PodFacts},
    wait::Wait,
};

/// State of a pod whose labels the agent has not seen yet.
const PENDING: &str = "pending";

/// Lists pods: whether the mesh carries their traffic, what the kernel says of it, and why not.
#[derive(Debug, Args)]
#[command(
    after_help = "STATE    not-selected, enrolling, enrolled (every check was read back from the kernel), leaving, failed;
         unverified, broken (was enrolled; checks cannot be read or fail; peers still use HBONE);
         pending when the agent has not seen the pod's present labels;
         unknown when the agent of the node does not answer or has not looked at the pod
CHECKS   checks that hold / checks made; `-o wide` names each
Below the table: unsupported settings of pods, whatever their state

Exit code: 0; 1 when the mesh cannot be asked, a pod does not exist, or --wait timed out; 2 for a wrong command line;
3 with --check when a pod is not where its labels want it, a manifest has a problem, or a policy is not enforced"
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
    /// Output format
    #[arg(short, long, default_value = "table")]
    output: Format,
    /// Go on, and print pods that change
    #[arg(short, long, conflicts_with = "check")]
    watch: bool,
    /// Exit with 3 if a pod is not where its labels want it, a manifest has a problem or a policy is not enforced
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    wait: Wait,
}

/// A pod as it is listed.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Row {
    pub(crate) namespace: String,
    pub(crate) name: String,
    uid: String,
    pub(crate) node: String,
    pub(crate) ips: Vec<IpAddr>,
    phase: String,
    ready: bool,
    selected: bool,
    pub(crate) state: String,
    pub(crate) reason: String,
    /// Unsupported settings of the pod.
    notes: Vec<String>,
    pub(crate) checks: Vec<Check>,
    netns: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    cookie: Option<u64>,
    since: String,
}

/// Reports of the agents: one by pod uid, or why a node has none.
#[derive(Debug, Default)]
struct Reports {
    pods: HashMap<String, PodReport>,
    silent: HashMap<String, String>,
}

impl Pods {
    pub(crate) async fn run(&self, mesh: &Mesh) -> Result<ExitCode> {
        self.wait.until_settled(mesh, |pod| self.wants(pod)).await?;
        let first = of(mesh, |pod| self.wants(pod)).await?;
        self.reject_unknown(mesh, &first).await?;
        if !self.check {
            let list = async || Ok(Listing::of(of(mesh, |pod| self.wants(pod)).await?));
            return listing::show(Listing::of(first), self.output, self.watch, list).await;
        }
        let unsettled: Vec<String> = first.iter().filter_map(Row::unsettled).collect();
        print!("{}", listing::render(&Listing::of(first), self.output)?);
        let namespace = (!self.all_namespaces).then_some(self.namespace.as_str());
        let failed = [unsettled, check::not_in_force(mesh, namespace).await?].concat();
        Ok(check::verdict(&failed))
    }

    fn wants(&self, pod: &PodFacts) -> bool {
        (self.all_namespaces || pod.namespace == self.namespace)
            && (self.names.is_empty() || self.names.contains(&pod.name))
    }

    /// A gate must not be green because a name was misspelt.
    async fn reject_unknown(&self, mesh: &Mesh, rows: &[Row]) -> Result<()> {
        if let Some(missing) = self.names.iter().find(|name| rows.iter().all(|row| row.name != **name)) {
            let place = if self.all_namespaces { "any namespace".to_owned() } else { self.namespace.clone() };
            bail!("pod {missing} not found in {place}");
        }
        if rows.is_empty() && self.check && !self.all_namespaces {
            let namespaces: BTreeSet<String> = mesh.pods().await?.into_iter().map(|pod| pod.namespace).collect();
            let known: Vec<_> = namespaces.into_iter().collect();
            bail!("no pods found in {}: there are pods in {}", self.namespace, known.join(", "));
        }
        Ok(())
    }
}

impl Row {
    /// Returns true when the pod has ended for good.
    fn is_finished(&self) -> bool {
        self.phase == Phase::Succeeded.as_str() || self.phase == Phase::Failed.as_str()
    }

    /// Returns true when the mesh carries the pod's traffic exactly if its labels ask for it, or the pod has ended.
    pub(crate) fn is_settled(&self) -> bool {
        let wanted = if self.selected { PodState::Enrolled } else { PodState::NotSelected };
        self.is_finished() || self.state == wanted.as_str()
    }

    /// Returns true if the pod's peers should reach it by HBONE; `None` when it has no traffic.
    pub(crate) fn wants_hbone(&self) -> Option<bool> {
        (!self.is_finished()).then_some(self.selected)
    }

    /// The pod, its state and the reason, unless it is settled.
    pub(crate) fn unsettled(&self) -> Option<String> {
        let reason = if self.reason.is_empty() { String::new() } else { format!(": {}", self.reason) };
        (!self.is_settled()).then(|| format!("{}/{} is {}{reason}", self.namespace, self.name, self.state))
    }
}

/// The pods that are wanted, each with what the agent of its node knows.
pub(crate) async fn of(mesh: &Mesh, wanted: impl Fn(&PodFacts) -> bool) -> Result<Vec<Row>> {
    // Reports first: labels are then not older than those that an agent has seen.
    let reports = Reports::new(mesh.reports().await?);
    let pods = mesh.pods().await?;
    Ok(pods.into_iter().filter(wanted).map(|pod| join(pod, &reports)).collect())
}

/// As [`of`], for who has a lab and reads its manifests already.
pub(crate) async fn list(lab: &Lab, intent: &mut Intent, wanted: impl Fn(&PodFacts) -> bool) -> Result<Vec<Row>> {
    let reports = Reports::new(mesh::node_reports(mesh::lab_agents(lab).await?));
    let pods = lab.pods().await?;
    let selection = intent.current().await?;
    let facts = pods.into_iter().map(|pod| PodFacts::of_lab(pod, selection));
    Ok(facts.filter(wanted).map(|pod| join(pod, &reports)).collect())
}

/// The rows as `strake get pods` prints them.
pub(crate) fn table(rows: &[Row]) -> String {
    table::render(&HEADER, &rows.iter().map(short).collect::<Vec<_>>())
}

impl Reports {
    fn new(answers: ByNode<NodeReport>) -> Self {
        let mut reports = Self::default();
        for (node, answer) in answers {
            match answer {
                Ok(report) => reports.pods.extend(report.pods.into_iter().map(|pod| (pod.uid.clone(), pod))),
                Err(err) => {
                    reports.silent.insert(node, format!("{err:#}"));
                }
            }
        }
        reports
    }
}

fn join(pod: PodFacts, reports: &Reports) -> Row {
    let (report, silent) = (reports.pods.get(&pod.uid), reports.silent.get(&pod.node));
    let report = report.cloned().unwrap_or_else(|| PodReport {
        reason: silent.cloned().unwrap_or_else(|| "unknown to the agent".to_owned()),
        ..PodReport::default()
    });
    let selected = pod.selected.unwrap_or(report.selected);
    // An agent that has seen older labels reports a state that is right for those. It must not be shown as the answer
    // to the present ones, or `--wait` would end too early.
    let is_outdated = selected != report.selected && report.state != PodState::Unknown;
    let (state, reason) = if is_outdated {
        (PENDING.to_owned(), "the agent has not seen the present labels yet".to_owned())
    } else {
        (report.state.as_str().to_owned(), report.reason)
    };
    Row {
        namespace: pod.namespace,
        name: pod.name,
        uid: pod.uid,
        node: pod.node,
        ips: pod.ips,
        phase: pod.phase,
        ready: pod.ready,
        selected,
        state,
        reason,
        notes: report
            .notes
            .into_iter()
            .chain(report.hazards.iter().map(|one| format!("may bypass ztunnel: {one}")))
            .collect(),
        checks: report.checks,
        netns: report.netns,
        cookie: report.cookie,
        since: report.since,
    }
}

impl Item for Row {
    const KIND: &'static str = "pods";
    const HEADER: &'static [&'static str] = &HEADER;
    const WIDE: &'static [&'static str] = &["PHASE", "NETNS", "COOKIE", "DETAILS", "NOTES"];

    fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    fn cells(&self) -> Vec<String> {
        short(self)
    }

    fn wide_cells(&self) -> Vec<String> {
        wide(self)
    }

    fn footer(items: &[Self]) -> String {
        notes(items)
    }
}

const HEADER: [&str; 7] = ["NAMESPACE", "NAME", "NODE", "IPS", "STATE", "CHECKS", "REASON"];

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
    let mark = |check: &Check| format!("{}={}", check.name, if check.ok { "ok" } else { "FAILED" });
    let checks: Vec<_> = row.checks.iter().map(mark).collect();
    vec![
        row.phase.clone(),
        or_dash(&row.netns),
        row.cookie.map_or_else(|| "-".to_owned(), |cookie| cookie.to_string()),
        or_dash(&checks.join(",")),
        or_dash(&row.notes.join("; ")),
    ]
}

/// A line for each note, behind an empty one; nothing without notes.
fn notes(rows: &[Row]) -> String {
    let of = |row: &Row| -> Vec<String> {
        row.notes.iter().map(|note| format!("note: {}/{}: {note}\n", row.namespace, row.name)).collect()
    };
    let lines: Vec<String> = rows.iter().flat_map(of).collect();
    if lines.is_empty() { String::new() } else { format!("\n{}", lines.concat()) }
}

/// The row of a pod of which no agent has said anything.
#[cfg(test)]
pub(crate) fn unknown(pod: PodFacts) -> Row {
    join(pod, &Reports::default())
}

#[cfg(test)]
#[path = "pods_tests.rs"]
mod tests;
