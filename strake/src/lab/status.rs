//! `strake lab status`: nodes, pods and Services in columns, or as JSON.

use std::{net::IpAddr, process::ExitCode};

use ::lab::{Lab, PodInfo, Role, Status};
use anyhow::Result;
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use super::{Name, up::shorten};
use crate::admin;

/// Most characters of a pod's status in a table that is not wide.
const STATUS_WIDTH: usize = 60;

/// Shows a lab.
#[derive(Debug, Args)]
pub struct Show {
    #[command(flatten)]
    lab: Name,
    /// Form of the output; wide is the table with the whole of each pod's status
    #[arg(short, long, value_enum)]
    output: Option<Output>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Wide,
    Json,
}

/// What the control plane says about an object that it read without a problem.
#[derive(Debug, Serialize, Deserialize)]
struct Finding {
    object: String,
    severity: String,
    reason: String,
    message: String,
}

/// A policy of which the control plane cannot say that it is enforced.
#[derive(Debug, Serialize)]
struct Unenforced {
    object: String,
    /// `False` or `Unknown`.
    status: String,
    reason: String,
    message: String,
}

/// A policy, as the control plane shows it.
#[derive(Debug, Deserialize)]
struct Policy {
    object: String,
    conditions: Vec<Condition>,
}

#[derive(Debug, Deserialize)]
struct Condition {
    r#type: String,
    status: String,
    reason: String,
    message: String,
}

/// What the control plane says of the objects in a lab.
#[derive(Debug, Default, Serialize)]
struct Said {
    findings: Vec<Finding>,
    policies: Vec<Unenforced>,
}

/// A lab, and what its control plane says of the objects in it.
#[derive(Debug, Serialize)]
struct View<'a> {
    #[serde(flatten)]
    status: &'a Status,
    #[serde(flatten)]
    said: &'a Said,
}

impl Show {
    pub(super) async fn run(self) -> Result<ExitCode> {
        let lab = Lab::attach(&self.lab.name).await?;
        let mut status = lab.status().await?;
        let said = said(&lab).await.unwrap_or_else(|err| {
            status.notes.push(format!("what the control plane found is not known: {err:#}"));
            Said::default()
        });
        match self.output {
            Some(Output::Json) => {
                println!("{}", serde_json::to_string_pretty(&View { status: &status, said: &said })?)
            }
            wide => print!("{}", render(&status, &said, wide.is_some())),
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Asks the control plane, if the lab has one.
async fn said(lab: &Lab) -> Result<Said> {
    let run = lab.run_dir().control();
    if !run.exists() {
        return Ok(Said::default());
    }
    let socket = run.join("admin.sock");
    let findings = serde_json::from_slice(&admin::get(&socket, "/debug/findings").await?)?;
    let policies: Vec<Policy> = serde_json::from_slice(&admin::get(&socket, "/debug/policies").await?)?;
    Ok(Said { findings, policies: policies.into_iter().filter_map(unenforced).collect() })
}

fn unenforced(policy: Policy) -> Option<Unenforced> {
    let Policy { object, conditions } = policy;
    let enforced = conditions.into_iter().find(|condition| condition.r#type == "Enforced")?;
    let Condition { status, reason, message, .. } = enforced;
    (status != "True").then_some(Unenforced { object, status, reason, message })
}

fn render(status: &Status, said: &Said, wide: bool) -> String {
    let mut text =
        columns(&["NODE", "ADDRESSES"], status.nodes.iter().map(|node| vec![node.name.clone(), join(&node.addresses)]));
    text.push('\n');
    text += &columns(
        &["POD", "READY", "STATUS", "RESTARTS", "NODE", "ADDRESSES"],
        status.pods.iter().map(|info| pod(info, wide)),
    );
    text.push('\n');
    text += &columns(
        &["SERVICE", "ADDRESSES", "ENDPOINTS"],
        status.services.iter().map(|service| {
            vec![
                format!("{}/{}", service.namespace, service.name),
                join(&service.ips),
                service.endpoint_count.to_string(),
            ]
        }),
    );
    let mut lines: Vec<_> = status.problems.iter().map(|problem| format!("problem: {problem}\n")).collect();
    lines.extend(status.warnings.iter().map(|warning| format!("warning: {warning}\n")));
    lines.extend(said.policies.iter().map(|Unenforced { object, status, reason, message }| {
        let known = if status == "False" { "is not enforced" } else { "is not known to be enforced" };
        format!("policy: {object} {known}: {message} ({reason})\n")
    }));
    lines.extend(
        said.findings.iter().map(|Finding { object, severity, reason, message }| {
            format!("{severity}: {object}: {message} ({reason})\n")
        }),
    );
    lines.extend(status.notes.iter().map(|note| format!("note: {note}\n")));
    if !lines.is_empty() {
        text.push('\n');
        text.push_str(&lines.concat());
    }
    text
}

fn pod(pod: &PodInfo, wide: bool) -> Vec<String> {
    // Init containers end before there is anything to be ready, as `kubectl get pods` counts.
    let counted = || pod.containers.iter().filter(|container| container.role != Role::Init);
    let ready = counted().filter(|container| container.ready).count();
    let restarts: u32 = pod.containers.iter().map(|container| container.restarts).sum();
    let mut phase = pod.phase.as_str().to_owned();
    if !pod.reason.is_empty() {
        let reason = if wide { pod.reason.clone() } else { shorten(&pod.reason, STATUS_WIDTH) };
        phase = format!("{phase} ({reason})");
    }
    vec![
        format!("{}/{}", pod.namespace, pod.name),
        format!("{ready}/{}", counted().count()),
        phase,
        restarts.to_string(),
        if pod.node.is_empty() { "<none>".to_owned() } else { pod.node.clone() },
        join(&pod.ips),
    ]
}

fn join(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn columns(titles: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut all = vec![titles.iter().map(|title| (*title).to_owned()).collect::<Vec<_>>()];
    all.extend(rows);
    let width = |column: usize| all.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<_> = (0..titles.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("{}\n", cells.join("   ").trim_end())
    };
    all.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_counted_once_and_what_is_wrong_comes_last() {
        let service = serde_json::json!({"namespace": "shop", "name": "web", "ips": ["10.96.1.1"], "endpointCount": 2,
            "endpoints": ["10.244.1.2", "10.244.2.2", "fd00::2", "fd00::3"]});
        let status = Status {
            services: vec![serde_json::from_value(service).unwrap()],
            problems: vec!["web.yaml:3: expected text".to_owned()],
            warnings: vec!["net.yaml:1: NetworkPolicy shop/x: not enforced".to_owned()],
            notes: vec!["web.yaml:9: not played".to_owned()],
            ..Status::default()
        };
        let findings = serde_json::json!([{"object": "Pod shop/web", "severity": "warning", "reason": "no_address",
            "message": "it has no address"}]);
        let said = Said { findings: serde_json::from_value(findings).unwrap(), policies: Vec::new() };

        let text = render(&status, &said, false);

        assert!(text.contains("shop/web   10.96.1.1   2\n"), "{text}");
        let end = "\nproblem: web.yaml:3: expected text\nwarning: net.yaml:1: NetworkPolicy shop/x: not enforced\n\
                   warning: Pod shop/web: it has no address (no_address)\n\
                   note: web.yaml:9: not played\n";
        assert!(text.ends_with(end), "{text}");
    }

    #[test]
    fn policies_that_are_not_enforced_are_told_with_the_reason() {
        let policy = |name: &str, status: &str, reason: &str, message: &str| {
            let accepted =
                serde_json::json!({"type": "ZtunnelAccepted", "status": "False", "reason": "x", "message": "x"});
            let enforced =
                serde_json::json!({"type": "Enforced", "status": status, "reason": reason, "message": message});
            let policy = serde_json::json!({"object": format!("AuthorizationPolicy shop/{name}"),
                "conditions": [accepted, enforced]});
            serde_json::from_value::<Policy>(policy).unwrap()
        };
        let policies = [
            policy("all", "True", "Enforced", "on 1 workload in the mesh"),
            policy("none", "False", "NoWorkload", "selects no workload"),
            policy("some", "Unknown", "ProxyGone", "no connection to the proxy of node n1"),
        ];
        let said = Said { policies: policies.into_iter().filter_map(unenforced).collect(), ..Said::default() };

        let text = render(&Status::default(), &said, false);

        let end = "\n\npolicy: AuthorizationPolicy shop/none is not enforced: selects no workload (NoWorkload)\n\
                   policy: AuthorizationPolicy shop/some is not known to be enforced: no connection to the proxy of node n1 \
                   (ProxyGone)\n";
        assert!(text.ends_with(end), "{text}");
        let view = serde_json::to_value(View { status: &Status::default(), said: &said }).unwrap();
        assert_eq!(view["policies"][1]["reason"], "ProxyGone");
        assert_eq!(view["findings"], serde_json::json!([]));
    }

    #[test]
    fn a_long_status_is_short_in_the_table_and_whole_when_it_is_wide() {
        let container = |name: &str, role: &str, ready: bool| serde_json::json!({"name": name, "role": role, "running": ready, "ready": ready, "restarts": 0, "lastExit": 0});
        let words = "w".repeat(300);
        let info: PodInfo = serde_json::from_value(serde_json::json!({"namespace": "n", "name": "p", "uid": "u", "node": "a",
            "ips": [], "phase": "Running", "ready": false, "terminating": false, "cgroup": "",
            "reason": format!("c: exited with 1, last words: {words}"),
            "containers": [container("i", "init", false), container("s", "sidecar", true), container("c", "main", false)]}))
        .unwrap();

        let (short, wide) = (pod(&info, false), pod(&info, true));

        assert!(short[2].len() < 80 && short[2].contains("c: exited with 1"), "{short:?}");
        assert!(wide[2].contains(&words));
        assert_eq!(short[1], "1/2");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let text = columns(&["A", "B"], std::iter::once(vec!["long".to_owned(), "x".to_owned()]));

        assert_eq!(text, "A      B\nlong   x\n");
    }
}
