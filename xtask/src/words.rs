//! Wording that readers cannot act on (`words.toml`): idioms in messages, help and documents, and doc comments that begin
//! with a relative clause. The list says what to write instead.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context, bail};
use serde::Deserialize;

use crate::source::{self, Text};

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Rules {
    /// Areas that are still to be reworded. Only idioms with `everywhere` and no doc comments are checked there.
    unfinished: BTreeSet<String>,
    doc_comments: DocComments,
    #[serde(rename = "idiom")]
    idioms: Vec<Idiom>,
}

/// Bounds on doc comments that begin with a relative clause.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct DocComments {
    /// First words that count.
    words: Vec<String>,
    /// Percentage of an area's doc comments that may begin so.
    limit_percent: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Idiom {
    /// Words as they stand in a text; letter case does not matter.
    text: String,
    instead: String,
    /// All areas are checked, unfinished ones too: none has the idiom any more.
    #[serde(default)]
    everywhere: bool,
}

/// Doc comments of an area: all, and those that begin with a relative clause.
#[derive(Debug, Default, PartialEq)]
struct Count {
    all: usize,
    relative: Vec<String>,
}

/// Fails with every idiom that is found, and with areas that have too many doc comments of the wrong form.
pub(crate) fn check(workspace: &Path) -> anyhow::Result<()> {
    let file = workspace.join("xtask/words.toml");
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let rules: Rules = toml::from_str(&text).with_context(|| format!("cannot parse {}", file.display()))?;
    let (mut faults, mut counts) = (Vec::new(), BTreeMap::<String, Count>::new());
    for file in source::rust_files(workspace)? {
        let count = counts.entry(area(&file.path)).or_default();
        // Before tests are left out: their doc comments are read by people, too.
        rules.doc_comments.count(&file.path, &file.source.docs, count);
        if file.is_test {
            continue;
        }
        let texts = file.source.strings.iter().chain(&file.source.docs);
        let texts: Vec<_> = texts.filter(|text| !file.tests.contains(text.line)).cloned().collect();
        faults.extend(rules.idioms_in(&file.path, &texts));
    }
    // Generated pages repeat texts of the sources, which are checked there.
    let documents = source::files_below(workspace, &|name| name.ends_with(".md"))?;
    for path in documents.into_iter().filter(|path| !path.starts_with("docs/reference")) {
        let text = fs::read_to_string(workspace.join(&path))?;
        faults.extend(rules.idioms_in(&path, &paragraphs(&text)));
    }
    let finished = counts.iter().filter(|(area, _)| !rules.unfinished.contains(*area));
    faults.extend(finished.filter_map(|(area, count)| rules.doc_comments.fault(area, count)));
    if !faults.is_empty() {
        bail!("{}\nthe list is xtask/words.toml", faults.join("\n"));
    }
    let (all, relative) =
        counts.values().fold((0, 0), |(all, relative), count| (all + count.all, relative + count.relative.len()));
    println!(
        "words: {} idioms not found; {relative} of {all} doc comments begin with a relative clause",
        rules.idioms.len()
    );
    Ok(())
}

impl Rules {
    fn idioms_in(&self, path: &Path, texts: &[Text]) -> Vec<String> {
        let area = area(path);
        let is_finished = !self.unfinished.contains(&area);
        let idioms = self.idioms.iter().filter(|idiom| is_finished || idiom.everywhere);
        let found = idioms.flat_map(|idiom| {
            let hits = texts.iter().filter(|text| has_phrase(&text.text, &idiom.text));
            hits.map(move |hit| format!("{}:{}: \"{}\": write {}", path.display(), hit.line, idiom.text, idiom.instead))
        });
        found.collect()
    }
}

impl DocComments {
    fn count(&self, path: &Path, docs: &[Text], count: &mut Count) {
        count.all += docs.len();
        let begins = |doc: &&Text| {
            let first = doc.text.split(|letter: char| !letter.is_alphanumeric()).next().unwrap_or_default();
            self.words.iter().any(|word| word == first)
        };
        let places = docs.iter().filter(begins).map(|doc| format!("{}:{}", path.display(), doc.line));
        count.relative.extend(places);
    }

    fn fault(&self, area: &str, count: &Count) -> Option<String> {
        let (all, relative) = (count.all, count.relative.len());
        // One is always allowed: a small area has no percentages.
        let allowed = (all as f64 * self.limit_percent / 100.0).max(1.0);
        let (words, limit, places) = (self.words.join("/"), self.limit_percent, count.relative.join(" "));
        (relative as f64 > allowed).then(|| {
            format!(
                "{area}: {relative} of {all} doc comments begin with {words}, at most {limit} % may; \
                 begin with a noun or a verb: {places}"
            )
        })
    }
}

/// `crates/lab` for all below it; elsewhere the first directory, or the file.
fn area(path: &Path) -> String {
    let parts: Vec<_> = path.components().map(|part| part.as_os_str().to_string_lossy()).collect();
    let grouped = ["crates", "daemonset", "ebpf"].iter().any(|group| parts.first().is_some_and(|first| first == group));
    // A file directly in `crates` would be an area of its own otherwise.
    let depth = if grouped && parts.len() > 2 { 2 } else { 1 };
    parts.iter().take(depth).map(AsRef::as_ref).collect::<Vec<&str>>().join("/")
}

/// Looks for the words, in any letter case and with any white space, and with no letter beside them.
fn has_phrase(text: &str, phrase: &str) -> bool {
    let plain = |text: &str| text.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ");
    let (text, phrase) = (plain(text), plain(phrase));
    text.match_indices(&phrase).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + phrase.len()..]);
        !before.ends_with(char::is_alphanumeric) && !after.starts_with(char::is_alphanumeric)
    })
}

/// Paragraphs of a document, each as one text.
fn paragraphs(document: &str) -> Vec<Text> {
    let mut texts: Vec<Text> = Vec::new();
    let mut is_open = false;
    for (at, line) in document.lines().enumerate() {
        let line = line.trim();
        match texts.last_mut() {
            _ if line.is_empty() => is_open = false,
            Some(text) if is_open => {
                text.text.push(' ');
                text.text.push_str(line);
            }
            _ => {
                texts.push(Text { line: at + 1, text: line.to_owned() });
                is_open = true;
            }
        }
    }
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        toml::from_str(
            "unfinished = [\"crates/old\"]\n[doc-comments]\nwords = [\"What\", \"How\"]\nlimit-percent = 2.0\n\
             [[idiom]]\ntext = \"passes the proxy by\"\ninstead = \"bypasses the proxy\"\n\
             [[idiom]]\ntext = \"stays low\"\ninstead = \"failed to raise it\"\neverywhere = true\n",
        )
        .unwrap()
    }

    fn text(line: usize, text: &str) -> Text {
        Text { line, text: text.to_owned() }
    }

    #[test]
    fn an_idiom_is_found_across_lines_and_letter_case_and_the_better_words_are_named() {
        let texts = [text(3, "a probe Passes  the\nproxy by; it"), text(9, "it trespasses the proxy by day")];

        let faults = rules().idioms_in(Path::new("strake/src/x.rs"), &texts);

        assert_eq!(faults, ["strake/src/x.rs:3: \"passes the proxy by\": write bypasses the proxy"]);
    }

    #[test]
    fn an_unfinished_area_keeps_the_idioms_that_are_not_yet_gone_everywhere() {
        let found = |path: &str, words: &str| rules().idioms_in(Path::new(path), &[text(1, words)]).len();

        assert_eq!(found("crates/old/src/a.rs", "passes the proxy by"), 0);
        assert_eq!(found("crates/new/src/a.rs", "passes the proxy by"), 1);
        assert_eq!(found("crates/old/src/a.rs", "the limit stays low"), 1);
    }

    #[test]
    fn relative_clauses_are_counted_per_area() {
        let docs =
            [text(1, "What it is."), text(5, "Whatever it is."), text(7, "Number of it."), text(9, "How it is.")];
        let mut count = Count::default();
        let path = Path::new("crates/new/src/a.rs");
        rules().doc_comments.count(path, &docs[..3], &mut count);
        assert_eq!(rules().doc_comments.fault("crates/new", &count), None, "one is allowed");

        rules().doc_comments.count(path, &docs[3..], &mut count);

        let fault = rules().doc_comments.fault("crates/new", &count).unwrap();
        assert!(fault.starts_with("crates/new: 2 of 4 ") && fault.ends_with("a.rs:1 crates/new/src/a.rs:9"), "{fault}");
    }

    #[test]
    fn areas_are_packages_and_top_directories() {
        let area_of = |path: &str| area(Path::new(path));

        assert_eq!(area_of("crates/lab/src/pod/mod.rs"), "crates/lab");
        assert_eq!(area_of("daemonset/agent/src/main.rs"), "daemonset/agent");
        assert_eq!(area_of("docs/guide/lab.md"), "docs");
        assert_eq!(area_of("README.md"), "README.md");
    }

    #[test]
    fn a_paragraph_is_one_text_from_its_first_line() {
        assert_eq!(paragraphs("# A\n\none\n two\n\n\nthree\n"), [text(1, "# A"), text(3, "one two"), text(7, "three")]);
    }
}
