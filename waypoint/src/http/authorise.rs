//! Policies in front of a request, before any route is looked at, in the order of Istio's filters: external authorizers, token,
//! authorisation.
//!
//! A rule that a configuration carries and this version cannot evaluate denies. It is never skipped.

use std::sync::Arc;
use std::time::SystemTime;

use http::HeaderValue;
use http::header::WWW_AUTHENTICATE;
use http::request::Parts;
use jwt::{Outcome, Refusal, Verified, www_authenticate};
use policy::http::{
    Authentication, DENIED_BODY, DENIED_STATUS, Decision, DenyReason, Http, Request, Token, custom, decide,
};
use waypoint_config::{Config, Policies, ServiceConfig};

use super::head::Head;
use super::reply::Reply;
use crate::context::WorkerContext;
use crate::report::Flag;
use crate::tunnel::Opened;

/// Applies the policies of the waypoint, and of the service if there is one. Returns the token that was verified; the request
/// has been changed as the rule of the token says.
///
/// # Errors
/// The answer to a request that is denied.
pub(super) async fn authorise(
    context: &WorkerContext,
    opened: &Opened,
    (all, service): (&Config, Option<&Arc<ServiceConfig>>),
    head: &mut Head,
    parts: &mut Parts,
) -> Result<Option<Box<Verified>>, Reply> {
    let policies = policies(all, service);
    if policies.iter().all(|policies| policies.is_empty()) {
        return Ok(None);
    }
    let asked = facts(opened, Some(http(head, parts, Authentication::Pending)));
    if custom(policies.iter().flat_map(|policies| &policies.http), &asked).next().is_some() {
        // No authorizer can be asked: Envoy's answer when one fails.
        return Err(Reply::new(403, "", "ext_authz_error").flag(Flag::ExternalDenial));
    }
    let token = authenticate(context, (all, service), head, parts).await?;
    let authentication = token.as_ref().map_or(Authentication::NoToken, |token| {
        Authentication::Token(Token {
            principal: token.principal.as_deref(),
            audiences: &token.audiences,
            presenter: token.presenter.as_deref(),
            claims: &token.claims,
        })
    });
    let request = facts(opened, Some(http(head, parts, authentication)));
    match decide(policies.iter().flat_map(|policies| &policies.http), &request).decision {
        Decision::Allow { .. } => Ok(token),
        Decision::Deny(reason) => Err(Reply::new(DENIED_STATUS, DENIED_BODY, reason.response_details())),
    }
}

/// Verifies the tokens of a request, and changes it as the rules say.
async fn authenticate(
    context: &WorkerContext,
    (all, service): (&Config, Option<&Arc<ServiceConfig>>),
    head: &mut Head,
    parts: &mut Parts,
) -> Result<Option<Box<Verified>>, Reply> {
    let rules = context.authenticators.get(&all.gateway, service, &context.shared.keys);
    if rules.is_empty() {
        return Ok(None);
    }
    let looked_at = jwt::Parts { method: parts.method.as_str(), target: &head.target, headers: &parts.headers };
    let (token, changes) = match rules.authenticate(&looked_at, SystemTime::now()).await {
        Outcome::Anonymous { changes } => (None, changes),
        Outcome::Authenticated { token, changes } => (Some(token), changes),
        Outcome::Refused(refusal) => return Err(refused(&refusal, head)),
    };
    changes.apply(&mut parts.headers);
    if let Some(target) = jwt::without_params(&head.target, &changes.remove_params) {
        head.target = target;
    }
    Ok(token)
}

fn refused(refusal: &Refusal, head: &Head) -> Reply {
    let error = refusal.error;
    let reply = Reply::new(error.status(), error.to_string(), error.response_details());
    let challenge = www_authenticate(&head.scheme, &head.authority, &head.target);
    match HeaderValue::try_from(challenge) {
        Ok(challenge) => reply.header(WWW_AUTHENTICATE, challenge),
        // The authority and the path of a request that was read are values of headers.
        Err(_) => reply,
    }
}

/// Evaluates the policies on a connection that is not HTTP. Attributes of requests are unknown: an ALLOW rule with one does
/// not match, a DENY rule does.
///
/// # Errors
/// Response details of a denial.
pub fn authorise_connection(all: &Config, service: Option<&Arc<ServiceConfig>>, opened: &Opened) -> Result<(), String> {
    let policies = policies(all, service);
    let all = policies.iter().flat_map(|policies| &policies.http);
    let request = facts(opened, None);
    if custom(all.clone(), &request).next().is_some() {
        return Err("ext_authz_error".to_owned());
    }
    match decide(all, &request).decision {
        Decision::Allow { .. } => Ok(()),
        Decision::Deny(reason) => Err(DenyReason::response_details(&reason)),
    }
}

fn policies<'a>(all: &'a Config, service: Option<&'a Arc<ServiceConfig>>) -> Vec<&'a Policies> {
    std::iter::once(&all.gateway.policies).chain(service.map(|service| &service.policies)).collect()
}

fn http<'a>(head: &'a Head, parts: &'a Parts, authentication: Authentication<'a>) -> Http<'a> {
    Http {
        method: parts.method.as_str(),
        authority: &head.authority,
        path: head.target.split('?').next().unwrap_or_default(),
        headers: &parts.headers,
        authentication,
    }
}

fn facts<'a>(opened: &'a Opened, http: Option<Http<'a>>) -> Request<'a> {
    let source = opened.client.address.ip().to_canonical();
    Request {
        identity: opened.client.identity.as_ref(),
        source,
        // No proxy before the client's node proxy is trusted to name another one.
        remote: source,
        destination: opened.destination,
        sni: None,
        http,
    }
}
