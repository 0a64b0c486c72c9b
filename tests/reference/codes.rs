//! `codes.md`: codes of errors and log lines. The table is `contract::codes`; the sources must have the same codes.

use std::collections::BTreeSet;

use contract::codes::{Area, CODES};

use crate::{page, source};

const INTRODUCTION: &str = "\
# Error codes

Stable codes of errors and log lines, field `code` of the log. They do not change with the wording of a message. Codes of findings, conditions and problems
of manifests: `conditions.md`.
";

/// Folders with the code of programs.
const SOURCES: [&str; 6] =
    ["crates", "controlplane/src", "daemonset/agent/src", "ztunnel/src", "waypoint/src", "strake/src"];

/// Files with codes that have a page of their own, or that no program says yet: the compilers of routes, and load balancing.
const OTHER_TABLES: [&str; 4] =
    ["crates/balance/src/", "crates/graph/src/", "crates/contract/src/codes.rs", "crates/route-compile/src/"];

/// Functions whose text literals are codes, beside those of the name `code`.
const MORE_FUNCTIONS: [(&str, &str); 1] = [("daemonset/agent/src/enrol.rs", "impl Step {")];

/// Text of the block that begins at the first brace.
fn block(text: &str) -> &str {
    let mut depth = 0;
    let end = text.find(|letter| {
        depth += i32::from(letter == '{') - i32::from(letter == '}');
        letter == '}' && depth == 0
    });
    &text[..end.unwrap_or(text.len())]
}

fn is_code(literal: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    literal.len() > 1 && literal.bytes().all(is_allowed)
}

fn literals(text: &str) -> impl Iterator<Item = &str> {
    text.split('"').skip(1).step_by(2).filter(|literal| is_code(literal))
}

/// Codes that one file names: in functions `code`, and in fields `code` of log lines.
fn codes_of(path: &str, code: &str) -> BTreeSet<String> {
    let code = code.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let functions = code.split("fn code(").skip(1).filter(|text| {
        let signature = text.split('{').next().unwrap_or_default();
        signature.contains("-> &'static str")
    });
    let more = MORE_FUNCTIONS.iter().filter(|(file, _)| *file == path);
    let more = more.flat_map(|(_, begin)| code.split(begin).skip(1));
    let fields = code.split("code = \"").skip(1).filter_map(|text| text.split('"').next());
    let named = functions.chain(more).flat_map(|text| literals(block(text)));
    named.chain(fields.filter(|literal| is_code(literal))).map(str::to_owned).collect()
}

/// Codes that the sources name.
fn codes() -> BTreeSet<String> {
    let files = SOURCES.iter().flat_map(|folder| source::files_below(folder));
    let is_read = |path: &String| {
        !path.contains("/tests/")
            && !path.ends_with("tests.rs")
            && !OTHER_TABLES.iter().any(|other| path.starts_with(other))
    };
    files.filter(is_read).flat_map(|path| codes_of(&path, &source::read(&path))).collect()
}

#[test]
fn every_code_of_the_sources_is_in_the_table_and_every_one_of_the_table_is_used() {
    let used = codes();
    assert!(used.len() > 100, "codes are not found any more: {used:?}");
    let listed: BTreeSet<String> = CODES.iter().map(|code| code.code.to_owned()).collect();

    let missing: Vec<_> = used.difference(&listed).collect();
    let unused: Vec<_> = listed.difference(&used).collect();

    assert!(missing.is_empty(), "not in contract::codes: {missing:?}");
    assert!(unused.is_empty(), "in contract::codes, but the sources do not name it: {unused:?}");
}

#[test]
fn every_code_is_on_its_page() {
    let mut text = INTRODUCTION.to_owned();
    for area in Area::ALL {
        let rows = CODES.iter().filter(|code| code.area == area);
        let rows: String =
            rows.map(|code| page::row(&[&format!("`{}`", code.code), code.meaning, code.remedy])).collect();
        text += &format!("\n## {}\n\n{}: {}.\n\n", area.title(), area.programs(), area.appears());
        text += &page::head(&["Code", "Meaning", "Remedy"]);
        text += &rows;
    }

    page::check("codes.md", &text);
}
