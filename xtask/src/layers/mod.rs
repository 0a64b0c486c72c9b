//! The table of who may depend on whom (`layers.toml`), compared with what the manifests say, and dependencies that nobody
//! uses. Development dependencies are free.

mod links;
mod unused;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context, bail};
use cargo_metadata::{DependencyKind, MetadataCommand, Package};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Table {
    /// Packages without dependencies in this workspace; all others may depend on them.
    base: BTreeSet<String>,
    /// Packages that each other package may depend on besides `base`.
    may_depend_on: BTreeMap<String, BTreeSet<String>>,
    /// Packages that a program must not link, however many packages are between them.
    never_links: BTreeMap<String, BTreeSet<String>>,
    /// Dependencies of a package that its sources do not name: generated code does, or they are there for their features.
    used_elsewhere: BTreeMap<String, Vec<String>>,
}

/// Fails with every edge that is not in the table or that nobody uses.
pub(crate) fn check(workspace: &Path) -> anyhow::Result<()> {
    let file = workspace.join("xtask/layers.toml");
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let table: Table = toml::from_str(&text).with_context(|| format!("cannot parse {}", file.display()))?;
    let packages = MetadataCommand::new().current_dir(workspace).no_deps().exec()?.packages;
    let edges = edges(&packages);
    let mut faults = table.faults(&edges);
    faults.extend(links::faults(workspace, &table.never_links)?);
    for package in &packages {
        faults.extend(unused::faults(package, &table.used_elsewhere)?);
    }
    if !faults.is_empty() {
        bail!("{}\nthe table is xtask/layers.toml; changing it is a reviewed decision", faults.join("\n"));
    }
    let count: usize = edges.values().map(BTreeSet::len).sum();
    println!("layers: {} packages, {count} dependencies between them, all in the table and used", edges.len());
    Ok(())
}

/// Normal dependencies between members of the workspace.
fn edges(packages: &[Package]) -> BTreeMap<String, BTreeSet<String>> {
    let ours: BTreeSet<String> = packages.iter().map(|package| package.name.to_string()).collect();
    let edges = packages.iter().map(|package| {
        let normal = package.dependencies.iter().filter(|edge| edge.kind == DependencyKind::Normal);
        let to = normal.map(|edge| edge.name.clone()).filter(|name| ours.contains(name)).collect();
        (package.name.to_string(), to)
    });
    edges.collect()
}

impl Table {
    fn faults(&self, edges: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
        let mut faults = Vec::new();
        let none = BTreeSet::new();
        for (from, to) in edges {
            let allowed = match self.may_depend_on.get(from) {
                Some(allowed) => allowed,
                None if self.base.contains(from) => &none,
                None => {
                    faults.push(format!("{from} is not in the table"));
                    continue;
                }
            };
            let is_base = self.base.contains(from);
            // Packages of the base are free for all others, but not for each other.
            let forbidden = to.iter().filter(|to| !allowed.contains(*to) && (is_base || !self.base.contains(*to)));
            faults.extend(forbidden.map(|to| format!("{from} must not depend on {to}")));
        }
        for name in self.base.iter().chain(self.may_depend_on.keys()) {
            if !edges.contains_key(name) {
                faults.push(format!("{name} is in the table, but there is no such package"));
            }
        }
        for (from, allowed) in &self.may_depend_on {
            let used = edges.get(from).unwrap_or(&none);
            // What the table allows and nobody uses would let the edge come back without a review.
            let unused = allowed.iter().filter(|to| !used.contains(*to));
            faults.extend(unused.map(|to| format!("{from} may depend on {to} and does not: remove it from the table")));
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(ToString::to_string).collect()
    }

    fn faults(edges: &[(&str, &[&str])]) -> Vec<String> {
        let table = Table {
            base: set(&["base"]),
            may_depend_on: BTreeMap::from([("low".into(), set(&[])), ("high".into(), set(&["low"]))]),
            never_links: BTreeMap::new(),
            used_elsewhere: BTreeMap::new(),
        };
        table.faults(&edges.iter().map(|(from, to)| ((*from).to_owned(), set(to))).collect())
    }

    #[test]
    fn edges_of_the_table_and_to_the_base_are_allowed() {
        assert_eq!(faults(&[("base", &[]), ("low", &["base"]), ("high", &["base", "low"])]), [""; 0]);
    }

    #[test]
    fn an_edge_upwards_is_named() {
        let found = faults(&[("base", &["low"]), ("low", &["high"]), ("high", &["low"])]);

        assert_eq!(found, ["base must not depend on low", "low must not depend on high"]);
    }

    #[test]
    fn an_edge_that_nobody_uses_is_named() {
        let found = faults(&[("base", &[]), ("low", &[]), ("high", &["base"])]);

        assert_eq!(found, ["high may depend on low and does not: remove it from the table"]);
    }

    #[test]
    fn table_and_workspace_know_the_same_packages() {
        let found = faults(&[("base", &[]), ("low", &[]), ("new", &[])]);

        assert_eq!(
            found,
            [
                "new is not in the table",
                "high is in the table, but there is no such package",
                "high may depend on low and does not: remove it from the table"
            ]
        );
    }
}
