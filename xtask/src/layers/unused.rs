//! Normal dependencies that no code of a package names. One that only tests name is a development dependency.

use std::{collections::BTreeMap, io, path::Path};

use cargo_metadata::{DependencyKind, Package};

use crate::source::{self, RustFile};

/// Faults of one package, one text each. `elsewhere`: dependencies whose names stand in generated code, or that are there for
/// their features.
pub(super) fn faults(package: &Package, elsewhere: &BTreeMap<String, Vec<String>>) -> io::Result<Vec<String>> {
    let dir = package.manifest_path.parent().map_or(Path::new(""), |dir| dir.as_std_path());
    let files = source::rust_files(dir)?;
    let excused = elsewhere.get(package.name.as_str());
    let normal = package.dependencies.iter().filter(|dependency| dependency.kind == DependencyKind::Normal);
    // Code knows a renamed dependency by its new name only.
    let names = normal.map(|dependency| dependency.rename.as_ref().unwrap_or(&dependency.name));
    let unnamed = names.filter(|name| excused.is_none_or(|excused| !excused.contains(name)));
    let unused = unnamed.filter(|name| !files.iter().any(|file| uses(file, &name.replace('-', "_"))));
    Ok(unused
        .map(|name| format!("{} depends on {name}, which no code outside of its tests names", package.name))
        .collect())
}

fn uses(file: &RustFile, name: &str) -> bool {
    !file.is_test
        && file.source.code.lines().enumerate().any(|(at, line)| has_word(line, name) && !file.tests.contains(at + 1))
}

/// Finds the word with no letter, digit or `_` beside it.
fn has_word(line: &str, word: &str) -> bool {
    let is_part = |letter: char| letter.is_alphanumeric() || letter == '_';
    line.match_indices(word)
        .any(|(at, _)| !line[..at].ends_with(is_part) && !line[at + word.len()..].starts_with(is_part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Source;

    fn file(text: &str) -> RustFile {
        let source = Source::parse(text);
        let tests = source.tests();
        RustFile { path: "src/lib.rs".into(), source, tests, is_test: false }
    }

    #[test]
    fn a_dependency_is_used_where_code_names_it() {
        assert!(uses(&file("use tokio::net;\n"), "tokio"));
        assert!(uses(&file("#[derive(thiserror::Error)]\nstruct E;\n"), "thiserror"));
        assert!(!uses(&file("// tokio\nconst T: &str = \"tokio\"; use tokio_util::x;\n"), "tokio"));
    }

    #[test]
    fn use_in_tests_does_not_count() {
        assert!(!uses(&file("fn f() {}\n#[cfg(test)]\nmod tests {\n    use rcgen::KeyPair;\n}\n"), "rcgen"));
        assert!(uses(&file("#[cfg(test)]\nmod tests {}\nuse rcgen::KeyPair;\n"), "rcgen"));
    }
}
