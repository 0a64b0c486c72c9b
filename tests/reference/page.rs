//! One page: compared with the repository's, or written there.

use std::{env, fs, path::PathBuf};

/// Set by `cargo xtask docs`: pages are written instead of compared.
pub(crate) const WRITE: &str = "STRAKE_WRITE_REFERENCE";

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/reference").join(name)
}

/// Compares the page of this name with what the code says, or writes it.
///
/// # Panics
/// When the page is another one; the message shows the first line that differs.
pub(crate) fn check(name: &str, generated: &str) {
    let path = path(name);
    if env::var_os(WRITE).is_some() {
        let folder = path.parent().expect("a page is in a folder");
        fs::create_dir_all(folder).unwrap_or_else(|error| panic!("failed to make {}: {error}", folder.display()));
        fs::write(&path, generated).unwrap_or_else(|error| panic!("failed to write {}: {error}", path.display()));
        return;
    }
    let written =
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("failed to read {}: {error}", path.display()));
    let difference = written.lines().zip(generated.lines()).enumerate().find(|(_, (old, new))| old != new);
    if let Some((index, (old, new))) = difference {
        panic!(
            "docs/reference/{name}:{} is out of date; run `cargo xtask docs`\n  page: {old}\n  code: {new}",
            index + 1
        );
    }
    assert_eq!(written, generated, "docs/reference/{name} is out of date; run `cargo xtask docs`");
}

/// The page as it is in the repository; empty when there is none, and when pages are written anew.
pub(crate) fn recorded(name: &str) -> String {
    if env::var_os(WRITE).is_some() {
        return String::new();
    }
    fs::read_to_string(path(name)).unwrap_or_default()
}

/// A row of a Markdown table; `|` inside a cell is escaped.
pub(crate) fn row(cells: &[&str]) -> String {
    let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    format!("| {} |\n", cells.join(" | "))
}

/// Head of a Markdown table.
pub(crate) fn head(cells: &[&str]) -> String {
    format!("{}|{}\n", row(cells), "---|".repeat(cells.len()))
}
