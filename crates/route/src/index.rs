//! Index of a table by path. It finds the routes whose path can match; their conditions are tried by the caller.
//!
//! Exact paths are in a map, prefixes in a radix tree whose nodes on a path hold all prefixes of it, everything else in a list.
//! Each holds numbers of routes in ascending order. The least number whose conditions are met is the first match: a list is
//! left as soon as its numbers are greater than the best one found.

use std::collections::HashMap;

use crate::PathMatch;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Index {
    exact: HashMap<String, Vec<usize>>,
    prefixes: Node,
    /// Regular expressions, and paths whose case does not count.
    rest: Vec<usize>,
}

/// Node of a radix tree over bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Node {
    /// Bytes between the parent and this node.
    label: Vec<u8>,
    /// Routes whose prefix ends here.
    routes: Vec<usize>,
    /// Sorted by the first byte of their labels, of which no two are equal.
    children: Vec<Self>,
}

impl Index {
    pub(crate) fn new<'a>(paths: impl Iterator<Item = &'a PathMatch>) -> Self {
        let mut index = Self::default();
        for (at, path) in paths.enumerate() {
            match path {
                PathMatch::Any => index.prefixes.insert(b"", at),
                PathMatch::Exact(path) => index.exact.entry(path.clone()).or_default().push(at),
                PathMatch::Prefix(prefix) | PathMatch::Elements(prefix) => {
                    index.prefixes.insert(prefix.as_bytes(), at);
                }
                PathMatch::ExactIgnoreCase(_) | PathMatch::PrefixIgnoreCase(_) | PathMatch::Regex(_) => {
                    index.rest.push(at);
                }
            }
        }
        index
    }

    /// Least number of a route whose path can match and for which `is_met` returns true.
    pub(crate) fn first(&self, path: &str, mut is_met: impl FnMut(usize) -> bool) -> Option<usize> {
        let mut best = None;
        let mut search = |routes: &[usize]| {
            let earlier = routes.iter().copied().take_while(|at| best.is_none_or(|best| *at < best));
            if let Some(found) = earlier.into_iter().find(|at| is_met(*at)) {
                best = Some(found);
            }
        };
        if let Some(routes) = self.exact.get(path) {
            search(routes);
        }
        self.prefixes.visit(path.as_bytes(), &mut search);
        // Last, as these cost most.
        search(&self.rest);
        best
    }
}

impl Node {
    fn insert(&mut self, prefix: &[u8], route: usize) {
        let Some(first) = prefix.first() else {
            self.routes.push(route);
            return;
        };
        match self.children.binary_search_by_key(first, Self::first_byte) {
            Ok(at) => {
                let child = &mut self.children[at];
                let common = child.label.iter().zip(prefix).take_while(|(one, other)| one == other).count();
                child.split(common);
                child.insert(&prefix[common..], route);
            }
            Err(at) => {
                self.children.insert(at, Self { label: prefix.to_vec(), routes: vec![route], children: Vec::new() });
            }
        }
    }

    /// Ends the label after `at` bytes; what is behind them becomes a child.
    fn split(&mut self, at: usize) {
        if at < self.label.len() {
            let label = self.label.split_off(at);
            let (routes, children) = (std::mem::take(&mut self.routes), std::mem::take(&mut self.children));
            self.children = vec![Self { label, routes, children }];
        }
    }

    /// Visits every node whose prefix the path has, the shortest first.
    fn visit(&self, path: &[u8], visitor: &mut impl FnMut(&[usize])) {
        let (mut node, mut rest) = (self, path);
        loop {
            visitor(&node.routes);
            let child = rest.first().and_then(|first| node.children.binary_search_by_key(first, Self::first_byte).ok());
            let Some(child) = child.and_then(|at| node.children.get(at)) else { return };
            let Some(behind) = rest.strip_prefix(child.label.as_slice()) else { return };
            (node, rest) = (child, behind);
        }
    }

    fn first_byte(&self) -> u8 {
        self.label.first().copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_routes_whose_path_can_match_are_tried() {
        let prefix = |text: &str| PathMatch::Prefix(text.to_owned());
        let paths = [
            PathMatch::Exact("/a".into()),
            prefix("/ab"),
            prefix("/abc"),
            prefix("/abd"),
            PathMatch::Any,
            PathMatch::Exact("/abc".into()),
            prefix("/"),
        ];
        let index = Index::new(paths.iter());
        let tried = |path: &str| {
            let mut tried = Vec::new();
            index.first(path, |at| {
                tried.push(at);
                false
            });
            tried.sort_unstable();
            tried
        };

        assert_eq!(tried("/a"), [0, 4, 6]);
        assert_eq!(tried("/abcd"), [1, 2, 4, 6]);
        assert_eq!(tried("/abc"), [1, 2, 4, 5, 6]);
        assert_eq!(tried("/abx"), [1, 4, 6]);
        assert_eq!(tried("*"), [4]);
    }

    #[test]
    fn routes_behind_the_best_one_are_not_tried() {
        let paths =
            [PathMatch::Any, PathMatch::Regex(crate::Regex::new("/.*").unwrap()), PathMatch::Exact("/a".into())];
        let index = Index::new(paths.iter());
        let mut tried = Vec::new();
        let found = index.first("/a", |at| {
            tried.push(at);
            true
        });
        assert_eq!((found, tried), (Some(0), vec![2, 0]));
    }
}
