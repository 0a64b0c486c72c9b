//! Delegates: rules of one VirtualService in the place of a rule of another. A delegate can only narrow what the rule that
//! names it matches.

use std::collections::BTreeMap;

use kube_types::istio::{HttpMatchRequest, HttpRoute, StringMatch, VirtualService};
use route::Origin;

use super::{SourceRule, rules_of};
use crate::finding::{Findings, Reason};
use crate::names::is_exported;
use crate::world::{World, origin};

/// Rules that take the place of `root`, which names a delegate. None, with a finding, if there is no such delegate.
pub(crate) fn expand(world: &World, namespace: &str, root: &SourceRule, findings: &mut Findings) -> Vec<SourceRule> {
    let Some(delegate) = &root.rule.delegate else { return vec![root.clone()] };
    let owner = if delegate.namespace.is_empty() { namespace } else { &delegate.namespace };
    let is_meant = |candidate: &&VirtualService| {
        let meta = &candidate.metadata;
        meta.name == delegate.name && meta.namespace == owner
    };
    let missing = |findings: &mut Findings, reason, why: String| {
        findings.add(reason, &root.origin, "delegate", format!("{why}: the rule matches nothing"));
        Vec::new()
    };
    if !root.rule.route.is_empty() || root.rule.redirect.is_some() {
        return missing(findings, Reason::Invalid, "a rule with a delegate has no route and no redirect".to_owned());
    }
    let name = &delegate.name;
    let Some(found) = world.virtual_services.iter().find(is_meant) else {
        return missing(findings, Reason::Missing, format!("there is no VirtualService {owner}/{name}"));
    };
    if !found.spec.hosts.is_empty() {
        return missing(findings, Reason::Invalid, format!("{owner}/{name} has hosts, so it is no delegate"));
    }
    if !is_exported(&found.spec.export_to, owner, namespace) {
        return missing(findings, Reason::Missing, format!("{owner}/{name} is not exported to namespace {namespace}"));
    }
    let at = origin("VirtualService", &found.metadata);
    let rules = rules_of(found).into_iter().filter_map(|rule| {
        if rule.rule.delegate.is_some() {
            let message = "a delegate cannot delegate further: the rule matches nothing";
            findings.add(Reason::Invalid, &rule.origin, "delegate", message);
            return None;
        }
        let merged = merge(root, &rule);
        if merged.is_none() {
            let message = format!("a match is not within those of {}: the rule matches nothing", root.origin);
            findings.add(Reason::Invalid, &rule.origin, "match", message);
        }
        merged
    });
    let rules: Vec<_> = rules.collect();
    if found.spec.http.is_empty() {
        findings.add(Reason::Ignored, &at, "", format!("{} delegates to it, and it has no rules", root.origin));
    }
    rules
}

/// Joins a rule with one of its delegate: the delegate's fields, and those of the root where it has none.
fn merge(root: &SourceRule, leaf: &SourceRule) -> Option<SourceRule> {
    let matches = merge_matches(root, leaf)?;
    let (above, own) = (&root.rule, &leaf.rule);
    let name = match (above.name.as_str(), own.name.as_str()) {
        ("", name) | (name, "") => name.to_owned(),
        (above, own) => format!("{above}-{own}"),
    };
    let has_mirror = own.mirror.is_some() || !own.mirrors.is_empty();
    let mirrored = if has_mirror { own } else { above };
    let rule = HttpRoute {
        name,
        delegate: None,
        r#match: matches.iter().map(|(of, _)| of.clone()).collect(),
        rewrite: own.rewrite.clone().or_else(|| above.rewrite.clone()),
        direct_response: own.direct_response.clone().or_else(|| above.direct_response.clone()),
        timeout: own.timeout.clone().or_else(|| above.timeout.clone()),
        retries: own.retries.clone().or_else(|| above.retries.clone()),
        fault: own.fault.clone().or_else(|| above.fault.clone()),
        mirror: mirrored.mirror.clone(),
        mirrors: mirrored.mirrors.clone(),
        mirror_percent: mirrored.mirror_percent,
        mirror_percentage: mirrored.mirror_percentage.clone(),
        cors_policy: own.cors_policy.clone().or_else(|| above.cors_policy.clone()),
        headers: own.headers.clone().or_else(|| above.headers.clone()),
        ..own.clone()
    };
    let match_origins = matches.into_iter().map(|(_, origin)| origin).collect();
    Some(SourceRule { origin: leaf.origin.clone(), match_origins, rule })
}

type Matches = Vec<(HttpMatchRequest, Origin)>;

/// Every match of the delegate joined with every one of the root that it is within; `None` if one is within none.
fn merge_matches(root: &SourceRule, leaf: &SourceRule) -> Option<Matches> {
    let of = |rule: &SourceRule| -> Matches {
        rule.rule.r#match.iter().cloned().zip(rule.match_origins.iter().cloned()).collect()
    };
    if root.rule.r#match.is_empty() || leaf.rule.r#match.is_empty() {
        return Some(if leaf.rule.r#match.is_empty() { of(root) } else { of(leaf) });
    }
    let mut merged = Vec::new();
    for (own, origin) in of(leaf) {
        let before = merged.len();
        let within = root.rule.r#match.iter().filter(|above| !conflicts(above, &own));
        merged.extend(within.map(|above| (merge_match(above, &own), origin.clone())));
        if merged.len() == before {
            return None;
        }
    }
    Some(merged)
}

fn merge_match(above: &HttpMatchRequest, own: &HttpMatchRequest) -> HttpMatchRequest {
    let joined = |above: &BTreeMap<String, StringMatch>, own: &BTreeMap<String, StringMatch>| {
        let mut joined = above.clone();
        joined.extend(own.clone());
        joined
    };
    let or = |own: &str, above: &str| if own.is_empty() { above.to_owned() } else { own.to_owned() };
    let mut source_labels = above.source_labels.clone();
    source_labels.extend(own.source_labels.clone());
    HttpMatchRequest {
        name: match (above.name.as_str(), own.name.as_str()) {
            ("", name) | (name, "") => name.to_owned(),
            (above, own) => format!("{above}-{own}"),
        },
        uri: own.uri.clone().or_else(|| above.uri.clone()),
        scheme: own.scheme.clone().or_else(|| above.scheme.clone()),
        method: own.method.clone().or_else(|| above.method.clone()),
        authority: own.authority.clone().or_else(|| above.authority.clone()),
        headers: joined(&above.headers, &own.headers),
        without_headers: joined(&above.without_headers, &own.without_headers),
        query_params: joined(&above.query_params, &own.query_params),
        port: own.port.or(above.port),
        source_labels,
        source_namespace: or(&own.source_namespace, &above.source_namespace),
        gateways: if own.gateways.is_empty() { above.gateways.clone() } else { own.gateways.clone() },
        ignore_uri_case: own.ignore_uri_case,
        stat_prefix: or(&own.stat_prefix, &above.stat_prefix),
    }
}

/// Returns true if the delegate's match is not within the root's.
fn conflicts(above: &HttpMatchRequest, own: &HttpMatchRequest) -> bool {
    let texts = [
        (&above.uri, &own.uri),
        (&above.scheme, &own.scheme),
        (&above.method, &own.method),
        (&above.authority, &own.authority),
    ];
    let maps = [
        (&above.headers, &own.headers),
        (&above.without_headers, &own.without_headers),
        (&above.query_params, &own.query_params),
    ];
    let map_conflicts = |above: &BTreeMap<String, StringMatch>, own: &BTreeMap<String, StringMatch>| {
        own.iter().any(|(name, pattern)| text_conflicts(above.get(name), Some(pattern)))
    };
    texts.into_iter().any(|(above, own)| text_conflicts(above.as_ref(), own.as_ref()))
        || maps.into_iter().any(|(above, own)| map_conflicts(above, own))
        || above.ignore_uri_case != own.ignore_uri_case
        || matches!((above.port, own.port), (Some(above), Some(own)) if above != own)
        || !above.source_namespace.is_empty()
            && !own.source_namespace.is_empty()
            && above.source_namespace != own.source_namespace
        || own.source_labels.iter().any(|(key, value)| above.source_labels.get(key).is_some_and(|above| above != value))
}

fn text_conflicts(above: Option<&StringMatch>, own: Option<&StringMatch>) -> bool {
    let (Some(above), Some(own)) = (above, own) else { return false };
    let form = |pattern: &StringMatch| (pattern.exact.clone(), pattern.prefix.clone(), pattern.regex.clone());
    match (form(above), form(own)) {
        ((Some(above), _, None), (Some(own), None, None)) => above != own,
        ((None, Some(above), None), (None, Some(own), None) | (Some(own), None, None)) => !own.starts_with(&above),
        // Presence.
        ((None, None, None), _) => false,
        // An exact root has no prefixes within, and nobody knows of expressions.
        _ => true,
    }
}
