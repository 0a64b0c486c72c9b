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

/// Sources with the settings: the node proxy's, and those that every proxy has.
const CONFIG: [&str; 2] = ["ztunnel/src/config", "crates/proxy-core/src/config"];

fn is_key(text: &str) -> bool {
    text.len() > 2 && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_' || b == b'*')
}

fn sources() -> Vec<PathBuf> {
    let entries = CONFIG.iter().flat_map(|folder| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder);
        fs::read_dir(&folder).unwrap_or_else(|error| panic!("failed to read {}: {error}", folder.display()))
    });
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| !path.ends_with("tests.rs") && !path.ends_with("values.rs"));
    files.sort();
    files
}

/// The variable that a code span of a doc comment names: `LOG_FORMAT=json` names LOG_FORMAT, `CA_HEADER_*` a prefix.
fn variable(span: &str) -> Option<&str> {
    let key = span.split('=').next()?;
    is_key(key).then_some(key)
}

/// Variables that doc comments name, each with the longest comment that does; one that begins with the variable wins.
fn settings(code: &str) -> BTreeMap<String, (bool, String)> {
    let mut found: BTreeMap<String, (bool, String)> = BTreeMap::new();
    let mut comment = String::new();
    for line in code.lines() {
        if let Some(text) = line.trim_start().strip_prefix("///") {
            comment = format!("{comment} {}", text.trim());
            continue;
        }
        let comment = std::mem::take(&mut comment).trim().to_owned();
        for (index, key) in comment.split('`').skip(1).step_by(2).enumerate() {
            let Some(key) = variable(key) else { continue };
            let candidate = (index == 0 && comment.starts_with('`'), comment.clone());
            let kept = found.entry(key.to_owned()).or_insert_with(|| candidate.clone());
            if (candidate.0, candidate.1.len()) > (kept.0, kept.1.len()) {
                *kept = candidate;
            }
        }
    }
    found
}

/// Variables of Istio that are not supported, from the calls that report them, with what happens instead.
fn unsupported(code: &str) -> BTreeMap<String, String> {
    let calls = ["reader.refuse(", "reader.unless(", "reader.unsupported("]
        .into_iter()
        .flat_map(|call| code.split(call).skip(1));
    let mut found = BTreeMap::new();
    for call in calls {
        let literals: Vec<&str> = call.split(';').next().unwrap_or_default().split('"').skip(1).step_by(2).collect();
        if let (Some(key), Some(instead)) = (literals.first().filter(|key| is_key(key)), literals.last()) {
            found.insert((*key).to_owned(), (*instead).to_owned());
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
    let (mut rows, mut refused, mut read) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
    for path in sources() {
        let code = fs::read_to_string(&path).unwrap();
        rows.extend(settings(&code).into_iter().map(|(key, (_, text))| {
            // The row begins with the variable already.
            let rest =
                text.strip_prefix(&format!("`{key}`")).map(|rest| rest.trim_start_matches([';', ':', ',', '.', ' ']));
            let text = rest.map_or(text.clone(), str::to_owned);
            (key, text)
        }));
        refused.extend(unsupported(&code));
        read.extend(read_by(&code));
    }
    rows.retain(|key, _| !refused.contains_key(key));
    let table = |rows: &BTreeMap<String, String>, meaning: &str| {
        let rows = rows.iter().map(|(key, text)| page::row(&[&format!("`{key}`"), text]));
        page::head(&["Variable", meaning]) + &rows.collect::<String>()
    };
    let page = INTRODUCTION.to_owned()
        + &table(&rows, "Meaning, default, bounds")
        + "\n## Not supported\n\nVariables of Istio's ztunnel that ask for what this one does not do. One that would weaken security when it is ignored keeps the\nprogram from starting; the others are reported in the log.\n\n"
        + &table(&refused, "What is done");

    let forms = |key: &str| [format!("`{key}`"), format!("`{key}*`"), format!("`ISTIO_META_{key}`")];
    let is_there = |key: &String| forms(key).iter().any(|form| page.contains(form));
    let missing: Vec<&String> = read.iter().filter(|key| !is_there(key)).collect();
    assert!(missing.is_empty(), "no doc comment of {CONFIG:?} names {missing:?}");
    page::check("environment.md", &page);
}
