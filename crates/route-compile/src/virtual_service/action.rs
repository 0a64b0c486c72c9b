//! The action of a VirtualService's HTTP rule.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube_types::istio::{
    Destination, HttpDirectResponse, HttpMirrorPolicy, HttpRedirect, HttpRewrite, HttpRoute, RedirectPortSelection,
};
use route::{
    Action, Forward, LocalAnswer, Mirror, Origin, PathRewrite, Percent, Redirect, RedirectPath, RedirectPort, Rule,
    Substitution, Target, Weighted,
};

use super::SourceRule;
use crate::finding::{Findings, Reason};
use crate::headers::{Changes, changes};
use crate::http_policy;
use crate::names::full_host;
use crate::world::{Place, World};

/// An action that cannot be compiled, with its finding made. Its requests are answered with 500.
struct Refused;

struct Compiler<'a> {
    world: &'a World,
    place: Place<'a>,
    at: &'a Origin,
    findings: &'a mut Findings,
}

/// Compiles everything of a rule but its matches. Short names belong to the namespace of the object that has the rule.
pub(crate) fn rule(world: &World, place: Place<'_>, source: &SourceRule, findings: &mut Findings) -> Rule {
    let (rule, at) = (&source.rule, &source.origin);
    let headers = rule.headers.as_ref();
    let headers = headers.map(|headers| changes(headers, &at.at(format!("{}.headers", at.field)), findings));
    let headers = headers.unwrap_or_default();
    let fault = rule.fault.as_ref().and_then(|fault| http_policy::fault(fault, at, findings));
    let cors = rule.cors_policy.as_ref().map(|cors| http_policy::cors(cors, at, findings));
    let mut compiler = Compiler { world, place, at, findings };
    let action = compiler.action(rule, &headers);
    Rule {
        origin: at.clone(),
        name: rule.name.clone(),
        fault,
        cors,
        action: action.unwrap_or_else(|Refused| Action::Respond(LocalAnswer::new(500, ""))),
        request_headers: headers.request,
        response_headers: headers.response,
    }
}

impl Compiler<'_> {
    fn refuse(&mut self, field: &str, message: impl std::fmt::Display) -> Refused {
        let message = format!("{message}: requests that match are answered with 500");
        self.findings.add(Reason::Invalid, self.at, field, message);
        Refused
    }

    fn action(&mut self, rule: &HttpRoute, headers: &Changes) -> Result<Action, Refused> {
        let is_forward = !rule.route.is_empty();
        match (&rule.redirect, &rule.direct_response, is_forward) {
            (Some(redirect), None, false) if rule.rewrite.is_none() && rule.fault.is_none() => self.redirect(redirect),
            (None, Some(response), false) if rule.rewrite.is_none() && rule.fault.is_none() => self.response(response),
            (None, None, true) => self.forward(rule, headers),
            (None, None, false) => Err(self.refuse("", "expected one of route, redirect and directResponse")),
            _ => {
                let message = "redirect and directResponse exclude each other, route, rewrite and fault";
                Err(self.refuse("", message))
            }
        }
    }

    fn redirect(&mut self, of: &HttpRedirect) -> Result<Action, Refused> {
        let text = |text: &String| (!text.is_empty()).then(|| text.clone());
        let status = if of.redirect_code == 0 { 301 } else { of.redirect_code };
        if !matches!(status, 301 | 302 | 303 | 307 | 308) {
            return Err(self.refuse("redirect.redirectCode", "expected 301, 302, 303, 307 or 308"));
        }
        let port = match (of.port, of.derive_port) {
            (Some(port), _) => RedirectPort::Number(port),
            // The port of a table is that of its requests.
            (None, Some(RedirectPortSelection::FromRequestPort)) => RedirectPort::Number(self.place.port),
            (None, Some(RedirectPortSelection::FromProtocolDefault) | None) => RedirectPort::Keep,
        };
        let path = text(&of.uri).map(RedirectPath::Full);
        Ok(Action::Redirect(Redirect { status, scheme: text(&of.scheme), authority: text(&of.authority), port, path }))
    }

    fn response(&mut self, of: &HttpDirectResponse) -> Result<Action, Refused> {
        if !(200..=599).contains(&of.status) {
            return Err(self.refuse("directResponse.status", "expected 200 to 599"));
        }
        let body = of.body.as_ref().map(|body| (body.string.clone(), body.bytes.as_deref()));
        let body = match body {
            None | Some((None, None)) => String::new(),
            Some((Some(text), None)) => text,
            Some((None, Some(encoded))) => match STANDARD.decode(encoded).ok().map(String::from_utf8) {
                Some(Ok(text)) => text,
                Some(Err(_)) => return Err(self.refuse("directResponse.body.bytes", "only text is supported")),
                None => return Err(self.refuse("directResponse.body.bytes", "invalid base64")),
            },
            Some((Some(_), Some(_))) => {
                return Err(self.refuse("directResponse.body", "only one of string and bytes may be set"));
            }
        };
        Ok(Action::Respond(LocalAnswer::new(of.status, body)))
    }

    fn forward(&mut self, rule: &HttpRoute, headers: &Changes) -> Result<Action, Refused> {
        let destinations = self.destinations(rule)?;
        let path = rule.rewrite.as_ref().map(|rewrite| self.rewrite(rewrite)).transpose()?.flatten();
        let rewritten = rule.rewrite.as_ref().map(|rewrite| rewrite.authority.clone()).filter(|text| !text.is_empty());
        if rewritten.is_some() && headers.authority.is_some() {
            let message = "headers set the authority, too: this value is used";
            self.findings.add(Reason::Invalid, self.at, "rewrite.authority", message);
        }
        let timeout = rule.timeout.as_deref();
        let timeout = timeout
            .and_then(|text| http_policy::time(text, self.at, "timeout", "there is no time limit", self.findings))
            .filter(|timeout| !timeout.is_zero());
        let default = self.world.default_retry(self.place, &destinations);
        let retry = http_policy::retry(rule.retries.as_ref(), default, self.at, self.findings);
        let mirrors = self.mirrors(rule);
        let authority = rewritten.or_else(|| headers.authority.clone());
        Ok(Action::Forward(Forward { destinations, path, authority, timeout, retry, mirrors }))
    }

    fn destinations(&mut self, rule: &HttpRoute) -> Result<Vec<Weighted>, Refused> {
        let is_single = rule.route.len() == 1;
        let mut weighted = Vec::new();
        for (index, of) in rule.route.iter().enumerate() {
            let at = self.at.at(format!("{}.route[{index}]", self.at.field));
            let weight = match u32::try_from(of.weight) {
                // Its weight has no meaning.
                _ if is_single => 1,
                Ok(weight) => weight,
                Err(_) => {
                    self.findings.add(Reason::Invalid, &at, "weight", "the weight is negative: it counts as 0");
                    0
                }
            };
            let target = self.target(&of.destination, &at.at(format!("{}.destination", at.field)));
            let headers = of.headers.as_ref();
            let headers =
                headers.map(|headers| changes(headers, &at.at(format!("{}.headers", at.field)), self.findings));
            let Changes { request, response, authority } = headers.unwrap_or_default();
            weighted.push(Weighted {
                request_headers: request,
                response_headers: response,
                authority,
                ..Weighted::new(target, weight)
            });
        }
        if weighted.iter().all(|destination| destination.weight == 0) {
            return Err(self.refuse("route", "all weights are 0"));
        }
        Ok(weighted)
    }

    fn target(&mut self, of: &Destination, at: &Origin) -> Target {
        let host = full_host(&of.host, &self.at.namespace, &self.world.cluster_domain);
        let port = of.port.as_ref().map(|port| port.number);
        self.world.destination(self.place, host, port, &of.subset, at, self.findings)
    }

    fn rewrite(&mut self, of: &HttpRewrite) -> Result<Option<PathRewrite>, Refused> {
        let Some(regex) = &of.uri_regex_rewrite else {
            return Ok((!of.uri.is_empty()).then(|| PathRewrite::Matched(of.uri.clone())));
        };
        if !of.uri.is_empty() {
            self.findings.add(Reason::Ignored, self.at, "rewrite.uri", "uriRegexRewrite is used instead");
        }
        match Substitution::new(&regex.r#match, &regex.rewrite) {
            Ok(substitution) => Ok(Some(PathRewrite::Regex(substitution))),
            Err(error) => Err(self.refuse("rewrite.uriRegexRewrite", error)),
        }
    }

    /// Mirrors. One that cannot be compiled is left out: the request itself does not depend on it.
    fn mirrors(&mut self, rule: &HttpRoute) -> Vec<Mirror> {
        let single = rule.mirror.as_ref().map(|destination| HttpMirrorPolicy {
            destination: destination.clone(),
            percentage: rule.mirror_percentage.clone(),
        });
        if single.is_some() && !rule.mirrors.is_empty() {
            self.findings.add(Reason::Invalid, self.at, "mirror", "mirrors are set, too, and used instead");
        }
        let former = rule.mirror_percent.map(f64::from);
        let policies: Vec<_> = if rule.mirrors.is_empty() {
            single.into_iter().map(|policy| (policy, "mirror".to_owned(), former)).collect()
        } else {
            let policies = rule.mirrors.iter().cloned().enumerate();
            policies.map(|(index, policy)| (policy, format!("mirrors[{index}]"), None)).collect()
        };
        let mut mirrors = Vec::new();
        for (policy, field, former) in policies {
            let share = http_policy::share(
                policy.percentage.as_ref(),
                former,
                Percent::ALL,
                self.at,
                &format!("{field}.percentage"),
                self.findings,
            );
            let at = self.at.at(format!("{}.{field}", self.at.field));
            if let (Target::Service(destination), true) = (self.target(&policy.destination, &at), share > Percent::NONE)
            {
                mirrors.push(Mirror { destination, share });
            }
        }
        mirrors
    }
}
