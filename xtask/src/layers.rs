//! The table of who may depend on whom (`layers.toml`), compared with what the manifests say.
//! Development dependencies are free.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context, bail};
use cargo_metadata::{DependencyKind, MetadataCommand};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Table {
    /// Depend on nothing of ours; all others may depend on them.
    base: BTreeSet<String>,
    /// What each other package may depend on besides `base`.
    may_depend_on: BTreeMap<String, BTreeSet<String>>,
}

/// Fails with every edge that is not in the table.
pub(crate) fn check(workspace: &Path) -> anyhow::Result<()> {
    let file = workspace.join("xtask/layers.toml");
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let table: Table = toml::from_str(&text).with_context(|| format!("cannot parse {}", file.display()))?;
    let edges = edges(workspace)?;
    let faults = table.faults(&edges);
    if !faults.is_empty() {
        bail!("{}\nthe table is xtask/layers.toml; changing it is a reviewed decision", faults.join("\n"));
    }
    let count: usize = edges.values().map(BTreeSet::len).sum();
    println!("layers: {} packages, {count} dependencies between them, all in the table", edges.len());
    Ok(())
}

/// Normal dependencies between members of the workspace.
fn edges(workspace: &Path) -> anyhow::Result<BTreeMap<String, BTreeSet<String>>> {
    let metadata = MetadataCommand::new().current_dir(workspace).no_deps().exec()?;
    let ours: BTreeSet<String> = metadata.packages.iter().map(|package| package.name.to_string()).collect();
    let edges = metadata.packages.iter().map(|package| {
        let normal = package.dependencies.iter().filter(|edge| edge.kind == DependencyKind::Normal);
        let to = normal.map(|edge| edge.name.clone()).filter(|name| ours.contains(name)).collect();
        (package.name.to_string(), to)
    });
    Ok(edges.collect())
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
            let forbidden = to.iter().filter(|to| !allowed.contains(*to) && (is_base || !self.base.contains(*to)));
            faults.extend(forbidden.map(|to| format!("{from} must not depend on {to}")));
        }
        for name in self.base.iter().chain(self.may_depend_on.keys()) {
            if !edges.contains_key(name) {
                faults.push(format!("{name} is in the table, but no package"));
            }
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
        };
        table.faults(&edges.iter().map(|(from, to)| ((*from).to_owned(), set(to))).collect())
    }

    #[test]
    fn edges_of_the_table_and_to_the_base_are_allowed() {
        assert_eq!(faults(&[("base", &[]), ("low", &["base"]), ("high", &["base", "low"])]), [""; 0]);
    }

    #[test]
    fn an_edge_upwards_is_named() {
        let found = faults(&[("base", &["low"]), ("low", &["high"]), ("high", &[])]);

        assert_eq!(found, ["base must not depend on low", "low must not depend on high"]);
    }

    #[test]
    fn table_and_workspace_know_the_same_packages() {
        let found = faults(&[("base", &[]), ("low", &[]), ("new", &[])]);

        assert_eq!(found, ["new is not in the table", "high is in the table, but no package"]);
    }
}
