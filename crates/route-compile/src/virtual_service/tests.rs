//! Manifests as users write them, and what becomes of requests.

use std::time::Duration;

use route::retry::RetryPolicy;
use route::{Action, Labels, PathRewrite, Percent, RedirectPath, RedirectPort, Source};

use crate::testing::{at, codes, first, get, get_from, reviews};

/// A VirtualService `reviews` of the shop with these rules.
fn rules(rules: &str) -> String {
    format!(
        "kind: VirtualService\nmetadata: {{name: reviews, namespace: shop}}\nspec:\n  hosts: [reviews]\n  http:\n{rules}"
    )
}

/// The rules that stand alone: no object but the service.
const ALL: &str = "  - route: [{destination: {host: reviews}}]\n";

const SUBSETS: &str = "
---
kind: DestinationRule
metadata: {name: reviews, namespace: shop}
spec:
  host: reviews
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
  - {name: v3, labels: {version: v3}}
";

#[test]
fn without_any_object_requests_go_to_the_service() {
    let compiled = reviews("");
    assert_eq!(get(&compiled.routes, "/x", &[]), "default: reviews.shop:9080");
    assert_eq!(first(&compiled).retry, Some(RetryPolicy::default()));
    assert_eq!(first(&compiled).timeout, None);
}

#[test]
fn a_canary_splits_by_weight_and_testers_are_sent_by_header() {
    let yaml = rules(
        "  - name: testers
    match:
    - {name: jason, headers: {end-user: {exact: jason}}}
    - headers: {cookie: {regex: '^(.*?;)?(user=dev)(;.*)?$'}}
    route: [{destination: {host: reviews, subset: v3}}]
  - name: canary
    route:
    - {destination: {host: reviews, subset: v1}, weight: 90}
    - {destination: {host: reviews, subset: v2}, weight: 10}
",
    );
    let compiled = reviews(&format!("{yaml}{SUBSETS}"));

    let canary = "canary: 90 reviews.shop:9080 subset v1, 10 reviews.shop:9080 subset v2";
    assert_eq!(get(&compiled.routes, "/", &[]), canary, "of two ports the request's is used");
    assert_eq!(get(&compiled.routes, "/", &["end-user: jason"]), "testers.jason: reviews.shop:9080 subset v3");
    assert_eq!(get(&compiled.routes, "/", &["cookie: a=b;user=dev"]), "testers: reviews.shop:9080 subset v3");
    assert_eq!(
        get(&compiled.routes, "/", &["end-user: other", "end-user: jason"]),
        "testers.jason: reviews.shop:9080 subset v3"
    );
    let origins: Vec<_> = compiled.routes.routes.routes().iter().map(|route| route.origin.field.as_str()).collect();
    assert_eq!(origins, ["spec.http[0].match[0]", "spec.http[0].match[1]", "spec.http[1]"]);
    assert!(compiled.findings.is_empty(), "{:?}", compiled.findings);
}

#[test]
fn destinations_are_completed_and_what_does_not_exist_is_missing() {
    for (destination, expected, findings) in [
        ("{host: reviews}", "reviews.shop:9080", &[][..]),
        ("{host: reviews, port: {number: 80}}", "reviews.shop:80", &[]),
        ("{host: shadow}", "shadow.shop:8080", &[]),
        ("{host: audit.other.svc.cluster.local}", "audit.other:8080", &[]),
        ("{host: audit.other}", "missing audit.other:9080", &["host"]),
        ("{host: nobody}", "missing nobody.shop:9080", &["host"]),
        ("{host: reviews, port: {number: 81}}", "missing reviews.shop:81", &["port"]),
        ("{host: reviews, subset: v9}", "missing reviews.shop:9080 subset v9", &["subset"]),
    ] {
        let compiled = reviews(&rules(&format!("  - route: [{{destination: {destination}}}]\n")));
        assert_eq!(get(&compiled.routes, "/", &[]), format!(": {expected}"), "{destination}");
        let expected: Vec<_> = findings
            .iter()
            .map(|field| format!("shop/reviews spec.http[0].route[0].destination.{field} missing"))
            .collect();
        assert_eq!(codes(&compiled.findings), expected, "{destination}");
    }
}

#[test]
fn only_virtual_services_for_the_waypoint_count() {
    let with = |namespace: &str, spec: &str| {
        format!(
            "---\nkind: VirtualService\nmetadata: {{name: v, namespace: {namespace}}}\n\
             spec: {{{spec}, http: [{{name: used, directResponse: {{status: 418}}}}]}}\n"
        )
    };
    for (namespace, spec, waypoint, is_used) in [
        ("shop", "hosts: [reviews]", "shop", true),
        ("shop", "hosts: ['*.shop.svc.cluster.local']", "shop", true),
        ("shop", "hosts: ['*']", "shop", true),
        ("shop", "hosts: [reviews.shop]", "shop", false),
        ("shop", "hosts: [ratings]", "shop", false),
        ("shop", "hosts: [reviews], gateways: [mesh, public]", "shop", true),
        ("shop", "hosts: [reviews], gateways: [public]", "shop", false),
        ("shop", "hosts: [reviews], exportTo: ['.']", "shop", true),
        ("shop", "hosts: [reviews], exportTo: ['.']", "gateways", false),
        ("shop", "hosts: [reviews], exportTo: [gateways]", "gateways", true),
        ("gateways", "hosts: [reviews.shop.svc.cluster.local]", "gateways", true),
        ("gateways", "hosts: [reviews]", "gateways", false),
        ("other", "hosts: [reviews.shop.svc.cluster.local]", "shop", false),
        ("shop", "exportTo: ['*']", "shop", false),
    ] {
        let compiled = at(&with(namespace, spec), waypoint, "reviews.shop.svc.cluster.local", 9080);
        let expected = if is_used { "used: answer 418" } else { "default: reviews.shop:9080" };
        assert_eq!(get(&compiled.routes, "/", &[]), expected, "{namespace} {spec} {waypoint}");
    }
}

#[test]
fn rules_are_joined_by_age_and_a_catch_all_hides_the_rest() {
    let of = |name: &str, day: u8, rules: &str| {
        format!(
            "---\nkind: VirtualService\nmetadata: {{name: {name}, namespace: shop, creationTimestamp: '2026-01-0{day}T00:00:00Z'}}\n\
             spec: {{hosts: [reviews], http: [{rules}]}}\n"
        )
    };
    let route = |name: &str| format!("name: {name}, route: [{{destination: {{host: {name}}}}}]");
    let yaml = [
        of("c", 1, &format!("{{match: [{{uri: {{prefix: /api}}}}], {}}}", route("ratings"))),
        of("b", 2, &format!("{{{}}}, {{{}}}", route("shadow"), route("cart"))),
        of("a", 3, &format!("{{match: [{{uri: {{exact: /a}}}}], {}}}", route("cart"))),
    ];
    let compiled = reviews(&yaml.concat());

    assert_eq!(get(&compiled.routes, "/api/x", &[]), "ratings: ratings.shop:9080");
    assert_eq!(get(&compiled.routes, "/a", &[]), "shadow: shadow.shop:8080");
    assert_eq!(codes(&compiled.findings), ["shop/a spec.http[0] shadowed", "shop/b spec.http[1] shadowed"]);
}

#[test]
fn unmatched_requests_have_no_route_once_there_is_a_rule() {
    let compiled = reviews(&rules("  - match: [{uri: {prefix: /a}}]\n    route: [{destination: {host: reviews}}]\n"));
    assert_eq!(get(&compiled.routes, "/b", &[]), "404");
    let invalid = reviews(&rules("  - match: [{uri: {regex: '('}}]\n    route: [{destination: {host: reviews}}]\n"));
    assert_eq!(get(&invalid.routes, "/b", &[]), "404", "a match that is invalid never matches");
    assert_eq!(codes(&invalid.findings), ["shop/reviews spec.http[0].match[0].uri.regex invalid_value"]);
}

#[test]
fn a_match_for_another_port_or_for_gateways_is_left_out() {
    let yaml = rules(
        "  - {name: port, match: [{port: 80}], directResponse: {status: 200}}
  - {name: gateway, match: [{gateways: [public]}], directResponse: {status: 201}}
  - {name: mesh, match: [{gateways: [mesh], port: 9080}], directResponse: {status: 202}}
",
    );
    assert_eq!(get(&reviews(&yaml).routes, "/", &[]), "mesh: answer 202");
    let other = at(&yaml, "shop", "reviews.shop.svc.cluster.local", 80);
    assert_eq!(get(&other.routes, "/", &[]), "port: answer 200");
}

#[test]
fn a_client_is_matched_by_what_the_mesh_knows_of_it() {
    let yaml = rules(
        "  - {name: labels, match: [{sourceLabels: {app: productpage}}], directResponse: {status: 200}}
  - {name: namespace, match: [{sourceNamespace: other}], directResponse: {status: 201}}
",
    );
    let compiled = reviews(&yaml);
    let labels: Labels = [("app".to_owned(), "productpage".to_owned())].into();
    let from = |labels, namespace| get_from(&compiled.routes, Source { labels, namespace }, "/", &[]);

    assert_eq!(from(Some(&labels), Some("shop")), "labels: answer 200");
    assert_eq!(from(None, Some("other")), "namespace: answer 201");
    assert_eq!(from(None, None), "404");
}

#[test]
fn everything_that_a_route_does_is_compiled() {
    let yaml = rules(
        "  - match: [{uri: {prefix: /v2/}}]
    rewrite: {uri: /, authority: reviews.example}
    timeout: 3s
    retries: {attempts: 3, perTryTimeout: 1s, retryOn: 'gateway-error,connect-failure'}
    fault:
      delay: {fixedDelay: 7s, percentage: {value: 50}}
      abort: {httpStatus: 503, percentage: {value: 10}}
    mirror: {host: shadow}
    mirrorPercentage: {value: 25}
    corsPolicy: {allowOrigins: [{exact: 'https://example.com'}], allowMethods: [GET]}
    headers:
      request: {set: {x-route: one}, remove: [x-debug]}
      response: {add: {x-served: shop}}
    route:
    - destination: {host: reviews}
      headers: {request: {set: {x-destination: one}}}
",
    );
    let compiled = reviews(&yaml);
    let forward = first(&compiled);
    let rule = &compiled.routes.routes.routes()[0].rule;

    assert_eq!(forward.path, Some(PathRewrite::Matched("/".into())));
    assert_eq!(forward.authority.as_deref(), Some("reviews.example"));
    assert_eq!(forward.timeout, Some(Duration::from_secs(3)));
    let retry = forward.retry.unwrap();
    assert_eq!((retry.attempts, retry.per_try_timeout), (3, Some(Duration::from_secs(1))));
    assert_eq!(forward.mirrors[0].destination.host, "shadow.shop.svc.cluster.local");
    assert_eq!(forward.mirrors[0].share, Percent::new(25.0).unwrap());
    let fault = rule.fault.as_ref().unwrap();
    assert_eq!(fault.delay.as_ref().unwrap().share, Percent::new(50.0).unwrap());
    assert_eq!(fault.abort.as_ref().unwrap().share, Percent::new(10.0).unwrap());
    assert_eq!(rule.cors.as_ref().unwrap().origins.len(), 1);
    assert_eq!((rule.request_headers.set.len(), rule.request_headers.remove.len()), (1, 1));
    assert_eq!(rule.response_headers.add.len(), 1);
    assert_eq!(forward.destinations[0].request_headers.set.len(), 1);
    assert!(compiled.findings.is_empty(), "{:?}", compiled.findings);
}

#[test]
fn mirrors_have_shares_of_their_own() {
    for (mirrors, expected, findings) in [
        ("mirror: {host: shadow}", &["shadow 100.0"][..], &[][..]),
        ("mirror: {host: shadow}, mirrorPercent: 5", &["shadow 5.0"], &[]),
        ("mirror: {host: shadow}, mirrorPercentage: {value: 0}", &[], &[]),
        (
            "mirrors: [{destination: {host: shadow}, percentage: {value: 1}}, {destination: {host: ratings}}]",
            &["shadow 1.0", "ratings 100.0"],
            &[],
        ),
        ("mirror: {host: nobody}", &[], &["shop/reviews spec.http[0].mirror.host missing"]),
        (
            "mirror: {host: cart}, mirrors: [{destination: {host: shadow}}]",
            &["shadow 100.0"],
            &["shop/reviews spec.http[0].mirror invalid_value"],
        ),
    ] {
        let compiled = reviews(&rules(&format!("  - {{{mirrors}, route: [{{destination: {{host: reviews}}}}]}}\n")));
        let mirrors_of = first(&compiled).mirrors;
        let lines: Vec<_> = mirrors_of
            .iter()
            .map(|of| {
                format!(
                    "{} {}",
                    of.destination.host.split('.').next().unwrap(),
                    serde_json::to_value(of.share).unwrap()
                )
            })
            .collect();
        assert_eq!(
            (lines.as_slice(), codes(&compiled.findings).as_slice()),
            (
                &expected.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>()[..],
                &findings.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>()[..]
            ),
            "{mirrors}"
        );
    }
}

#[test]
fn redirects_and_answers_are_compiled() {
    let action = |text: &str| {
        let compiled = reviews(&rules(&format!("  - {{{text}}}\n")));
        (compiled.routes.routes.routes()[0].rule.action.clone(), codes(&compiled.findings))
    };
    let (Action::Redirect(redirect), _) =
        action("redirect: {uri: /new, authority: a.example, scheme: https, redirectCode: 308}")
    else {
        panic!("expected a redirect");
    };
    assert_eq!((redirect.status, redirect.port), (308, RedirectPort::Keep));
    assert_eq!(redirect.path, Some(RedirectPath::Full("/new".into())));
    for (text, expected) in [
        ("redirect: {port: 8443}", RedirectPort::Number(8443)),
        ("redirect: {derivePort: FROM_REQUEST_PORT}", RedirectPort::Number(9080)),
        ("redirect: {derivePort: FROM_PROTOCOL_DEFAULT}", RedirectPort::Keep),
    ] {
        let (Action::Redirect(redirect), _) = action(text) else { panic!("expected a redirect") };
        assert_eq!((redirect.status, redirect.port), (301, expected), "{text}");
    }
    for (text, expected) in [
        ("directResponse: {status: 418, body: {string: short and stout}}", "short and stout"),
        ("directResponse: {status: 418, body: {bytes: c2hvcnQ=}}", "short"),
        ("directResponse: {status: 418}", ""),
    ] {
        let (Action::Respond(answer), findings) = action(text) else { panic!("expected an answer") };
        assert_eq!((answer.status, answer.body.as_str(), findings.len()), (418, expected, 0), "{text}");
    }
}

#[test]
fn an_action_that_cannot_be_compiled_answers_500() {
    for (text, field) in [
        ("name: nothing", ""),
        ("redirect: {uri: /}, route: [{destination: {host: reviews}}]", ""),
        ("redirect: {uri: /}, rewrite: {uri: /}", ""),
        ("redirect: {uri: /}, directResponse: {status: 200}", ""),
        ("directResponse: {status: 200}, fault: {abort: {httpStatus: 500, percentage: {value: 1}}}", ""),
        ("redirect: {redirectCode: 200}", ".redirect.redirectCode"),
        ("directResponse: {status: 100}", ".directResponse.status"),
        ("directResponse: {status: 200, body: {bytes: '?'}}", ".directResponse.body.bytes"),
        ("route: [{destination: {host: reviews}, weight: 0}, {destination: {host: ratings}, weight: 0}]", ".route"),
        (
            "route: [{destination: {host: reviews}}], rewrite: {uriRegexRewrite: {match: a, rewrite: '\\1'}}",
            ".rewrite.uriRegexRewrite",
        ),
    ] {
        let compiled = reviews(&rules(&format!("  - {{{text}}}\n")));
        assert!(get(&compiled.routes, "/", &[]).ends_with(": answer 500"), "{text}");
        assert_eq!(codes(&compiled.findings), [format!("shop/reviews spec.http[0]{field} invalid_value")], "{text}");
    }
}

#[test]
fn a_single_destination_needs_no_weight_and_zero_among_several_gets_nothing() {
    let single = reviews(&rules("  - route: [{destination: {host: reviews}, weight: 0}]\n"));
    assert_eq!(get(&single.routes, "/", &[]), ": reviews.shop:9080");
    assert_eq!(first(&single).destinations[0].weight, 1);
    let switched = reviews(&rules(
        "  - route: [{destination: {host: reviews-v1}, weight: 0}, {destination: {host: reviews-v2}, weight: 100}]\n",
    ));
    assert_eq!(get(&switched.routes, "/", &[]), ": 0 reviews-v1.shop:9080, 100 reviews-v2.shop:9080");
}

#[test]
fn rules_for_connections_are_reported() {
    let yaml = format!(
        "{}  tcp: [{{route: [{{destination: {{host: reviews}}}}]}}]\n  tls: [{{match: [{{sniHosts: [a]}}]}}]\n",
        rules(ALL)
    );
    let compiled = reviews(&yaml);
    assert_eq!(codes(&compiled.findings), ["shop/reviews spec.tcp unsupported", "shop/reviews spec.tls unsupported"]);
    let only_tcp =
        reviews("kind: VirtualService\nmetadata: {name: v, namespace: shop}\nspec: {hosts: [reviews], tcp: [{}]}\n");
    assert_eq!(get(&only_tcp.routes, "/", &[]), "default: reviews.shop:9080");
}

#[test]
fn a_retry_goes_to_the_same_endpoint_where_a_hash_chooses_it() {
    let hashed = "---\nkind: DestinationRule\nmetadata: {name: r, namespace: shop}\n\
                  spec: {host: reviews, trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: x-user}}}}\n";
    let own = "  - {retries: {attempts: 1, retryIgnorePreviousHosts: true}, route: [{destination: {host: reviews}}]}\n";
    let other = "  - {route: [{destination: {host: ratings}}]}\n";
    for (yaml, avoids) in [
        (String::new(), true),
        (hashed.to_owned(), false),
        (format!("{}{hashed}", rules(ALL)), false),
        (format!("{}{hashed}", rules(own)), true),
        (format!("{}{hashed}", rules(other)), true),
    ] {
        assert_eq!(first(&reviews(&yaml)).retry.unwrap().avoid_previous_hosts, avoids, "{yaml}");
    }
}

#[path = "delegate_tests.rs"]
mod delegates;
