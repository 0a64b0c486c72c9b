use std::time::Duration;

use crate::testing::{codes, first, get, reviews};

/// A root with one rule, and the delegate `api` of namespace `other`.
fn delegating(root: &str, delegate: &str) -> String {
    format!(
        "kind: VirtualService\nmetadata: {{name: root, namespace: shop}}\n\
         spec: {{hosts: [reviews], http: [{{delegate: {{name: api, namespace: other}}, {root}}}]}}\n\
         ---\nkind: VirtualService\nmetadata: {{name: api, namespace: other}}\nspec: {{{delegate}}}\n"
    )
}

#[test]
fn a_delegate_narrows_what_its_root_matches() {
    let yaml = delegating(
        "name: root, match: [{name: api, uri: {prefix: /api}, headers: {x-team: {exact: a}}}], timeout: 3s, retries: {attempts: 1}",
        "http: [
           {name: v2, match: [{name: v2, uri: {prefix: /api/v2}}], timeout: 1s, route: [{destination: {host: audit}}]},
           {name: rest, route: [{destination: {host: reviews}}]}]",
    );
    let compiled = reviews(&yaml);

    let v2 = "root-v2.api-v2: audit.other:8080";
    assert_eq!(get(&compiled.routes, "/api/v2/x", &["x-team: a"]), v2, "short names belong to the delegate");
    assert_eq!(get(&compiled.routes, "/api/v1", &["x-team: a"]), "root-rest.api: reviews.other:9080");
    assert_eq!(get(&compiled.routes, "/api/v2", &[]), "404", "the header of the root counts");
    assert_eq!(get(&compiled.routes, "/other", &["x-team: a"]), "404");
    assert_eq!(first(&compiled).timeout, Some(Duration::from_secs(1)), "the delegate's own");
    assert_eq!(first(&compiled).retry.unwrap().attempts, 1, "the root's");
    let origins: Vec<_> = compiled.routes.routes.routes().iter().map(|route| route.origin.to_string()).collect();
    assert_eq!(
        origins,
        ["VirtualService other/api spec.http[0].match[0]", "VirtualService shop/root spec.http[0].match[0]"]
    );
    assert!(compiled.findings.is_empty(), "{:?}", compiled.findings);
}

#[test]
fn a_delegate_whose_match_is_not_within_the_roots_matches_nothing() {
    for (root, own, is_within) in [
        ("{uri: {prefix: /a}}", "{uri: {prefix: /a/b}}", true),
        ("{uri: {prefix: /a}}", "{uri: {exact: /a/b}}", true),
        ("{uri: {prefix: /a/b}}", "{uri: {prefix: /a}}", false),
        ("{uri: {exact: /a}}", "{uri: {exact: /a}}", true),
        ("{uri: {exact: /a}}", "{uri: {exact: /b}}", false),
        ("{uri: {exact: /a}}", "{uri: {prefix: /a}}", false),
        ("{uri: {regex: /a}}", "{uri: {regex: /a}}", false),
        ("{uri: {prefix: /a}}", "{uri: {regex: /a}}", false),
        ("{uri: {prefix: /a}}", "{headers: {x: {exact: a}}}", true),
        ("{headers: {x: {exact: a}}}", "{headers: {x: {exact: b}}}", false),
        ("{headers: {x: {}}}", "{headers: {x: {exact: b}}}", true),
        ("{headers: {x: {exact: b}}}", "{headers: {x: {}}}", false),
        ("{port: 9080}", "{port: 9080}", true),
        ("{port: 9080}", "{port: 80}", false),
        ("{sourceNamespace: a}", "{sourceNamespace: b}", false),
        ("{sourceLabels: {app: a}}", "{sourceLabels: {app: b}}", false),
        ("{sourceLabels: {app: a}}", "{sourceLabels: {version: b}}", true),
        ("{uri: {prefix: /a}, ignoreUriCase: true}", "{uri: {prefix: /a/b}}", false),
        ("{queryParams: {q: {prefix: a}}}", "{queryParams: {q: {exact: ab}}}", true),
        ("{withoutHeaders: {x: {exact: a}}}", "{withoutHeaders: {x: {exact: b}}}", false),
    ] {
        let yaml = delegating(
            &format!("match: [{root}]"),
            &format!("http: [{{match: [{own}], route: [{{destination: {{host: reviews}}}}]}}]"),
        );
        let compiled = reviews(&yaml);
        assert_eq!(compiled.routes.routes.routes().len(), usize::from(is_within), "{root} {own}");
        let expected: &[&str] = if is_within { &[] } else { &["other/api spec.http[0].match invalid_value"] };
        assert_eq!(codes(&compiled.findings), expected, "{root} {own}");
    }
}

#[test]
fn a_match_is_joined_with_every_one_of_the_root_that_it_is_within() {
    let yaml = delegating(
        "match: [{uri: {prefix: /a}}, {uri: {prefix: /b}}, {headers: {x: {exact: z}}}]",
        "http: [{match: [{uri: {prefix: /a/1}}], route: [{destination: {host: reviews}}]}]",
    );
    let compiled = reviews(&yaml);
    assert_eq!(compiled.routes.routes.routes().len(), 2);
    assert_eq!(get(&compiled.routes, "/a/1", &[]), ": reviews.other:9080");
    assert_eq!(get(&compiled.routes, "/b", &["x: z"]), "404");
}

#[test]
fn a_delegate_that_cannot_be_used_is_reported() {
    for (delegate, root, expected) in [
        ("hosts: [reviews.shop.svc.cluster.local], http: []", "", "shop/root spec.http[0].delegate invalid_value"),
        ("exportTo: ['.'], http: []", "", "shop/root spec.http[0].delegate missing"),
        ("http: []", "route: [{destination: {host: reviews}}]", "shop/root spec.http[0].delegate invalid_value"),
        ("http: []", "", "other/api ignored"),
        ("http: [{delegate: {name: further}}]", "", "other/api spec.http[0].delegate invalid_value"),
    ] {
        let compiled = reviews(&delegating(root, delegate));
        assert_eq!(codes(&compiled.findings), [expected], "{delegate} {root}");
        assert_eq!(get(&compiled.routes, "/", &[]), "404", "its rule still counts as one: {delegate}");
    }
    let nobody = "kind: VirtualService\nmetadata: {name: root, namespace: shop}\n\
                  spec: {hosts: [reviews], http: [{delegate: {name: api}}]}\n";
    assert_eq!(codes(&reviews(nobody).findings), ["shop/root spec.http[0].delegate missing"]);
}
