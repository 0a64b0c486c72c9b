//! Findings about policies that match nothing, and how they and the condition `Enforced` follow what exists.

#[allow(dead_code, reason = "shared with other tests")]
#[path = "support/proxy.rs"]
mod proxy;

use proxy::Told;

const MESH: &str = include_str!("support/bookshop.yaml");

const POLICY: &str = "AuthorizationPolicy foo/p";
const PEER: &str = "PeerAuthentication foo/p";

fn authorization(spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p, namespace: foo}}\nspec: {spec}\n"
    )
}

fn peer(spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: p, namespace: foo}}\nspec: {spec}\n"
    )
}

fn mesh_with(policy: &str) -> Told {
    let mut told = Told::new();
    told.apply(&format!("{MESH}---\n{policy}"));
    told
}

fn pod(name: &str, app: &str, port: u16) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: foo, labels: {{app: {app}}}, annotations: {{ambient.istio.io/redirection: enabled}}}}
spec: {{nodeName: n1, containers: [{{name: c, ports: [{{containerPort: {port}}}]}}]}}
status: {{phase: Running, podIP: 10.1.1.{port_low}, podIPs: [{{ip: 10.1.1.{port_low}}}], conditions: [{{type: Ready, status: 'True'}}]}}
",
        port_low = port % 250
    )
}

#[test]
fn the_port_of_a_service_is_named_with_the_port_of_its_pods() {
    let deny = authorization(
        "{selector: {matchLabels: {app: httpbin}}, action: DENY, rules: [{to: [{operation: {ports: ['8000']}}]}]}",
    );
    let told = mesh_with(&deny);

    assert_eq!(told.findings(POLICY), [("service_port", "spec.rules[0].to[0].operation.ports[0]")]);
    let why = "8000 is the port of Service \"httpbin\", which sends to port 8080 of its pods, and policies match the pod's port; did you mean 8080?";
    assert_eq!(told.messages(POLICY), [format!("port \"8000\" never matches: {why}")]);
    assert_eq!(told.enforced(POLICY), "False NeverMatches");
    assert!(told.message(POLICY).contains("did you mean 8080?"), "{}", told.message(POLICY));
    assert!(told.admits("foo/curl", "foo/httpbin", 8080));

    let strict = peer("{selector: {matchLabels: {app: httpbin}}, portLevelMtls: {8000: {mode: STRICT}}}");
    let told = mesh_with(&strict);
    assert_eq!(told.findings(PEER), [("service_port", "spec.portLevelMtls.8000")]);
    assert_eq!(told.enforced(PEER), "False NeverMatches");
    assert!(told.admits("10.3.0.1", "foo/httpbin", 8080), "plaintext is still accepted");
}

#[test]
fn an_allow_policy_for_the_port_of_a_service_says_that_it_allows_nothing() {
    let told = mesh_with(&authorization(
        "{selector: {matchLabels: {app: httpbin}}, rules: [{to: [{operation: {ports: ['8000']}}]}]}",
    ));

    let ports = "spec.rules[0].to[0].operation.ports[0]";
    assert_eq!(told.findings(POLICY), [("service_port", ports), ("allows_nothing", "spec.rules")]);
    assert_eq!(told.enforced(POLICY), "True PartiallyEnforced");
    assert!(told.message(POLICY).starts_with("allows nothing; enforced on 1 of 1 selected workload"));
    assert!(!told.admits("foo/curl", "foo/httpbin", 8080));
}

#[test]
fn a_workload_counts_only_where_a_rule_can_match() {
    let deny = authorization(
        "{action: DENY, rules: [{from: [{source: {namespaces: [bar]}}], to: [{operation: {ports: ['9000']}}]}]}",
    );
    let service = "---
apiVersion: v1
kind: Service
metadata: {name: odd, namespace: foo}
spec: {selector: {app: mongodb}, ports: [{port: 9000, targetPort: 27017}], clusterIP: 10.96.0.9}
";
    let told = mesh_with(&format!("{deny}{service}"));

    assert_eq!(told.findings(POLICY), [], "one workload has the port");
    assert_eq!(told.enforced(POLICY), "True Enforced");
    assert_eq!(told.message(POLICY), "enforced on 3 of 4 selected workloads; no rule can match on 1");
}

#[test]
fn findings_follow_the_ports_of_pods_and_services() {
    let mut told = mesh_with(&authorization(
        "{selector: {matchLabels: {app: httpbin}}, action: DENY, rules: [{to: [{operation: {ports: ['8000']}}]}]}",
    ));
    assert_eq!(told.enforced(POLICY), "False NeverMatches");

    told.apply(&pod("another", "httpbin", 8000));
    assert_eq!((told.findings(POLICY), told.enforced(POLICY).as_str()), (vec![], "True Enforced"));
    assert!(told.message(POLICY).starts_with("enforced on 1 of 2 selected workloads; no rule can match on 1"));
    told.remove(&pod("another", "httpbin", 8000));
    assert_eq!(told.enforced(POLICY), "False NeverMatches");
    told.remove("apiVersion: v1\nkind: Service\nmetadata: {name: httpbin, namespace: foo}\n");

    assert_eq!(told.findings(POLICY), [("undeclared_port", "spec.rules[0].to[0].operation.ports[0]")]);
    assert_eq!(told.enforced(POLICY), "True Enforced", "the pod may listen there all the same");
}

#[test]
fn findings_follow_service_accounts_and_namespaces() {
    let field = "spec.rules[0].from[0].source.principals[0]";
    let mut told =
        mesh_with(&authorization("{rules: [{from: [{source: {principals: [cluster.local/ns/foo/sa/robot]}}]}]}"));
    assert_eq!(told.findings(POLICY), [("unknown_service_account", field), ("allows_nothing", "spec.rules")]);
    assert!(told.message(POLICY).starts_with("currently allows nothing; enforced on 4 of 4 selected workloads"));

    let account = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: robot, namespace: foo}\n";
    told.apply(account);
    assert_eq!((told.findings(POLICY), told.message(POLICY)), (vec![], "enforced on 4 of 4 selected workloads"));
    told.remove(account);
    assert_eq!(told.findings(POLICY).len(), 2);
    let template = "apiVersion: apps/v1
kind: Deployment
metadata: {name: robots, namespace: foo}
spec: {replicas: 0, selector: {matchLabels: {app: r}}, template: {metadata: {labels: {app: r}}, spec: {serviceAccountName: robot, containers: [{name: c}]}}}
";
    told.apply(template);
    assert_eq!(told.findings(POLICY), [], "a Deployment would run as it");

    told.apply(&authorization("{action: DENY, rules: [{from: [{source: {namespaces: [shop]}}]}]}"));
    assert_eq!(told.findings(POLICY), [("unknown_namespace", "spec.rules[0].from[0].source.namespaces[0]")]);
    assert_eq!(told.enforced(POLICY), "True Enforced", "it holds as soon as there is such a namespace");
    told.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n");
    assert_eq!(told.findings(POLICY), []);
}

#[test]
fn findings_follow_what_a_policy_selects() {
    let mut told = mesh_with(&authorization("{selector: {matchLabels: {app: httpbim}}}"));
    assert_eq!(told.findings(POLICY), [("selects_nothing", "spec.selector.matchLabels.app")]);
    let why = "no pod of namespace \"foo\" has the label app=httpbim; did you mean app=httpbin?";
    assert_eq!(told.message(POLICY), format!("selects no workload: {why}"));

    told.apply(&pod("new", "httpbim", 80));
    assert_eq!((told.findings(POLICY), told.enforced(POLICY).as_str()), (vec![], "True Enforced"));
    told.remove(&pod("new", "httpbim", 80));
    assert_eq!(told.findings(POLICY).len(), 1);

    let elsewhere =
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: fooo}\nspec: {}\n";
    told.apply(elsewhere);
    let object = "AuthorizationPolicy fooo/p";
    assert_eq!(told.findings(object), [("unknown_namespace", "metadata.namespace")]);
    assert_eq!(told.message(object), "selects no workload: namespace \"fooo\" not found; did you mean \"foo\"?");
}

#[test]
fn a_principal_with_its_scheme_never_matches() {
    let told = mesh_with(&authorization(
        "{action: DENY, rules: [{from: [{source: {principals: ['spiffe://cluster.local/ns/bar/sa/curl']}}]}]}",
    ));

    assert_eq!(told.findings(POLICY), [("invalid_principal", "spec.rules[0].from[0].source.principals[0]")]);
    assert_eq!(told.enforced(POLICY), "False NeverMatches");
    assert!(told.messages(POLICY)[0].ends_with("did you mean \"cluster.local/ns/bar/sa/curl\"?"));
}

#[test]
fn rules_that_contradict_themselves_or_are_there_twice_are_found() {
    let told = mesh_with(&authorization(
        "
  action: DENY
  rules:
  - from: [{source: {namespaces: [foo], notNamespaces: [foo]}}]
  - from: [{source: {principals: [cluster.local/ns/foo/sa/curl], namespaces: [bar]}}]
  - to: [{operation: {ports: ['8080', '8080'], notPorts: ['8080']}}]
  - from: [{source: {namespaces: [bar, bar]}}]
  - from: [{source: {namespaces: [bar, bar]}}]
  - when: [{key: source.ip, values: [10.0.0.0/8]}, {key: source.ip, values: [192.168.0.0/16]}]",
    ));

    let found = told.findings(POLICY);
    for expected in [
        ("matches_nothing", "spec.rules[0].from[0].source.namespaces[0]"),
        ("matches_nothing", "spec.rules[1]"),
        ("matches_nothing", "spec.rules[2].to[0].operation.ports[0]"),
        ("duplicate", "spec.rules[3].from[0].source.namespaces[1]"),
        ("duplicate", "spec.rules[4]"),
        ("matches_nothing", "spec.rules[5]"),
    ] {
        assert!(found.contains(&expected), "{expected:?} is missing: {found:?}");
    }
    assert_eq!(told.enforced(POLICY), "True PartiallyEnforced", "{}", told.message(POLICY));
    assert!(told.message(POLICY).contains("rules[1] never matches: its conditions exclude each other"));
}

#[test]
fn what_excludes_nothing_is_found_too() {
    let told = mesh_with(&authorization(
        "
  selector: {matchLabels: {app: httpbin}}
  rules:
  - from: [{source: {notPrincipals: ['spiffe://cluster.local/ns/bar/sa/curl'], notNamespaces: [barr], notIpBlocks: [10.1.2.3/16]}}]
    to: [{operation: {notPorts: ['8000']}}]",
    ));

    let source = "spec.rules[0].from[0].source";
    let found = told.findings(POLICY);
    for (code, field) in [
        ("invalid_principal", format!("{source}.notPrincipals[0]")),
        ("unknown_namespace", format!("{source}.notNamespaces[0]")),
        ("ip_block", format!("{source}.notIpBlocks[0]")),
        ("service_port", "spec.rules[0].to[0].operation.notPorts[0]".to_owned()),
    ] {
        assert!(found.contains(&(code, field.as_str())), "{field} is missing: {found:?}");
    }
    assert!(
        told.messages(POLICY)
            .iter()
            .all(|message| message.contains("excludes nothing") || message.contains("is treated as"))
    );
    assert_eq!(told.enforced(POLICY), "True Enforced");
}

#[test]
fn conditions_name_the_generation_that_they_are_about() {
    let mut compiler = compile::Compiler::new(graph::Mesh::default());
    let policy = |generation: u32| {
        authorization("{rules: [{}]}").replace("namespace: foo", &format!("namespace: foo, generation: {generation}"))
    };
    let service = |generation: &str| {
        format!(
            "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: ext, namespace: foo, labels: {{istio.io/use-waypoint: gone}}{generation}}}
spec: {{hosts: ['*.example.com'], ports: [{{number: 80, name: http, protocol: HTTP}}], resolution: NONE}}
"
        )
    };
    let mut observed = |yaml: String| {
        proxy::resources(&yaml).into_iter().for_each(|resource| compiler.apply(resource));
        let update = compiler.settle();
        let policies = update.policies.into_iter().filter_map(|(_, state)| state).map(|state| state.conditions(None));
        let statuses = update.statuses.into_iter().map(|(_, status)| status.conditions);
        let conditions = policies.chain(statuses).flatten();
        conditions.map(|condition| (condition.r#type, condition.observed_generation)).collect::<Vec<_>>()
    };

    let of_policy = |number| [("ZtunnelAccepted".to_owned(), Some(number)), ("Enforced".to_owned(), Some(number))];
    assert_eq!(observed(policy(3)), of_policy(3));
    assert_eq!(observed(policy(4)), of_policy(4), "nothing else has changed");
    assert_eq!(observed(policy(4)), []);
    let bound = ["istio.io/WaypointBound", "istio.io/WaypointMissing"].map(str::to_owned);
    assert_eq!(observed(service(", generation: 7")), bound.clone().map(|name| (name, Some(7))));
    assert_eq!(observed(service("")), bound.map(|name| (name, None)));
}
