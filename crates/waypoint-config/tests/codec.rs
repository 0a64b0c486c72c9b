//! Configurations are decoded as they were encoded, and nothing else is accepted.

mod support;

use std::sync::Arc;

use model::NamespacedHostname;
use proptest::prelude::*;
use proptest::test_runner::{Config as Runs, TestRunner};
use prost::Message as _;
use proto::waypoint as wire;
use route::{Origin, PortRoutes, Route, RouteTable, Rule};
use waypoint_config::{
    AppProtocol, Applier, Config, GatewayConfig, Handle, Name, PortConfig, ServiceConfig, decode, encode_gateway,
    encode_service,
};

const HOST: &str = "cart.shop.svc.cluster.local";

fn resource(bytes: &[u8]) -> wire::Resource {
    wire::Resource::decode(bytes).unwrap()
}

fn name() -> NamespacedHostname {
    NamespacedHostname::new("shop", HOST)
}

fn encoded(config: &ServiceConfig) -> (String, wire::Resource) {
    (format!("shop/{HOST}"), resource(&encode_service("shop", HOST, config)))
}

fn gateway(config: &GatewayConfig) -> (String, wire::Resource) {
    ("gateway/shop/waypoint".to_owned(), resource(&encode_gateway(config)))
}

type Fault = (&'static str, Box<dyn FnOnce(&mut wire::Service)>);

/// One port with one rule that has two routes.
fn config(name: &str) -> ServiceConfig {
    let rule = Arc::new(Rule { name: name.to_owned(), ..Rule::default() });
    let route = || Route {
        origin: Origin::default(),
        name: String::new(),
        conditions: route::Conditions::default(),
        rule: Arc::clone(&rule),
    };
    let routes = PortRoutes { routes: RouteTable::new(vec![route(), route()]), ..PortRoutes::default() };
    let port = PortConfig { protocol: AppProtocol::Http1, routes };
    ServiceConfig { ports: [(80, port)].into(), ..ServiceConfig::default() }
}

/// The service of a resource after a change of its message.
fn changed(config: &ServiceConfig, change: impl FnOnce(&mut wire::Service)) -> (String, wire::Resource) {
    let (name, resource) = encoded(config);
    let Some(wire::resource::Content::Service(bytes)) = resource.content else { panic!("a service") };
    let mut service = wire::Service::decode(bytes.as_slice()).unwrap();
    change(&mut service);
    let content = Some(wire::resource::Content::Service(service.encode_to_vec()));
    (name, wire::Resource { content })
}

/// Adds a field with a number that no message has.
fn with_unknown_field(resource: wire::Resource) -> wire::Resource {
    let content = resource.content.map(|content| match content {
        wire::resource::Content::Service(mut bytes) => {
            bytes.extend([0xf8, 0x3f, 1]);
            wire::resource::Content::Service(bytes)
        }
        wire::resource::Content::Gateway(mut bytes) => {
            bytes.extend([0xf8, 0x3f, 1]);
            wire::resource::Content::Gateway(bytes)
        }
    });
    wire::Resource { content }
}

#[test]
fn a_service_and_a_gateway_are_decoded_as_they_were_encoded() {
    let mut runner = TestRunner::new(Runs { failure_persistence: None, ..Runs::with_cases(512) });
    let configs = (support::service(), support::gateway());
    let result = runner.run(&configs, |(service, settings)| {
        let handle = Handle::default();
        let refused = Applier::new(handle.clone()).apply([encoded(&service), gateway(&settings)], &[]);
        prop_assert_eq!(refused, []);
        let expected = Config { services: [(name(), Arc::new(service))].into(), gateway: Arc::new(settings) };
        prop_assert_eq!(&*handle.load(), &expected);
        Ok(())
    });
    result.unwrap();
}

#[test]
fn a_cut_resource_is_refused_or_is_not_what_it_was() {
    let mut runner = TestRunner::new(Runs { failure_persistence: None, ..Runs::with_cases(256) });
    let result = runner.run(&(support::service(), any::<prop::sample::Index>()), |(service, at)| {
        let bytes = encode_service("shop", HOST, &service);
        let cut = wire::Resource::decode(&bytes[..at.index(bytes.len())]);
        if let Ok(cut) = cut {
            // The outer message begins with the length of the inner one, so a cut one is never readable as a part of it.
            prop_assert!(decode(&Name::service("shop", HOST), &cut).is_err());
        }
        Ok(())
    });
    result.unwrap();
}

#[test]
fn equal_configurations_give_equal_bytes_and_routes_share_their_rule() {
    let bytes = encode_service("shop", HOST, &config("a"));
    assert_eq!(bytes, encode_service("shop", HOST, &config("a")));

    let handle = Handle::default();
    Applier::new(handle.clone()).apply([encoded(&config("a"))], &[]);

    let config = handle.load();
    let routes = config.port(&name(), 80).unwrap().1.routes.routes.routes();
    assert!(Arc::ptr_eq(&routes[0].rule, &routes[1].rule));
    assert!(config.port(&name(), 81).is_none() && config.port(&NamespacedHostname::new("a", HOST), 80).is_none());
}

#[test]
fn each_fault_of_a_resource_is_named_with_its_field() {
    let table = |service: &mut wire::Service| service.ports[0].routes.clone().unwrap();
    let faults: [Fault; 8] = [
        ("ports[0].number: 70000 is out of range", Box::new(|service| service.ports[0].number = 70_000)),
        ("ports[0].protocol: 9 is out of range", Box::new(|service| service.ports[0].protocol = 9)),
        ("ports[1].number: found twice", Box::new(|service| service.ports.push(service.ports[0].clone()))),
        ("ports[0].routes: missing", Box::new(|service| service.ports[0].routes = None)),
        (
            "ports[0].routes.rules[0].action: missing",
            Box::new(move |service| {
                let mut table = table(service);
                table.rules[0].action = None;
                service.ports[0].routes = Some(table);
            }),
        ),
        (
            "ports[0].routes.routes[1].rule: 7 is out of range",
            Box::new(move |service| {
                let mut table = table(service);
                table.routes[1].rule = 7;
                service.ports[0].routes = Some(table);
            }),
        ),
        (
            "ports[0].routes.routes[0].origin.kind: \"Ingress\" is not known",
            Box::new(move |service| {
                let mut table = table(service);
                table.routes[0].origin.as_mut().unwrap().kind = "Ingress".to_owned();
                service.ports[0].routes = Some(table);
            }),
        ),
        (
            "policies.http[0]: invalid JSON: unknown field `future`, expected one of `namespace`, `name`, `action`, \
             `dryRun`, `rules` at line 1 column 9",
            Box::new(|service| {
                let http = vec![r#"{"future":1}"#.to_owned()];
                service.policies = Some(wire::Policies { http, jwt: Vec::new() });
            }),
        ),
    ];
    for (expected, change) in faults {
        let (_, resource) = changed(&config("a"), change);
        let error = decode(&Name::service("shop", HOST), &resource).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn a_resource_that_is_not_understood_as_a_whole_leaves_the_last_one_in_force() {
    let handle = Handle::default();
    let mut applier = Applier::new(handle.clone());
    applier.apply([encoded(&config("old"))], &[]);
    let (name_of, future) = encoded(&config("new"));

    let refused = applier.apply([(name_of.clone(), with_unknown_field(future))], &[]);

    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].name, name_of);
    assert_eq!(refused[0].reason, "3 bytes of fields that this version does not know; keeping the last version");
    let rule = |handle: &Handle| handle.load().services[&name()].ports[&80].routes.routes.routes()[0].rule.name.clone();
    assert_eq!(rule(&handle), "old");
    assert_eq!(applier.apply([encoded(&config("new"))], &[]), []);
    assert_eq!(rule(&handle), "new");
}

#[test]
fn a_service_whose_first_resource_is_refused_is_not_served_and_its_neighbours_are() {
    let handle = Handle::default();
    let mut applier = Applier::new(handle.clone());
    let (name_of, future) = encoded(&config("a"));
    let other = ("shop/b".to_owned(), resource(&encode_service("shop", "b", &config("b"))));

    let refused = applier.apply([(name_of, with_unknown_field(future)), other], &[]);

    assert_eq!(refused.len(), 1);
    let config = handle.load();
    assert!(config.port(&name(), 80).is_none());
    assert!(config.port(&NamespacedHostname::new("shop", "b"), 80).is_some());
}

#[test]
fn a_resource_is_only_taken_for_the_object_of_its_name() {
    let service = encode_service("shop", HOST, &config("a"));
    let settings = encode_gateway(&GatewayConfig::default());
    for (text, bytes, expected) in [
        ("shop/other", service.as_slice(), "the content is about another object than the name"),
        ("gateway/shop/waypoint", &service, "the content is about another object than the name"),
        ("shop/a", &settings, "the content is about another object than the name"),
        ("shop/a", &[], "content of a kind that this version does not know"),
        ("shop", &service, "invalid resource name \"shop\": expected NAMESPACE/HOST, or gateway/NAMESPACE/NAME"),
    ] {
        let refused = Applier::new(Handle::default()).apply([(text.to_owned(), resource(bytes))], &[]);
        assert_eq!(refused[0].reason, format!("{expected}; keeping the last version"), "{text}");
    }
}

#[test]
fn responses_that_come_twice_or_remove_the_unknown_change_nothing() {
    let handle = Handle::default();
    let mut applier = Applier::new(handle.clone());
    let response = || [encoded(&config("a")), gateway(&GatewayConfig::default())];
    applier.apply(response(), &[]);
    let once = handle.load();

    applier.apply(response(), &["shop/unknown".to_owned(), "no name".to_owned()]);
    assert_eq!(handle.load(), once);
    let kept = handle.load();
    applier.apply([], &[format!("shop/{HOST}"), "gateway/shop/waypoint".to_owned()]);

    assert_eq!(*handle.load(), Config::default());
    assert!(kept.port(&name(), 80).is_some(), "a request keeps the configuration that it began with");
}
