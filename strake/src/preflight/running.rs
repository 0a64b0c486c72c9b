//! Checks of a mesh that runs, a lab's or a cluster's: by what its agents and node proxies report.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use anyhow::Result;
use contract::admin::agent::Check;
use contract::admin::control::{ConditionStatus, ENFORCED, Policy};

use super::Line;
use crate::{
    get::pods::{self, Row},
    mesh::{ByNode, Mesh, dump::ProxyDump},
    times,
};

/// A certificate is renewed at half of its life (24 h); one with less left than this was not.
const ABOUT_TO_END: Duration = Duration::from_secs(3600);

/// Pods that a line names at most.
const NAMED: usize = 5;

pub(super) async fn checks(mesh: &Mesh) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for (node, report) in mesh.reports().await? {
        match report {
            Ok(report) => {
                lines.push(Line::ok(format!("agent of {node}"), format!("answers, {} pods", report.pods.len())));
                lines.extend(features(&node, &report.kernel));
            }
            Err(error) => {
                lines.push(Line::error(
                    format!("agent of {node}"),
                    format!("{error:#}"),
                    "`strake logs agent` says why it does not run; a kernel that lacks something is named there",
                ));
            }
        }
    }
    lines.extend(proxies(&mesh.dumps().await?, SystemTime::now()));
    lines.push(enrolled(&pods::of(mesh, |_| true).await?));
    lines.push(match mesh.policies().await {
        Ok(policies) => enforced(&policies),
        Err(error) => Line::error("policies", format!("{error:#}"), "see `strake logs control`"),
    });
    Ok(lines)
}

/// Features of a node's kernel, as its agent has tried them; `None` from an agent that does not tell.
fn features(node: &str, kernel: &[Check]) -> Option<Line> {
    let subject = format!("kernel features of {node}");
    let missing: Vec<_> = kernel.iter().filter(|check| !check.ok).map(|check| check.detail.clone()).collect();
    let first = kernel.first()?;
    Some(match missing.as_slice() {
        [] => {
            let others = kernel.iter().skip(1).map(|check| check.name.as_str()).collect::<Vec<_>>().join(", ");
            Line::ok(subject, format!("{}; {others}", first.detail))
        }
        missing => Line::error(
            subject,
            named(missing),
            "use a kernel with these features on the node, or keep pods of the mesh off it",
        ),
    })
}

fn proxies(dumps: &ByNode<ProxyDump>, now: SystemTime) -> Vec<Line> {
    let (mut lines, mut versions) = (Vec::new(), BTreeMap::<&str, Vec<&str>>::new());
    for (node, dump) in dumps {
        let subject = format!("ztunnel of {node}");
        match dump {
            Err(error) => lines.push(Line::error(subject, format!("{error:#}"), "see `strake logs ztunnel`")),
            Ok(dump) => {
                versions.entry(&dump.version.version).or_default().push(node);
                let pods = dump.workload_state.len();
                lines.push(Line::ok(subject, format!("answers, {pods} pods, {} workloads", dump.workloads.len())));
                lines.push(certificates(node, dump, now));
            }
        }
    }
    let names: Vec<_> = versions.iter().map(|(version, nodes)| format!("{version} on {}", nodes.join(", "))).collect();
    match versions.len() {
        0 => {}
        1 => lines.push(Line::ok("versions of ztunnel", names.concat())),
        _ => lines.push(Line::warning(
            "versions of ztunnel",
            names.join("; "),
            "wait for the end of the upgrade, or run `strake install` again",
        )),
    }
    lines
}

/// Certificates of a node that are not held, have ended or should have been renewed.
fn certificates(node: &str, dump: &ProxyDump, now: SystemTime) -> Line {
    let subject = format!("certificates of {node}");
    let remedy = "see `strake logs ztunnel` for the reason, and whether strake-control runs";
    let (mut wrong, mut missing) = (Vec::new(), Vec::new());
    for held in &dump.certificates {
        let end = held.cert_chain.first().and_then(|own| times::parse(&own.expiration_time));
        match end {
            Some(end) if end > now + ABOUT_TO_END => {}
            Some(end) if end > now => wrong.push(format!("{} ends in {}", held.identity, times::until(end, now))),
            Some(end) => wrong.push(format!("{} {}", held.identity, times::until(end, now))),
            None => missing.push(format!("{} is {}", held.identity, held.state)),
        }
    }
    match (wrong.as_slice(), missing.as_slice()) {
        ([], []) => Line::ok(subject, format!("{} held", dump.certificates.len())),
        // Those of new pods are on their way.
        ([], missing) => Line::warning(subject, named(missing), remedy),
        (wrong, missing) => Line::error(subject, named(&[wrong, missing].concat()), remedy),
    }
}

fn enrolled(rows: &[Row]) -> Line {
    let unsettled: Vec<String> = rows.iter().filter_map(Row::unsettled).collect();
    let selected = rows.iter().filter(|row| row.wants_hbone() == Some(true)).count();
    match unsettled.as_slice() {
        [] => Line::ok("pods", format!("{selected} selected, each is in the mesh")),
        wrong => {
            Line::error("pods", named(wrong), "`strake get pods -A` shows each step; `strake logs agent` the reasons")
        }
    }
}

fn enforced(policies: &[Policy]) -> Line {
    let is_not = |policy: &&Policy| {
        let condition = policy.conditions.iter().find(|condition| condition.r#type == ENFORCED);
        condition.is_none_or(|condition| {
            condition.status != ConditionStatus::True && condition.reason.as_deref() != Some("DryRun")
        })
    };
    let wrong: Vec<_> = policies.iter().filter(is_not).map(|policy| policy.object.clone()).collect();
    match wrong.as_slice() {
        [] => Line::ok("policies", format!("{} enforced", policies.len())),
        wrong => {
            Line::error("policies", format!("not enforced: {}", named(wrong)), "`strake get policies -A` shows why")
        }
    }
}

fn named(all: &[String]) -> String {
    let some = all.iter().take(NAMED).cloned().collect::<Vec<_>>().join("; ");
    match all.len().saturating_sub(NAMED) {
        0 => some,
        more => format!("{some}; and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Outcome;
    use super::*;
    use crate::get::testing;

    fn outcomes(at: &str) -> Vec<(String, Outcome)> {
        let lines = proxies(&testing::dumps(), times::parse(at).unwrap());
        lines.into_iter().map(|line| (line.subject, line.outcome)).collect()
    }

    #[test]
    fn a_certificate_that_was_not_renewed_is_an_error_and_so_is_a_proxy_that_is_silent() {
        let certificates = |at: &str| outcomes(at)[1].clone();
        let end = testing::dumps()[0].1.as_ref().unwrap().certificates[0].cert_chain[0].expiration_time.clone();
        let end = times::parse(&end).unwrap();
        let text = |time: SystemTime| {
            time::OffsetDateTime::from(time).format(&time::format_description::well_known::Rfc3339).unwrap()
        };

        // The other certificate of the recording is on its way.
        assert_eq!(certificates(&text(end - Duration::from_secs(7200))).1, Outcome::Warning);
        assert_eq!(certificates(&text(end - Duration::from_secs(60))).1, Outcome::Error);
        assert_eq!(certificates(&text(end + Duration::from_secs(60))).1, Outcome::Error);
        assert!(outcomes(&text(end)).contains(&("ztunnel of node-2".to_owned(), Outcome::Error)));
    }

    #[test]
    fn a_feature_that_the_agent_has_not_found_is_an_error_that_names_it() {
        let check = |name: &str, ok: bool, detail: &str| Check {
            name: name.to_owned(),
            ok,
            detail: detail.to_owned(),
            ..Check::default()
        };
        let release = check("release", true, "Linux 6.1.0");

        assert_eq!(features("n1", &[]), None);
        let whole = features("n1", &[release.clone(), check("btf", true, "/sys/kernel/btf/vmlinux")]).unwrap();
        assert_eq!((whole.outcome, whole.found.as_str()), (Outcome::Ok, "Linux 6.1.0; btf"));
        let lacking = features("n1", &[release, check("btf", false, "no BTF: CONFIG_DEBUG_INFO_BTF")]).unwrap();
        assert_eq!((lacking.outcome, lacking.found.as_str()), (Outcome::Error, "no BTF: CONFIG_DEBUG_INFO_BTF"));
    }

    #[test]
    fn a_policy_without_a_verdict_is_an_error_and_one_in_dry_run_is_none() {
        let policy = |conditions: serde_json::Value| -> Policy {
            serde_json::from_value(serde_json::json!({"object": "AuthorizationPolicy a/b", "conditions": conditions}))
                .unwrap()
        };
        let condition =
            |status: &str, reason: &str| serde_json::json!([{"type": "Enforced", "status": status, "reason": reason}]);

        for (conditions, expected) in [
            (serde_json::json!([]), Outcome::Error),
            (condition("False", "NoWorkload"), Outcome::Error),
            (condition("False", "DryRun"), Outcome::Ok),
            (condition("True", "Enforced"), Outcome::Ok),
        ] {
            assert_eq!(enforced(&[policy(conditions.clone())]).outcome, expected, "{conditions}");
        }
    }
}
