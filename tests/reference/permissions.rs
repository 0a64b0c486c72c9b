//! `permissions.md`: what each program may do in a cluster, from the code that makes the requests.

use crate::page;

const PERMISSIONS: &str = "\
# Permissions

Permissions of Strake's programs in a cluster: RBAC rules, from the code that makes the requests. The manifests of an installation grant these and no
others; tests compare both. `istio-system` stands for the namespace of the installation. A rule without namespace is one of a ClusterRole. The
permission to create cannot be bound to a name, because the request has none.

";

/// Names of the columns.
const COLUMNS: [&str; 5] = ["Namespace", "Group", "Resource", "Names", "Verbs"];

#[test]
fn every_permission_of_a_program_is_on_its_page() {
    let programs = [
        ("strake-control", strake_control::permissions("istio-system")),
        ("strake-agent", strake_agent::source::permissions("istio-system")),
    ];
    let tables = programs.map(|(program, mut rules)| {
        rules.sort();
        let rows = rules.iter().map(|rule| {
            let verbs: Vec<_> = rule.verbs.iter().map(|verb| verb.name()).collect();
            let group = if rule.api_group.is_empty() { "core" } else { &rule.api_group };
            let namespace = rule.namespace.as_deref().unwrap_or_default();
            page::row(&[namespace, group, &rule.resource, &rule.names.join(", "), &verbs.join(", ")])
        });
        format!("## {program}\n\n{}{}", page::head(&COLUMNS), rows.collect::<String>())
    });

    page::check("permissions.md", &format!("{PERMISSIONS}{}", tables.join("\n")));
}
