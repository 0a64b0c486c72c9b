use http::HeaderMap;
use proptest::prelude::*;

use super::*;
use crate::condition::{HeaderMatch, QueryMatch};
use crate::request::Source;
use crate::testing::{headers, request};
use crate::{PathMatch, Regex, TextMatch, ValueMatch};

fn route(number: usize, conditions: Conditions) -> Route {
    let origin = Origin { field: format!("spec.http[{number}]"), ..Origin::default() };
    Route { origin, name: number.to_string(), conditions, rule: Arc::default() }
}

fn table(paths: Vec<PathMatch>) -> RouteTable {
    let conditions = paths.into_iter().map(|path| Conditions { path, ..Conditions::default() });
    RouteTable::new(conditions.enumerate().map(|(number, conditions)| route(number, conditions)).collect())
}

fn found(table: &RouteTable, target: &str) -> Option<usize> {
    let headers = HeaderMap::new();
    table.find(&Request { target, ..request(&headers) }).map(|route| route.name.parse().unwrap())
}

#[test]
fn the_first_match_wins_however_special_a_later_one_is() {
    let routes = table(vec![
        PathMatch::Regex(Regex::new("/api/v[0-9]").unwrap()),
        PathMatch::Prefix("/api".into()),
        PathMatch::Exact("/api/v2".into()),
        PathMatch::ExactIgnoreCase("/HEALTH".into()),
        PathMatch::Any,
        PathMatch::Exact("/health".into()),
    ]);

    assert_eq!(found(&routes, "/api/v2"), Some(0));
    assert_eq!(found(&routes, "/api/v2/x"), Some(1));
    assert_eq!(found(&routes, "/health"), Some(3));
    assert_eq!(found(&routes, "/other"), Some(4));
    assert_eq!(found(&routes, "/api?x=/health"), Some(1), "the query is not part of the path");
}

#[test]
fn without_a_match_there_is_no_route() {
    assert_eq!(found(&table(vec![PathMatch::Exact("/a".into())]), "/b"), None);
    assert_eq!(found(&RouteTable::default(), "/"), None);
}

#[test]
fn the_routes_of_a_consumer_replace_those_of_the_service_for_its_clients() {
    let routes = PortRoutes {
        routes: table(vec![PathMatch::Any]),
        consumers: [("shop".to_owned(), table(vec![PathMatch::Exact("/own".into())]))].into(),
    };
    let headers = HeaderMap::new();
    let found = |namespace, target| {
        let source = Source { namespace, ..Source::default() };
        routes.find(&Request { target, source, ..request(&headers) }).is_some()
    };

    assert!(found(None, "/x") && found(Some("other"), "/x") && found(Some("shop"), "/own"));
    assert!(!found(Some("shop"), "/x"), "unmatched requests of consumers have no route");
}

#[test]
fn an_origin_says_where_to_look() {
    let origin =
        Origin { kind: "VirtualService", namespace: "shop".into(), name: "reviews".into(), field: String::new() };
    assert_eq!(origin.at("spec.http[0].match[1]").to_string(), "VirtualService shop/reviews spec.http[0].match[1]");
    assert_eq!(origin.to_string(), "VirtualService shop/reviews");
    assert_eq!(Origin::default().to_string(), "default");
}

#[test]
fn a_dump_shows_patterns_and_origins() {
    let dump = serde_json::to_value(table(vec![PathMatch::Regex(Regex::new("/a+").unwrap())])).unwrap();
    assert_eq!(dump[0]["conditions"]["path"]["regex"], "/a+");
    assert_eq!(dump[0]["origin"]["field"], "spec.http[0]");
}

fn any_path() -> impl Strategy<Value = PathMatch> {
    let text = "(/[abA]{0,2}){1,3}/?";
    prop_oneof![
        Just(PathMatch::Any),
        text.prop_map(PathMatch::Exact),
        "(/[abA]{0,2}){0,3}".prop_map(PathMatch::Prefix),
        text.prop_map(|prefix: String| PathMatch::elements(&prefix)),
        text.prop_map(PathMatch::ExactIgnoreCase),
        text.prop_map(PathMatch::PrefixIgnoreCase),
        "/[ab]?[.]?[*]?a?".prop_filter_map("pattern", |pattern| Regex::new(&pattern).ok().map(PathMatch::Regex)),
    ]
}

fn any_conditions() -> impl Strategy<Value = Conditions> {
    let value = || prop_oneof![Just(ValueMatch::Present), Just(ValueMatch::Text(TextMatch::exact("1")))];
    let header = (value(), any::<bool>());
    let headers = prop::option::weighted(0.3, header);
    let query = prop::option::weighted(0.3, value());
    let method = prop::option::weighted(0.3, "GET|POST");
    (any_path(), headers, query, method).prop_map(|(path, header, query, method)| Conditions {
        path,
        method: method.map(TextMatch::Exact),
        headers: header
            .map(|(value, invert)| HeaderMatch { name: http::HeaderName::from_static("x-a"), value, invert })
            .into_iter()
            .collect(),
        query: query.map(|value| QueryMatch { name: "q".into(), value }).into_iter().collect(),
        ..Conditions::default()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn the_index_finds_what_a_linear_search_finds(
        routes in prop::collection::vec(any_conditions(), 0..40),
        path in "(/[abA]{0,2}){1,3}/?",
        query in prop::option::of("q=[12]|x=1"),
        lines in prop::collection::vec("[12]", 0..3),
        method in "GET|POST",
    ) {
        let routes: Vec<_> = routes.into_iter().enumerate().map(|(number, conditions)| route(number, conditions)).collect();
        let lines: Vec<_> = lines.iter().map(|line| ("x-a", line.as_str())).collect();
        let headers = headers(&lines);
        let target = query.map_or_else(|| path.clone(), |query| format!("{path}?{query}"));
        let request = Request { method: &method, target: &target, ..request(&headers) };

        let linear = routes.iter().find(|route| route.conditions.is_met(&request)).cloned();
        prop_assert_eq!(RouteTable::new(routes).find(&request).cloned(), linear);
    }
}
