//! References in documents: links to files and headings, and paths of the workspace in code spans. Each must exist.

use std::{
    collections::BTreeSet,
    fs,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context, bail};

use crate::source;

/// Directories whose paths are checked in code spans. Others are paths in containers, or on a user's machine.
const ROOTS: [&str; 12] = [
    "controlplane/",
    "crates/",
    "daemonset/",
    "docs/",
    "ebpf/",
    "examples/",
    "proto/",
    "scripts/",
    "strake/",
    "tests/",
    "xtask/",
    "ztunnel/",
];

/// A reference, with the line where it is, from 1.
#[derive(Debug, PartialEq, Eq)]
struct Reference {
    line: usize,
    target: Target,
}

#[derive(Debug, PartialEq, Eq)]
enum Target {
    /// Link to a file, relative to the document (empty: the document itself), and perhaps to a heading.
    Link { file: String, heading: Option<String> },
    /// Path from the root of the workspace.
    Path(String),
}

/// Fails with every reference that leads nowhere.
pub(crate) fn check(workspace: &Path) -> anyhow::Result<()> {
    let (mut faults, mut count) = (Vec::new(), 0);
    for path in source::files_below(workspace, &|name| name.ends_with(".md"))? {
        let text =
            fs::read_to_string(workspace.join(&path)).with_context(|| format!("cannot read {}", path.display()))?;
        for Reference { line, target } in references(&text) {
            count += 1;
            if let Some(fault) = fault(workspace, &path, &text, &target) {
                faults.push(format!("{}:{line}: {fault}", path.display()));
            }
        }
    }
    if !faults.is_empty() {
        bail!("{}", faults.join("\n"));
    }
    println!("links: {count} references of documents lead to files and headings that exist");
    Ok(())
}

fn fault(workspace: &Path, document: &Path, text: &str, target: &Target) -> Option<String> {
    match target {
        Target::Path(path) => {
            let exists = workspace.join(path).exists() || is_pattern(path);
            (!exists).then(|| format!("there is no file {path}"))
        }
        Target::Link { file, heading } => {
            let own = document.parent().unwrap_or(Path::new("")).join(file);
            let linked = if file.is_empty() { document.to_owned() } else { normal(&own) };
            if !file.is_empty() && !workspace.join(&linked).exists() {
                return Some(format!("there is no file {}", linked.display()));
            }
            let heading = heading.as_ref()?;
            // A directory or a picture has no headings: its text is empty.
            let other = (!file.is_empty()).then(|| fs::read_to_string(workspace.join(&linked)).unwrap_or_default());
            let known = anchors(other.as_deref().unwrap_or(text));
            (!known.contains(heading)).then(|| format!("{} has no heading #{heading}", linked.display()))
        }
    }
}

/// Patterns and placeholders name no one file.
fn is_pattern(path: &str) -> bool {
    path.contains(['*', '<', '{', '$', '|']) || path.contains("...")
}

/// Path without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(normal.pop()),
            Component::CurDir => {}
            Component::Normal(_) | Component::RootDir | Component::Prefix(_) => normal.push(part),
        }
    }
    normal
}

/// References of a document, outside of code blocks.
fn references(document: &str) -> Vec<Reference> {
    let mut found = Vec::new();
    let mut is_code = false;
    for (index, line) in document.lines().enumerate() {
        // Commands in code blocks name files of a reader's machine.
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        } else if !is_code {
            let targets = links(line).chain(paths(line));
            found.extend(targets.map(|target| Reference { line: index + 1, target }));
        }
    }
    found
}

/// Links `[text](target)`, without those to other sites.
fn links(line: &str) -> impl Iterator<Item = Target> {
    let targets = line.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next());
    let own = targets.filter(|target| !target.contains("://") && !target.starts_with("mailto:"));
    own.map(|target| {
        let (file, heading) = target.split_once('#').map_or((target, None), |(file, heading)| (file, Some(heading)));
        Target::Link { file: file.to_owned(), heading: heading.map(str::to_owned) }
    })
}

/// Code spans that are paths of the workspace; a line number behind them does not count.
fn paths(line: &str) -> impl Iterator<Item = Target> {
    // Every second part is between two backquotes.
    let spans = line.split('`').skip(1).step_by(2);
    let paths = spans.filter(|span| ROOTS.iter().any(|root| span.starts_with(root)) && !span.contains(' '));
    paths.map(|path| Target::Path(path.split(':').next().unwrap_or(path).trim_end_matches('/').to_owned()))
}

/// Anchors of the headings of a document: letters in lower case, spaces as `-`, other signs left out.
fn anchors(document: &str) -> BTreeSet<String> {
    let headings =
        document.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let letter = |letter: char| match letter {
        ' ' => Some('-'),
        '-' | '_' => Some(letter),
        letter if letter.is_alphanumeric() => Some(letter.to_ascii_lowercase()),
        _ => None,
    };
    headings.map(|heading| heading.chars().filter_map(letter).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(file: &str, heading: Option<&str>) -> Target {
        Target::Link { file: file.to_owned(), heading: heading.map(str::to_owned) }
    }

    #[test]
    fn links_and_paths_are_found_outside_of_code_blocks() {
        let text =
            "see [a](b.md) and [c](../d.md#e-f)\n```\n[x](y.md)\n```\n`crates/lab/src/x.rs:7` [site](https://a.b/c)\n";

        let found: Vec<_> = references(text).into_iter().map(|found| (found.line, found.target)).collect();

        let path = Target::Path("crates/lab/src/x.rs".to_owned());
        assert_eq!(found, [(1, link("b.md", None)), (1, link("../d.md", Some("e-f"))), (5, path)]);
    }

    #[test]
    fn a_link_leads_to_a_file_and_a_heading() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let of = |target| fault(root, Path::new("src/x.md"), "# The `one` heading\n", &target);

        assert_eq!(of(link("main.rs", None)), None);
        assert_eq!(of(link("../Cargo.toml", None)), None);
        assert_eq!(of(link("", Some("the-one-heading"))), None);
        assert_eq!(of(link("gone.rs", None)), Some("there is no file src/gone.rs".to_owned()));
        assert_eq!(of(link("", Some("other"))), Some("src/x.md has no heading #other".to_owned()));
        assert_eq!(of(Target::Path("crates/*/src".to_owned())), None);
        assert_eq!(of(Target::Path("crates/x".to_owned())), Some("there is no file crates/x".to_owned()));
    }
}
