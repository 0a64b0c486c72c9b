//! AuthorizationPolicy to the policy that a waypoint evaluates.

use contract::labels::DRY_RUN_ANNOTATION;
use kube_types::istio::{
    Action as Declared, AuthorizationPolicy, AuthorizationRule, Operation as DeclaredOperation, RuleSource,
};
use policy::http::{Action, HttpPolicy, Operation, Rule, Source};
use route::Origin;

use super::condition::{block, condition, one};
use super::list::Reader;
use super::target::References;
use super::{Attached, Settings, value};
use crate::finding::{Findings, Reason};
use crate::world::origin;

/// Compiles an AuthorizationPolicy.
#[must_use]
pub fn authorization_policy(settings: &Settings, policy: &AuthorizationPolicy) -> Attached<HttpPolicy> {
    let (meta, spec) = (&policy.metadata, &policy.spec);
    let at = origin("AuthorizationPolicy", meta);
    let mut findings = Findings::default();
    let references = References {
        selector: spec.selector.as_ref(),
        target_ref: spec.target_ref.as_ref(),
        target_refs: &spec.target_refs,
    };
    let targets = references.targets(settings, meta, &at, &mut findings);
    let action = action(policy, &at, &mut findings);
    let mut compiler = Compiler { settings, namespace: &meta.namespace, action: &action, findings: &mut findings };
    let rules = spec.rules.iter().enumerate();
    let rules = rules.map(|(index, rule)| compiler.rule(&at.at(format!("spec.rules[{index}]")), rule)).collect();
    if spec.rules.is_empty() && spec.action != Declared::Allow {
        findings.add(Reason::Ignored, &at, "spec.rules", "a policy without rules matches no request: it has no effect");
    }
    let dry_run = dry_run(policy, &at, &mut findings);
    let value = HttpPolicy {
        namespace: meta.namespace.as_str().into(),
        name: meta.name.as_str().into(),
        action,
        dry_run,
        rules,
    };
    Attached { value, targets, findings: findings.into_sorted() }
}

fn action(policy: &AuthorizationPolicy, at: &Origin, findings: &mut Findings) -> Action {
    let provider = policy.spec.provider.as_ref().map(|provider| provider.name.as_str());
    if provider.is_some() && policy.spec.action != Declared::Custom {
        let message = "provider is used by the CUSTOM action only: it has no effect";
        findings.add(Reason::Ignored, at, "spec.provider", message);
    }
    match policy.spec.action {
        Declared::Allow => Action::Allow,
        Declared::Deny => Action::Deny,
        Declared::Audit => Action::Audit,
        Declared::Custom => {
            let provider = provider.unwrap_or_default();
            if provider.is_empty() {
                let message = "CUSTOM needs the name of a provider: requests that match are denied";
                findings.add(Reason::Missing, at, "spec.provider.name", message);
            }
            Action::Custom { provider: provider.into() }
        }
    }
}

/// Reads the annotation. A value that is no boolean leaves the policy in force: it must not open what the policy closes.
fn dry_run(policy: &AuthorizationPolicy, at: &Origin, findings: &mut Findings) -> bool {
    let Some(value) = policy.metadata.annotations.get(DRY_RUN_ANNOTATION) else { return false };
    // As Go reads it.
    match value.as_str() {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
        "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
        _ => {
            let message = format!("invalid value {value:?}: expected true or false; the policy is enforced");
            findings.add(Reason::Invalid, at, &format!("metadata.annotations[{DRY_RUN_ANNOTATION:?}]"), message);
            false
        }
    }
}

struct Compiler<'a> {
    settings: &'a Settings,
    namespace: &'a str,
    action: &'a Action,
    findings: &'a mut Findings,
}

impl Compiler<'_> {
    fn rule(&mut self, at: &Origin, rule: &AuthorizationRule) -> Rule {
        let field = |name: &str| at.at(format!("{}.{name}", at.field));
        let from = rule.from.iter().enumerate();
        let from =
            from.map(|(index, from)| self.source(field(&format!("from[{index}].source")), &from.source)).collect();
        let to = rule.to.iter().enumerate();
        let to =
            to.map(|(index, to)| self.operation(field(&format!("to[{index}].operation")), &to.operation)).collect();
        let (settings, namespace) = (self.settings, self.namespace);
        let when = rule.when.iter().enumerate();
        let when = when
            .map(|(index, when)| {
                condition(settings, namespace, when, &mut self.reader(field(&format!("when[{index}]"))))
            })
            .collect();
        Rule { from, to, when }
    }

    fn reader(&mut self, at: Origin) -> Reader<'_> {
        Reader { action: self.action, at, findings: self.findings }
    }

    fn source(&mut self, at: Origin, source: &RuleSource) -> Source {
        let (settings, namespace) = (self.settings, self.namespace);
        let mut reader = self.reader(at);
        if *source == RuleSource::default() {
            reader.unevaluable(Reason::Invalid, "", "a source without any field");
        }
        let text = |text: &str| one(value::text(text));
        Source {
            principals: reader.values(
                ("principals", &source.principals),
                ("notPrincipals", &source.not_principals),
                |text| value::principals(text, settings),
            ),
            request_principals: reader.values(
                ("requestPrincipals", &source.request_principals),
                ("notRequestPrincipals", &source.not_request_principals),
                text,
            ),
            namespaces: reader.values(
                ("namespaces", &source.namespaces),
                ("notNamespaces", &source.not_namespaces),
                text,
            ),
            service_accounts: reader.values(
                ("serviceAccounts", &source.service_accounts),
                ("notServiceAccounts", &source.not_service_accounts),
                |text| one(value::service_account(text, namespace)),
            ),
            trust_domains: reader.values(
                ("trustDomains", &source.trust_domains),
                ("notTrustDomains", &source.not_trust_domains),
                text,
            ),
            ip_blocks: reader.values(("ipBlocks", &source.ip_blocks), ("notIpBlocks", &source.not_ip_blocks), block),
            remote_ip_blocks: reader.values(
                ("remoteIpBlocks", &source.remote_ip_blocks),
                ("notRemoteIpBlocks", &source.not_remote_ip_blocks),
                block,
            ),
        }
    }

    fn operation(&mut self, at: Origin, operation: &DeclaredOperation) -> Operation {
        let mut reader = self.reader(at);
        if *operation == DeclaredOperation::default() {
            reader.unevaluable(Reason::Invalid, "", "an operation without any field");
        }
        let text = |text: &str| one(value::text(text));
        Operation {
            hosts: reader.values(("hosts", &operation.hosts), ("notHosts", &operation.not_hosts), text),
            ports: reader
                .values(("ports", &operation.ports), ("notPorts", &operation.not_ports), |text| one(value::port(text))),
            methods: reader.values(("methods", &operation.methods), ("notMethods", &operation.not_methods), text),
            paths: reader
                .values(("paths", &operation.paths), ("notPaths", &operation.not_paths), |text| one(value::path(text))),
        }
    }
}
