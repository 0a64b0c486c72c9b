//! Rust sources as the checks see them: code without texts, texts with their lines, doc comments, and which lines are
//! tests. A lexer, not a parser: enough to search, not to understand.

use std::{
    fs, io,
    ops::Range,
    path::{Path, PathBuf},
};

/// Directories without sources of this workspace.
const SKIPPED_DIRS: [&str; 2] = ["target", ".git"];

/// A text of a source file, with the line where it begins, from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Text {
    pub(crate) line: usize,
    pub(crate) text: String,
}

/// A Rust file, taken apart.
#[derive(Debug, Default)]
pub(crate) struct Source {
    /// The file with spaces in place of comments and of the contents of string literals. Line breaks stay.
    pub(crate) code: String,
    /// String literals, unescaped as far as line breaks are concerned.
    pub(crate) strings: Vec<Text>,
    /// Doc comments: adjoining lines are one text, joined by spaces.
    pub(crate) docs: Vec<Text>,
}

impl Source {
    /// Takes a file apart.
    pub(crate) fn parse(text: &str) -> Self {
        Lexer { rest: text, line: 1, source: Self::default(), last_doc_line: 0 }.run()
    }

    /// Lines of items under `#[cfg(test)]`, from 1, and names of modules in other files that are such items.
    pub(crate) fn tests(&self) -> Tests {
        let mut tests = Tests::default();
        let mut from = 0;
        while let Some(at) = self.code[from..].find("#[cfg(test)]").map(|at| at + from) {
            let mut item = at + "#[cfg(test)]".len();
            // Further attributes stand between `cfg(test)` and its item.
            while self.code[item..].trim_start().starts_with("#[") {
                item += self.code[item..].find(']').map_or(1, |end| end + 1);
            }
            let end = end_of_item(&self.code, item);
            let declaration = self.code[item..end].trim();
            if let Some(name) = declaration.strip_suffix(';').and_then(|text| text.rsplit("mod ").next())
                && declaration.contains("mod ")
            {
                tests.modules.push(name.trim().to_owned());
            }
            tests.lines.push(line_of(&self.code, at)..line_of(&self.code, end) + 1);
            from = end.max(at + 1);
        }
        tests
    }
}

/// Test code of one file.
#[derive(Debug, Default)]
pub(crate) struct Tests {
    lines: Vec<Range<usize>>,
    modules: Vec<String>,
}

impl Tests {
    pub(crate) fn contains(&self, line: usize) -> bool {
        self.lines.iter().any(|range| range.contains(&line))
    }
}

/// A file that a directory holds.
#[derive(Debug)]
pub(crate) struct RustFile {
    /// Relative to the directory that was searched.
    pub(crate) path: PathBuf,
    pub(crate) source: Source,
    pub(crate) tests: Tests,
    /// The whole file is test code: declared under `#[cfg(test)]`, or below `tests`, `benches` or `examples`.
    pub(crate) is_test: bool,
}

/// Every Rust file below a directory, in the order of paths.
pub(crate) fn rust_files(root: &Path) -> io::Result<Vec<RustFile>> {
    let mut files = Vec::new();
    for path in files_below(root, &|name| name.ends_with(".rs"))? {
        let source = Source::parse(&fs::read_to_string(root.join(&path))?);
        let tests = source.tests();
        let is_test =
            path.components().any(|part| ["tests", "benches", "examples"].iter().any(|dir| part.as_os_str() == *dir));
        files.push(RustFile { path, source, tests, is_test });
    }
    // Only after all files were read: the declaration that makes a file test code is in another file.
    let declared: Vec<PathBuf> = files
        .iter()
        .flat_map(|file| {
            let dir = module_dir(&file.path);
            file.tests.modules.iter().map(move |name| dir.join(name)).collect::<Vec<_>>()
        })
        .collect();
    for file in &mut files {
        let module = file.path.with_extension("");
        let beside = |name: &PathBuf| {
            // `#[path = "x_tests.rs"] mod tests;` lies beside the file, under another name.
            module.starts_with(name) || file.path.to_string_lossy().ends_with("_tests.rs")
        };
        file.is_test |= declared.iter().any(beside);
    }
    Ok(files)
}

/// Paths of files below `root`, relative to it and sorted.
pub(crate) fn files_below(root: &Path, wanted: &dyn Fn(&str) -> bool) -> io::Result<Vec<PathBuf>> {
    let (mut found, mut dirs) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(root.join(&dir))? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if entry.file_type()?.is_dir() {
                if !SKIPPED_DIRS.contains(&&*name) {
                    dirs.push(dir.join(&*name));
                }
            } else if wanted(&name) {
                found.push(dir.join(&*name));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The directory of the modules that a file declares.
fn module_dir(file: &Path) -> PathBuf {
    match file.file_stem().and_then(|stem| stem.to_str()) {
        Some("mod" | "lib" | "main") | None => file.parent().unwrap_or(Path::new("")).to_owned(),
        Some(_) => file.with_extension(""),
    }
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// End of the item that begins at `from`: behind its `;` or its closing brace.
fn end_of_item(code: &str, from: usize) -> usize {
    let mut depth = 0;
    for (at, letter) in code[from..].char_indices() {
        match letter {
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => depth -= 1,
            _ => {}
        }
        // A `;` within braces or parentheses ends no item.
        if depth <= 0 && (letter == ';' || letter == '}') {
            return from + at + 1;
        }
    }
    code.len()
}

struct Lexer<'a> {
    rest: &'a str,
    line: usize,
    source: Source,
    last_doc_line: usize,
}

impl Lexer<'_> {
    fn run(mut self) -> Source {
        while let Some(letter) = self.rest.chars().next() {
            if self.rest.starts_with("//") {
                self.line_comment();
            } else if self.rest.starts_with("/*") {
                self.block_comment();
            // Comments and raw strings are tried before quotes: both may contain any number of them.
            } else if let Some(hashes) = self.raw_string() {
                self.string(Some(hashes));
            } else if letter == '"' {
                self.string(None);
            } else if letter == '\'' {
                self.quote();
            } else if letter.is_alphanumeric() || letter == '_' {
                // A whole word: its end must not be taken for the beginning of a raw string.
                let end = self.rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(self.rest.len());
                self.keep(end);
            } else {
                self.keep(letter.len_utf8());
            }
        }
        self.source
    }

    /// Copies code.
    fn keep(&mut self, bytes: usize) {
        let (code, rest) = self.rest.split_at(bytes);
        self.line += code.matches('\n').count();
        self.source.code.push_str(code);
        self.rest = rest;
    }

    /// Leaves text out of the code; its line breaks stay.
    fn blank(&mut self, bytes: usize) {
        let (text, rest) = self.rest.split_at(bytes);
        let blanks = text.chars().map(|letter| if letter == '\n' { '\n' } else { ' ' });
        self.source.code.extend(blanks);
        self.line += text.matches('\n').count();
        self.rest = rest;
    }

    fn line_comment(&mut self) {
        let end = self.rest.find('\n').unwrap_or(self.rest.len());
        let comment = &self.rest[..end];
        // `////` is no doc comment (Rust reference).
        let is_doc = comment.starts_with("//!") || (comment.starts_with("///") && !comment.starts_with("////"));
        if is_doc {
            let text = comment[3..].trim();
            match self.source.docs.last_mut() {
                Some(doc) if self.last_doc_line + 1 == self.line => {
                    doc.text.push(' ');
                    doc.text.push_str(text);
                }
                _ => self.source.docs.push(Text { line: self.line, text: text.to_owned() }),
            }
            self.last_doc_line = self.line;
        }
        self.blank(end);
    }

    fn block_comment(&mut self) {
        let (mut depth, mut end) = (0, 0);
        while end < self.rest.len() {
            let at = &self.rest[end..];
            if at.starts_with("/*") {
                depth += 1;
                end += 2;
            } else if at.starts_with("*/") {
                depth -= 1;
                end += 2;
                if depth == 0 {
                    break;
                }
            } else {
                end += at.chars().next().map_or(1, char::len_utf8);
            }
        }
        self.blank(end);
    }

    /// Number of `#` of the raw string that begins here.
    fn raw_string(&self) -> Option<usize> {
        let behind = ["r", "br", "cr"].iter().find_map(|prefix| {
            let behind = self.rest.strip_prefix(prefix)?;
            behind.starts_with(['#', '"']).then_some(behind)
        })?;
        let hashes = behind.len() - behind.trim_start_matches('#').len();
        behind[hashes..].starts_with('"').then_some(hashes)
    }

    fn string(&mut self, hashes: Option<usize>) {
        let begin = self.rest.find('"').map_or(0, |at| at + 1);
        self.keep(begin);
        let line = self.line;
        let end = match hashes {
            Some(hashes) => self.rest.find(&format!("\"{}", "#".repeat(hashes))).unwrap_or(self.rest.len()),
            None => end_of_string(self.rest),
        };
        let text = self.rest[..end].to_owned();
        let text = if hashes.is_some() { text } else { unescape(&text) };
        self.source.strings.push(Text { line, text });
        self.blank(end);
        if !self.rest.is_empty() {
            self.keep(1);
        }
    }

    /// A character or a lifetime.
    fn quote(&mut self) {
        let mut letters = self.rest.char_indices().skip(1);
        let first = letters.next();
        let end = match (first, letters.next()) {
            // An escaped character: its end is the next quote behind the escape, which may be `'\''`.
            (Some((_, '\\')), Some(_)) => self.rest[3..].find('\'').map(|at| at + 4),
            (_, Some((at, '\''))) => Some(at + 1),
            _ => None,
        };
        match end {
            Some(end) => self.blank(end),
            // A lifetime.
            None => self.keep(1),
        }
    }
}

fn end_of_string(text: &str) -> usize {
    let mut escaped = false;
    for (at, letter) in text.char_indices() {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at,
            _ => {}
        }
    }
    text.len()
}

/// Joins lines that end with `\`, and makes spaces of `\n`.
fn unescape(text: &str) -> String {
    let mut lines = text.split("\\\n");
    let first = lines.next().unwrap_or_default().to_owned();
    let joined = lines.fold(first, |joined, line| joined + line.trim_start());
    joined.replace("\\n", " ").replace("\\\"", "\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_comments_are_no_code() {
        let source =
            Source::parse("let a = \"one // two\"; // three\nlet b = r#\"fo\"ur\"#; /* five\n */ let c = '\"';\n");

        assert_eq!(source.code, "let a = \"          \";         \nlet b = r#\"     \"#;        \n    let c =    ;\n");
        let texts: Vec<_> = source.strings.iter().map(|text| (text.line, text.text.as_str())).collect();
        assert_eq!(texts, [(1, "one // two"), (2, "fo\"ur")]);
    }

    #[test]
    fn lifetimes_and_letters_are_told_apart() {
        let source = Source::parse("fn f<'a>(x: &'a str) -> char { '\\'' } // \"x\"\nconst Q: char = 'q';");

        assert!(source.code.starts_with("fn f<'a>(x: &'a str) -> char {      }"), "{}", source.code);
        assert!(source.strings.is_empty());
    }

    #[test]
    fn a_text_of_several_lines_is_one_text() {
        let source =
            Source::parse("x(\"one \\\n    two\\nthree\");\n/// Doc of\n/// two lines.\nfn f() {}\n// plain\n");

        assert_eq!(source.strings, [Text { line: 1, text: "one two three".to_owned() }]);
        assert_eq!(source.docs, [Text { line: 3, text: "Doc of two lines.".to_owned() }]);
    }

    #[test]
    fn test_items_are_found_by_line_and_test_modules_by_name() {
        let text = "#[cfg(test)]\nmod seam;\nfn real() {}\n#[cfg(test)]\n#[path = \"x.rs\"]\nmod tests {\n    fn f() {}\n}\nfn more() {}\n";

        let tests = Source::parse(text).tests();

        assert_eq!(tests.modules, ["seam"]);
        let lines: Vec<usize> = (1..=9).filter(|line| tests.contains(*line)).collect();
        assert_eq!(lines, [1, 2, 4, 5, 6, 7, 8]);
    }
}
