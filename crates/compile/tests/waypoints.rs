//! Routes of services that are bound to waypoints: who gets which, what a change costs, and what is found in the objects.

#[allow(dead_code, reason = "shared with other tests")]
#[path = "support/proxy.rs"]
mod proxy;

use std::collections::BTreeMap;

use compile::{Compiler, GatewayName, Update};
use graph::Mesh;
use kube_types::{ObjectRef, Resource};
use model::NamespacedHostname;
use proptest::prelude::*;
use proptest::test_runner::{Config as Runs, TestRunner};
use prost::Message as _;
use proto::Change;
use proto::waypoint as wire;
use proxy::resources;
use waypoint_config::{Applier, Config, Handle};

const BASE: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: shop}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE, allowedRoutes: {namespaces: {from: All}}}]}
status: {addresses: [{type: IPAddress, value: 10.96.0.99}]}
---
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: shop, labels: {istio.io/use-waypoint: waypoint}}
spec: {clusterIP: 10.96.0.1, ports: [{port: 9080, name: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: reviews-v2, namespace: shop}
spec: {clusterIP: 10.96.0.2, ports: [{port: 9080, name: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: ratings, namespace: shop, labels: {istio.io/use-waypoint: waypoint}}
spec: {clusterIP: 10.96.0.3, ports: [{port: 9080, name: grpc}, {port: 53, name: dns, protocol: UDP}]}
";

const CANARY: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: canary, namespace: shop}
spec: {hosts: [reviews], http: [{route: [{destination: {host: reviews}, weight: 90}, {destination: {host: reviews-v2}, weight: 10}]}]}
";

const REVIEWS: &str = "reviews.shop.svc.cluster.local";
const RATINGS: &str = "ratings.shop.svc.cluster.local";

/// A control plane with the waypoints that it serves.
struct World {
    compiler: Compiler,
    waypoints: BTreeMap<GatewayName, (Handle, Applier)>,
    findings: BTreeMap<ObjectRef, Vec<String>>,
    compiled: usize,
}

impl World {
    fn new(yaml: &str) -> Self {
        let compiler = Compiler::new(Mesh::default());
        let mut world = Self { compiler, waypoints: BTreeMap::new(), findings: BTreeMap::new(), compiled: 0 };
        world.apply(yaml);
        world
    }

    fn apply(&mut self, yaml: &str) {
        self.apply_all(resources(yaml));
    }

    fn apply_all(&mut self, resources: impl IntoIterator<Item = Resource>) {
        resources.into_iter().for_each(|resource| self.compiler.apply(resource));
        self.settle();
    }

    fn remove(&mut self, yaml: &str) {
        resources(yaml).iter().for_each(|resource| self.compiler.remove(&resource.key()));
        self.settle();
    }

    fn settle(&mut self) {
        let Update { waypoints, findings, compiled_services, .. } = self.compiler.settle();
        self.compiled = compiled_services;
        for (key, findings) in findings {
            let lines: Vec<_> = findings.iter().map(|f| format!("{} {}", f.field, f.reason.code())).collect();
            match lines.is_empty() {
                true => drop(self.findings.remove(&key)),
                false => drop(self.findings.insert(key, lines)),
            }
        }
        for (gateway, changes) in waypoints {
            let (_, applier) = self.waypoints.entry(gateway).or_insert_with(|| {
                let handle = Handle::default();
                (handle.clone(), Applier::new(handle))
            });
            let (mut upserts, mut removed) = (Vec::new(), Vec::new());
            for change in changes {
                match change {
                    Change::Upsert { name, value, .. } => upserts.push((name, wire::Resource::decode(value).unwrap())),
                    Change::Remove { name } => removed.push(name),
                }
            }
            assert_eq!(applier.apply(upserts, &removed), [], "what is compiled is understood");
        }
    }

    /// Configuration of the waypoints `NAMESPACE/NAME`.
    fn config(&self, gateway: &str) -> Config {
        let (namespace, name) = gateway.split_once('/').unwrap();
        let handle = self.waypoints.get(&(namespace.to_owned(), name.to_owned()));
        handle.map(|(handle, _)| (*handle.load()).clone()).unwrap_or_default()
    }

    /// Routes of port 9080 of a service of `shop` as lines.
    fn routes(&self, gateway: &str, host: &str) -> Vec<String> {
        let config = self.config(gateway);
        let Some((_, port)) = config.port(&NamespacedHostname::new("shop", host), 9080) else { return Vec::new() };
        port.routes.routes.routes().iter().map(|route| route.origin.to_string()).collect()
    }

    fn found(&self, object: &str) -> Vec<String> {
        let found = self.findings.iter().find(|(key, _)| key.to_string() == object);
        found.map(|(_, lines)| lines.clone()).unwrap_or_default()
    }
}

#[test]
fn a_waypoint_gets_the_services_that_are_bound_to_it_and_the_routes_of_each() {
    let world = World::new(&format!("{BASE}---{CANARY}"));

    let config = world.config("shop/waypoint");
    assert_eq!(config.services.len(), 2);
    assert_eq!(world.routes("shop/waypoint", REVIEWS), ["VirtualService shop/canary spec.http[0]"]);
    assert_eq!(world.routes("shop/waypoint", RATINGS), ["default"]);
    let ratings = &config.services[&NamespacedHostname::new("shop", RATINGS)];
    assert_eq!(ratings.ports.keys().copied().collect::<Vec<_>>(), [9080], "only TCP goes through a mesh");
    assert_eq!(ratings.ports[&9080].protocol, waypoint_config::AppProtocol::Http2);
    assert!(world.findings.is_empty(), "{:?}", world.findings);
}

#[test]
fn a_waypoint_that_is_not_ready_has_its_routes_before_the_first_connection() {
    let world = World::new(&BASE.replace("status: {addresses: [{type: IPAddress, value: 10.96.0.99}]}", ""));

    assert_eq!(world.config("shop/waypoint").services.len(), 2);
}

#[test]
fn a_change_costs_the_services_that_it_concerns_however_many_others_there_are() {
    let service = |number: usize| {
        format!(
            "---
apiVersion: v1
kind: Service
metadata: {{name: s{number}, namespace: shop, labels: {{istio.io/use-waypoint: waypoint}}}}
spec: {{ports: [{{port: 9080, name: http}}]}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: v{number}, namespace: shop}}
spec: {{hosts: [s{number}], http: [{{route: [{{destination: {{host: s{number}}}}}]}}]}}
"
        )
    };
    for others in [10, 1000] {
        let others: String = (0..others).map(service).collect();
        let mut world = World::new(&format!("{BASE}{others}"));

        world.apply(CANARY);
        assert_eq!(world.compiled, 1, "a VirtualService");
        world.apply(&CANARY.replace("90", "80").replace("10}", "20}"));
        assert_eq!(world.compiled, 1, "its change");
        world.apply("apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: d, namespace: shop}\nspec: {host: reviews-v2}\n");
        assert_eq!(world.compiled, 1, "a rule of a destination");
        world.apply("apiVersion: v1\nkind: Service\nmetadata: {name: reviews-v2, namespace: shop}\nspec: {ports: [{port: 9081, name: http}]}\n");
        assert_eq!(world.compiled, 1, "a destination");
        world.apply(
            "apiVersion: v1\nkind: Service\nmetadata: {name: new, namespace: shop}\nspec: {ports: [{port: 80}]}\n",
        );
        assert_eq!(world.compiled, 0, "a service without a waypoint that nobody sends to");
        world.apply("apiVersion: v1\nkind: Service\nmetadata: {name: ratings, namespace: shop, labels: {istio.io/use-waypoint: waypoint, team: a}}\nspec: {clusterIP: 10.96.0.3, ports: [{port: 9080, name: grpc}]}\n");
        assert_eq!(world.compiled, 0, "a label that says nothing");
        world.remove(CANARY);
        assert_eq!(world.compiled, 1, "its removal");
    }
}

#[test]
fn a_subset_exists_once_its_rule_does() {
    let subset = CANARY.replace("{host: reviews-v2}", "{host: reviews, subset: v2}");
    let rule = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: shop}
spec: {host: reviews, subsets: [{name: v2, labels: {version: v2}}]}
";
    let mut world = World::new(&format!("{BASE}---{subset}"));
    let missing = ["spec.http[0].route[1].destination.subset missing_reference"];
    assert_eq!(world.found("VirtualService shop/canary"), missing);

    world.apply(rule);
    assert_eq!(world.found("VirtualService shop/canary"), [""; 0]);
    world.remove(rule);
    assert_eq!(world.found("VirtualService shop/canary"), missing);
}

#[test]
fn rules_of_a_delegate_follow_it() {
    let root = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: root, namespace: shop}
spec: {hosts: [reviews], http: [{match: [{uri: {prefix: /a}}], delegate: {name: leaf, namespace: team}}]}
";
    let leaf = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: leaf, namespace: team}
spec: {http: [{route: [{destination: {host: reviews.shop.svc.cluster.local}}]}]}
";
    let mut world = World::new(&format!("{BASE}---{root}"));
    assert_eq!(world.routes("shop/waypoint", REVIEWS), [""; 0]);
    assert_eq!(world.found("VirtualService shop/root"), ["spec.http[0].delegate missing_reference"]);

    world.apply(leaf);
    assert_eq!(world.routes("shop/waypoint", REVIEWS), ["VirtualService shop/root spec.http[0].match[0]"]);
    assert!(world.findings.is_empty(), "{:?}", world.findings);
    world.remove(leaf);
    assert_eq!(world.routes("shop/waypoint", REVIEWS), [""; 0]);
}

#[test]
fn an_object_that_is_for_no_service_with_a_waypoint_says_so_until_there_is_one() {
    let unbound = BASE.replace(", labels: {istio.io/use-waypoint: waypoint}", "");
    let route = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: shop}
spec: {parentRefs: [{group: '', kind: Service, name: ratings}], rules: [{backendRefs: [{name: ratings, port: 9080}]}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: ingress, namespace: shop}
spec: {parentRefs: [{name: edge}], rules: []}
";
    let mut world = World::new(&format!("{unbound}---{CANARY}---{route}"));
    assert_eq!(world.found("VirtualService shop/canary"), ["spec.hosts needs_waypoint"]);
    assert_eq!(world.found("HTTPRoute shop/r"), ["spec.parentRefs needs_waypoint"]);
    assert_eq!(world.findings.len(), 2, "a route of an ingress is for others: {:?}", world.findings);
    assert_eq!(world.config("shop/waypoint"), Config::default());

    world.apply(BASE);
    assert!(world.findings.is_empty(), "{:?}", world.findings);
    assert_eq!(world.routes("shop/waypoint", RATINGS), ["HTTPRoute shop/r spec.rules[0]"]);
    world.apply(&unbound);
    assert_eq!(world.config("shop/waypoint"), Config::default());
    assert_eq!(world.found("HTTPRoute shop/r"), ["spec.parentRefs needs_waypoint"]);
    world.remove(route);
    assert_eq!(world.found("HTTPRoute shop/r"), [""; 0]);
}

#[test]
fn a_route_of_another_namespace_is_for_its_clients_alone() {
    let consumer = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: mine, namespace: client}
spec: {parentRefs: [{group: '', kind: Service, name: ratings, namespace: shop}], rules: [{backendRefs: [{name: ratings, namespace: shop, port: 9080}]}]}
";
    let world = World::new(&format!("{BASE}---{consumer}"));

    assert_eq!(world.routes("shop/waypoint", RATINGS), ["default"]);
    let config = world.config("shop/waypoint");
    let (_, port) = config.port(&NamespacedHostname::new("shop", RATINGS), 9080).unwrap();
    let own: Vec<_> = port.routes.consumers["client"].routes().iter().map(|route| route.origin.to_string()).collect();
    assert_eq!(own, ["HTTPRoute client/mine spec.rules[0]"]);
}

#[test]
fn a_service_of_two_gateways_is_known_to_both() {
    let canary = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: next, namespace: shop}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
status: {addresses: [{type: IPAddress, value: 10.96.0.98}]}
---
apiVersion: v1
kind: Service
metadata:
  name: reviews
  namespace: shop
  labels: {istio.io/use-waypoint: waypoint, istio.io/use-waypoint-canary: next}
  annotations: {istio.io/use-waypoint-canary-weight: '10'}
spec: {clusterIP: 10.96.0.1, ports: [{port: 9080, name: http}]}
";
    let mut world = World::new(&format!("{BASE}---{CANARY}"));
    world.apply(canary);

    let expected = ["VirtualService shop/canary spec.http[0]"];
    assert_eq!(world.routes("shop/waypoint", REVIEWS), expected);
    assert_eq!(world.routes("shop/next", REVIEWS), expected);
    world.apply(BASE);
    assert_eq!(world.config("shop/next"), Config::default());
}

#[test]
fn routes_are_described_in_order_with_what_they_do_and_their_origin() {
    let routes = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v, namespace: shop}
spec:
  hosts: [reviews]
  http:
  - match: [{uri: {prefix: /v2}, headers: {end-user: {exact: jason}}, sourceNamespace: team}]
    timeout: 3s
    route: [{destination: {host: reviews-v2}}]
  - match: [{uri: {exact: /old}}]
    redirect: {uri: /new}
  - route: [{destination: {host: reviews}, weight: 90}, {destination: {host: none}, weight: 10}]
";
    let lines = compile::routes(resources(&format!("{BASE}---{routes}")));

    let reviews = lines.iter().filter(|line| line.service == format!("shop/{REVIEWS}"));
    let text: Vec<_> =
        reviews.map(|line| format!("{} {} | {} | {}", line.order, line.r#match, line.action, line.from)).collect();
    assert_eq!(
        text,
        [
            "1 /v2*, end-user: jason, from namespace team | reviews-v2.shop.svc.cluster.local:9080, timeout 3s, 2 retries | VirtualService shop/v spec.http[0].match[0]",
            "2 /old | redirect 301 to /new | VirtualService shop/v spec.http[1].match[0]",
            "3 any | 90 to reviews.shop.svc.cluster.local:9080, 10 to none.shop.svc.cluster.local:9080 (does not exist: 503), 2 retries | VirtualService shop/v spec.http[2]",
        ]
    );
    assert!(lines.iter().all(|line| line.gateway == "shop/waypoint" && line.clients.is_none() && line.port == 9080));
}

/// States of the objects of a mesh; each history goes through some of them.
fn states() -> Vec<Resource> {
    let mut states = resources(&format!("{BASE}---{CANARY}"));
    for more in [
        BASE.replace("istio.io/use-waypoint: waypoint", "a: b"),
        BASE.replace("9080", "9090"),
        CANARY.replace("hosts: [reviews]", "hosts: ['*']"),
        CANARY.replace("hosts: [reviews]", "hosts: []"),
        CANARY.replace("{host: reviews-v2}", "{host: reviews, subset: v2}"),
        CANARY.replace("hosts: [reviews]", "exportTo: ['~'], hosts: [reviews]"),
        "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: root, namespace: shop}
spec: {hosts: [ratings], http: [{match: [{uri: {prefix: /a}}], delegate: {name: canary}}, {route: [{destination: {host: ratings}}]}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: d, namespace: shop}
spec: {host: reviews, subsets: [{name: v2, labels: {version: v2}}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: d, namespace: shop}
spec: {host: '*.shop.svc.cluster.local', trafficPolicy: {loadBalancer: {consistentHash: {useSourceIp: true}}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: shop}
spec: {parentRefs: [{group: '', kind: Service, name: ratings}], rules: [{backendRefs: [{name: reviews-v2, port: 9080}]}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: shop}
spec: {parentRefs: [{group: '', kind: Service, name: reviews}], rules: [{backendRefs: [{name: none, port: 9080}]}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: g, namespace: client}
spec: {parentRefs: [{group: '', kind: Service, name: ratings, namespace: shop}], rules: [{backendRefs: [{name: ratings, namespace: shop, port: 9080}]}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: e, namespace: shop, labels: {istio.io/use-waypoint: waypoint}}
spec: {hosts: [a.example, reviews-v2.shop.svc.cluster.local], ports: [{number: 9080, name: http, protocol: HTTP}], resolution: DNS}
"
        .to_owned(),
    ] {
        // One by one: the same object has several states.
        states.extend(more.split("---\n").flat_map(resources));
    }
    states
}

#[test]
fn any_history_ends_where_its_last_state_alone_does() {
    let states = states();
    let step = (0..states.len(), prop::bool::weighted(0.7), any::<bool>());
    let mut runner = TestRunner::new(Runs { failure_persistence: None, ..Runs::with_cases(256) });
    let result = runner.run(&prop::collection::vec(step, 1..40), |steps| {
        let mut world = World::new(BASE);
        let mut last: BTreeMap<ObjectRef, Resource> =
            resources(BASE).into_iter().map(|resource| (resource.key(), resource)).collect();
        for (state, is_there, settles) in steps {
            let resource = states[state].clone();
            if is_there {
                last.insert(resource.key(), resource.clone());
                world.compiler.apply(resource);
            } else {
                last.remove(&resource.key());
                world.compiler.remove(&resource.key());
            }
            if settles {
                world.settle();
            }
        }
        world.settle();

        let mut fresh = World::new("");
        fresh.apply_all(last.into_values());
        prop_assert_eq!(world.config("shop/waypoint"), fresh.config("shop/waypoint"));
        prop_assert_eq!(world.findings, fresh.findings);
        Ok(())
    });
    result.unwrap();
}
