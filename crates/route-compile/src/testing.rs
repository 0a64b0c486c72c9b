//! Worlds of manifests for tests of this crate.

use http::HeaderMap;
use route::{Action, Forward, PortRoutes, Request, Source, Target};
use serde_json::Value;

use crate::{Compiled, Finding, Place, Port, Service, World, compile};

/// Numbers and names.
type Ports = &'static [(u16, &'static str)];

/// Services of the bookshop: namespace, name, ports.
const SERVICES: [(&str, &str, Ports); 9] = [
    ("shop", "reviews", &[(9080, "http"), (80, "http-alt")]),
    ("shop", "reviews-v1", &[(9080, "http")]),
    ("shop", "reviews-v2", &[(9080, "http")]),
    ("shop", "reviews-v3", &[(9080, "http")]),
    ("shop", "shadow", &[(8080, "http")]),
    ("shop", "ratings", &[(9080, "http")]),
    ("shop", "cart", &[(9090, "grpc"), (9080, "http")]),
    ("other", "reviews", &[(9080, "http")]),
    ("other", "audit", &[(8080, "http")]),
];

/// Objects of a text with `---` between them.
pub(crate) fn world(yaml: &str) -> World {
    let mut world =
        World { cluster_domain: "cluster.local".into(), root_namespace: "istio-system".into(), ..World::default() };
    for (namespace, name, ports) in SERVICES {
        let ports = ports.iter().map(|(number, name)| Port { number: *number, name: (*name).to_owned() }).collect();
        let service = Service { name: name.into(), namespace: namespace.into(), ports };
        world.services.insert(format!("{name}.{namespace}.svc.cluster.local"), service);
    }
    for document in yaml.split("---\n").filter(|document| !document.trim().is_empty()) {
        let value: Value = serde_saphyr::from_str(document).unwrap_or_else(|error| panic!("{error}: {document}"));
        let kind = value["kind"].as_str().unwrap_or_default().to_owned();
        match kind.as_str() {
            "VirtualService" => world.virtual_services.push(serde_json::from_value(value).unwrap()),
            "DestinationRule" => world.destination_rules.push(serde_json::from_value(value).unwrap()),
            "HTTPRoute" => world.http_routes.push(serde_json::from_value(value).unwrap()),
            "GRPCRoute" => world.grpc_routes.push(serde_json::from_value(value).unwrap()),
            _ => panic!("unknown kind {kind:?}"),
        }
    }
    world
}

/// Compiles port 9080 of `reviews.shop` for a waypoint of namespace `shop`.
pub(crate) fn reviews(yaml: &str) -> Compiled {
    at(yaml, "shop", "reviews.shop.svc.cluster.local", 9080)
}

/// Compiles a port of a service for a waypoint of a namespace.
pub(crate) fn at(yaml: &str, waypoint: &str, host: &str, port: u16) -> Compiled {
    let world = world(yaml);
    compile(&world, Place { waypoint, host, service: &world.services[host], port })
}

/// Object, field and code of each finding.
pub(crate) fn codes(findings: &[Finding]) -> Vec<String> {
    let line = |finding: &Finding| {
        let Finding { origin, reason, .. } = finding;
        let object = format!("{}/{}", origin.namespace, origin.name);
        let field = if origin.field.is_empty() { String::new() } else { format!(" {}", origin.field) };
        format!("{object}{field} {}", reason.code())
    };
    findings.iter().map(line).collect()
}

/// The end of a GET: origin of the route, and where its requests go. Header lines are `name: value`.
pub(crate) fn get(routes: &PortRoutes, target: &str, lines: &[&str]) -> String {
    get_from(routes, Source::default(), target, lines)
}

/// As [`get`], for a client.
pub(crate) fn get_from(routes: &PortRoutes, source: Source<'_>, target: &str, lines: &[&str]) -> String {
    let mut headers = HeaderMap::new();
    for (name, value) in lines.iter().map(|line| line.split_once(": ").unwrap()) {
        headers.append(name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap());
    }
    let (method, scheme, authority) = ("GET", "http", "reviews:9080");
    let request = Request { method, scheme, authority, target, headers: &headers, source, claims: None };
    routes
        .find(&request)
        .map_or_else(|| "404".to_owned(), |route| format!("{}: {}", route.name, end(&route.rule.action)))
}

/// Action in one line: destinations without their common suffix, with shares when there are several.
pub(crate) fn end(action: &Action) -> String {
    match action {
        Action::Redirect(redirect) => format!("redirect {}", redirect.status),
        Action::Respond(answer) => format!("answer {}", answer.status),
        Action::Forward(forward) => destinations(forward),
    }
}

fn destinations(forward: &Forward) -> String {
    let target = |target: &Target| match target {
        Target::Service(destination) => destination.to_string().replace(".svc.cluster.local", ""),
        Target::Missing(destination) => {
            format!("missing {}", destination.to_string().replace(".svc.cluster.local", ""))
        }
        Target::Invalid => "invalid".to_owned(),
    };
    let all: Vec<_> = match forward.destinations.as_slice() {
        [one] => vec![target(&one.target)],
        several => several.iter().map(|of| format!("{} {}", of.weight, target(&of.target))).collect(),
    };
    all.join(", ")
}

/// The forwarding of the first route.
pub(crate) fn first(compiled: &Compiled) -> Forward {
    match &compiled.routes.routes.routes()[0].rule.action {
        Action::Forward(forward) => forward.clone(),
        other => panic!("expected destinations, found {other:?}"),
    }
}
