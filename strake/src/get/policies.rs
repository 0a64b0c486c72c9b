//! `strake get policies`: policies with the control plane's verdict, and the proxies that have them.

use std::{collections::BTreeMap, process::ExitCode};

use anyhow::Result;
use clap::Args;
use contract::admin::control::{ConditionStatus, ENFORCED, Policy};
use serde::Serialize;

use super::{
    listing::{self, Item, Listing, Options},
    table::or_dash,
};
use crate::mesh::{
    ByNode, Mesh,
    dump::{self, ProxyDump},
};

/// Lists AuthorizationPolicies and PeerAuthentications: enforced or not, why, and how many proxies have each
#[derive(Debug, Args)]
pub(crate) struct Policies {
    #[command(flatten)]
    options: Options,
}

/// A policy.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Row {
    kind: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// `Allow` or `Deny`, as the proxies have it; empty when none has it.
    action: String,
    /// `True`, `False`, or `Unknown`: the control plane cannot say, or has not said yet.
    enforced: String,
    reason: String,
    message: String,
    /// Nodes whose proxies have the policy. A proxy gets those that concern a workload it knows.
    on: Vec<String>,
    #[serde(skip)]
    asked: usize,
}

impl Policies {
    pub(crate) async fn run(&self, mesh: &Mesh) -> Result<ExitCode> {
        let options = &self.options;
        let list = async || {
            let policies = mesh.policies().await?;
            Ok(listing(options, policies, options.of_node(mesh.dumps().await?)?))
        };
        let first = list().await?;
        options.reject_unknown(&first, |row| &row.name)?;
        listing::show(first, options.output, options.watch, list).await
    }
}

fn listing(options: &Options, policies: Vec<Policy>, dumps: ByNode<ProxyDump>) -> Listing<Row> {
    let (dumps, unreachable) = listing::answers(dumps);
    let scope = options.scope(Some("default"));
    let wanted = |row: &Row| {
        scope.is_none_or(|namespace| row.namespace == namespace)
            && (options.names.is_empty() || options.names.contains(&row.name))
    };
    let known = by_name(&dumps);
    let rows = policies.into_iter().map(|policy| Row::new(policy, &known, dumps.len()));
    Listing { items: rows.filter(wanted).collect(), unreachable }
}

/// Action of each policy and nodes that have it, by namespace and name.
type Actions = BTreeMap<(String, String), (String, Vec<String>)>;

fn by_name(dumps: &[(String, ProxyDump)]) -> Actions {
    let mut known = Actions::new();
    for (node, dump) in dumps {
        for dump::Policy { namespace, name, action, .. } in &dump.policies {
            let entry = known.entry((namespace.clone(), original(name).to_owned())).or_default();
            entry.0.clone_from(action);
            if !entry.1.contains(node) {
                entry.1.push(node.clone());
            }
        }
    }
    known
}

/// Name of a PeerAuthentication in the name of the policy that proxies get of it, as Istio makes it.
fn original(name: &str) -> &str {
    name.strip_prefix("converted_peer_authentication_").unwrap_or(name)
}

impl Row {
    fn new(policy: Policy, known: &Actions, asked: usize) -> Self {
        let (kind, key) = policy.object.split_once(' ').unwrap_or(("", &policy.object));
        let (namespace, name) = key.split_once('/').unwrap_or(("", key));
        let (action, on) = known.get(&(namespace.to_owned(), name.to_owned())).cloned().unwrap_or_default();
        let enforced = policy.conditions.iter().find(|condition| condition.r#type == ENFORCED);
        let status = enforced.map_or(ConditionStatus::Unknown, |condition| condition.status);
        let text = |text: Option<&Option<String>>| text.cloned().flatten().unwrap_or_default();
        Self {
            kind: kind.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            action,
            enforced: format!("{status:?}"),
            reason: text(enforced.map(|condition| &condition.reason)),
            message: match enforced {
                Some(condition) => condition.message.clone().unwrap_or_default(),
                None => "the control plane has not said whether it is enforced".to_owned(),
            },
            on,
            asked,
        }
    }
}

impl Row {
    /// Cell of the proxies that have the policy. Proxies get one policy for all PeerAuthentications that are STRICT and no more.
    fn proxies(&self) -> String {
        if self.on.is_empty() && self.kind == "PeerAuthentication" {
            return "-".to_owned();
        }
        format!("{}/{}", self.on.len(), self.asked)
    }
}

impl Item for Row {
    const KIND: &'static str = "policies";
    const HEADER: &'static [&'static str] = &["NAMESPACE", "NAME", "KIND", "ENFORCED", "REASON", "PROXIES", "MESSAGE"];
    const WIDE: &'static [&'static str] = &["ACTION", "NODES"];

    fn key(&self) -> String {
        format!("{} {}/{}", self.kind, self.namespace, self.name)
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.namespace.clone(),
            self.name.clone(),
            self.kind.clone(),
            self.enforced.clone(),
            or_dash(&self.reason),
            self.proxies(),
            or_dash(&self.message),
        ]
    }

    fn wide_cells(&self) -> Vec<String> {
        vec![or_dash(&self.action), or_dash(&self.on.join(","))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::get::testing;

    #[test]
    fn a_policy_says_whether_it_is_enforced_and_who_has_it() {
        let policies: Vec<Policy> = serde_json::from_value(serde_json::json!([
            {"object": "AuthorizationPolicy shop/db", "conditions": [
                {"type": "Enforced", "status": "True", "reason": "Enforced", "message": "on 1 workload"}]},
            {"object": "PeerAuthentication shop/strict", "conditions": []},
            {"object": "AuthorizationPolicy other/x", "conditions": []},
        ]))
        .unwrap();

        let listing = listing(&testing::options(&["-n", "shop"]), policies, testing::dumps());

        insta::assert_snapshot!(listing::render(&listing, listing::Format::Wide).unwrap(), @r"
    NAMESPACE   NAME     KIND                  ENFORCED   REASON     PROXIES   MESSAGE                                                 ACTION   NODES
    shop        db       AuthorizationPolicy   True       Enforced   1/1       on 1 workload                                           Allow    node-1
    shop        strict   PeerAuthentication    Unknown    -          -         the control plane has not said whether it is enforced   -        -
    ");
    }
}
