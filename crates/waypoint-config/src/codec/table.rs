//! Tables of routes. Routes of one rule share it on both sides.

use std::collections::HashMap;
use std::sync::Arc;

use proto::waypoint as wire;
use route::{Origin, PortRoutes, Route, RouteTable, Rule};

use super::error::{Invalid, Problem, Within as _, each, required};
use super::{conditions, rule};

/// Kinds of objects that parts of a route come from; the model keeps a reference to one of these names.
const KINDS: [&str; 11] = [
    "",
    "VirtualService",
    "DestinationRule",
    "HTTPRoute",
    "GRPCRoute",
    "TCPRoute",
    "TLSRoute",
    "Service",
    "ServiceEntry",
    "Gateway",
    "BackendTLSPolicy",
];

pub(super) fn encode(of: &RouteTable) -> wire::Table {
    let mut rules: Vec<wire::Rule> = Vec::new();
    // By address: routes of one rule share it.
    let mut places: HashMap<*const Rule, u32> = HashMap::new();
    let mut routes = Vec::new();
    for Route { origin, name, conditions, rule: of_route } in of.routes() {
        let place = *places.entry(Arc::as_ptr(of_route)).or_insert_with(|| {
            rules.push(rule::encode(of_route));
            u32::try_from(rules.len() - 1).unwrap_or(u32::MAX)
        });
        routes.push(wire::Route {
            origin: Some(encode_origin(origin)),
            name: name.clone(),
            conditions: Some(conditions::encode(conditions)),
            rule: place,
        });
    }
    wire::Table { rules, routes }
}

pub(super) fn encode_consumer((namespace, table): (&String, &RouteTable)) -> wire::Consumer {
    wire::Consumer { namespace: namespace.clone(), routes: Some(encode(table)) }
}

pub(super) fn decode_port(of: Option<wire::Table>, consumers: Vec<wire::Consumer>) -> Result<PortRoutes, Invalid> {
    let table = |of: Option<wire::Table>| decode(required("routes", of)?).within("routes");
    let mut routes = PortRoutes { routes: table(of)?, ..PortRoutes::default() };
    for (index, wire::Consumer { namespace, routes: of }) in consumers.into_iter().enumerate() {
        let of = table(of).within(format!("consumers[{index}]"))?;
        if routes.consumers.insert(namespace, of).is_some() {
            return Err(Problem::Twice).within(format!("consumers[{index}].namespace"));
        }
    }
    Ok(routes)
}

fn decode(of: wire::Table) -> Result<RouteTable, Invalid> {
    let rules = each("rules", of.rules, |of| rule::decode(of).map(Arc::new))?;
    let route = |of: wire::Route| {
        let rule = usize::try_from(of.rule).ok().and_then(|place| rules.get(place));
        Ok(Route {
            origin: decode_origin(of.origin)?,
            name: of.name,
            conditions: conditions::decode(required("conditions", of.conditions)?).within("conditions")?,
            rule: Arc::clone(rule.ok_or(Problem::OutOfRange(of.rule.into())).within("rule")?),
        })
    };
    Ok(RouteTable::new(each("routes", of.routes, route)?))
}

pub(super) fn encode_origin(of: &Origin) -> wire::Origin {
    let Origin { kind, namespace, name, field } = of;
    wire::Origin { kind: (*kind).to_owned(), namespace: namespace.clone(), name: name.clone(), field: field.clone() }
}

pub(super) fn decode_origin(of: Option<wire::Origin>) -> Result<Origin, Invalid> {
    let wire::Origin { kind, namespace, name, field } = required("origin", of)?;
    let Some(kind) = KINDS.into_iter().find(|known| *known == kind) else {
        return Err(Problem::Unknown(kind)).within("origin.kind");
    };
    Ok(Origin { kind, namespace, name, field })
}
