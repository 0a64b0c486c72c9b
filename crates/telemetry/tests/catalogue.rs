//! Metrics in the source of all programs are metrics of the catalogue, and the other way round.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use telemetry::metrics::CATALOGUE;

/// Directories of the workspace with programs and libraries that count.
const SOURCES: [&str; 4] = ["crates", "ztunnel", "controlplane", "daemonset"];

/// Beginnings that only metrics have among the string literals of the sources.
const PREFIXES: [&str; 2] = ["strake_", "workload_manager_"];

/// Beginnings that other literals share; only these endings are metrics.
const SHARED_PREFIXES: [&str; 4] = ["istio_", "process_", "nodeagent_", "ztunnel_"];
const ENDINGS: [&str; 8] = ["_total", "_fds", "_open", "_seconds", "_build", "_connected", "_bytes", "_threads"];

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_path_buf()
}

/// Every `.rs` file below a folder.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn is_metric(literal: &str) -> bool {
    let is_name = literal.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| literal.starts_with(prefix));
    let ends = ENDINGS.iter().any(|ending| literal.ends_with(ending));
    is_name && (begins(&PREFIXES) || begins(&SHARED_PREFIXES) && ends)
}

/// Names of metrics among the string literals of the code, without tests and the catalogue itself.
fn named_in_source() -> BTreeSet<String> {
    let mut files = Vec::new();
    for folder in SOURCES {
        sources(&workspace().join(folder), &mut files);
    }
    let is_test = |path: &Path| path.components().any(|part| part.as_os_str() == "tests");
    let code = files.iter().filter(|path| !is_test(path) && !path.ends_with("metrics/catalogue.rs"));
    let mut names = BTreeSet::new();
    for path in code {
        let text = fs::read_to_string(path).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        names.extend(code.split('"').filter(|literal| is_metric(literal)).map(str::to_owned));
    }
    names
}

#[test]
fn every_metric_of_the_source_is_described_in_the_catalogue_and_every_described_one_exists() {
    let described: BTreeSet<String> = CATALOGUE.iter().map(|metric| metric.name.to_owned()).collect();
    let named = named_in_source();

    let missing: Vec<_> = named.difference(&described).collect();
    let unused: Vec<_> = described.difference(&named).collect();

    assert!(missing.is_empty(), "not in the catalogue: {missing:?}");
    assert!(unused.is_empty(), "in the catalogue, but nothing counts it: {unused:?}");
}
