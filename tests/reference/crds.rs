//! `crds.yaml`: the custom resources, for `strake install` and in the chart, are what `strake crds` prints.

use std::{env, fs, path::Path};

use crate::page::WRITE;

/// The manifest that is applied, and the copy that a chart has to have in itself.
const FILES: [&str; 2] = ["daemonset/manifests/crds.yaml", "daemonset/chart/crds/crds.yaml"];

#[test]
fn the_custom_resources_are_those_of_the_command() {
    let printed = strake::crds::text().unwrap();

    for file in FILES {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
        if env::var_os(WRITE).is_some() {
            fs::write(&path, &printed).unwrap_or_else(|error| panic!("failed to write {file}: {error}"));
        }
        let recorded = fs::read_to_string(&path).unwrap_or_else(|error| panic!("failed to read {file}: {error}"));
        assert!(recorded == printed, "{file} is not what `strake crds` prints; run `cargo xtask docs`");
    }
}
