//! Documents of a file that are in force, and reports of each mistake.

use super::*;

fn problems(text: &str) -> Vec<(usize, String, String)> {
    parse(Path::new("f.yaml"), text)
        .problems
        .into_iter()
        .map(|problem| (problem.line, problem.field, problem.message))
        .collect()
}

const POLICY: &str =
    "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: app}\n";

#[test]
fn an_unknown_field_of_an_istio_kind_is_named_with_its_line() {
    let found = problems(&format!(
        "# comment\n---\n{POLICY}spec:\n  rules:\n  - from:\n    - source:\n        namespace: [a]\n"
    ));

    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].0, 10);
    assert_eq!(found[0].1, "spec.rules[0].from[0].source.namespace");
    assert_eq!(found[0].2, "unknown field \"namespace\"; did you mean \"namespaces\"?");
}

#[test]
fn a_wrong_type_is_named_with_its_line() {
    let found = problems("apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec:\n  ports:\n  - port: eighty\n");

    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].0, found[0].1.as_str()), (6, "spec.ports[0].port"));
    assert_eq!(found[0].2, "expected an integer, found the string \"eighty\"");
}

#[test]
fn an_unknown_mode_lists_the_known_ones() {
    let found = problems(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: p}\nspec:\n  mtls: {mode: STRIKT}\n",
    );

    assert_eq!((found[0].0, found[0].1.as_str()), (5, "spec.mtls.mode"));
    assert!(found[0].2.contains("STRICT"), "{found:?}");
}

#[test]
fn a_value_that_can_match_nothing_is_named_with_its_line() {
    let rules = "spec:\n  action: DENY\n  rules:\n  - when:\n    - key: source.namspace\n      values: [a]\n    - {key: source.ip, values: [10.0.0.0/8, 10.0.0.0/33]}\n    - {key: destination.port}\n  - from:\n    - source:\n        ipBlocks: [300.1.1.1]\n        principals: ['a*b']\n        serviceAccounts: [a/b/c]\n    - source: {}\n    to:\n    - operation: {notPorts: ['80', http]}\n";
    let found = problems(&format!("{POLICY}{rules}"));

    let places: Vec<_> = found.iter().map(|(line, field, _)| (*line, field.as_str())).collect();
    assert_eq!(
        places,
        [
            (8, "spec.rules[0].when[0].key"),
            (10, "spec.rules[0].when[1].values[1]"),
            (11, "spec.rules[0].when[2]"),
            (14, "spec.rules[1].from[0].source.ipBlocks[0]"),
            (15, "spec.rules[1].from[0].source.principals[0]"),
            (16, "spec.rules[1].from[0].source.serviceAccounts[0]"),
            (17, "spec.rules[1].from[1].source"),
            (19, "spec.rules[1].to[0].operation.notPorts[1]"),
        ]
    );
    assert!(found[0].2.contains("source.namespace"), "{found:?}");
    assert!(found[3].2.contains("10.0.0.0/8"), "{found:?}");
}

#[test]
fn every_value_that_istio_documents_is_understood() {
    let rules = "spec:\n  rules:\n  - when:\n    - {key: 'request.headers[x]', values: [v]}\n    - {key: 'request.auth.claims[a][b]', notValues: [v]}\n    - {key: remote.ip, values: ['::1']}\n    - {key: connection.sni, values: [a]}\n    - {key: experimental.envoy.filters.x, values: [a]}\n    - {key: source.serviceAccount, values: [ns/sa]}\n    - {key: source.trustDomain, values: ['*.example']}\n    from:\n    - source: {principals: ['*', 'a*', '*a'], serviceAccounts: [sa], ipBlocks: ['10.0.0.1', '2001:db8::/32'], trustDomains: [td]}\n    to:\n    - operation: {ports: ['1', '65535'], hosts: ['*.a']}\n  - {}\n";

    assert_eq!(problems(&format!("{POLICY}{rules}")), []);
}

#[test]
fn a_misspelt_field_that_says_what_an_object_is_refuses_it() {
    let template = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec:\n  template:\n    metadata: {lables: {app: web}}\n";
    for (text, line, field) in [
        ("apiVersion: v1\nkind: Pod\nmetadata:\n  name: p\n  lables: {app: web}\n", 5, "metadata.lables"),
        (&POLICY.replace("namespace:", "namesapce:"), 3, "metadata.namesapce"),
        ("apiVersion: v1\nkind: Service\nmetadata: {name: s}\nsepc: {}\n", 4, "sepc"),
        (&format!("{POLICY}sepc: {{}}\n"), 4, "sepc"),
        (template, 6, "spec.template.metadata.lables"),
    ] {
        let found = problems(text);

        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert_eq!((found[0].0, found[0].1.as_str()), (line, field), "{found:?}");
        assert!(found[0].2.starts_with("unknown field"), "{found:?}");
    }
}

#[test]
fn what_an_api_server_adds_is_no_mistake() {
    let found = problems(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p, resourceVersion: '7', selfLink: x, finalizers: [a/b], managedFields: [{manager: m}]}\nspec: {dnsPolicy: ClusterFirst}\nstatus: {qosClass: Burstable}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\nbinaryData: {a: aGk=}\nimmutable: true\n---\napiVersion: v1\nkind: ServiceAccount\nmetadata: {name: s}\nautomountServiceAccountToken: false\n",
    );

    assert_eq!(found, []);
}

#[test]
fn an_empty_from_is_refused_and_not_taken_for_everybody() {
    let found = problems(&format!("{POLICY}spec:\n  rules:\n  - from:\n"));

    assert_eq!((found[0].0, found[0].1.as_str()), (6, "spec.rules[0].from"));
}

#[test]
fn every_kind_that_is_not_supported_is_named_with_its_object() {
    let contents = parse(
        Path::new("f.yaml"),
        "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: v}\n---\napiVersion: example.com/v1\nkind: Service\nmetadata: {name: v, namespace: app}\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: n1}\n---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: deny}\n---\napiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: jwt}\n",
    );

    let found: Vec<_> = contents
        .problems
        .iter()
        .map(|problem| format!("{} {} {problem}", problem.severity.name(), problem.code.name()))
        .collect();
    assert_eq!(
        found,
        [
            "warning not_enforced f.yaml:1: Sidecar v: networking.istio.io/v1 is not enforced here: it routes nothing",
            "note unsupported_kind f.yaml:5: Service app/v: example.com/v1 is not supported here: it has no effect",
            "warning not_enforced f.yaml:13: NetworkPolicy deny: networking.k8s.io/v1 is not enforced here: it protects nothing",
            "warning not_enforced f.yaml:17: RequestAuthentication jwt: security.istio.io/v1 is not enforced here: it protects nothing",
        ]
    );
    assert!(contents.is_good());
    assert_eq!(contents.objects.len(), 1);
}

#[test]
fn a_misspelt_kind_group_or_version_is_an_error_with_the_one_that_was_meant() {
    for (text, code, field, message) in [
        ("apiVersion: v1\nkind: pod\n", Code::UnknownKind, "kind", "unknown kind \"pod\" in v1; did you mean Pod?"),
        (
            "apiVersion: security.istio.io/v1\nkind: AuthorisationPolicy\n",
            Code::UnknownKind,
            "kind",
            "unknown kind \"AuthorisationPolicy\" in security.istio.io/v1; did you mean AuthorizationPolicy?",
        ),
        (
            "apiVersion: securty.istio.io/v1\nkind: AuthorizationPolicy\n",
            Code::WrongVersion,
            "apiVersion",
            "AuthorizationPolicy belongs to security.istio.io/v1, not to securty.istio.io/v1",
        ),
        (
            "apiVersion: extensions/v1beta1\nkind: Deployment\n",
            Code::WrongVersion,
            "apiVersion",
            "Deployment belongs to apps/v1, not to extensions/v1beta1",
        ),
        (
            "apiVersion: apps/v1beta2\nkind: Deployment\n",
            Code::WrongVersion,
            "apiVersion",
            "Deployment does not exist in apps/v1beta2: expected apps/v1",
        ),
    ] {
        let contents = parse(Path::new("f.yaml"), &format!("{text}metadata: {{name: x}}\n"));

        let [problem] = &contents.problems[..] else { panic!("{text}: {:?}", contents.problems) };
        assert_eq!((problem.code, problem.field.as_str(), problem.message.as_str()), (code, field, message));
        assert!(contents.has_unknown, "it may be any object that the file had");
    }
}

#[test]
fn a_document_with_a_mistake_is_refused_by_itself() {
    let strict = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: strict, namespace: app}\nspec: {mtls: {mode: STRICT}}\n";
    let contents = parse(
        Path::new("f.yaml"),
        &format!("{strict}---\n{POLICY}spec:\n  rule: []\n  action: DENI\n---\n{}", strict.replace("strict", "other")),
    );

    let keys: Vec<_> = contents.objects.iter().map(|object| object.key.to_string()).collect();
    assert_eq!(keys, ["PeerAuthentication app/strict", "PeerAuthentication app/other"]);
    let found: Vec<_> = contents.problems.iter().map(|problem| (problem.line, problem.subject.to_string())).collect();
    assert_eq!(found, [(10, "AuthorizationPolicy app/p".to_owned())]);
    assert!(!contents.has_unknown && contents.refused.len() == 1);
}

#[test]
fn a_document_with_a_syntax_error_names_the_object_that_it_probably_is() {
    for text in [
        format!("{POLICY}spec:\n  rules: [\n"),
        format!("{POLICY}spec:\n  action: DENY\n action: ALLOW\n"),
        format!("{POLICY}spec:\n  {{{{- if .Values.strict }}}}\n  action: DENY\n"),
        format!("{POLICY}spec:\n\taction: DENY\n"),
    ] {
        let contents = parse(Path::new("f.yaml"), &text);

        assert_eq!(contents.problems.len(), 1, "{text}");
        let problem = &contents.problems[0];
        assert_eq!((problem.subject.to_string().as_str(), problem.code), ("AuthorizationPolicy app/p", Code::Syntax));
        assert!(contents.has_unknown);
    }
    let nothing = parse(Path::new("f.yaml"), "kind: [\n");
    assert!(nothing.problems[0].subject.is_unknown(), "{:?}", nothing.problems);
}

#[test]
fn of_two_definitions_in_a_file_the_first_is_in_force() {
    let contents = parse(Path::new("f.yaml"), &format!("{POLICY}---\n{POLICY}spec: {{action: DENY}}\n"));

    assert_eq!(contents.objects.len(), 1);
    assert_eq!(contents.objects[0].line, 1);
    assert_eq!(
        contents.problems[0].to_string(),
        "f.yaml:5: AuthorizationPolicy app/p: metadata.name: is already defined on line 1, which is in force; this second definition is not"
    );
}

#[test]
fn fields_without_an_effect_are_one_note_of_their_object() {
    let contents = parse(
        Path::new("f.yaml"),
        "apiVersion: v1\nkind: Service\nmetadata: {name: s, resourceVersion: '1'}\nspec:\n  ports: [{port: 80}]\n  healthCheckNodePort: 8080\n  loadBalancerIP: ''\n  sessionAffinityConfig: {clientIP: {timeoutSeconds: 1}}\nstatus: {loadBalancer: {}}\n",
    );

    let found: Vec<_> = contents.problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "f.yaml:1: Service default/s: these fields have no effect here: spec.healthCheckNodePort, spec.sessionAffinityConfig"
        ]
    );
    assert_eq!(contents.problems[0].severity, Severity::Note);
    assert!(contents.is_good());
}

#[test]
fn a_pod_has_the_service_account_that_an_api_server_gives_it() {
    for (spec, account) in [
        ("serviceAccount: robot", "robot"),
        ("serviceAccountName: name", "name"),
        ("serviceAccount: robot, serviceAccountName: name", "name"),
        ("serviceAccount: robot, serviceAccountName: ''", "robot"),
        ("serviceAccount: robot, serviceAccountName: null", "robot"),
        ("hostNetwork: false", "default"),
    ] {
        let pod =
            format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec: {{{spec}, containers: [{{name: c}}]}}\n");
        let contents = parse(Path::new("f.yaml"), &pod);

        let [Object { resource: Resource::Pod(pod), .. }] = &contents.objects[..] else {
            panic!("{spec}: {contents:?}")
        };
        assert_eq!(pod.service_account(), account, "{spec}");
        assert!(contents.problems.is_empty(), "{:?}", contents.problems);
    }
    let template = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec:\n  selector: {matchLabels: {a: b}}\n  template:\n    metadata: {labels: {a: b}}\n    spec: {serviceAccount: robot, containers: [{name: c}]}\n";
    let contents = parse(Path::new("f.yaml"), template);
    let [Object { resource: Resource::Deployment(maker), .. }] = &contents.objects[..] else { panic!("{contents:?}") };
    assert_eq!(maker.spec.template.spec.service_account_name.as_deref(), Some("robot"));
}

#[test]
fn what_decides_the_network_of_a_pod_and_is_not_supported_is_an_error() {
    let maker = |spec: &str, selector: &str| {
        format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: d}}\nspec:\n  {selector}\n  template:\n    metadata: {{labels: {{a: b}}}}\n    spec: {{{spec}}}\n"
        )
    };
    const SELECTOR: &str = "selector: {matchLabels: {a: b}}";
    for (text, field) in [
        (maker("runtimeClassName: kata", SELECTOR), "spec.template.spec.runtimeClassName"),
        (maker("dnsPolicy: Cluster", SELECTOR), "spec.template.spec.dnsPolicy"),
        (maker("hostnetwork: true", SELECTOR), "spec.template.spec.hostnetwork"),
        (maker("hostNetwork: 'true'", SELECTOR), "spec.template.spec.hostNetwork"),
        (maker("nodeName: web", "selector: {matchLabels: {a: c}}"), "spec.selector"),
        (maker("nodeName: web", "replicas: 1"), "spec.selector"),
    ] {
        let found = problems(&text);

        assert_eq!(found.iter().map(|(_, field, _)| field.as_str()).collect::<Vec<_>>(), [field], "{text}");
    }
    assert_eq!(problems(&maker("nodeName: web", SELECTOR)), []);
}

#[test]
fn numbers_and_booleans_are_read_as_kubectl_reads_them() {
    let contents = parse(
        Path::new("f.yaml"),
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  hostNetwork: yes\n  terminationGracePeriodSeconds: 1_0\n  containers: [{name: c, ports: [{containerPort: 0x50}]}]\n  volumes:\n  - {name: v, configMap: {name: m, defaultMode: 0755, items: [{key: k, path: p, mode: 0o400}]}}\n",
    );

    let [Object { resource: Resource::Pod(pod), .. }] = &contents.objects[..] else { panic!("{contents:?}") };
    let volume = pod.spec.volumes[0].config_map.as_ref().unwrap();
    assert_eq!((volume.default_mode, volume.items[0].mode), (Some(0o755), Some(0o400)));
    assert_eq!(pod.spec.termination_grace_period_seconds, Some(10));
    assert!(pod.spec.host_network);
    assert_eq!(pod.spec.containers[0].ports[0].container_port, 80);
}

#[test]
fn a_syntax_error_has_one_line_and_it_is_the_files() {
    for text in ["a: 1\na: 2\n", "a:\n  b: 1\n c: 2\n", "a: [\n", "a: 1\nb: *gone\n"] {
        let found = problems(&format!("# one\n{POLICY}---\n{text}"));

        assert!(found[0].0 > 5, "{found:?}");
        assert!(!found[0].2.contains("line"), "{found:?}");
    }
}

#[test]
fn the_namespace_is_default_where_none_is_named_and_names_are_checked() {
    let contents = parse(
        Path::new("f.yaml"),
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: ../p}\n---\napiVersion: v1\nkind: Pod\nmetadata: {}\n---\nkind: Pod\n---\napiVersion: v1\nkind: Deployment\n",
    );

    assert_eq!(contents.objects[0].key.to_string(), "Pod default/p");
    let fields: Vec<_> = contents.problems.iter().map(|p| (p.line, p.field.as_str())).collect();
    assert_eq!(fields, [(7, "metadata.name"), (11, "metadata.name"), (13, "apiVersion"), (15, "apiVersion")]);
}

#[test]
fn lists_are_opened_and_nulls_are_absent() {
    let contents = parse(
        Path::new("f.yaml"),
        "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Pod\n  metadata: {name: a, labels: }\n  spec: {containers: [{name: c, command: ~}]}\n- apiVersion: v1\n  kind: Node\n  metadata: {name: n1}\n",
    );

    assert!(contents.problems.is_empty(), "{:?}", contents.problems);
    assert_eq!(contents.objects.len(), 2);
    assert_eq!(contents.objects[1].line, 8);
}

/// Time to read so many small objects: the best of three.
fn time_to_read(count: usize, form: impl Fn(usize) -> String) -> std::time::Duration {
    let text: String = (0..count).map(form).collect();
    let one = || {
        let started = std::time::Instant::now();
        let contents = parse(Path::new("f.yaml"), &text);
        assert_eq!((contents.objects.len(), contents.problems.len()), (count, 0));
        started.elapsed()
    };
    (0..3).map(|_| one()).min().unwrap()
}

#[test]
fn the_time_to_read_a_file_is_linear_in_its_objects() {
    let document =
        |index| format!("---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: m{index}}}\ndata: {{a: b}}\n");

    let (few, many) = (time_to_read(500, document), time_to_read(4000, document));

    // Eight times the objects; a quadratic reader needs 64 times the time.
    assert!(many < 24 * few, "{few:?} for 500, {many:?} for 4000");
}
