//! Routes as people read them: in the order in which a waypoint tries them, each with its conditions, what it does, and the
//! object that it comes from.

use contract::admin::control::Route as Line;
use graph::Mesh;
use kube_types::Resource;
use prost::Message as _;
use proto::{Change, waypoint as wire};
use route::{
    Action, Conditions, HeaderMatch, PathMatch, RedirectPath, RouteTable, Rule, Target, TextMatch, ValueMatch, Weighted,
};
use waypoint_config::{Content, Name, PortConfig, decode};

use crate::Compiler;

/// Lines of a resource for the waypoints of a gateway (`NAMESPACE/NAME`). None for one that is not about a service.
///
/// # Errors
/// When the resource cannot be read, with the field.
pub fn describe(gateway: &str, name: &str, resource: &wire::Resource) -> Result<Vec<Line>, String> {
    let parsed: Name = name.parse().map_err(|error: waypoint_config::NoName| error.to_string())?;
    let Content::Service(_, config) = decode(&parsed, resource).map_err(|error| format!("{name}: {error}"))? else {
        return Ok(Vec::new());
    };
    let mut lines = Vec::new();
    for (number, port) in &config.ports {
        let base = Line {
            gateway: gateway.to_owned(),
            service: name.to_owned(),
            port: *number,
            protocol: protocol(port),
            ..Line::default()
        };
        lines.extend(table(&base, &port.routes.routes));
        for (namespace, routes) in &port.routes.consumers {
            let base = Line { clients: Some(namespace.clone()), ..base.clone() };
            lines.extend(table(&base, routes));
        }
    }
    Ok(lines)
}

/// Lines of all routes that follow from these objects, as a control plane would send them.
pub fn routes(objects: impl IntoIterator<Item = Resource>) -> Vec<Line> {
    let mut compiler = Compiler::new(Mesh::default());
    objects.into_iter().for_each(|object| compiler.apply(object));
    let mut lines = Vec::new();
    for ((namespace, gateway), changes) in compiler.settle().waypoints {
        for change in changes {
            // There is nothing yet that could be removed, and what this crate encodes it can read.
            let Change::Upsert { name, value, .. } = change else { continue };
            let Ok(resource) = wire::Resource::decode(value) else { continue };
            lines.extend(describe(&format!("{namespace}/{gateway}"), &name, &resource).unwrap_or_default());
        }
    }
    lines
}

fn protocol(port: &PortConfig) -> String {
    match port.protocol {
        waypoint_config::AppProtocol::Undeclared => "detected",
        waypoint_config::AppProtocol::Http1 => "HTTP",
        waypoint_config::AppProtocol::Http2 => "HTTP/2",
        waypoint_config::AppProtocol::Tcp => "TCP",
    }
    .to_owned()
}

fn table(base: &Line, table: &RouteTable) -> Vec<Line> {
    let line = |(order, route): (usize, &route::Route)| Line {
        order: order + 1,
        r#match: conditions(&route.conditions),
        action: rule(&route.rule),
        from: route.origin.to_string(),
        ..base.clone()
    };
    table.routes().iter().enumerate().map(line).collect()
}

fn conditions(of: &Conditions) -> String {
    let mut parts = Vec::new();
    match &of.path {
        PathMatch::Any => {}
        PathMatch::Exact(path) => parts.push(path.clone()),
        PathMatch::Prefix(path) => parts.push(format!("{path}*")),
        PathMatch::Elements(path) => parts.push(format!("{path} and below")),
        PathMatch::ExactIgnoreCase(path) => parts.push(format!("{path} in any case")),
        PathMatch::PrefixIgnoreCase(path) => parts.push(format!("{path}* in any case")),
        PathMatch::Regex(regex) => parts.push(format!("~{}", regex.pattern())),
    }
    for (name, pattern) in [("method", &of.method), ("scheme", &of.scheme), ("authority", &of.authority)] {
        parts.extend(pattern.as_ref().map(|pattern| format!("{name} {}", text(pattern))));
    }
    parts.extend(of.headers.iter().map(header));
    parts.extend(of.query.iter().map(|query| format!("?{}={}", query.name, value(&query.value))));
    parts.extend(of.claims.iter().map(|claim| {
        let not = if claim.invert { "not " } else { "" };
        format!("{not}claim {}={}", claim.path.join("."), value(&claim.value))
    }));
    parts.extend(of.source_labels.iter().map(|(key, value)| format!("from pods {key}={value}")));
    parts.extend(of.source_namespace.as_ref().map(|namespace| format!("from namespace {namespace}")));
    if parts.is_empty() { "any".to_owned() } else { parts.join(", ") }
}

fn header(of: &HeaderMatch) -> String {
    format!("{}{}: {}", if of.invert { "not " } else { "" }, of.name, value(&of.value))
}

fn value(of: &ValueMatch) -> String {
    match of {
        ValueMatch::Present => "*".to_owned(),
        ValueMatch::Text(pattern) => text(pattern),
    }
}

fn text(of: &TextMatch) -> String {
    match of {
        TextMatch::Exact(text) => text.clone(),
        TextMatch::Prefix(text) => format!("{text}*"),
        TextMatch::Regex(regex) => format!("~{}", regex.pattern()),
    }
}

fn rule(of: &Rule) -> String {
    let mut parts = Vec::new();
    if let Some(fault) = &of.fault {
        parts.extend(fault.delay.as_ref().map(|delay| format!("delay {:?}", delay.duration)));
        parts.extend(fault.abort.as_ref().map(|abort| format!("abort {:?}", abort.status)));
    }
    match &of.action {
        Action::Respond(answer) => parts.push(format!("answer {}", answer.status)),
        Action::Redirect(redirect) => {
            let path = match &redirect.path {
                Some(RedirectPath::Full(path)) => format!(" to {path}"),
                Some(RedirectPath::Rewrite(_)) | None => String::new(),
            };
            parts.push(format!("redirect {}{path}", redirect.status));
        }
        Action::Forward(forward) => {
            parts.push(destinations(&forward.destinations));
            parts.extend(forward.timeout.map(|timeout| format!("timeout {timeout:?}")));
            parts.extend(forward.retry.as_ref().map(|retry| format!("{} retries", retry.attempts)));
            parts.extend(forward.mirrors.iter().map(|mirror| format!("mirror to {}", mirror.destination)));
            parts.extend(forward.path.as_ref().map(|_| "rewrite".to_owned()));
        }
    }
    parts.join(", ")
}

fn destinations(of: &[Weighted]) -> String {
    let target = |of: &Weighted| match &of.target {
        Target::Service(destination) => destination.to_string(),
        Target::Missing(destination) => format!("{destination} (does not exist: 503)"),
        Target::Invalid => "no backend (500)".to_owned(),
    };
    match of {
        [] => "no backend (500)".to_owned(),
        [one] => target(one),
        several => {
            several.iter().map(|one| format!("{} to {}", one.weight, target(one))).collect::<Vec<_>>().join(", ")
        }
    }
}
