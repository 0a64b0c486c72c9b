//! Items of source files with their doc comments, as far as pages need them.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A constant or static, with the text of its doc comment on one line per paragraph.
pub(crate) struct Item {
    pub(crate) name: String,
    /// Text between `=` and `;`.
    pub(crate) value: String,
    pub(crate) paragraphs: Vec<String>,
}

/// Path of a file or folder of the workspace.
pub(crate) fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(relative)
}

/// Text of a file of the workspace.
///
/// # Panics
/// When it cannot be read.
pub(crate) fn read(relative: &str) -> String {
    let path = path(relative);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("failed to read {}: {error}", path.display()))
}

/// Paths of the Rust files below a folder of the workspace, relative to the workspace, in order.
pub(crate) fn files_below(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(path(folder)).unwrap_or_else(|error| panic!("failed to read {folder}: {error}"));
    let mut found = Vec::new();
    for entry in entries.map(Result::unwrap) {
        let relative = format!("{folder}/{}", entry.file_name().display());
        if entry.file_type().unwrap().is_dir() {
            if entry.file_name() != "target" {
                found.extend(files_below(&relative));
            }
        } else if relative.ends_with(".rs") {
            found.push(relative);
        }
    }
    found.sort();
    found
}

/// Paragraphs of a doc comment, given its lines without `///` or `//!`.
fn paragraphs<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut paragraphs = vec![String::new()];
    for line in lines.map(str::trim) {
        match paragraphs.last_mut() {
            Some(last) if !line.is_empty() => {
                if !last.is_empty() {
                    last.push(' ');
                }
                last.push_str(line);
            }
            _ => paragraphs.push(String::new()),
        }
    }
    paragraphs.retain(|paragraph| !paragraph.is_empty());
    paragraphs.iter().map(|paragraph| without_links(paragraph)).collect()
}

/// Text with code spans in place of links to items: those lead nowhere on a page.
fn without_links(text: &str) -> String {
    text.replace("[`crate::", "[`").replace("[`", "`").replace("`]", "`")
}

/// Paragraphs of the doc comment of a module.
pub(crate) fn module_doc(code: &str) -> Vec<String> {
    paragraphs(code.lines().map_while(|line| line.strip_prefix("//!")))
}

/// Documented constants and statics of a file, in its order.
pub(crate) fn items(code: &str) -> Vec<Item> {
    let mut items = Vec::new();
    let mut doc: Vec<&str> = Vec::new();
    let mut lines = code.lines().map(str::trim);
    while let Some(line) = lines.next() {
        if let Some(text) = line.strip_prefix("///") {
            doc.push(text);
        // Plain comments for those who read the source may stand between the two.
        } else if !line.starts_with("#[") && !line.starts_with("//") {
            let declared = line.split_once("const ").or_else(|| line.split_once("static "));
            let declared = declared.filter(|(_, declaration)| !doc.is_empty() && !declaration.starts_with("fn "));
            if let Some((_, declaration)) = declared {
                let mut text = declaration.to_owned();
                while !text.ends_with(';') {
                    let Some(more) = lines.next() else { break };
                    text.push_str(more);
                }
                let name = text.split(':').next().unwrap_or_default().to_owned();
                let value = text.split_once('=').map_or("", |(_, value)| value);
                let value = value.trim_end_matches(';').trim().to_owned();
                items.push(Item { name, value, paragraphs: paragraphs(doc.iter().copied()) });
            }
            doc.clear();
        }
    }
    items
}

/// First sentence of a text.
pub(crate) fn first_sentence(text: &str) -> &str {
    text.split_once(". ").map_or(text, |(sentence, _)| sentence).trim_end_matches('.')
}
