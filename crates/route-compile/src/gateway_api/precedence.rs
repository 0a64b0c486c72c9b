//! Precedence among the matches of all routes of a service port.

use std::cmp::Reverse;

use kube_types::ObjectMeta;
use route::{PathMatch, Route};

use crate::world::age;

/// Sort of a path pattern, the most special first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum PathRank {
    Exact,
    Prefix,
    Regex,
}

/// Key of a match; the least is tried first. Objects are compared by age, then by name, then rules and matches by position.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key<'a> {
    path: (PathRank, Reverse<usize>),
    /// Length of a GRPCRoute's service and method; 0 for HTTPRoutes.
    grpc: (Reverse<usize>, Reverse<usize>),
    has_no_method: bool,
    headers: Reverse<usize>,
    query: Reverse<usize>,
    age: (Option<&'a str>, &'a str, &'a str),
    rule: usize,
    position: usize,
}

impl<'a> Key<'a> {
    /// Key of a match of an HTTPRoute.
    pub(crate) fn http(route: &Route, meta: &'a ObjectMeta, rule: usize, position: usize) -> Self {
        let conditions = &route.conditions;
        Self {
            path: path_rank(&conditions.path),
            grpc: (Reverse(0), Reverse(0)),
            has_no_method: conditions.method.is_none(),
            headers: Reverse(conditions.headers.len()),
            query: Reverse(conditions.query.len()),
            age: age(meta),
            rule,
            position,
        }
    }

    /// Key of a match of a GRPCRoute, whose service and method have these lengths.
    pub(crate) fn grpc(
        route: &Route,
        lengths: (usize, usize),
        meta: &'a ObjectMeta,
        rule: usize,
        position: usize,
    ) -> Self {
        Self {
            path: (PathRank::Exact, Reverse(0)),
            grpc: (Reverse(lengths.0), Reverse(lengths.1)),
            ..Self::http(route, meta, rule, position)
        }
    }
}

fn path_rank(path: &PathMatch) -> (PathRank, Reverse<usize>) {
    match path {
        PathMatch::Exact(path) | PathMatch::ExactIgnoreCase(path) => (PathRank::Exact, Reverse(path.len())),
        PathMatch::Any => (PathRank::Prefix, Reverse(1)),
        PathMatch::Prefix(path) | PathMatch::Elements(path) | PathMatch::PrefixIgnoreCase(path) => {
            (PathRank::Prefix, Reverse(path.len()))
        }
        PathMatch::Regex(regex) => (PathRank::Regex, Reverse(regex.pattern().len())),
    }
}

/// Routes in order of their keys.
pub(crate) fn sort(mut routes: Vec<(Key<'_>, Route)>) -> Vec<Route> {
    routes.sort_by(|(one, _), (other, _)| one.cmp(other));
    routes.into_iter().map(|(_, route)| route).collect()
}
