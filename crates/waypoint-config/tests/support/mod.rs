//! Configurations at random, with every variant of the model.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use jwt::{JwtRule, KeySource};
use policy::http::{HttpPolicy, Provider};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use route::retry::{Condition, RetryOn, RetryPolicy};
use route::{
    Abort, AbortStatus, Action, ClaimMatch, Conditions, Cors, Delay, Destination, Fault, Forward, HeaderChanges,
    HeaderMatch, LocalAnswer, Mirror, Origin, OriginMatch, PathMatch, PathRewrite, Percent, PortRoutes, QueryMatch,
    Redirect, RedirectPath, RedirectPort, Regex, Route, RouteTable, Rule, Substitution, Target, TextMatch, ValueMatch,
    Weighted,
};
use serde_json::json;
use waypoint_config::{AppProtocol, GatewayConfig, Policies, PortConfig, ServiceConfig};

fn text() -> BoxedStrategy<String> {
    "[a-z/é]{0,6}".boxed()
}

fn regex() -> impl Strategy<Value = Regex> {
    "[a-z]{1,3}([.]|[+])?".prop_map(|pattern| Regex::new(&pattern).unwrap())
}

fn pattern() -> impl Strategy<Value = TextMatch> {
    prop_oneof![
        text().prop_map(TextMatch::Exact),
        text().prop_map(TextMatch::Prefix),
        regex().prop_map(TextMatch::Regex),
    ]
}

fn value() -> impl Strategy<Value = ValueMatch> {
    prop_oneof![Just(ValueMatch::Present), pattern().prop_map(ValueMatch::Text)]
}

fn path() -> impl Strategy<Value = PathMatch> {
    prop_oneof![
        Just(PathMatch::Any),
        text().prop_map(PathMatch::Exact),
        text().prop_map(PathMatch::Prefix),
        text().prop_map(PathMatch::Elements),
        text().prop_map(PathMatch::ExactIgnoreCase),
        text().prop_map(PathMatch::PrefixIgnoreCase),
        regex().prop_map(PathMatch::Regex),
    ]
}

fn rewrite() -> impl Strategy<Value = PathRewrite> {
    prop_oneof![
        text().prop_map(PathRewrite::Matched),
        text().prop_map(PathRewrite::Elements),
        text().prop_map(PathRewrite::Full),
        "[a-z]{0,3}".prop_map(|text| PathRewrite::Regex(Substitution::new(&format!("({text})"), r"\1x").unwrap())),
    ]
}

fn name() -> impl Strategy<Value = HeaderName> {
    "x-[a-z]{1,4}".prop_map(|name| name.parse().unwrap())
}

fn header() -> impl Strategy<Value = HeaderValue> {
    // Also bytes that are no UTF-8.
    vec(prop_oneof![Just(b'a'), Just(b' '), 0x80_u8..=0xff], 0..4)
        .prop_map(|bytes| HeaderValue::from_bytes(&bytes).unwrap())
}

fn changes() -> impl Strategy<Value = HeaderChanges> {
    let lines = || vec((name(), header()), 0..2);
    (vec(name(), 0..2), lines(), lines()).prop_map(|(remove, set, add)| HeaderChanges { remove, set, add })
}

fn share() -> impl Strategy<Value = Percent> {
    (0..=1_000_000_u32).prop_map(|millionths| Percent::of(millionths, 1_000_000).unwrap())
}

fn duration() -> impl Strategy<Value = Duration> {
    any::<u64>().prop_map(Duration::from_nanos)
}

pub(crate) fn origin() -> impl Strategy<Value = Origin> {
    let kind = prop_oneof![Just(""), Just("VirtualService"), Just("HTTPRoute"), Just("GRPCRoute")];
    (kind, text(), text(), text()).prop_map(|(kind, namespace, name, field)| Origin { kind, namespace, name, field })
}

fn conditions() -> impl Strategy<Value = Conditions> {
    let headers = vec((name(), value(), any::<bool>()), 0..2);
    let query = vec((text(), value()), 0..2);
    let claims = vec((vec(text(), 1..3), value(), any::<bool>()), 0..2);
    let optional = || option::of(pattern());
    let labels = btree_map(text(), text(), 0..2);
    ((path(), optional(), optional(), optional()), headers, query, claims, labels, option::of(text())).prop_map(
        |((path, method, scheme, authority), headers, query, claims, source_labels, source_namespace)| Conditions {
            path,
            method,
            scheme,
            authority,
            headers: headers.into_iter().map(|(name, value, invert)| HeaderMatch { name, value, invert }).collect(),
            query: query.into_iter().map(|(name, value)| QueryMatch { name, value }).collect(),
            claims: claims.into_iter().map(|(path, value, invert)| ClaimMatch { path, value, invert }).collect(),
            source_labels,
            source_namespace,
        },
    )
}

fn fault() -> impl Strategy<Value = Fault> {
    let delay = (duration(), share()).prop_map(|(duration, share)| Delay { duration, share });
    let status = prop_oneof![any::<u16>().prop_map(AbortStatus::Http), any::<u8>().prop_map(AbortStatus::Grpc)];
    let abort = (status, share()).prop_map(|(status, share)| Abort { status, share });
    (option::of(delay), option::of(abort)).prop_map(|(delay, abort)| Fault { delay, abort })
}

fn cors() -> impl Strategy<Value = Cors> {
    let origin = prop_oneof![Just(OriginMatch::Any), pattern().prop_map(OriginMatch::Text)];
    let value = || option::of(header());
    (vec(origin, 0..2), (value(), value(), value()), option::of(any::<u64>()), any::<bool>(), any::<bool>()).prop_map(
        |(origins, (allow_methods, allow_headers, expose_headers), max_age, allow_credentials, ignore)| Cors {
            origins,
            allow_methods,
            allow_headers,
            expose_headers,
            max_age,
            allow_credentials,
            ignore_unmatched_preflights: ignore,
        },
    )
}

fn redirect() -> impl Strategy<Value = Redirect> {
    let port = prop_oneof![
        Just(RedirectPort::Keep),
        any::<u16>().prop_map(RedirectPort::Number),
        any::<u16>().prop_map(RedirectPort::UnlessDefault),
    ];
    let path = prop_oneof![text().prop_map(RedirectPath::Full), rewrite().prop_map(RedirectPath::Rewrite)];
    (any::<u16>(), option::of(text()), option::of(text()), port, option::of(path))
        .prop_map(|(status, scheme, authority, port, path)| Redirect { status, scheme, authority, port, path })
}

fn destination() -> impl Strategy<Value = Destination> {
    (text(), any::<u16>(), option::of(text())).prop_map(|(host, port, subset)| Destination { host, port, subset })
}

fn weighted() -> impl Strategy<Value = Weighted> {
    let target = prop_oneof![
        destination().prop_map(Target::Service),
        destination().prop_map(Target::Missing),
        Just(Target::Invalid),
    ];
    (target, any::<u32>(), changes(), changes(), option::of(text())).prop_map(
        |(target, weight, request_headers, response_headers, authority)| Weighted {
            target,
            weight,
            request_headers,
            response_headers,
            authority,
        },
    )
}

fn retry() -> impl Strategy<Value = RetryPolicy> {
    let conditions = proptest::sample::subsequence(Condition::ALL.to_vec(), 0..Condition::ALL.len());
    let on =
        (conditions, vec(any::<u16>(), 0..2)).prop_map(|(conditions, statuses)| RetryOn::new(&conditions, &statuses));
    (any::<u32>(), on, option::of(duration()), duration(), any::<bool>(), any::<bool>()).prop_map(
        |(attempts, on, per_try_timeout, base_pause, avoid_previous_hosts, other_localities)| RetryPolicy {
            attempts,
            on,
            per_try_timeout,
            base_pause,
            avoid_previous_hosts,
            other_localities,
        },
    )
}

fn action() -> impl Strategy<Value = Action> {
    let mirror = (destination(), share()).prop_map(|(destination, share)| Mirror { destination, share });
    let forward = (
        vec(weighted(), 0..3),
        option::of(rewrite()),
        option::of(text()),
        option::of(duration()),
        option::of(retry()),
        vec(mirror, 0..2),
    )
        .prop_map(|(destinations, path, authority, timeout, retry, mirrors)| Forward {
            destinations,
            path,
            authority,
            timeout,
            retry,
            mirrors,
        });
    let answer = (any::<u16>(), text(), option::of(any::<u8>())).prop_map(|(status, body, grpc_status)| LocalAnswer {
        status,
        body,
        grpc_status,
    });
    prop_oneof![
        forward.prop_map(Action::Forward),
        redirect().prop_map(Action::Redirect),
        answer.prop_map(Action::Respond),
    ]
}

fn rule() -> impl Strategy<Value = Rule> {
    (origin(), text(), option::of(fault()), option::of(cors()), action(), changes(), changes()).prop_map(
        |(origin, name, fault, cors, action, request_headers, response_headers)| Rule {
            origin,
            name,
            fault,
            cors,
            action,
            request_headers,
            response_headers,
        },
    )
}

/// Tables whose rules have several routes each.
fn table() -> impl Strategy<Value = RouteTable> {
    let route = (origin(), text(), conditions());
    vec((rule(), vec(route, 1..3)), 0..3).prop_map(|rules| {
        let routes = rules.into_iter().flat_map(|(rule, routes)| {
            let rule = Arc::new(rule);
            let route = move |(origin, name, conditions)| Route { origin, name, conditions, rule: Arc::clone(&rule) };
            routes.into_iter().map(route)
        });
        RouteTable::new(routes.collect())
    })
}

pub(crate) fn policies() -> impl Strategy<Value = Policies> {
    let policy = (text(), any::<bool>()).prop_map(|(name, dry_run)| -> HttpPolicy {
        let rules = json!([{"to": [{"methods": {"anyOf": [{"Exact": "GET"}]}}]}]);
        let policy = json!({"namespace": "shop", "name": name, "action": "deny", "dryRun": dry_run, "rules": rules});
        serde_json::from_value(policy).unwrap()
    });
    let rule = text().prop_map(|issuer| -> JwtRule {
        let keys = KeySource::Uri { uri: format!("https://{issuer}"), timeout: Duration::from_secs(5) };
        let rule = json!({"origin": "shop/jwt jwtRules[0]", "issuer": issuer, "keys": keys});
        serde_json::from_value(rule).unwrap()
    });
    (vec(policy, 0..2), vec(rule, 0..2)).prop_map(|(http, jwt)| Policies { http, jwt })
}

pub(crate) fn service() -> impl Strategy<Value = ServiceConfig> {
    let protocol = prop_oneof![
        Just(AppProtocol::Undeclared),
        Just(AppProtocol::Http1),
        Just(AppProtocol::Http2),
        Just(AppProtocol::Tcp),
    ];
    let routes =
        (table(), btree_map(text(), table(), 0..2)).prop_map(|(routes, consumers)| PortRoutes { routes, consumers });
    let port = (protocol, routes).prop_map(|(protocol, routes)| PortConfig { protocol, routes });
    (btree_map(any::<u16>(), port, 0..3), policies()).prop_map(|(ports, policies)| ServiceConfig { ports, policies })
}

pub(crate) fn gateway() -> impl Strategy<Value = GatewayConfig> {
    let provider = text().prop_map(|name| -> Provider {
        serde_json::from_value(json!({
            "name": name, "host": "authz.shop", "port": 9000, "timeout": {"secs": 1, "nanos": 0},
            "statusOnError": 403, "protocol": "grpc",
        }))
        .unwrap()
    });
    (policies(), vec(provider, 0..2)).prop_map(|(policies, providers)| GatewayConfig { policies, providers })
}
