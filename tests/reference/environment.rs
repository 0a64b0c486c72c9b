//! `environment.md`: the variables that configure the node proxy, from the doc comments of its settings.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use crate::page;

const INTRODUCTION: &str = "\
# Environment of ztunnel

`ztunnel` is configured by environment variables; names and defaults are those of Istio's ztunnel. A variable that is not valid keeps the program from
starting, and all mistakes are reported together. Durations are written as `10s`, `1m30s`, `500ms`.

";

/// Sources with the settings.
const CONFIG: &str = "ztunnel/src/config";

fn is_key(text: &str) -> bool {
    text.len() > 2 && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_' || b == b'*')
}

fn sources() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(CONFIG);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("failed to read {}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| !path.ends_with("tests.rs") && !path.ends_with("values.rs"));
    files.sort();
    files
}

/// Doc comments that begin with a variable: the variable, and the whole comment.
fn settings(code: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut comment = String::new();
    for line in code.lines() {
        match line.trim_start().strip_prefix("///") {
            Some(text) => comment = format!("{comment} {}", text.trim()),
            None => {
                let comment = std::mem::take(&mut comment);
                let key = comment.trim().strip_prefix('`').and_then(|rest| rest.split('`').next());
                if let Some(key) = key.filter(|key| is_key(key)) {
                    // The longest comment says most: types and fields name the same variable.
                    let kept: &mut String = found.entry(key.to_owned()).or_default();
                    if comment.trim().len() > kept.len() {
                        *kept = comment.trim().to_owned();
                    }
                }
            }
        }
    }
    found
}

/// Variables that the code reads.
fn read_by(code: &str) -> BTreeSet<String> {
    let code = code.split("#[cfg(test)]").next().unwrap_or_default();
    let literals = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| line.split('"').skip(1).step_by(2));
    literals.filter(|literal| is_key(literal) && literal.contains('_')).map(str::to_owned).collect()
}

#[test]
fn every_variable_is_on_its_page() {
    let mut rows = BTreeMap::new();
    let mut read = BTreeSet::new();
    for path in sources() {
        let code = fs::read_to_string(&path).unwrap();
        rows.extend(settings(&code));
        read.extend(read_by(&code));
    }
    let page: String = rows.iter().map(|(key, text)| page::row(&[&format!("`{key}`"), text])).collect();

    let missing: Vec<&String> = read.iter().filter(|key| !page.contains(&format!("`{key}`"))).collect();
    assert!(missing.is_empty(), "no doc comment of {CONFIG} names {missing:?}");
    page::check(
        "environment.md",
        &(INTRODUCTION.to_owned() + &page::head(&["Variable", "Meaning, default, bounds"]) + &page),
    );
}
