//! Licences, bans, duplicates and origins of third-party packages, against `deny.toml`, a subset of cargo-deny's own format.
//! Advisories need a database from the network: `cargo deny check advisories` reads them with the same file.

mod licence;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

use anyhow::{Context, bail};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    graph: Graph,
    /// Section for cargo-deny.
    // Named, because unknown fields are refused.
    #[serde(rename = "advisories")]
    _advisories: toml::Table,
    licenses: Licences,
    bans: Bans,
    sources: Origins,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Graph {
    /// Platforms whose packages count.
    targets: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Licences {
    /// SPDX names.
    allow: BTreeSet<String>,
    /// Licences that single packages may have besides.
    #[serde(default)]
    exceptions: Vec<Exception>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Exception {
    #[serde(rename = "crate")]
    name: String,
    allow: BTreeSet<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Bans {
    /// Level for duplicate versions: `deny`.
    multiple_versions: Deny,
    deny: Vec<Named>,
    /// `name@version`: a further version that is tolerated.
    skip: Vec<Named>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Origins {
    unknown_registry: Deny,
    unknown_git: Deny,
    allow_registry: BTreeSet<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Deny {
    Deny,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    #[serde(rename = "crate")]
    name: String,
    reason: String,
}

/// A third-party package.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Foreign {
    name: String,
    version: String,
    /// SPDX expression; empty when the package has none.
    licence: String,
    /// Source as in `Cargo.lock`.
    source: String,
}

/// Fails with every package that the rules do not allow.
pub(crate) fn check(workspace: &Path) -> anyhow::Result<()> {
    let file = workspace.join("deny.toml");
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let rules: Rules = toml::from_str(&text).with_context(|| format!("cannot parse {}", file.display()))?;
    let sources = sources(workspace)?;
    let mut packages = BTreeSet::new();
    for target in &rules.graph.targets {
        packages.extend(foreign(workspace, target, &sources)?);
    }
    let faults = rules.faults(&packages);
    if !faults.is_empty() {
        bail!("{}\nthe rules are in deny.toml; changing them is a reviewed decision", faults.join("\n"));
    }
    println!("deny: {} third-party packages, licences, versions and origins as deny.toml allows", packages.len());
    Ok(())
}

/// Packages of others that a build for a platform needs, those of build scripts and tests included. `cargo metadata` would
/// also name what features of other platforms need.
fn foreign(workspace: &Path, target: &str, sources: &Sources) -> anyhow::Result<BTreeSet<Foreign>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // Packages of tests count as well: they run on developers' machines.
    let options = ["--workspace", "--edges", "normal,build,dev", "--target", target];
    // `--offline`: a check must not fetch, and so not change, what it checks.
    let form = ["--locked", "--offline", "--prefix", "none", "--format", "{p}|{l}"];
    let output = Command::new(cargo).arg("tree").args(options).args(form).current_dir(workspace).output();
    let output = output.context("failed to run cargo tree")?;
    if !output.status.success() {
        bail!("cargo tree failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let mut packages = BTreeSet::new();
    for line in text.lines() {
        let (package, licence) = line.split_once('|').unwrap_or((line, ""));
        // cargo marks a subtree that it has printed before.
        let licence = licence.trim_end_matches("(*)").trim();
        let mut words = package.split_whitespace();
        let (Some(name), Some(version)) = (words.next(), words.next()) else { continue };
        let (name, version) = (name.to_owned(), version.trim_start_matches('v').to_owned());
        match sources.get(&(name.clone(), version.clone())) {
            Some(source) => {
                packages.insert(Foreign { name, version, licence: licence.to_owned(), source: source.clone() })
            }
            // A member of the workspace.
            None => continue,
        };
    }
    Ok(packages)
}

/// Origins of packages that are not in this workspace, by name and version.
type Sources = BTreeMap<(String, String), String>;

/// Reads `Cargo.lock`.
fn sources(workspace: &Path) -> anyhow::Result<Sources> {
    #[derive(Deserialize)]
    struct Lock {
        package: Vec<Locked>,
    }
    #[derive(Deserialize)]
    struct Locked {
        name: String,
        version: String,
        source: Option<String>,
    }
    let text = fs::read_to_string(workspace.join("Cargo.lock")).context("failed to read Cargo.lock")?;
    let lock: Lock = toml::from_str(&text).context("failed to parse Cargo.lock")?;
    let packages = lock.package.into_iter();
    Ok(packages.filter_map(|package| Some(((package.name, package.version), package.source?))).collect())
}

impl Rules {
    fn faults(&self, packages: &BTreeSet<Foreign>) -> Vec<String> {
        let mut faults = Vec::new();
        for package in packages {
            faults
                .extend(self.licences(package).map(|reason| format!("{} {}: {reason}", package.name, package.version)));
            faults.extend(self.origin(package));
            let banned = self.bans.deny.iter().filter(|banned| banned.name == package.name);
            faults.extend(banned.map(|banned| format!("{} is banned: {}", banned.name, banned.reason)));
        }
        faults.extend(self.duplicates(packages));
        faults
    }

    fn licences(&self, package: &Foreign) -> Option<String> {
        let expression = &package.licence;
        let exceptions = self.licenses.exceptions.iter().filter(|exception| exception.name == package.name);
        let exceptions: BTreeSet<&String> = exceptions.flat_map(|exception| &exception.allow).collect();
        let allowed = |name: &str| self.licenses.allow.contains(name) || exceptions.contains(&name.to_owned());
        match licence::is_allowed(expression, &allowed) {
            Ok(true) => None,
            Ok(false) => Some(format!("licence {expression:?} is not allowed")),
            Err(reason) => Some(format!("licence {expression:?} cannot be parsed: {reason}")),
        }
    }

    fn origin(&self, package: &Foreign) -> Option<String> {
        // The only level that there is; the pattern makes the compiler ask for more when one is added.
        let Deny::Deny = self.sources.unknown_registry;
        let Deny::Deny = self.sources.unknown_git;
        let Foreign { name, version, source, .. } = package;
        let registry = source.strip_prefix("registry+");
        let known = registry.is_some_and(|registry| self.sources.allow_registry.contains(registry));
        (!known).then(|| format!("{name} {version} comes from {source}"))
    }

    fn duplicates(&self, packages: &BTreeSet<Foreign>) -> Vec<String> {
        // Only one level is implemented, and a file that asks for another does not parse.
        let Deny::Deny = self.bans.multiple_versions;
        let mut versions = BTreeMap::<&str, Vec<&str>>::new();
        let mut skipped = BTreeSet::new();
        for package in packages {
            let id = format!("{}@{}", package.name, package.version);
            if self.bans.skip.iter().any(|skip| skip.name == id) {
                skipped.insert(id);
            } else {
                versions.entry(&package.name).or_default().push(&package.version);
            }
        }
        let twice = versions.iter().filter(|(_, versions)| versions.len() > 1);
        let twice = twice.map(|(name, versions)| {
            format!(
                "{name} is there in versions {}: unify them, or skip one in deny.toml with a reason",
                versions.join(" and ")
            )
        });
        // An exception that nobody needs any more would silently allow the next duplicate of that name.
        let gone = self.bans.skip.iter().filter(|skip| !skipped.contains(&skip.name));
        twice.chain(gone.map(|skip| format!("deny.toml skips {}, which is no longer there", skip.name))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REGISTRY: &str = "registry+https://registry.example/index";

    fn rules() -> Rules {
        toml::from_str(
            r#"
            [graph]
            targets = ["x86_64-unknown-linux-gnu"]
            [advisories]
            [licenses]
            allow = ["MIT"]
            exceptions = [{ crate = "odd", allow = ["BSL-1.0"] }]
            [bans]
            multiple-versions = "deny"
            deny = [{ crate = "ring", reason = "one provider of cryptography" }]
            skip = [{ crate = "old@1.0.0", reason = "until x is updated" }]
            [sources]
            unknown-registry = "deny"
            unknown-git = "deny"
            allow-registry = ["https://registry.example/index"]
            "#,
        )
        .unwrap()
    }

    fn package(name: &str, version: &str, licence: &str) -> Foreign {
        let [name, version] = [name, version].map(str::to_owned);
        Foreign { name, version, licence: licence.to_owned(), source: REGISTRY.to_owned() }
    }

    fn faults(packages: &[Foreign]) -> Vec<String> {
        let old = package("old", "1.0.0", "MIT");
        rules().faults(&packages.iter().cloned().chain([old]).collect())
    }

    #[test]
    fn a_licence_must_be_allowed_for_all_or_for_the_package() {
        assert_eq!(faults(&[package("a", "1.0.0", "Apache-2.0 OR MIT"), package("odd", "1.0.0", "BSL-1.0")]), [""; 0]);
        assert_eq!(faults(&[package("a", "1.0.0", "BSL-1.0")]), [r#"a 1.0.0: licence "BSL-1.0" is not allowed"#]);
    }

    #[test]
    fn a_second_version_needs_a_reason_and_a_reason_needs_a_second_version() {
        let twice = faults(&[package("a", "1.0.0", "MIT"), package("a", "2.0.0", "MIT")]);
        assert_eq!(twice.len(), 1);
        assert!(twice[0].starts_with("a is there in versions 1.0.0 and 2.0.0"));

        assert_eq!(faults(&[package("old", "2.0.0", "MIT")]), [""; 0]);
        assert_eq!(rules().faults(&BTreeSet::new()), ["deny.toml skips old@1.0.0, which is no longer there"]);
    }

    #[test]
    fn bans_and_origins_are_told() {
        let git = Foreign { source: "git+https://git.example/x".to_owned(), ..package("a", "1.0.0", "MIT") };

        let found = faults(&[git, package("ring", "1.0.0", "MIT")]);

        assert_eq!(
            found,
            ["a 1.0.0 comes from git+https://git.example/x", "ring is banned: one provider of cryptography"]
        );
    }
}
