//! `packages.md`: the packages of the workspace, with what they may depend on.

use cargo_metadata::MetadataCommand;
use toml::{Table, Value};

use crate::{page, source};

const INTRODUCTION: &str = "\
# Packages

The packages of the workspace, from the manifests and from `xtask/layers.toml`. Packages of the base depend on no other package of the workspace, and every package may depend on them.

";

fn texts(value: Option<&Value>) -> Vec<String> {
    let items = value.and_then(Value::as_array).into_iter().flatten();
    items.filter_map(Value::as_str).map(str::to_owned).collect()
}

#[test]
fn every_package_is_on_its_page() {
    let layers: Table = source::read("xtask/layers.toml").parse().unwrap();
    let base = texts(layers.get("base"));
    let metadata = MetadataCommand::new()
        .manifest_path(source::path("Cargo.toml"))
        .no_deps()
        .other_options(["--offline".to_owned()])
        .exec()
        .unwrap_or_else(|error| panic!("cargo metadata failed: {error}"));
    let mut packages = metadata.workspace_packages();
    packages.sort_by(|left, right| left.name.cmp(&right.name));
    let rows = packages.iter().map(|package| {
        let folder = package.manifest_path.parent().unwrap().strip_prefix(&metadata.workspace_root).unwrap();
        let name = package.name.to_string();
        let may =
            if base.contains(&name) { "base".to_owned() } else { texts(layers["may-depend-on"].get(&name)).join(", ") };
        let description = package.description.as_deref().unwrap_or_default();
        page::row(&[&format!("`{name}`"), &format!("`{folder}`"), description, &may])
    });

    let head = page::head(&["Package", "Folder", "Job", "May depend on, besides the base"]);
    page::check("packages.md", &(INTRODUCTION.to_owned() + &head + &rows.collect::<String>()));
}
