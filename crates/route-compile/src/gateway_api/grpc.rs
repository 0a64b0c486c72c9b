//! GRPCRoutes to routes. A method `service/method` is the path of its requests.

use std::sync::Arc;

use kube_types::gateway::{GrpcMethodMatch, GrpcRoute, GrpcRouteMatch, GrpcRouteRule, TextMatchType};
use route::{Action, Conditions, Forward, Origin, PathMatch, Regex, Route, Rule};

use super::backends::{Reference, complete};
use super::filters;
use super::http::{headers, never, with_filters};
use super::precedence::{Key, sort};
use super::{hostnames, refused, with_origins};
use crate::finding::{Findings, Reason};
use crate::world::{Place, World, origin};

const KIND: &str = "GRPCRoute";

pub(super) fn routes(world: &World, place: Place<'_>, of: &[&GrpcRoute], findings: &mut Findings) -> Vec<Route> {
    let everything = GrpcRouteMatch::default();
    let mut routes = Vec::new();
    for object in of {
        let at = origin(KIND, &object.metadata);
        hostnames(&object.spec.hostnames, &at, findings);
        for (index, of) in object.spec.rules.iter().enumerate() {
            let at = at.at(format!("spec.rules[{index}]"));
            let rule = Arc::new(rule(world, place, of, &at, findings));
            for (position, (at, of)) in with_origins(&of.matches, &everything, &at).into_iter().enumerate() {
                let path = of.method.as_ref().map_or(Ok(PathMatch::Any), path_match);
                let path = never(path, &at, "method", findings);
                let headers = headers(&of.headers, &at, findings);
                let (Some(path), Some(headers)) = (path, headers) else { continue };
                let conditions = Conditions { path, headers, ..Conditions::default() };
                let route = Route { origin: at, name: rule.name.clone(), conditions, rule: Arc::clone(&rule) };
                let lengths = of.method.as_ref().map_or((0, 0), lengths);
                routes.push((Key::grpc(&route, lengths, &object.metadata, index, position), route));
            }
        }
    }
    sort(routes)
}

fn lengths(of: &GrpcMethodMatch) -> (usize, usize) {
    let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    (length(&of.service), length(&of.method))
}

fn path_match(of: &GrpcMethodMatch) -> Result<PathMatch, String> {
    let text = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let regex = |pattern: String| Regex::new(&pattern).map(PathMatch::Regex).map_err(|error| error.to_string());
    Ok(match (of.r#type.unwrap_or_default(), text(&of.service), text(&of.method)) {
        (_, None, None) => return Err("expected a service or a method".to_owned()),
        (TextMatchType::Exact, Some(service), Some(method)) => PathMatch::Exact(format!("/{service}/{method}")),
        (TextMatchType::Exact, Some(service), None) => PathMatch::Prefix(format!("/{service}/")),
        (TextMatchType::Exact, None, Some(method)) => regex(format!(r"/[^/]+/\Q{method}\E"))?,
        (TextMatchType::RegularExpression, service, method) => {
            let part = |pattern: Option<String>| pattern.unwrap_or_else(|| "[^/]+".to_owned());
            regex(format!("/(?:{})/(?:{})", part(service), part(method)))?
        }
    })
}

fn rule(world: &World, place: Place<'_>, of: &GrpcRouteRule, at: &Origin, findings: &mut Findings) -> Rule {
    let filters = filters::grpc(world, &of.filters, at, findings);
    if of.session_persistence.is_some() {
        let message = "sessions are not kept: each request goes to any endpoint";
        findings.add(Reason::Unsupported, at, "sessionPersistence", message);
    }
    let mut destinations = Vec::new();
    for (index, of) in of.backend_refs.iter().enumerate() {
        let at = at.at(format!("{}.backendRefs[{index}]", at.field));
        let weighted = Reference::from(of).weighted(world, &at, findings);
        let filters = filters::grpc(world, &of.filters, &at, findings);
        destinations.push(with_filters(weighted, filters, &at, findings));
    }
    let destinations = complete(destinations);
    let retry = Some(world.default_retry(place, &destinations));
    let forward = Forward { destinations, retry, mirrors: filters.mirrors, ..Forward::default() };
    Rule {
        origin: at.clone(),
        name: of.name.clone().unwrap_or_default(),
        fault: None,
        cors: None,
        action: if filters.is_refused { refused() } else { Action::Forward(forward) },
        request_headers: filters.request,
        response_headers: filters.response,
    }
}
