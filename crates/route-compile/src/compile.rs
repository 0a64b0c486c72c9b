//! All objects to the tables of one service port.

use std::sync::Arc;

use route::{Action, Conditions, Destination, Forward, Origin, PortRoutes, Route, RouteTable, Rule, Target, Weighted};

use crate::finding::{Finding, Findings, Reason};
use crate::world::{Place, World, origin};
use crate::{gateway_api, virtual_service};

/// Tables of a service port, and what was found on the way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compiled {
    pub routes: PortRoutes,
    /// Sorted by object and field.
    pub findings: Vec<Finding>,
}

/// Compiles the routes of a service port: those of the Gateway API, else of VirtualServices, else the default route.
pub fn compile(world: &World, place: Place<'_>) -> Compiled {
    let mut findings = Findings::default();
    let virtual_services = virtual_service::selected(world, place);
    let attached = gateway_api::routes(world, place, &mut findings);
    let routes = match attached.producer {
        Some(routes) => {
            for of in virtual_services {
                let message = format!(
                    "routes of the Gateway API are attached to port {} of {}: they are used instead",
                    place.port, place.host
                );
                findings.add(Reason::Shadowed, &origin("VirtualService", &of.metadata), "", message);
            }
            routes
        }
        None => virtual_service::routes(world, place, &virtual_services, &mut findings)
            .unwrap_or_else(|| vec![default_route(world, place)]),
    };
    let consumers = attached.consumers.into_iter().map(|(namespace, routes)| (namespace, RouteTable::new(routes)));
    let routes = PortRoutes { routes: RouteTable::new(routes), consumers: consumers.collect() };
    Compiled { routes, findings: findings.into_sorted() }
}

/// Everything to the service itself, with Istio's retries.
fn default_route(world: &World, place: Place<'_>) -> Route {
    let destination = Destination { host: place.host.to_owned(), port: place.port, subset: None };
    let destinations = vec![Weighted::new(Target::Service(destination), 1)];
    let retry = Some(world.default_retry(place, &destinations));
    let forward = Forward { destinations, retry, ..Forward::default() };
    let rule = Rule { action: Action::Forward(forward), name: "default".to_owned(), ..Rule::default() };
    Route {
        origin: Origin::default(),
        name: rule.name.clone(),
        conditions: Conditions::default(),
        rule: Arc::new(rule),
    }
}
