//! Each folder of `tests/cases` is a case: `input.yaml` (or `objects.json`), perhaps `steps/*.yaml`,
//! and what a subscriber then has: `wds.json`, `sequence.json`, `conditions.json`, `findings.json`, `statuses.json`.
//! Recordings of another control plane in the same form are compared with
//! `STRAKE_WDS_CASES=<directory>`.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use graph::Mesh;
use serde_json::{Value, json};
use support::{cases, read_json, run, unread_kinds};

/// Writes what is found instead of comparing: for a new case, to be read before it is committed.
const BLESS: &str = "STRAKE_BLESS_CASES";

#[test]
fn every_case_gives_what_its_folder_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut failures = Vec::new();

    for case in cases(&root) {
        let outcome = run(&case, Mesh::default());
        let mut check = |file: &str, found: Value, default: Value| {
            let path = case.join(file);
            if std::env::var_os(BLESS).is_some() {
                if found != default {
                    let text = serde_json::to_string_pretty(&found).unwrap() + "\n";
                    std::fs::write(&path, text).unwrap();
                }
                return;
            }
            let expected = read_json(&path).unwrap_or(default);
            if found != expected {
                failures.push(format!(
                    "{}: expected {expected:#}\nfound {found:#}",
                    path.strip_prefix(&root).unwrap().display()
                ));
            }
        };
        check("wds.json", outcome.wds, Value::Null);
        check("sequence.json", json!(outcome.sequence), json!([]));
        check("conditions.json", json!(outcome.conditions), json!({}));
        check("findings.json", json!(outcome.findings), json!({}));
        check("statuses.json", json!(outcome.statuses), json!({}));
    }

    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

/// Compares only cases whose kinds are all supported. Differences are printed; the count is the result.
#[test]
fn recordings_of_another_control_plane_are_compared() {
    let Some(root) = std::env::var_os("STRAKE_WDS_CASES") else {
        println!("skipped: STRAKE_WDS_CASES is not set");
        return;
    };
    let (mut same, mut differing) = (Vec::new(), Vec::new());
    for case in cases(Path::new(&root)) {
        let name = case.file_name().unwrap().to_str().unwrap().to_owned();
        let unread = unread_kinds(&case);
        if !unread.is_empty() {
            println!("not applicable: {name} has {unread:?}");
            continue;
        }
        let mut found = Vec::new();
        let outcome = run(&case, mesh(&case));
        let expected = read_json(&case.join("wds.json")).unwrap();
        found.extend(differences(&outcome.wds, &expected));
        if let Some(expected) = read_json(&case.join("sequence.json"))
            && !says_no_more(&outcome.sequence, &expected)
        {
            found.push(format!("sequence.json: expected {expected:#}\nfound {:#}", json!(outcome.sequence)));
        }
        let statuses = read_json(&case.join("status.json")).unwrap_or_default();
        for (key, status) in statuses.as_object().into_iter().flatten() {
            for (plural, kind) in [("services/", "Service"), ("serviceentries/", "ServiceEntry")] {
                let Some(path) = key.strip_prefix(plural) else { continue };
                let ours = outcome.statuses.get(&format!("{kind} {path}")).cloned().unwrap_or_default();
                for field in ["conditions", "addresses"] {
                    if ours[field] != status[field] {
                        found.push(format!("{key}: {field}: expected {:#}\nfound {:#}", status[field], ours[field]));
                    }
                }
            }
            let Some(path) = key.strip_prefix("authorizationpolicies/") else {
                continue;
            };
            let mut conditions =
                outcome.conditions.get(&format!("AuthorizationPolicy {path}")).cloned().unwrap_or_default();
            // Ours, which others do not write.
            conditions.as_array_mut().into_iter().for_each(|list| list.retain(|one| one["type"] != "Enforced"));
            if conditions != status["conditions"] {
                found.push(format!("{key}: expected {status:#}\nfound {conditions:#}"));
            }
        }
        if found.is_empty() {
            same.push(name);
        } else {
            println!("=== {name}\n{}", found.join("\n"));
            differing.push(name);
        }
    }
    println!("same: {} {same:?}\ndiffering: {} {differing:?}", same.len(), differing.len());
}

/// The mesh of a recording: the trust domain that a control plane has to be started with.
fn mesh(case: &Path) -> Mesh {
    let objects = read_json(&case.join("objects.json")).unwrap_or_default();
    let maps = objects.as_array().into_iter().flatten().filter(|object| object["kind"] == "ConfigMap");
    let texts = maps.filter_map(|map| map["data"]["mesh"].as_str()).flat_map(str::lines);
    let trust_domain = texts.filter_map(|line| line.strip_prefix("trustDomain: ")).next();
    let default = Mesh::default();
    Mesh { trust_domain: trust_domain.map_or(default.trust_domain, str::to_owned), ..default }
}

/// Resources that differ, each as what was expected and what was found.
fn differences(found: &Value, expected: &Value) -> Vec<String> {
    let mut differing = Vec::new();
    for kind in ["addresses", "authorizations"] {
        let by_name = |value: &Value| -> BTreeMap<String, Value> {
            let list = value[kind].as_array().cloned().unwrap_or_default();
            list.into_iter().map(|one| (one["name"].as_str().unwrap().to_owned(), one["resource"].clone())).collect()
        };
        let (found, expected) = (by_name(found), by_name(expected));
        let names: BTreeSet<_> = found.keys().chain(expected.keys()).collect();
        let differs = |name: &&&String| found.get(**name) != expected.get(**name);
        differing.extend(names.iter().filter(differs).map(|name| {
            let text = |value: Option<&Value>| value.map_or_else(|| "nothing".to_owned(), Value::to_string);
            format!("{name}:\n  expected {}\n  found    {}", text(expected.get(*name)), text(found.get(*name)))
        }));
    }
    differing
}

/// Telling less than the recording is right: what must be there is in `wds.json`, which is the end.
fn says_no_more(found: &[Value], expected: &Value) -> bool {
    let Some(expected) = expected.as_array() else {
        return false;
    };
    let part = |found: &Value, expected: &Value| {
        let names = |value: &Value| value.as_array().cloned().unwrap_or_default();
        names(found).iter().all(|name| names(expected).contains(name))
    };
    found.len() == expected.len()
        && found.iter().zip(expected).all(|(found, expected)| {
            ["addresses", "authorizations"].iter().all(|kind| {
                part(&found[kind]["updated"], &expected[kind]["updated"])
                    && part(&found[kind]["removed"], &expected[kind]["removed"])
            })
        })
}
