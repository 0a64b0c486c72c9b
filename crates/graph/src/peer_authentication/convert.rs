//! Policies that enforce PeerAuthentication on node proxies: DENY rules for peers without an identity.

use kube_types::istio::{PeerAuthentication, TlsMode};
use kube_types::{Kind, ObjectRef};

use super::{Levels, mode, selector};
use crate::mesh::Mesh;
use crate::placement::Scope;
use crate::rule::{Action, Authorization, Clause, Match, Rule, StringMatch};

/// Name of the policy for workloads that are STRICT on every port.
pub(crate) const STATIC_STRICT: &str = "istio_converted_static_strict";
// The names that Istio's control plane gives them.
const CONVERTED_PREFIX: &str = "converted_peer_authentication_";

/// The policy of a PeerAuthentication with ports whose mode differs from the rest; `levels` are what it inherits from.
pub(crate) fn convert(policy: &PeerAuthentication, levels: &Levels<'_>) -> Option<Authorization> {
    // Without a selector ports have no mode of their own, and the mode of the whole namespace needs no policy of its
    // own.
    selector(policy)?;
    let own = mode(Some(policy));
    let strict = match own {
        TlsMode::Strict => true,
        TlsMode::Permissive | TlsMode::Disable => false,
        TlsMode::Unset => levels.inherits_strict(),
    };
    // Ports whose mode is that of the rest need no rule.
    let differing: Vec<u16> = policy
        .spec
        .port_level_mtls
        .iter()
        .filter(|(_, port)| match port.mode {
            TlsMode::Unset => false,
            TlsMode::Strict => !strict,
            TlsMode::Permissive | TlsMode::Disable => strict,
        })
        .map(|(port, _)| *port)
        .collect();
    if differing.is_empty() {
        return None;
    }
    // STRICT is one rule with exceptions; PERMISSIVE is one rule for each strict port.
    let rules = if strict {
        vec![all_but(&differing, own == TlsMode::Strict)]
    } else {
        differing.into_iter().map(only).collect()
    };
    let meta = &policy.metadata;
    Some(deny(&meta.namespace, format!("{CONVERTED_PREFIX}{}", meta.name), rules))
}

/// The policy for workloads that are STRICT on every port.
pub(crate) fn static_strict(mesh: &Mesh) -> Authorization {
    let rules = vec![Rule { clauses: vec![clause(plaintext())] }];
    deny(&mesh.root_namespace, STATIC_STRICT.to_owned(), rules)
}

/// A DENY policy for the workloads that refer to it.
fn deny(namespace: &str, name: String, rules: Vec<Rule>) -> Authorization {
    // In no scope by itself: a DENY for a whole namespace would hit workloads with another mode.
    let scope = Scope::Named(ObjectRef::new(Kind::PeerAuthentication, namespace, &name));
    Authorization { name, namespace: namespace.to_owned(), scope, action: Action::Deny, rules, dry_run: false }
}

/// Matches peers without an identity on any port but these.
fn all_but(ports: &[u16], plaintext_first: bool) -> Rule {
    let mut clauses: Vec<_> =
        ports.iter().map(|port| clause(Match { not_destination_ports: vec![*port], ..Match::default() })).collect();
    // The order of clauses has no effect. It is that of Istio's control plane, so that resources of both compare equal.
    let position = if plaintext_first { 0 } else { clauses.len() };
    clauses.insert(position, clause(plaintext()));
    Rule { clauses }
}

/// Matches peers without an identity on this port.
fn only(port: u16) -> Rule {
    Rule { clauses: vec![clause(Match { destination_ports: vec![port], ..plaintext() })] }
}

fn plaintext() -> Match {
    // A peer without mutual TLS has an empty principal, and `Presence` matches any text but an empty one.
    Match { not_principals: vec![StringMatch::Presence], ..Match::default() }
}

fn clause(part: Match) -> Clause {
    Clause { matches: vec![part] }
}
