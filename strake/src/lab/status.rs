//! `strake lab status`: nodes, pods and Services in columns, or as JSON.

use std::{net::IpAddr, process::ExitCode};

use ::lab::{Phase, PodInfo, Role, Status};
use anyhow::Result;
use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::{
    check::{self, Said},
    progress::shorten,
    target::Target,
};

/// Most characters of a pod's status in a table that is not wide.
const STATUS_WIDTH: usize = 60;

/// Shows a lab.
#[derive(Debug, Args)]
#[command(after_help = "Exit code: 0; 1 when the lab cannot be asked; 3 with --check when something is not in place")]
pub struct Show {
    /// Form of the output; wide is the table with the whole of each pod's status
    #[arg(short, long, value_enum)]
    output: Option<Output>,
    /// Exit with 3 if a manifest has a problem, a pod is not ready or a policy is not enforced, and name each
    #[arg(long)]
    check: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Wide,
    Json,
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
    pub(super) async fn run(self, target: &Target) -> Result<ExitCode> {
        let lab = target.attach().await?;
        let mut status = lab.status().await?;
        // A control plane that does not answer hides nothing that the supervisor knows: it becomes a note, and a
        // failure of `--check`.
        let asked = Said::ask(&lab).await;
        let unknown = asked.as_ref().err().map(|err| format!("control plane unreachable: {err:#}"));
        status.notes.extend(unknown.clone());
        let said = asked.unwrap_or_default();
        match self.output {
            Some(Output::Json) => {
                println!("{}", serde_json::to_string_pretty(&View { status: &status, said: &said })?)
            }
            wide => print!("{}", render(&status, &said, wide.is_some())),
        }
        if !self.check {
            return Ok(ExitCode::SUCCESS);
        }
        let mut failed: Vec<String> = unknown.into_iter().chain(not_ready(&status)).collect();
        failed.extend(check::failures(&status, &said, None));
        Ok(check::verdict(&failed))
    }
}

/// Pods that should serve and do not, one text each.
fn not_ready(status: &Status) -> impl Iterator<Item = String> {
    let waits = |pod: &&PodInfo| !pod.ready && !pod.terminating && pod.phase != Phase::Succeeded;
    status.pods.iter().filter(waits).map(|pod| {
        let reason = if pod.reason.is_empty() { String::new() } else { format!(" ({})", pod.reason) };
        format!("pod {}/{} is not ready: {}{reason}", pod.namespace, pod.name, pod.phase.as_str())
    })
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
    lines.extend(said.policies.iter().map(|policy| policy.text() + "\n"));
    lines.extend(said.findings.iter().map(|finding| check::finding_text(finding) + "\n"));
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
    use contract::admin::control::Policy;

    use crate::check::unenforced;

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
