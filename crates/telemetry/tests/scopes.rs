//! The scope `ztunnel` of log filters covers every library of the workspace that the program links.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use telemetry::logging::ZTUNNEL_SCOPES;

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_path_buf()
}

/// Directory of a package of the workspace; `None` for one from elsewhere.
fn directory(package: &str) -> Option<PathBuf> {
    let candidates = [format!("crates/{package}"), package.to_owned()];
    candidates.map(|path| workspace().join(path)).into_iter().find(|path| path.join("Cargo.toml").exists())
}

/// Names under `[dependencies]` of a package that are linked without its optional features.
fn dependencies(package: &Path) -> Vec<String> {
    let manifest = fs::read_to_string(package.join("Cargo.toml")).unwrap();
    let (_, section) = manifest.split_once("\n[dependencies]\n").unwrap_or_default();
    let lines = section.lines().take_while(|line| !line.starts_with('['));
    let is_entry = |line: &&str| !line.is_empty() && !line.starts_with('#');
    let linked = lines.filter(is_entry).filter(|line| !line.contains("optional = true"));
    linked.filter_map(|line| line.split(['.', ' ', '=']).next()).map(str::to_owned).collect()
}

/// Adds the packages of the workspace that `package` depends on, also through others.
fn collect(package: &Path, found: &mut BTreeSet<String>) {
    for name in dependencies(package) {
        if let Some(path) = directory(&name)
            && found.insert(name.replace('-', "_"))
        {
            collect(&path, found);
        }
    }
}

#[test]
fn the_scope_of_the_proxy_covers_every_library_that_it_links() {
    let mut linked = BTreeSet::new();

    collect(&workspace().join("ztunnel"), &mut linked);

    // The target of policy decisions is the one scope that is not a library.
    let covered: BTreeSet<String> =
        ZTUNNEL_SCOPES.into_iter().filter(|scope| *scope != "rbac").map(str::to_owned).collect();
    assert_eq!(covered, linked);
}
