//! The shapes of policies that Istio's documentation shows: what a node proxy decides about connections, what the status
//! says, and what is found. An example that needs more than a node proxy sees has a finding that says so.

#[allow(dead_code, reason = "shared with other tests")]
#[path = "support/proxy.rs"]
mod proxy;

use proxy::Told;

const MESH: &str = include_str!("support/bookshop.yaml");

const WEB: &str = "foo/httpbin";
const TCP: &str = "foo/tcp-echo";
const FOO: &str = "foo/curl";
const BAR: &str = "bar/curl";
/// A client without identity.
const PLAIN: &str = "10.3.0.1";

const WEB_POLICY: &str = "AuthorizationPolicy foo/p";
const PEER: &str = "PeerAuthentication foo/p";

/// A client, a pod, a port, and whether the connection is let in.
type Check = (&'static str, &'static str, u16, bool);

struct Example {
    page: &'static str,
    policies: &'static str,
    checks: &'static [Check],
    /// Object, and status and reason of its condition `Enforced`.
    enforced: &'static [(&'static str, &'static str)],
    /// Object, code and field of every finding.
    findings: &'static [(&'static str, &'static str, &'static str)],
}

const PEER_AUTHENTICATION: &[Example] = &[
    Example {
        page: "authentication policy: STRICT for the mesh; mutual TLS migration: lock down the mesh",
        policies: "kind: PeerAuthentication
metadata: {name: p, namespace: istio-system}
spec: {mtls: {mode: STRICT}}",
        checks: &[(FOO, WEB, 8080, true), (PLAIN, WEB, 8080, false), (PLAIN, "bar/httpbin", 8080, false)],
        enforced: &[("PeerAuthentication istio-system/p", "True Enforced")],
        findings: &[],
    },
    Example {
        page: "authentication policy: STRICT for a namespace; mutual TLS migration: lock down by namespace",
        policies: "kind: PeerAuthentication
metadata: {name: p, namespace: foo}
spec: {mtls: {mode: STRICT}}",
        checks: &[(FOO, WEB, 8080, true), (PLAIN, WEB, 8080, false), (PLAIN, "bar/httpbin", 8080, true)],
        enforced: &[(PEER, "True Enforced")],
        findings: &[],
    },
    Example {
        page: "authentication policy: STRICT for a workload",
        policies: "kind: PeerAuthentication
metadata: {name: p, namespace: foo}
spec: {selector: {matchLabels: {app: httpbin}}, mtls: {mode: STRICT}}",
        checks: &[(FOO, WEB, 8080, true), (PLAIN, WEB, 8080, false), (PLAIN, TCP, 9000, true)],
        enforced: &[(PEER, "True Enforced")],
        findings: &[],
    },
    Example {
        page: "authentication policy: STRICT for a workload, but for one port",
        policies: "kind: PeerAuthentication
metadata: {name: p, namespace: foo}
spec: {selector: {matchLabels: {app: tcp-echo}}, mtls: {mode: STRICT}, portLevelMtls: {9001: {mode: DISABLE}}}",
        checks: &[(PLAIN, TCP, 9000, false), (PLAIN, TCP, 9001, true), (FOO, TCP, 9001, true)],
        enforced: &[(PEER, "True PartiallyEnforced")],
        findings: &[(PEER, "ignored", "spec")],
    },
    Example {
        page: "authentication policy: the same with the port of the Service, which is not the pod's",
        policies: "kind: PeerAuthentication
metadata: {name: p, namespace: foo}
spec: {selector: {matchLabels: {app: httpbin}}, mtls: {mode: STRICT}, portLevelMtls: {8000: {mode: DISABLE}}}",
        checks: &[(PLAIN, WEB, 8080, false)],
        enforced: &[(PEER, "True PartiallyEnforced")],
        findings: &[(PEER, "service_port", "spec.portLevelMtls.8000"), (PEER, "ignored", "spec")],
    },
    Example {
        page: "authentication policy: a workload is an exception from its namespace",
        policies: "kind: PeerAuthentication
metadata: {name: p, namespace: foo}
spec: {mtls: {mode: STRICT}}
---
kind: PeerAuthentication
metadata: {name: exception, namespace: foo}
spec: {selector: {matchLabels: {app: httpbin}}, mtls: {mode: DISABLE}}",
        checks: &[(PLAIN, WEB, 8080, true), (PLAIN, TCP, 9000, false)],
        enforced: &[(PEER, "True Enforced"), ("PeerAuthentication foo/exception", "True PartiallyEnforced")],
        findings: &[("PeerAuthentication foo/exception", "ignored", "spec")],
    },
    Example {
        page: "PeerAuthentication reference: PERMISSIVE for a namespace, STRICT for one workload",
        policies: "kind: PeerAuthentication
metadata: {name: p, namespace: foo}
spec: {mtls: {mode: PERMISSIVE}}
---
kind: PeerAuthentication
metadata: {name: finance, namespace: foo}
spec: {selector: {matchLabels: {app: mongodb}}, mtls: {mode: STRICT}}",
        checks: &[(PLAIN, WEB, 8080, true), (PLAIN, "foo/mongodb", 27017, false)],
        enforced: &[(PEER, "True Enforced"), ("PeerAuthentication foo/finance", "True Enforced")],
        findings: &[],
    },
    Example {
        page: "PeerAuthentication reference: a workload inherits STRICT, but for one port",
        policies: "kind: PeerAuthentication
metadata: {name: p, namespace: foo}
spec: {mtls: {mode: STRICT}}
---
kind: PeerAuthentication
metadata: {name: finance, namespace: foo}
spec: {selector: {matchLabels: {app: tcp-echo}}, mtls: {mode: UNSET}, portLevelMtls: {9000: {mode: PERMISSIVE}}}",
        checks: &[(PLAIN, TCP, 9000, true), (PLAIN, TCP, 9001, false), (PLAIN, WEB, 8080, false)],
        enforced: &[(PEER, "True Enforced"), ("PeerAuthentication foo/finance", "True Enforced")],
        findings: &[],
    },
];

const AUTHORIZATION: &[Example] = &[
    Example {
        page: "concepts: nothing is allowed",
        policies: "metadata: {name: p, namespace: foo}
spec: {}",
        checks: &[(FOO, WEB, 8080, false), (PLAIN, TCP, 9000, false), (FOO, "bar/httpbin", 8080, true)],
        enforced: &[(WEB_POLICY, "True Enforced")],
        findings: &[],
    },
    Example {
        page: "concepts: everything is allowed",
        policies: "metadata: {name: p, namespace: foo}
spec: {action: ALLOW, rules: [{}]}",
        checks: &[(FOO, WEB, 8080, true), (PLAIN, WEB, 8080, true)],
        enforced: &[(WEB_POLICY, "True Enforced")],
        findings: &[],
    },
    Example {
        page: "concepts: everything is denied",
        policies: "metadata: {name: p, namespace: foo}
spec: {action: DENY, rules: [{}]}",
        checks: &[(FOO, WEB, 8080, false), (PLAIN, WEB, 8080, false)],
        enforced: &[(WEB_POLICY, "True Enforced")],
        findings: &[(WEB_POLICY, "denies_everything", "spec.rules")],
    },
    Example {
        page: "concepts: a DENY policy for other namespaces",
        policies: "metadata: {name: p, namespace: foo}
spec:
  selector: {matchLabels: {app: httpbin, version: v1}}
  action: DENY
  rules: [{from: [{source: {notNamespaces: [foo]}}]}]",
        checks: &[(FOO, WEB, 8080, true), (BAR, WEB, 8080, false), (PLAIN, WEB, 8080, false)],
        enforced: &[(WEB_POLICY, "True Enforced")],
        findings: &[],
    },
    Example {
        page: "concepts: peers with any identity",
        policies: "metadata: {name: p, namespace: foo}
spec: {selector: {matchLabels: {app: httpbin}}, rules: [{from: [{source: {principals: ['*']}}]}]}",
        checks: &[(FOO, WEB, 8080, true), (BAR, WEB, 8080, true), (PLAIN, WEB, 8080, false)],
        enforced: &[(WEB_POLICY, "True Enforced")],
        findings: &[],
    },
    Example {
        page: "concepts: a database, by principal and port; ambient: an L4 policy",
        policies: "metadata: {name: p, namespace: foo}
spec:
  selector: {matchLabels: {app: mongodb}}
  rules:
  - from: [{source: {principals: [cluster.local/ns/bar/sa/curl]}}]
    to: [{operation: {ports: ['27017']}}]",
        checks: &[(BAR, "foo/mongodb", 27017, true), (BAR, "foo/mongodb", 27018, false), (FOO, "foo/mongodb", 27017, false)],
        enforced: &[(WEB_POLICY, "True Enforced")],
        findings: &[],
    },
    Example {
        page: "concepts: a source, a method and a claim: the rule is left out",
        policies: "metadata: {name: p, namespace: foo}
spec:
  selector: {matchLabels: {app: httpbin}}
  rules:
  - from: [{source: {principals: [cluster.local/ns/foo/sa/curl]}}, {source: {namespaces: [bar]}}]
    to: [{operation: {methods: [GET]}}]
    when: [{key: 'request.auth.claims[iss]', values: ['https://issuer.example']}]",
        checks: &[(FOO, WEB, 8080, false), (BAR, WEB, 8080, false)],
        enforced: &[(WEB_POLICY, "True PartiallyEnforced")],
        findings: &[
            (WEB_POLICY, "http_attribute", "spec.rules[0].to[0].operation.methods"),
            (WEB_POLICY, "allows_nothing", "spec.rules"),
        ],
    },
    Example {
        page: "HTTP traffic: viewers of a page; concepts: paths by beginning and end, or all but one",
        policies: "metadata: {name: p, namespace: foo}
spec:
  selector: {matchLabels: {app: httpbin}}
  rules: [{to: [{operation: {methods: [GET], paths: [/test/*, '*/info'], notPaths: [/healthz]}}]}]",
        checks: &[(FOO, WEB, 8080, false)],
        enforced: &[(WEB_POLICY, "True PartiallyEnforced")],
        findings: &[
            (WEB_POLICY, "http_attribute", "spec.rules[0].to[0].operation.methods"),
            (WEB_POLICY, "allows_nothing", "spec.rules"),
        ],
    },
    Example {
        page: "TCP traffic: two ports are allowed",
        policies: "metadata: {name: p, namespace: foo}
spec: {selector: {matchLabels: {app: tcp-echo}}, action: ALLOW, rules: [{to: [{operation: {ports: ['9000', '9001']}}]}]}",
        checks: &[(FOO, TCP, 9000, true), (FOO, TCP, 9001, true), (FOO, TCP, 9002, false)],
        enforced: &[(WEB_POLICY, "True Enforced")],
        findings: &[],
    },
    Example {
        page: "TCP traffic: an HTTP attribute beside the port: nothing is allowed",
        policies: "metadata: {name: p, namespace: foo}
spec:
  selector: {matchLabels: {app: tcp-echo}}
  action: ALLOW
  rules: [{to: [{operation: {methods: [GET], ports: ['9000']}}]}]",
        checks: &[(FOO, TCP, 9000, false), (FOO, TCP, 9001, false)],
        enforced: &[(WEB_POLICY, "True PartiallyEnforced")],
        findings: &[
            (WEB_POLICY, "http_attribute", "spec.rules[0].to[0].operation.methods"),
            (WEB_POLICY, "allows_nothing", "spec.rules"),
        ],
    },
    Example {
        page: "TCP traffic: DENY with an HTTP attribute beside the port: the port is denied, others are not",
        policies: "metadata: {name: p, namespace: foo}
spec:
  selector: {matchLabels: {app: tcp-echo}}
  action: DENY
  rules: [{to: [{operation: {methods: [GET], ports: ['9000']}}]}]",
        checks: &[(FOO, TCP, 9000, false), (FOO, TCP, 9001, true)],
        enforced: &[(WEB_POLICY, "True PartiallyEnforced")],
        findings: &[(WEB_POLICY, "http_attribute", "spec.rules[0].to[0].operation.methods")],
    },
    Example {
        page: "explicit deny: a method, or a header: without a waypoint the policy denies every connection",
        policies: "metadata: {name: p, namespace: foo}
spec:
  selector: {matchLabels: {app: httpbin}}
  action: DENY
  rules:
  - to: [{operation: {methods: [GET]}}]
    when: [{key: 'request.headers[x-token]', notValues: [admin]}]",
        checks: &[(FOO, WEB, 8080, false), (PLAIN, WEB, 8080, false), (FOO, TCP, 9000, true)],
        enforced: &[(WEB_POLICY, "True PartiallyEnforced")],
        findings: &[
            (WEB_POLICY, "http_attribute", "spec.rules[0].to[0].operation.methods"),
            (WEB_POLICY, "denies_everything", "spec.rules"),
        ],
    },
    Example {
        page: "authentication policy, JWT: requests without a token, on one path, from the gateway",
        policies: "metadata: {name: p, namespace: foo}
spec:
  selector: {matchLabels: {app: httpbin}}
  action: DENY
  rules:
  - from: [{source: {principals: [cluster.local/ns/istio-system/sa/gateway], notRequestPrincipals: ['*']}}]
    to: [{operation: {paths: [/headers]}}]",
        checks: &[("istio-system/gateway", WEB, 8080, false), (FOO, WEB, 8080, true)],
        enforced: &[(WEB_POLICY, "True PartiallyEnforced")],
        findings: &[(WEB_POLICY, "http_attribute", "spec.rules[0].from[0].source.notRequestPrincipals")],
    },
    Example {
        page: "ingress: addresses of clients",
        policies: "metadata: {name: p, namespace: foo}
spec:
  selector: {matchLabels: {app: httpbin}}
  action: ALLOW
  rules: [{from: [{source: {ipBlocks: [10.3.0.1, 192.0.2.0/24]}}]}]",
        checks: &[(PLAIN, WEB, 8080, true), ("192.0.2.7", WEB, 8080, true), ("10.3.0.2", WEB, 8080, false)],
        enforced: &[(WEB_POLICY, "True Enforced")],
        findings: &[],
    },
    Example {
        page: "ingress: addresses in front of proxies need a waypoint",
        policies: "metadata: {name: p, namespace: foo}
spec:
  selector: {matchLabels: {app: httpbin}}
  action: DENY
  rules: [{from: [{source: {remoteIpBlocks: [192.0.2.0/24]}}]}]",
        checks: &[(FOO, WEB, 8080, false)],
        enforced: &[(WEB_POLICY, "True PartiallyEnforced")],
        findings: &[
            (WEB_POLICY, "http_attribute", "spec.rules[0].from[0].source.remoteIpBlocks"),
            (WEB_POLICY, "denies_everything", "spec.rules"),
        ],
    },
    Example {
        page: "external authorization",
        policies: "metadata: {name: p, namespace: foo}
spec:
  selector: {matchLabels: {app: httpbin}}
  action: CUSTOM
  provider: {name: ext-authz}
  rules: [{to: [{operation: {paths: [/headers]}}]}]",
        checks: &[(FOO, WEB, 8080, true)],
        enforced: &[(WEB_POLICY, "False UnsupportedValue")],
        findings: &[(WEB_POLICY, "unsupported_action", "spec.action")],
    },
    Example {
        page: "AuthorizationPolicy reference: AUDIT",
        policies: "metadata: {name: p, namespace: foo}
spec: {selector: {matchLabels: {app: httpbin}}, action: AUDIT, rules: [{to: [{operation: {paths: [/profile/*]}}]}]}",
        checks: &[(FOO, WEB, 8080, true)],
        enforced: &[(WEB_POLICY, "False UnsupportedValue")],
        findings: &[(WEB_POLICY, "unsupported_action", "spec.action")],
    },
    Example {
        page: "trust domain migration: the identity of the old trust domain",
        policies: "metadata: {name: p, namespace: foo}
spec:
  action: DENY
  rules:
  - from: [{source: {principals: [old-td/ns/bar/sa/curl]}}]",
        checks: &[(BAR, WEB, 8080, true)],
        enforced: &[(WEB_POLICY, "False NeverMatches")],
        findings: &[(WEB_POLICY, "unknown_trust_domain", "spec.rules[0].from[0].source.principals[0]")],
    },
    Example {
        page: "trust domain migration: whatever the trust domain",
        policies: "metadata: {name: p, namespace: foo}
spec: {action: DENY, rules: [{from: [{source: {principals: ['*/ns/bar/sa/curl']}}]}]}",
        checks: &[(BAR, WEB, 8080, false), (FOO, WEB, 8080, true)],
        enforced: &[(WEB_POLICY, "True Enforced")],
        findings: &[],
    },
    Example {
        page: "dry run: a DENY policy that is only logged",
        policies: "metadata: {name: p, namespace: foo, annotations: {istio.io/dry-run: 'true'}}
spec: {selector: {matchLabels: {app: httpbin}}, action: DENY, rules: [{from: [{source: {namespaces: [bar]}}]}]}",
        checks: &[(BAR, WEB, 8080, true)],
        enforced: &[(WEB_POLICY, "False DryRun")],
        findings: &[],
    },
    Example {
        page: "dry run: an ALLOW policy that is only logged",
        policies: "metadata: {name: p, namespace: foo, annotations: {istio.io/dry-run: 'true'}}
spec: {selector: {matchLabels: {app: httpbin}}, action: ALLOW, rules: [{from: [{source: {namespaces: [foo]}}]}]}",
        checks: &[(BAR, WEB, 8080, true), (FOO, WEB, 8080, true)],
        enforced: &[(WEB_POLICY, "False DryRun")],
        findings: &[],
    },
    Example {
        page: "dry run: a logged policy refuses nothing, whatever it can match",
        policies: "metadata: {name: p, namespace: foo, annotations: {istio.io/dry-run: 'true'}}
spec: {selector: {matchLabels: {app: httpbin}}, action: ALLOW, rules: [{from: [{source: {namespaces: [ghost]}}]}]}",
        checks: &[(BAR, WEB, 8080, true), (FOO, WEB, 8080, true)],
        enforced: &[(WEB_POLICY, "False DryRun")],
        findings: &[(WEB_POLICY, "unknown_namespace", "spec.rules[0].from[0].source.namespaces[0]")],
    },
    Example {
        page: "conditions: all that a node proxy knows",
        policies: "metadata: {name: p, namespace: foo}
spec:
  selector: {matchLabels: {app: httpbin}}
  rules:
  - when:
    - {key: source.ip, values: [10.9.0.0/16], notValues: [10.9.1.0/24]}
    - {key: source.namespace, values: [foo, bar]}
    - {key: source.principal, notValues: [cluster.local/ns/bar/sa/httpbin]}
    - {key: source.serviceAccount, values: [curl, bar/curl]}
    - {key: source.trustDomain, values: [cluster.local]}
    - {key: destination.ip, values: [10.1.0.1, 10.2.0.0/16]}
    - {key: destination.port, values: ['8080', '443']}",
        checks: &[(FOO, WEB, 8080, true), (BAR, WEB, 8080, true), ("bar/httpbin", WEB, 8080, false), (PLAIN, WEB, 8080, false)],
        enforced: &[(WEB_POLICY, "True Enforced")],
        findings: &[(WEB_POLICY, "undeclared_port", "spec.rules[0].when[6].values[1]")],
    },
    Example {
        page: "conditions: those of requests",
        policies: "metadata: {name: p, namespace: foo}
spec:
  selector: {matchLabels: {app: httpbin}}
  action: DENY
  rules:
  - from: [{source: {namespaces: [bar]}}]
    when: [{key: connection.sni, values: [www.example]}, {key: remote.ip, values: [192.0.2.1]}, {key: request.auth.principal, notValues: ['*']}]",
        checks: &[(BAR, WEB, 8080, false), (FOO, WEB, 8080, true)],
        enforced: &[(WEB_POLICY, "True PartiallyEnforced")],
        findings: &[(WEB_POLICY, "http_attribute", "spec.rules[0].when[0].key")],
    },
    Example {
        page: "ambient, waypoints: a policy of a Service",
        policies: "metadata: {name: p, namespace: foo}
spec:
  targetRefs: [{kind: Service, group: '', name: httpbin}]
  rules: [{from: [{source: {principals: [cluster.local/ns/foo/sa/curl]}}], to: [{operation: {methods: [GET]}}]}]",
        checks: &[(FOO, WEB, 8080, true), (BAR, WEB, 8080, true)],
        enforced: &[(WEB_POLICY, "Unknown AtWaypoints")],
        findings: &[(WEB_POLICY, "needs_waypoint", "spec.targetRefs")],
    },
    Example {
        page: "concepts: a policy for the whole mesh",
        policies: "metadata: {name: p, namespace: istio-system}
spec: {action: DENY, rules: [{from: [{source: {serviceAccounts: [bar/curl]}}]}]}",
        checks: &[(BAR, WEB, 8080, false), (BAR, "bar/httpbin", 8080, false), (FOO, WEB, 8080, true)],
        enforced: &[("AuthorizationPolicy istio-system/p", "True Enforced")],
        findings: &[],
    },
    Example {
        page: "concepts: DENY comes before ALLOW",
        policies: "metadata: {name: p, namespace: foo}
spec: {rules: [{from: [{source: {namespaces: [foo, bar]}}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny, namespace: foo}
spec: {action: DENY, rules: [{from: [{source: {namespaces: [bar]}}]}]}",
        checks: &[(FOO, WEB, 8080, true), (BAR, WEB, 8080, false), (PLAIN, WEB, 8080, false)],
        enforced: &[(WEB_POLICY, "True Enforced"), ("AuthorizationPolicy foo/deny", "True Enforced")],
        findings: &[],
    },
];

#[test]
fn every_peer_authentication_behaves_as_documented() {
    for example in PEER_AUTHENTICATION {
        let kind = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication";
        check(example, &example.policies.replace("kind: PeerAuthentication", kind));
    }
}

#[test]
fn every_authorization_policy_behaves_as_documented_or_a_finding_says_why_not() {
    for example in AUTHORIZATION {
        check(example, &format!("apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n{}", example.policies));
    }
}

fn check(example: &Example, policies: &str) {
    let mut told = Told::new();
    told.apply(&format!("{MESH}---\n{policies}"));

    for (client, pod, port, expected) in example.checks {
        assert_eq!(told.admits(client, pod, *port), *expected, "{}: {client} to {pod}:{port}", example.page);
    }
    for (object, expected) in example.enforced {
        assert_eq!(told.enforced(object), *expected, "{}: {}", example.page, told.message(object));
        let mut found = told.findings(object);
        let expected = example.findings.iter().filter(|(about, _, _)| about == object);
        let mut expected: Vec<_> = expected.map(|(_, code, field)| (*code, *field)).collect();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected, "{}: {:?}", example.page, told.messages(object));
    }
}
