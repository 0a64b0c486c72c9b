//! An explanation as text.

use policy::{RuleTrace, Unmet};

use super::{
    client::Client,
    path::Explanation,
    verdict::{Path, PolicyView},
};

/// Prefix of the policies that proxies get of a PeerAuthentication.
const CONVERTED: [&str; 2] = ["istio_converted_static_strict", "converted_peer_authentication_"];

pub(super) fn text(explanation: &Explanation) -> String {
    let Explanation { from, to, port, refused, paths, notes } = explanation;
    let mut text = format!("from  {}\nto    {to} port {port}\n", client(from));
    if let Some(reason) = refused {
        text.push_str(&format!("\nREFUSED by {}: {reason}\n", place(from)));
    }
    for path in paths {
        text.push('\n');
        text.push_str(&one(path));
    }
    if !notes.is_empty() {
        text.push('\n');
    }
    for note in notes {
        text.push_str(&format!("note: {note}\n"));
    }
    text
}

fn client(client: &Client) -> String {
    let Client { name, node, in_mesh, identity, .. } = client;
    let place = if node.is_empty() { String::new() } else { format!(" on {node}") };
    match (in_mesh, identity) {
        (true, Some(identity)) => format!("{name}{place}, in the mesh as {identity}"),
        (true, None) => format!("{name}{place}, in the mesh"),
        (false, _) => format!("{name}{place}, not in the mesh: no proxy takes its connections"),
    }
}

fn place(client: &Client) -> String {
    if client.in_mesh { format!("ztunnel of {}", client.node) } else { "the cluster".to_owned() }
}

fn one(path: &Path) -> String {
    let Path { endpoint, node, address, protocol, allowed, decided_by, reason, policies } = path;
    let verdict = match allowed {
        Some(true) => "ALLOWED",
        Some(false) => "REFUSED",
        None => "UNKNOWN",
    };
    let place = if node.is_empty() { String::new() } else { format!(" on {node}") };
    let address = address.filter(|address| address.to_string() != *endpoint).map(|address| format!(" ({address})"));
    let how = match *protocol {
        "HBONE" => "HBONE: encrypted, both sides authenticated",
        _ => "plaintext TCP",
    };
    let mut text = format!("{verdict}  {endpoint}{}{place}, {how}\n", address.unwrap_or_default());
    text.push_str(&format!("  decided by {decided_by}: {reason}\n"));
    for policy in policies {
        text.push_str(&policy_text(policy));
    }
    text
}

fn policy_text(view: &PolicyView) -> String {
    let PolicyView { policy, action, dry_run, matches, rules } = view;
    let verdict = if *matches { "matches" } else { "does not match" };
    let dry_run = if *dry_run { ", dry run: it decides nothing" } else { "" };
    let origin = match policy.split_once('/') {
        Some((_, name)) if CONVERTED.iter().any(|prefix| name.starts_with(prefix)) => " (of a PeerAuthentication)",
        _ => "",
    };
    let mut text = format!("  {action:<5} {policy}{origin}: {verdict}{dry_run}\n");
    if rules.is_empty() {
        text.push_str("        it has no rules, so no connection matches it\n");
    }
    for (index, rule) in rules.iter().enumerate() {
        text.push_str(&format!("        rule {index}: {rule}\n"));
    }
    text
}

/// A rule and what keeps it from holding.
pub(super) fn rule_text(rule: &RuleTrace) -> String {
    if rule.holds {
        return "holds".to_owned();
    }
    let unmet: Vec<_> = rule.unmet.iter().map(condition).collect();
    format!("does not hold: {}", unmet.join("; "))
}

fn condition(unmet: &Unmet) -> String {
    let Unmet { condition, wanted } = unmet;
    let (excludes, name) = match condition.strip_prefix("not") {
        Some(name) => (true, name),
        None => (false, *condition),
    };
    let what = match name.to_ascii_lowercase().as_str() {
        "" => return "it has conditions that only a waypoint evaluates".to_owned(),
        "namespaces" => "the client's namespace",
        "principals" => "the client's identity",
        "serviceaccounts" => "the client's service account",
        "sourceips" => "the client's address",
        "destinationips" => "the endpoint's address",
        "destinationports" => "the endpoint's port",
        other => return format!("{other}: {wanted}"),
    };
    if excludes { format!("{what} is excluded ({wanted})") } else { format!("{what} is not {wanted}") }
}
