//! `packages.md`: the packages of the workspace, with what they may depend on.

use std::{collections::BTreeMap, fs, path::Path};

use toml::{Table, Value};

use crate::page;

const INTRODUCTION: &str = "\
# Packages

The packages of the workspace, from the manifests and from `xtask/layers.toml`. Packages of the base depend on no other package of the workspace, and every package may depend on them.

";

fn table(path: &Path) -> Table {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("failed to read {}: {error}", path.display()));
    text.parse().unwrap_or_else(|error| panic!("failed to parse {}: {error}", path.display()))
}

fn texts(value: Option<&Value>) -> Vec<String> {
    let items = value.and_then(Value::as_array).into_iter().flatten();
    items.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Folders of the members, with the pattern `crates/*` written out.
fn folders(workspace: &Path) -> Vec<String> {
    let members = texts(table(&workspace.join("Cargo.toml"))["workspace"].get("members"));
    let mut folders = Vec::new();
    for member in members {
        match member.strip_suffix("/*") {
            Some(parent) => {
                let entries = fs::read_dir(workspace.join(parent)).unwrap().map(Result::unwrap);
                let packages = entries.filter(|entry| entry.path().join("Cargo.toml").exists());
                folders.extend(packages.map(|entry| format!("{parent}/{}", entry.file_name().display())));
            }
            None => folders.push(member),
        }
    }
    folders
}

#[test]
fn every_package_is_on_its_page() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let layers = table(&workspace.join("xtask/layers.toml"));
    let base = texts(layers.get("base"));
    let rows: BTreeMap<String, String> = folders(&workspace)
        .into_iter()
        .map(|folder| {
            let manifest = table(&workspace.join(&folder).join("Cargo.toml"));
            let text = |key: &str| manifest["package"][key].as_str().unwrap_or_default().to_owned();
            let name = text("name");
            let may = if base.contains(&name) {
                "base".to_owned()
            } else {
                texts(layers["may-depend-on"].get(&name)).join(", ")
            };
            let cells = [format!("`{name}`"), format!("`{folder}`"), text("description"), may];
            (name, page::row(&cells.each_ref().map(String::as_str)))
        })
        .collect();

    let head = page::head(&["Package", "Folder", "Job", "May depend on, besides the base"]);
    page::check("packages.md", &(INTRODUCTION.to_owned() + &head + &rows.into_values().collect::<String>()));
}
