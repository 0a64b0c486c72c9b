//! A value that cannot be evaluated never opens what any value in its place would have closed.

use std::net::SocketAddr;

use http::HeaderMap;
use model::StringMatch;
use policy::http::{
    Action, Authentication, Condition, Http, HttpPolicy, Operation, PathMatch, Request, Rule, Source, Truth, Values,
    decide, trace,
};
use proptest::prelude::*;

fn text() -> impl Strategy<Value = StringMatch> {
    prop_oneof![
        prop::sample::select(vec!["GET", "POST", "/a", "/b", "x"]).prop_map(|text| StringMatch::Exact(text.into())),
        Just(StringMatch::Prefix("/".into())),
        Just(StringMatch::Suffix("T".into())),
        Just(StringMatch::Presence()),
    ]
}

fn values() -> impl Strategy<Value = Values<StringMatch>> {
    let holes = || prop::collection::vec(Just("?".to_owned()), 0..2);
    let list = || prop::collection::vec(text(), 0..2);
    (list(), list(), holes(), holes()).prop_map(|(any_of, none_of, unreadable, unreadable_not)| Values {
        any_of,
        none_of,
        unreadable,
        unreadable_not,
    })
}

fn paths(values: Values<StringMatch>) -> Values<PathMatch> {
    let list = |list: Vec<StringMatch>| list.into_iter().map(PathMatch::Text).collect();
    Values {
        any_of: list(values.any_of),
        none_of: list(values.none_of),
        unreadable: values.unreadable,
        unreadable_not: values.unreadable_not,
    }
}

fn rule() -> impl Strategy<Value = Rule> {
    let operation =
        (values(), values()).prop_map(|(methods, of)| Operation { methods, paths: paths(of), ..Operation::default() });
    let source = (values(), values()).prop_map(|(namespaces, principals)| Source {
        namespaces,
        principals,
        ..Source::default()
    });
    let condition = values().prop_map(|values| Condition::RequestHeader { name: http::header::ACCEPT, values });
    let lists = (
        prop::collection::vec(source, 0..2),
        prop::collection::vec(operation, 0..3),
        prop::collection::vec(condition, 0..2),
    );
    lists.prop_map(|(from, to, when)| Rule { from, to, when })
}

fn policies() -> impl Strategy<Value = Vec<HttpPolicy>> {
    let policy = (any::<bool>(), prop::collection::vec(rule(), 0..3)).prop_map(|(is_deny, rules)| HttpPolicy {
        namespace: "ns".into(),
        name: "p".into(),
        action: if is_deny { Action::Deny } else { Action::Allow },
        dry_run: false,
        rules,
    });
    prop::collection::vec(policy, 0..4)
}

/// Puts a value where one cannot be evaluated.
fn fill(values: &mut Values<StringMatch>, with: &StringMatch) {
    for _ in values.unreadable.drain(..) {
        values.any_of.push(with.clone());
    }
    for _ in values.unreadable_not.drain(..) {
        values.none_of.push(with.clone());
    }
}

fn filled(policies: &[HttpPolicy], with: &StringMatch) -> Vec<HttpPolicy> {
    let mut policies = policies.to_vec();
    for rule in policies.iter_mut().flat_map(|policy| &mut policy.rules) {
        for source in &mut rule.from {
            fill(&mut source.namespaces, with);
            fill(&mut source.principals, with);
        }
        for operation in &mut rule.to {
            fill(&mut operation.methods, with);
            for _ in operation.paths.unreadable.drain(..) {
                operation.paths.any_of.push(PathMatch::Text(with.clone()));
            }
            for _ in operation.paths.unreadable_not.drain(..) {
                operation.paths.none_of.push(PathMatch::Text(with.clone()));
            }
        }
        for condition in &mut rule.when {
            if let Condition::RequestHeader { values, .. } = condition {
                fill(values, with);
            }
        }
    }
    policies
}

fn request<'a>(method: &'a str, path: &'a str, headers: &'a HeaderMap) -> Request<'a> {
    let destination = SocketAddr::from(([10, 96, 0, 1], 80));
    let authentication = Authentication::NoToken;
    let http = Http { method, authority: "a", path, headers, authentication };
    let source = [10, 0, 0, 2].into();
    Request { identity: None, source, remote: source, destination, sni: None, http: Some(http) }
}

proptest! {
    #[test]
    fn a_hole_is_never_more_permissive_than_any_value_in_its_place(
        policies in policies(),
        with in text(),
        method in prop::sample::select(vec!["GET", "POST"]),
        path in prop::sample::select(vec!["/a", "/b"]),
        accept in prop::option::of(Just("x")),
    ) {
        let mut headers = HeaderMap::new();
        if let Some(value) = accept {
            headers.insert(http::header::ACCEPT, http::HeaderValue::from_static(value));
        }
        let request = request(method, path, &headers);

        let whole = filled(&policies, &with);

        if decide(policies.iter(), &request).decision.is_allowed() {
            prop_assert!(decide(whole.iter(), &request).decision.is_allowed());
        }
    }

    #[test]
    fn a_rule_holds_exactly_if_nothing_of_it_is_unmet(policies in policies(), path in prop::sample::select(vec!["/a", "/b"])) {
        let headers = HeaderMap::new();
        let request = request("GET", path, &headers);

        for policy in trace(policies.iter(), &request) {
            for rule in policy.rules {
                prop_assert_eq!(rule.holds == Truth::Yes, rule.unmet.is_empty());
                prop_assert!(rule.unmet.iter().all(|part| part.holds != Truth::Yes));
            }
        }
    }
}
