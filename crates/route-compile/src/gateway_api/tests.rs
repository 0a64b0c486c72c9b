//! Routes of the Gateway API as users write them for a mesh, and what becomes of requests.

use std::time::Duration;

use route::retry::Condition;
use route::{Action, PathRewrite, Percent, RedirectPath, RedirectPort, Source};

use crate::testing::{at, codes, first, get, get_from, reviews};

/// An HTTPRoute of the shop for the Service `reviews` with these rules.
fn http(rules: &str) -> String {
    named("HTTPRoute", "reviews", "shop", "{group: '', kind: Service, name: reviews, port: 9080}", rules)
}

fn named(kind: &str, name: &str, namespace: &str, parent: &str, rules: &str) -> String {
    format!(
        "---\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {{parentRefs: [{parent}], rules: [{rules}]}}\n"
    )
}

/// A rule with a name that answers with a redirect, so that the name tells the rule.
fn rule(name: &str, matches: &str) -> String {
    format!("{{name: {name}, matches: [{matches}], backendRefs: [{{name: reviews-v1, port: 9080}}]}}")
}

fn name_of(line: &str) -> &str {
    line.split(':').next().unwrap()
}

#[test]
fn a_canary_splits_by_weight() {
    let compiled = reviews(&http(
        "{name: canary, backendRefs: [{name: reviews-v1, port: 9080, weight: 90}, {name: reviews-v2, port: 9080, weight: 10}]}",
    ));
    assert_eq!(get(&compiled.routes, "/", &[]), "canary: 90 reviews-v1.shop:9080, 10 reviews-v2.shop:9080");
    assert!(compiled.findings.is_empty(), "{:?}", compiled.findings);
}

#[test]
fn matches_are_tried_by_precedence_not_by_order() {
    let yaml = http(
        &[
            rule("regex", "{path: {type: RegularExpression, value: '/a/.*'}}"),
            rule("root", ""),
            rule("short", "{path: {value: /a}}"),
            rule("long", "{path: {type: PathPrefix, value: /a/b}}"),
            rule("exact", "{path: {type: Exact, value: /a/b/c}}"),
            rule("header", "{path: {value: /a/b}, headers: [{name: x, value: '1'}]}"),
            rule("headers", "{path: {value: /a/b}, headers: [{name: x, value: '1'}, {name: z, value: '1'}]}"),
            rule("query", "{path: {value: /a/b}, queryParams: [{name: q, value: '1'}]}"),
            rule("method", "{path: {value: /a/b}, method: GET, queryParams: [{name: m, value: '1'}]}"),
        ]
        .join(", "),
    );
    let compiled = reviews(&yaml);
    for (target, lines, expected) in [
        ("/", &[][..], "root"),
        ("/ab", &[], "root"),
        ("/a", &[], "short"),
        ("/a/x", &[], "short"),
        ("/a/b/x", &[], "long"),
        ("/a/b/c", &[], "exact"),
        ("/a/b/c?q=1", &["x: 1"], "exact"),
        ("/a/b", &["x: 1"], "header"),
        ("/a/b?q=1", &["x: 1"], "header"),
        ("/a/b", &["x: 1", "z: 1"], "headers"),
        ("/a/b?q=1", &[], "query"),
        ("/a/b?m=1", &["x: 1", "z: 1"], "method"),
    ] {
        assert_eq!(name_of(&get(&compiled.routes, target, lines)), expected, "{target} {lines:?}");
    }
    assert_eq!(compiled.routes.routes.routes().last().unwrap().name, "regex", "expressions come last");
}

#[test]
fn of_equal_matches_the_oldest_route_wins_then_the_name_then_the_position() {
    let of = |name: &str, created: &str, rules: &str| {
        named("HTTPRoute", name, "shop", "{group: '', kind: Service, name: reviews}", rules)
            .replace("namespace: shop}", &format!("namespace: shop{created}}}"))
    };
    let day = |day: u8| format!(", creationTimestamp: '2026-01-0{day}T00:00:00Z'");
    let younger = of("a", &day(2), &rule("younger", ""));
    let older = of("b", &day(1), &rule("older", ""));
    assert_eq!(name_of(&get(&reviews(&format!("{younger}{older}")).routes, "/", &[])), "older");
    let first = of("a", &day(1), &rule("first", ""));
    assert_eq!(name_of(&get(&reviews(&format!("{older}{first}")).routes, "/", &[])), "first");
    let both = of("a", "", &format!("{}, {}", rule("one", ""), rule("two", "")));
    assert_eq!(name_of(&get(&reviews(&both).routes, "/", &[])), "one");
}

#[test]
fn a_parent_names_a_service_and_perhaps_a_port() {
    for (parent, port, is_attached) in [
        ("{group: '', kind: Service, name: reviews}", 9080, true),
        ("{group: core, kind: Service, name: reviews}", 9080, true),
        ("{group: '', kind: Service, name: reviews, namespace: shop}", 9080, true),
        ("{group: '', kind: Service, name: reviews, port: 80}", 80, true),
        ("{group: '', kind: Service, name: reviews, port: 80}", 9080, false),
        ("{group: '', kind: Service, name: reviews, sectionName: http-alt}", 80, true),
        ("{group: '', kind: Service, name: reviews, sectionName: http-alt}", 9080, false),
        ("{group: '', kind: Service, name: ratings}", 9080, false),
        ("{group: '', kind: Service, name: reviews, namespace: other}", 9080, false),
        ("{kind: Service, name: reviews}", 9080, false),
        ("{name: reviews}", 9080, false),
    ] {
        let yaml = named("HTTPRoute", "r", "shop", parent, &rule("used", ""));
        let compiled = at(&yaml, "shop", "reviews.shop.svc.cluster.local", port);
        let expected = if is_attached { "used" } else { "default" };
        assert_eq!(name_of(&get(&compiled.routes, "/", &[])), expected, "{parent} {port}");
    }
}

#[test]
fn a_consumer_route_is_for_the_clients_of_its_namespace_alone() {
    let producer = http(&rule("producer", ""));
    let parent = "{group: '', kind: Service, name: reviews, namespace: shop}";
    let backends = "[{name: audit, port: 8080}]";
    let consumer = named(
        "HTTPRoute",
        "mine",
        "other",
        parent,
        &format!("{{name: consumer, matches: [{{path: {{value: /own}}}}], backendRefs: {backends}}}"),
    );
    let compiled = reviews(&format!("{producer}{consumer}"));
    let from = |namespace, target| get_from(&compiled.routes, Source { namespace, labels: None }, target, &[]);

    assert_eq!(from(Some("other"), "/own"), "consumer: audit.other:8080", "its own namespace is the default");
    assert_eq!(from(Some("other"), "/x"), "404");
    assert_eq!(name_of(&from(Some("shop"), "/own")), "producer");
    assert_eq!(name_of(&from(None, "/own")), "producer");
    let alone = reviews(&consumer);
    assert_eq!(get(&alone.routes, "/own", &[]), "default: reviews.shop:9080", "without a route of the service's own");
}

#[test]
fn a_backend_that_cannot_be_used_keeps_its_share() {
    for (backends, expected, finding) in [
        ("{name: nobody, port: 80}", "invalid", Some("[0].name missing")),
        ("{name: reviews-v1, port: 80}", "invalid", Some("[0].port missing")),
        ("{name: reviews-v1}", "invalid", Some("[0].port invalid_value")),
        ("{kind: Bucket, group: x, name: a, port: 80}", "invalid", Some("[0].kind unsupported")),
        ("{name: audit, namespace: other, port: 8080}", "audit.other:8080", None),
        (
            "{group: networking.istio.io, kind: Hostname, name: audit.other.svc.cluster.local, port: 8080}",
            "audit.other:8080",
            None,
        ),
        (
            "{name: reviews-v1, port: 9080, weight: 3}, {name: nobody, port: 80}",
            "3 reviews-v1.shop:9080, 1 invalid",
            Some("[1].name missing"),
        ),
        ("{name: reviews-v1, port: 9080, weight: 0}", "invalid", None),
        ("", "invalid", None),
    ] {
        let compiled = reviews(&http(&format!("{{name: r, backendRefs: [{backends}]}}")));
        assert_eq!(get(&compiled.routes, "/", &[]), format!("r: {expected}"), "{backends}");
        let expected: Vec<_> =
            finding.into_iter().map(|field| format!("shop/reviews spec.rules[0].backendRefs{field}")).collect();
        assert_eq!(codes(&compiled.findings), expected, "{backends}");
    }
}

#[test]
fn filters_are_compiled() {
    let compiled = reviews(&http(
        "{matches: [{path: {value: /v2}}], filters: [
            {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: a, value: '1'}], add: [{name: b, value: '2'}], remove: [c]}},
            {type: ResponseHeaderModifier, responseHeaderModifier: {add: [{name: d, value: '100%'}]}},
            {type: RequestMirror, requestMirror: {backendRef: {name: shadow, port: 8080}, percent: 25}},
            {type: RequestMirror, requestMirror: {backendRef: {name: ratings, port: 9080}, fraction: {numerator: 1, denominator: 1000}}},
            {type: URLRewrite, urlRewrite: {hostname: reviews.example, path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}},
            {type: CORS, cors: {allowOrigins: ['https://*.example.com', 'https://a.example'], allowCredentials: true}}],
          backendRefs: [{name: reviews-v2, port: 9080, filters: [
            {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: e, value: '1'}]}}]}]}",
    ));
    let forward = first(&compiled);
    let rule = &compiled.routes.routes.routes()[0].rule;

    let changes = &rule.request_headers;
    assert_eq!((changes.set.len(), changes.add.len(), changes.remove.len()), (1, 1, 1));
    assert_eq!(rule.response_headers.add[0].1, "100%", "there are no commands in values");
    let shares: Vec<_> = forward.mirrors.iter().map(|mirror| mirror.share).collect();
    assert_eq!(shares, [Percent::new(25.0).unwrap(), Percent::new(0.1).unwrap()]);
    assert_eq!(forward.path, Some(PathRewrite::Elements("/".into())));
    assert_eq!(forward.authority.as_deref(), Some("reviews.example"));
    assert_eq!(forward.destinations[0].request_headers.set.len(), 1);
    let cors = rule.cors.as_ref().unwrap();
    assert_eq!((cors.origins.len(), cors.max_age, cors.allow_credentials), (2, Some(5), true));
    let pattern = serde_json::to_value(&cors.origins[0]).unwrap();
    assert_eq!(pattern["text"]["regex"], r"\Qhttps://\E[^/:]*\Q.example.com\E");
    assert!(compiled.findings.is_empty(), "{:?}", compiled.findings);
}

#[test]
fn redirects_name_a_port_only_where_it_is_not_the_default() {
    for (redirect, status, port) in [
        ("{scheme: https}", 302, RedirectPort::UnlessDefault(443)),
        ("{scheme: http, statusCode: 301}", 301, RedirectPort::UnlessDefault(80)),
        ("{hostname: other.example, statusCode: 303}", 303, RedirectPort::UnlessDefault(9080)),
        ("{port: 8443, statusCode: 308}", 308, RedirectPort::UnlessDefault(8443)),
    ] {
        let compiled =
            reviews(&http(&format!("{{filters: [{{type: RequestRedirect, requestRedirect: {redirect}}}]}}")));
        let Action::Redirect(found) = &compiled.routes.routes.routes()[0].rule.action else { panic!("{redirect}") };
        assert_eq!((found.status, found.port), (status, port), "{redirect}");
    }
    for (path, expected) in [
        ("{type: ReplaceFullPath, replaceFullPath: /new}", RedirectPath::Full("/new".into())),
        (
            "{type: ReplacePrefixMatch, replacePrefixMatch: /new}",
            RedirectPath::Rewrite(PathRewrite::Elements("/new".into())),
        ),
    ] {
        let compiled =
            reviews(&http(&format!("{{filters: [{{type: RequestRedirect, requestRedirect: {{path: {path}}}}}]}}")));
        let Action::Redirect(found) = &compiled.routes.routes.routes()[0].rule.action else { panic!("{path}") };
        assert_eq!(found.path, Some(expected));
    }
}

#[test]
fn a_filter_that_is_not_supported_answers_500() {
    for (rule, field) in [
        ("filters: [{type: ExtensionRef, extensionRef: {name: x}}]", "filters[0] unsupported"),
        ("filters: [{type: RequestRedirect}]", "filters[0] unsupported"),
        ("filters: [{type: RequestRedirect, requestRedirect: {statusCode: 200}}]", "filters[0] unsupported"),
        (
            "filters: [{type: RequestRedirect, requestRedirect: {}}, {type: URLRewrite, urlRewrite: {hostname: h}}]",
            "filters invalid_value",
        ),
        (
            "matches: [{path: {type: Exact, value: /}}], filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}]",
            "filters invalid_value",
        ),
    ] {
        let compiled = reviews(&http(&format!("{{{rule}, backendRefs: [{{name: reviews-v1, port: 9080}}]}}")));
        assert_eq!(get(&compiled.routes, "/", &[]), ": answer 500", "{rule}");
        assert_eq!(codes(&compiled.findings), [format!("shop/reviews spec.rules[0].{field}")], "{rule}");
    }
    let compiled = reviews(&http(
        "{backendRefs: [{name: reviews-v1, port: 9080, filters: [{type: CORS, cors: {allowOrigins: ['*']}}]}]}",
    ));
    assert_eq!(get(&compiled.routes, "/", &[]), ": invalid");
}

#[test]
fn timeouts_and_retries_are_those_of_istio() {
    let forward = |rule: &str| {
        let backends = "backendRefs: [{name: reviews-v1, port: 9080}]";
        first(&reviews(&http(&format!("{{{rule}, {backends}}}"))))
    };
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    for (rule, timeout, per_try) in [
        ("timeouts: {request: 10s}", seconds(10), None),
        ("timeouts: {request: 0s}", None, None),
        ("timeouts: {request: 10s, backendRequest: 2s}", seconds(2), None),
        ("timeouts: {request: 10s, backendRequest: 2s}, retry: {attempts: 3}", seconds(10), seconds(2)),
    ] {
        let forward = forward(rule);
        assert_eq!((forward.timeout, forward.retry.unwrap().per_try_timeout), (timeout, per_try), "{rule}");
    }
    let retry = forward("retry: {codes: [500, 503], backoff: 10ms}").retry.unwrap();
    assert_eq!((retry.attempts, retry.on.statuses()), (2, &[500, 503][..]));
    assert!(retry.on.conditions().contains(&Condition::ConnectFailure));
    assert_eq!(retry.base_pause, Duration::from_millis(10));
}

#[test]
fn a_match_that_is_invalid_never_matches() {
    for (of, field) in [
        ("{path: {type: RegularExpression, value: '('}}", "path"),
        ("{path: {type: Exact, value: a}}", "path"),
        ("{headers: [{name: 'a b', value: x}]}", "headers[0]"),
        ("{headers: [{name: a, type: RegularExpression, value: '['}]}", "headers[0]"),
        ("{queryParams: [{name: a, type: RegularExpression, value: '['}]}", "queryParams[0]"),
    ] {
        let compiled = reviews(&http(&rule("r", of)));
        assert_eq!(get(&compiled.routes, "/", &[]), "404", "{of}");
        assert_eq!(
            codes(&compiled.findings),
            [format!("shop/reviews spec.rules[0].matches[0].{field} invalid_value")],
            "{of}"
        );
    }
    let twice = reviews(&http(&rule("r", "{headers: [{name: x, value: '1'}, {name: X, value: '2'}]}")));
    assert_eq!(name_of(&get(&twice.routes, "/", &["x: 1"])), "r", "the first of a name counts");
}

#[test]
fn grpc_methods_are_paths_and_the_longest_wins() {
    let cart = "{group: '', kind: Service, name: cart}";
    let to =
        |name: &str, of: &str| format!("{{name: {name}, matches: [{of}], backendRefs: [{{name: cart, port: 9090}}]}}");
    let yaml = named(
        "GRPCRoute",
        "cart",
        "shop",
        cart,
        &[
            to("all", ""),
            to("method", "{method: {method: Add}}"),
            to("service", "{method: {service: shop.Cart}}"),
            to("exact", "{method: {service: shop.Cart, method: Add}}"),
            to("header", "{method: {service: shop.Cart, method: Add}, headers: [{name: x, value: '1'}]}"),
            to("regex", "{method: {type: RegularExpression, service: 'shop[.](Order|Orders)', method: 'Get.*'}}"),
        ]
        .join(", "),
    );
    let compiled = at(&yaml, "shop", "cart.shop.svc.cluster.local", 9090);
    for (target, lines, expected) in [
        ("/shop.Cart/Add", &[][..], "exact"),
        ("/shop.Cart/Add", &["x: 1"], "header"),
        ("/shop.Cart/Remove", &[], "service"),
        ("/shop.Carts/Remove", &[], "all"),
        ("/shop.Other/Add", &[], "method"),
        ("/shop.Orders/GetAll", &[], "regex"),
        ("/shop.Orders/Put", &[], "all"),
    ] {
        assert_eq!(name_of(&get(&compiled.routes, target, lines)), expected, "{target} {lines:?}");
    }
    assert!(compiled.findings.is_empty(), "{:?}", compiled.findings);
}

#[test]
fn grpc_routes_come_before_http_routes_and_these_before_virtual_services() {
    let parent = "{group: '', kind: Service, name: reviews}";
    let grpc = named("GRPCRoute", "g", "shop", parent, "{name: grpc, backendRefs: [{name: cart, port: 9090}]}");
    let http = http(&rule("http", ""));
    let virtual_service = "---\nkind: VirtualService\nmetadata: {name: v, namespace: shop}\n\
                           spec: {hosts: [reviews], http: [{name: istio, directResponse: {status: 200}}]}\n";
    let all = reviews(&format!("{virtual_service}{http}{grpc}"));
    assert_eq!(name_of(&get(&all.routes, "/", &[])), "grpc");
    assert_eq!(codes(&all.findings), ["shop/reviews shadowed", "shop/v shadowed"]);
    let two = reviews(&format!("{virtual_service}{http}"));
    assert_eq!(name_of(&get(&two.routes, "/", &[])), "http");
}

#[test]
fn settings_without_effect_are_reported() {
    let yaml = http("{sessionPersistence: {sessionName: s}, backendRefs: [{name: reviews-v1, port: 9080}]}")
        .replace("spec: {", "spec: {hostnames: [a.example], ");
    let compiled = reviews(&yaml);
    assert_eq!(
        codes(&compiled.findings),
        ["shop/reviews spec.hostnames ignored", "shop/reviews spec.rules[0].sessionPersistence unsupported"]
    );
}
