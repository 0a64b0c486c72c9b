//! `conditions.md`: conditions of policies, findings, reasons of enrolment and problems of manifests.

use graph::{Reason, enrolment, outcome::Outcome};
use kube_types::Code;

use crate::page;

const CONDITIONS: &str = "\
# Conditions and findings

## Conditions of policies

Conditions in the status of an AuthorizationPolicy or PeerAuthentication: in a cluster `status.conditions` of the object, in directory mode
`strake get policies`. `Enforced` is Strake's; `ZtunnelAccepted` and `WaypointAccepted` are Istio's. The message has the numbers and names.

";

const FINDINGS: &str = "
## Findings

Findings about objects that are valid and do not do what they were probably written for: `strake lab status`, the page `/debug/findings` and the log of the control
plane. Examples: `docs/guide/findings.md`.

";

const ENROLMENT: &str = "
## Pods that are not selected

Reasons why a pod is not in the mesh, in `strake get pods`.

";

const PROBLEMS: &str = "
## Problems of manifests

Problems of files and documents in directory mode: `strake lab status`, the page `/debug/problems` and the log of the control plane.

";

#[test]
fn every_condition_and_finding_is_on_its_page() {
    let conditions = Outcome::ALL.map(|outcome| {
        let entry = outcome.entry();
        page::row(&[entry.kind, entry.status.name(), entry.reason, entry.meaning, entry.remedy])
    });
    let findings = Reason::ALL.map(|reason| {
        let entry = reason.entry();
        page::row(&[&format!("`{}`", entry.code), entry.meaning, entry.remedy])
    });
    let enrolment =
        enrolment::Reason::ALL.map(|reason| page::row(&[&format!("`{}`", reason.code()), &reason.to_string()]));
    let problems = Code::ALL.map(|code| {
        let entry = code.entry();
        page::row(&[&format!("`{}`", entry.name), entry.meaning, entry.remedy])
    });
    let text = [
        CONDITIONS.to_owned(),
        page::head(&["Condition", "Status", "Reason", "When", "Remedy"]),
        conditions.concat(),
        FINDINGS.to_owned(),
        page::head(&["Code", "When", "Remedy"]),
        findings.concat(),
        ENROLMENT.to_owned(),
        page::head(&["Code", "When"]),
        enrolment.concat(),
        PROBLEMS.to_owned(),
        page::head(&["Code", "When", "Remedy"]),
        problems.concat(),
    ];

    page::check("conditions.md", &text.concat());
}
