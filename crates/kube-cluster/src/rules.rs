//! Permissions that a program needs of the API server, as RBAC rules.

use std::collections::BTreeSet;

use kube_types::Kind;

use crate::verb::{HOLD_LEASE, MAKE_LEASE, READ, Verb, WRITE_ANNOTATIONS, WRITE_STATUS};
use crate::watched::Watched;
use crate::write::checks_uid;

/// Everything that a program does with this crate.
#[derive(Clone, Copy, Debug, Default)]
pub struct Access<'a> {
    pub watched: &'a [Watched],
    /// Kinds whose statuses it writes.
    pub statuses: &'a [Kind],
    /// Namespace and name of the Lease of its election.
    pub lease: Option<(&'a str, &'a str)>,
}

/// A rule of a ClusterRole, or of a Role in `namespace`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// `None`: a ClusterRole.
    pub namespace: Option<String>,
    /// Empty for the core group.
    pub api_group: String,
    /// With its subresource, for instance `pods/status`.
    pub resource: String,
    /// All names when empty.
    pub names: Vec<String>,
    pub verbs: Vec<Verb>,
}

/// The rules that allow `access`, and nothing else. Discovery of kinds needs none: every ServiceAccount may ask which there
/// are (ClusterRole `system:discovery`). A field selector cannot be required by a rule, unless it is that of a name.
pub fn rules(access: Access<'_>) -> Vec<Rule> {
    let mut rules = BTreeSet::new();
    rules.extend(access.watched.iter().map(|watched| {
        let namespace = watched.namespace.clone().filter(|_| watched.kind.is_namespaced());
        // The API server takes the name of such a request from its selector, so that a rule can bind it.
        let name = watched.fields.as_deref().and_then(|fields| fields.strip_prefix("metadata.name="));
        Rule { namespace, names: name.map(str::to_owned).into_iter().collect(), ..of_kind(watched.kind, "", READ) }
    }));
    rules.extend(access.statuses.iter().map(|kind| {
        let verbs = if checks_uid(*kind) { WRITE_ANNOTATIONS } else { WRITE_STATUS };
        of_kind(*kind, "/status", verbs)
    }));
    if let Some((namespace, name)) = access.lease {
        let lease = |names, verbs: &[Verb]| Rule {
            namespace: Some(namespace.to_owned()),
            api_group: "coordination.k8s.io".to_owned(),
            resource: "leases".to_owned(),
            names,
            verbs: verbs.to_vec(),
        };
        rules.insert(lease(Vec::new(), MAKE_LEASE));
        rules.insert(lease(vec![name.to_owned()], HOLD_LEASE));
    }
    rules.into_iter().collect()
}

fn of_kind(kind: Kind, subresource: &str, verbs: &[Verb]) -> Rule {
    Rule {
        namespace: None,
        api_group: kind.group().to_owned(),
        resource: format!("{}{subresource}", kind.plural()),
        names: Vec::new(),
        verbs: verbs.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_name_groups_resources_and_verbs_and_nothing_else() {
        let watched = [
            Watched::all(Kind::Pod).with_fields("spec.nodeName=n1"),
            Watched::all(Kind::Namespace).in_namespace("app"),
            Watched::all(Kind::ConfigMap).in_namespace("mesh").with_fields("metadata.name=config"),
        ];
        let access = Access { watched: &watched, statuses: &[Kind::Pod, Kind::PeerAuthentication], lease: None };

        let text = |rule: Rule| {
            let verbs: Vec<_> = rule.verbs.iter().map(|verb| verb.name()).collect();
            let namespace = rule.namespace.unwrap_or_default();
            let name = rule.names.concat();
            format!("{namespace}:{}/{} {name} {}", rule.api_group, rule.resource, verbs.join(",")).replace("  ", " ")
        };

        assert_eq!(
            rules(access).into_iter().map(text).collect::<Vec<_>>(),
            [
                ":/namespaces list,watch",
                ":/pods list,watch",
                ":/pods/status patch",
                ":security.istio.io/peerauthentications/status get,patch",
                "mesh:/configmaps config list,watch",
            ]
        );
    }
}
