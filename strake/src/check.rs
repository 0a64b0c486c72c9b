//! `--check`: problems of manifests and policies that are not enforced, as the control plane and the lab report them.

use anyhow::Result;
use contract::admin::control::{ConditionStatus, ENFORCED, FINDINGS_PATH, Finding, POLICIES_PATH, Policy};
use lab::{Lab, Status};
use serde::Serialize;

use crate::{admin, mesh::Mesh};

/// Exit code of `--check` when something is not as manifests and labels want it. clap exits with 2 on a wrong command line.
pub(crate) const CHECK_FAILED: u8 = 3;

/// Reason of a policy that is only logged because its author wants it so.
const DRY_RUN: &str = "DryRun";

/// Namespace whose policies hold for the whole mesh.
const ROOT_NAMESPACE: &str = "istio-system";

/// One line for people about a finding.
pub(crate) fn finding_text(finding: &Finding) -> String {
    let place = match (&finding.file, finding.line.filter(|line| *line > 0)) {
        (Some(file), Some(line)) => format!("{file}:{line}: "),
        (Some(file), None) => format!("{file}: "),
        (None, _) => String::new(),
    };
    let field = if finding.field.is_empty() { String::new() } else { format!("{}: ", finding.field) };
    let Finding { severity, object, message, reason, .. } = finding;
    format!("{severity}: {place}{object}: {field}{message} ({reason})")
}

/// A policy of which the control plane cannot say that it is enforced.
#[derive(Debug, Serialize)]
pub(crate) struct Unenforced {
    /// Kind, then namespace and name.
    object: String,
    /// Not `True`.
    status: ConditionStatus,
    reason: String,
    message: String,
}

impl Unenforced {
    /// One line for people.
    pub(crate) fn text(&self) -> String {
        let known =
            if self.status == ConditionStatus::False { "is not enforced" } else { "is not known to be enforced" };
        format!("policy: {} {known}: {} ({})", self.object, self.message, self.reason)
    }

    /// The condition alone.
    pub(crate) fn status_text(&self) -> String {
        format!("Enforced is {:?}: {} ({})", self.status, self.message, self.reason)
    }

    /// Returns true if its author does not want it to be enforced.
    fn is_dry_run(&self) -> bool {
        self.reason == DRY_RUN
    }

    /// Returns true if the policy may concern pods of a namespace.
    fn concerns(&self, namespace: &str) -> bool {
        let of = self.object.split_once(' ').and_then(|(_, name)| name.split_once('/')).map(|(of, _)| of);
        of.is_none_or(|of| of == namespace || of == ROOT_NAMESPACE)
    }
}

/// Findings and policies of a lab, as the control plane reports them.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Said {
    pub(crate) findings: Vec<Finding>,
    pub(crate) policies: Vec<Unenforced>,
}

impl Said {
    /// Policies alone, without findings.
    fn of(policies: Vec<Policy>) -> Self {
        Self { policies: policies.into_iter().filter_map(unenforced).collect(), ..Self::default() }
    }

    /// Asks the control plane, if the lab has one.
    ///
    /// # Errors
    /// When it does not answer: what is in force is not known then.
    pub(crate) async fn ask(lab: &Lab) -> Result<Self> {
        if !lab.run_dir().control().exists() {
            return Ok(Self::default());
        }
        let socket = admin::control(lab);
        let findings = serde_json::from_slice(&admin::get(&socket, FINDINGS_PATH).await?)?;
        let policies: Vec<Policy> = serde_json::from_slice(&admin::get(&socket, POLICIES_PATH).await?)?;
        Ok(Self { findings, policies: policies.into_iter().filter_map(unenforced).collect() })
    }
}

/// The policy, unless it is enforced.
pub(crate) fn unenforced(policy: Policy) -> Option<Unenforced> {
    // The control plane gives every policy this condition; one without it says nothing about enforcement, and no other
    // condition may be taken for it.
    let enforced = policy.conditions.into_iter().find(|condition| condition.r#type == ENFORCED)?;
    let (reason, message) = (enforced.reason.unwrap_or_default(), enforced.message.unwrap_or_default());
    let unenforced = Unenforced { object: policy.object, status: enforced.status, reason, message };
    (unenforced.status != ConditionStatus::True).then_some(unenforced)
}

/// Failures of a check besides those of pods, one text each, of a mesh. `namespace`: only policies that concern it.
///
/// # Errors
/// When the mesh cannot be asked.
pub(crate) async fn not_in_force(mesh: &Mesh, namespace: Option<&str>) -> Result<Vec<String>> {
    let (status, said) = match mesh {
        Mesh::Lab(mesh) => (mesh.lab.status().await?, Said::ask(&mesh.lab).await?),
        // The API server takes no object that it cannot read: there are no problems of manifests.
        Mesh::Cluster(_) => (Status::default(), Said::of(mesh.policies().await?)),
    };
    Ok(failures(&status, &said, namespace))
}

/// Problems of manifests, and policies that are not enforced although their author wants it.
pub(crate) fn failures(status: &Status, said: &Said, namespace: Option<&str>) -> Vec<String> {
    let problems = status.problems.iter().map(|problem| format!("problem: {problem}"));
    let concerns = |policy: &&Unenforced| namespace.is_none_or(|namespace| policy.concerns(namespace));
    // A policy in dry run is as its author wants it. It is listed as not enforced, but is no failure of a check.
    let policies = said.policies.iter().filter(|policy| !policy.is_dry_run()).filter(concerns);
    problems.chain(policies.map(Unenforced::text)).collect()
}

/// Prints the failures of a check, and returns the exit code.
pub(crate) fn verdict(failed: &[String]) -> std::process::ExitCode {
    failed.iter().for_each(|what| eprintln!("check failed: {what}"));
    if failed.is_empty() { std::process::ExitCode::SUCCESS } else { CHECK_FAILED.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(object: &str, reason: &str) -> Unenforced {
        let (status, message) = (ConditionStatus::False, "m".to_owned());
        Unenforced { object: object.to_owned(), status, reason: reason.to_owned(), message }
    }

    #[test]
    fn a_check_fails_on_problems_and_on_policies_that_should_be_enforced() {
        let status = Status { problems: vec!["a.yaml:3: no".to_owned()], ..Status::default() };
        let policies = vec![
            policy("AuthorizationPolicy shop/db", "NoWorkload"),
            policy("AuthorizationPolicy shop/test", DRY_RUN),
            policy("AuthorizationPolicy other/x", "NoWorkload"),
            policy("PeerAuthentication istio-system/default", "ProxyGone"),
        ];
        let said = Said { policies, ..Said::default() };

        let of_shop = failures(&status, &said, Some("shop"));

        assert_eq!(of_shop.len(), 3, "{of_shop:?}");
        assert!(of_shop[0].contains("a.yaml:3") && of_shop[1].contains("shop/db") && of_shop[2].contains("default"));
        assert_eq!(failures(&status, &said, None).len(), 4);
    }

    #[test]
    fn a_finding_says_where_it_is() {
        let finding: Finding = serde_json::from_value(serde_json::json!({"object": "AuthorizationPolicy shop/db",
            "severity": "warning", "reason": "service_port", "message": "m", "field": "spec.rules[0]", "file": "/m/a.yaml",
            "line": 7}))
        .unwrap();

        let text = "warning: /m/a.yaml:7: AuthorizationPolicy shop/db: spec.rules[0]: m (service_port)";
        assert_eq!(finding_text(&finding), text);
    }
}
