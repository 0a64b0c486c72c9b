//! Objects that an API server with the policies of admission takes, and objects that it refuses.

use std::fmt::Write as _;

/// Objects that work: kind, name, and what follows the name.
pub(super) const ACCEPTED: [(&str, &str, &str); 11] = [
    ("v1 Namespace", "in-mesh", "labels: {istio.io/dataplane-mode: ambient}"),
    ("v1 Namespace", "not-in-mesh", "labels: {istio.io/dataplane-mode: none}"),
    ("v1 Pod", "pod", "labels: {istio.io/dataplane-mode: ambient}\nspec: {containers: [{name: app, image: app}]}"),
    (
        "apps/v1 Deployment",
        "deployment",
        "labels: {istio.io/dataplane-mode: has-no-effect-here}\nspec: {selector: {matchLabels: {app: x}}, template: {metadata: {labels: \
         {app: x, istio.io/dataplane-mode: none}}, spec: {containers: [{name: app, image: app}]}}}",
    ),
    (
        "security.istio.io/v1 AuthorizationPolicy",
        "policy",
        "labels: {}\nspec:\n  selector: {matchLabels: {app: x}}\n  action: DENY\n  rules:\n  - from:\n    - source: {principals: \
         [td/ns/a/sa/b, 'td/ns/*', '*/sa/b', '*'], namespaces: [a], ipBlocks: [10.0.0.0/8, '::1', '::ffff:10.0.0.5'], serviceAccounts: \
         [a/b]}\n    - source: {trustDomains: [td], notServiceAccounts: [b]}\n    to:\n    - operation: {ports: ['80'], methods: [GET], \
         paths: ['/a/*']}\n    when:\n    - {key: source.ip, values: [10.0.0.1]}\n    - {key: destination.port, notValues: ['65535']}\n    \
         - {key: 'request.headers[User-Agent]', values: [x]}\n    - {key: 'request.auth.claims[a][b]', values: [x]}\n    \
         - {key: experimental.envoy.filters.a, values: [x]}\n    - {key: source.principal, values: ['td/*']}",
    ),
    ("security.istio.io/v1 AuthorizationPolicy", "nothing", "labels: {}\nspec: {}"),
    (
        "security.istio.io/v1beta1 AuthorizationPolicy",
        "waypoint",
        "labels: {}\nspec: {targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: g}], rules: [{}]}",
    ),
    (
        "security.istio.io/v1beta1 PeerAuthentication",
        "ports",
        "labels: {}\nspec: {selector: {matchLabels: {app: x}}, mtls: {mode: STRICT}, portLevelMtls: {'80': {mode: DISABLE}}}",
    ),
    (
        "networking.istio.io/v1 ServiceEntry",
        "service",
        "labels: {}\nspec: {hosts: [a.example], addresses: [10.0.0.1, '10.1.0.0/16', '::1'], ports: [{number: 80, name: http, protocol: \
         HTTP}], location: MESH_INTERNAL, resolution: STATIC, endpoints: [{address: 10.0.0.2, ports: {http: 8080}, weight: 2}]}",
    ),
    (
        "networking.istio.io/v1alpha3 ServiceEntry",
        "selected",
        "labels: {}\nspec: {hosts: [b.example], ports: [{number: 1, name: tcp}], workloadSelector: {labels: {app: vm}}, resolution: STATIC}",
    ),
    (
        "networking.istio.io/v1beta1 WorkloadEntry",
        "machine",
        "labels: {}\nspec: {address: 10.0.0.3, labels: {app: vm}, serviceAccount: vm, network: n1}",
    ),
];

/// Objects that can never work, and the reason in the answer.
pub(super) const REFUSED: [(&str, &str, &str, &str); 26] = [
    (
        "v1 Namespace",
        "bad-mode",
        "labels: {istio.io/dataplane-mode: ambeint}",
        "invalid value 'ambeint' of the label istio.io/dataplane-mode: expected ambient or none",
    ),
    (
        "v1 Pod",
        "bad-pod",
        "labels: {istio.io/dataplane-mode: Ambient}\nspec: {containers: [{name: app, image: app}]}",
        "invalid value 'Ambient' of the label istio.io/dataplane-mode",
    ),
    (
        "apps/v1 Deployment",
        "bad-template",
        "labels: {}\nspec: {selector: {matchLabels: {app: x}}, template: {metadata: {labels: {app: x, istio.io/dataplane-mode: 'on'}}, spec: \
         {containers: [{name: app, image: app}]}}}",
        "invalid value 'on' of the label istio.io/dataplane-mode",
    ),
    (
        "batch/v1 CronJob",
        "bad-cron-job",
        "labels: {}\nspec: {schedule: '* * * * *', jobTemplate: {spec: {template: {metadata: {labels: {istio.io/dataplane-mode: enabled}}, \
         spec: {restartPolicy: Never, containers: [{name: app, image: app}]}}}}}",
        "invalid value 'enabled' of the label istio.io/dataplane-mode",
    ),
    (
        "v1 Pod",
        "bad-announced",
        "annotations: {ambient.istio.io/redirection: enabled}\nspec: {containers: [{name: app, image: app}]}",
        "the annotation ambient.istio.io/redirection is written by the agent of the node alone",
    ),
    policy("bad-field", "rule: []", "unknown field"),
    policy("bad-action", "action: allow", "Unsupported value: \"allow\""),
    policy(
        "bad-key",
        "rules: [{when: [{key: source.ips, values: [10.0.0.1]}]}]",
        "unknown condition source.ips: expected source.ip,",
    ),
    policy(
        "bad-header",
        "rules: [{when: [{key: 'request.headers[]', values: [x]}]}]",
        "unknown condition request.headers[]",
    ),
    policy("bad-condition", "rules: [{when: [{key: source.ip}]}]", "a condition has neither values nor notValues"),
    policy("bad-source", "rules: [{from: [{source: {}}]}]", "a source is empty"),
    policy("bad-from", "rules: [{from: [{}]}]", "a source is empty"),
    policy("bad-operation", "rules: [{to: [{operation: {}}]}]", "an operation is empty"),
    policy(
        "bad-block",
        "rules: [{from: [{source: {ipBlocks: [10.0.0.0/8, 10.0.0.0/33]}}, {source: {notRemoteIpBlocks: [x]}}]}]",
        "invalid value 10.0.0.0/33, x: expected an address or a block, for example 10.0.0.0/8",
    ),
    policy(
        "bad-ip",
        "rules: [{when: [{key: destination.ip, values: [10.0.0.256]}]}]",
        "invalid value 10.0.0.256: expected an address",
    ),
    policy(
        "bad-principal",
        "rules: [{from: [{source: {principals: ['spiffe://td/ns/a/sa/b']}}]}]",
        "a principal begins with spiffe:// and never matches",
    ),
    policy(
        "bad-star",
        "rules: [{from: [{source: {notNamespaces: ['a*b']}}]}]",
        "invalid value a*b: expected a name, with '*' at one end",
    ),
    policy(
        "bad-account",
        "rules: [{from: [{source: {serviceAccounts: ['a/b/c', 'a/*']}}]}]",
        "invalid value a/b/c, a/*: expected a service account",
    ),
    policy(
        "bad-port",
        "rules: [{to: [{operation: {ports: ['80', http, '65536']}}]}, {when: [{key: destination.port, values: ['0']}]}]",
        "invalid value http, 65536, 0: expected a port number from 1 to 65535",
    ),
    policy(
        "bad-target",
        "selector: {matchLabels: {a: b}}, targetRefs: [{kind: Service, name: s}]",
        "selector and targetRefs are mutually exclusive",
    ),
    (
        "security.istio.io/v1 PeerAuthentication",
        "bad-ports",
        "labels: {}\nspec: {selector: {matchLabels: {app: x}}, portLevelMtls: {http: {mode: STRICT}}}",
        "expected port numbers from 1 to 65535 as keys",
    ),
    (
        "security.istio.io/v1 PeerAuthentication",
        "bad-selector",
        "labels: {}\nspec: {portLevelMtls: {'80': {mode: STRICT}}}",
        "spec.portLevelMtls requires a selector",
    ),
    (
        "security.istio.io/v1 PeerAuthentication",
        "bad-root",
        "namespace: istio-system\nspec: {selector: {matchLabels: {app: x}}, mtls: {mode: STRICT}}",
        "spec.selector is ignored in the root namespace istio-system",
    ),
    (
        "networking.istio.io/v1 ServiceEntry",
        "bad-addresses",
        "labels: {}\nspec: {hosts: [a.example], addresses: [10.0.0.1, a.example], ports: [{number: 80, name: http}]}",
        "spec.addresses: invalid address a.example",
    ),
    (
        "networking.istio.io/v1 ServiceEntry",
        "bad-endpoints",
        "labels: {}\nspec: {hosts: [a.example], ports: [{number: 80, name: http}], endpoints: [{address: 'unix:///run/x'}]}",
        "node proxies cannot reach Unix sockets",
    ),
    (
        "networking.istio.io/v1 WorkloadEntry",
        "bad-machine",
        "labels: {}\nspec: {labels: {app: vm}}",
        "spec.address is missing",
    ),
];

type Refused = (&'static str, &'static str, &'static str, &'static str);

/// An AuthorizationPolicy whose specification is a mapping on one line, after its name.
const fn policy(name: &'static str, spec: &'static str, reason: &'static str) -> Refused {
    ("security.istio.io/v1 AuthorizationPolicy {}", name, spec, reason)
}

/// A document for each object.
pub(super) fn manifest<'a>(objects: impl IntoIterator<Item = (&'a str, &'a str, &'a str)>) -> String {
    let mut text = String::new();
    for (kind, name, rest) in objects {
        let mut words = kind.split(' ');
        let (api_version, kind) = (words.next().unwrap(), words.next().unwrap());
        let rest = if words.next().is_some() { format!("labels: {{}}\nspec: {{{rest}}}") } else { rest.to_owned() };
        let (metadata, rest) = rest.split_once('\n').unwrap_or((&rest, ""));
        writeln!(text, "---\napiVersion: {api_version}\nkind: {kind}\nmetadata:\n  name: {name}\n  {metadata}\n{rest}")
            .unwrap();
    }
    text
}
