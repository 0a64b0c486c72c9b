//! Metrics in the source of all programs are metrics of the catalogue, with the same labels, and the other way round.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use telemetry::metrics::CATALOGUE;

/// Directories of the workspace with programs and libraries that count.
const SOURCES: [&str; 5] = ["crates", "ztunnel", "waypoint", "controlplane", "daemonset"];

/// Beginnings that only metrics have among the string literals of the sources.
const PREFIXES: [&str; 2] = ["strake_", "workload_manager_"];

/// Beginnings that other literals share; only these endings are metrics.
const SHARED_PREFIXES: [&str; 4] = ["istio_", "process_", "nodeagent_", "ztunnel_"];
const ENDINGS: [&str; 10] =
    ["_ready", "_total", "_fds", "_open", "_seconds", "_milliseconds", "_build", "_connected", "_bytes", "_threads"];

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

/// Code of all programs, without tests and the catalogue itself, file by file.
fn code() -> Vec<String> {
    let mut files = Vec::new();
    for folder in SOURCES {
        sources(&workspace().join(folder), &mut files);
    }
    let is_test = |path: &Path| path.components().any(|part| part.as_os_str() == "tests");
    let code = files.iter().filter(|path| !is_test(path) && !path.ends_with("metrics/catalogue.rs"));
    code.map(|path| {
        let text = fs::read_to_string(path).unwrap();
        text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned()
    })
    .collect()
}

/// Names of metrics among the string literals of the code.
fn named_in_source() -> BTreeSet<String> {
    let literals = |code: &String| code.split('"').filter(|literal| is_metric(literal)).map(str::to_owned).collect();
    code().iter().flat_map(|code: &String| -> Vec<String> { literals(code) }).collect()
}

/// Arguments of a macro call, up to its closing parenthesis.
fn arguments(call: &str) -> &str {
    let mut depth = 1;
    let end = call.find(|c| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        depth == 0
    });
    &call[..end.unwrap_or(call.len())]
}

/// Name of the metric that a macro's first argument is: a literal, or a constant of the same file.
fn metric_name(argument: &str, code: &str) -> Option<String> {
    if let Some(literal) = argument.strip_prefix('"') {
        return literal.split('"').next().map(str::to_owned);
    }
    let value = code.split(&format!("const {argument}: &str = \"")).nth(1)?;
    value.split('"').next().map(str::to_owned)
}

/// Labels with which the macros `counter!`, `gauge!` and `histogram!` record each metric.
fn labels_in_source() -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for code in code() {
        for call in ["counter!(", "gauge!(", "histogram!("].iter().flat_map(|name| code.split(name).skip(1)) {
            let arguments = arguments(call);
            let Some(name) = metric_name(arguments.split(',').next().unwrap_or_default().trim(), &code) else {
                continue;
            };
            let keys = arguments.rsplit("=>").skip(1).filter_map(|before| before.rsplit('"').nth(1));
            found.entry(name).or_default().extend(keys.map(str::to_owned));
        }
    }
    found
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

#[test]
fn metrics_are_recorded_with_the_labels_of_the_catalogue() {
    let recorded = labels_in_source();

    assert!(recorded.len() > 40, "the macros are not found any more: {recorded:?}");
    for metric in CATALOGUE {
        let declared: BTreeSet<String> = metric.labels.iter().map(|label| (*label).to_owned()).collect();
        if let Some(labels) = recorded.get(metric.name) {
            assert_eq!(*labels, declared, "{}", metric.name);
        }
    }
}
