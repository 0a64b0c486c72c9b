//! The documents of a file, as text. It does not read them.

use serde::de::IgnoredAny;
use serde_json::Value;

use crate::document::{DUPLICATE_KEY, Node, SyntaxError};

/// The text of one document of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chunk<'a> {
    pub(crate) text: &'a str,
    /// Byte offset of the text in the file.
    pub(crate) offset: usize,
    /// Line of the file on which the text begins, from 1.
    pub(crate) line: usize,
    pub(crate) is_json: bool,
}

impl Chunk<'_> {
    /// Reads the document.
    pub(crate) fn parse(&self) -> Result<Node, SyntaxError> {
        if !self.is_json {
            return Node::parse(self.text);
        }
        // JSON is YAML but for its tabs and a few escapes: where both say the same, the places are those of YAML.
        let json: Value = serde_json::from_str(self.text)
            .map_err(|error| SyntaxError { line: error.line(), message: error.to_string() })?;
        let placeless = Node::without_places(json);
        // One byte for one, so that all places stay as they are.
        match Node::parse(&self.text.replace('\t', " ")) {
            // Read by both: the JSON reader decides what it says, the YAML reader where it stands.
            Ok(node) if node.to_value() == placeless.to_value() => Ok(node),
            // JSON's reader takes the last of two equal keys in silence.
            Err(error) if error.message.starts_with(DUPLICATE_KEY) => Err(error),
            Ok(_) | Err(_) => Ok(placeless),
        }
    }
}

/// Cuts a file into documents: JSON values that follow each other, or YAML between document markers. A line that begins
/// with `---` is a marker everywhere, also inside a block scalar: YAML forbids it there.
pub(crate) fn split(file: &str) -> Vec<Chunk<'_>> {
    let bom = file.len() - file.trim_start_matches(BYTE_ORDER_MARK).len();
    if let Some(chunks) = split_json(file, bom) {
        return chunks;
    }
    let file = &file[bom..];
    let mut chunks = split_yaml(file);
    chunks.iter_mut().for_each(|chunk| chunk.offset += bom);
    chunks
}

const BYTE_ORDER_MARK: char = '\u{feff}';

/// The JSON values of a file; `None` when it is not JSON from the beginning to the end.
fn split_json(file: &str, bom: usize) -> Option<Vec<Chunk<'_>>> {
    let text = &file[bom..];
    if !text.trim_start().starts_with(['{', '[']) {
        return None;
    }
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<IgnoredAny>();
    let (mut chunks, mut line, mut counted) = (Vec::new(), 1, 0);
    loop {
        let before = values.byte_offset();
        match values.next() {
            None => return Some(chunks),
            Some(Err(_)) => return None,
            Some(Ok(IgnoredAny)) => {}
        }
        let end = values.byte_offset();
        let start = end - text[before..end].trim_start().len();
        // Counted from the last value on, as a file of one line for each of many objects would take quadratic time.
        line += text[counted..start].matches('\n').count();
        counted = start;
        chunks.push(Chunk { text: &text[start..end], offset: bom + start, line, is_json: true });
    }
}

fn split_yaml(file: &str) -> Vec<Chunk<'_>> {
    let mut chunks = Vec::new();
    let (mut start, mut start_line) = (0, 1);
    let mut offset = 0;
    for (index, line) in file.split_inclusive('\n').enumerate() {
        if is_marker(line) {
            chunks.push(Chunk { text: &file[start..offset], offset: start, line: start_line, is_json: false });
            // What follows the marker on its own line belongs to the document.
            // The length of the marker, `---` or `...`.
            start = offset + 3;
            start_line = index + 1;
        }
        offset += line.len();
    }
    chunks.push(Chunk { text: &file[start..], offset: start, line: start_line, is_json: false });
    // A file that begins with `---`, or has comments before the first, has no document there.
    chunks.retain(|chunk| !is_blank(chunk.text));
    chunks
}

fn is_marker(line: &str) -> bool {
    let rest = line.strip_prefix("---").or_else(|| line.strip_prefix("...").filter(|rest| rest.trim().is_empty()));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

fn is_blank(text: &str) -> bool {
    text.lines().all(|line| {
        let line = line.trim();
        line.is_empty() || line.starts_with('#') || line.starts_with('%')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_cut_at_markers() {
        let file = "# head\n---\na: 1\n--- # second\nb: |\n  text\n...\n---\n\n";

        let chunks = split(file);

        assert_eq!(chunks.len(), 2);
        assert_eq!((chunks[0].line, chunks[1].line), (2, 4));
        assert_eq!(chunks[0].parse().unwrap().entry("a").unwrap().line, 2);
    }

    #[test]
    fn json_documents_may_follow_each_other_with_tabs_and_escapes() {
        let file = "\u{feff}{\n\t\"a\": 1,\n\t\"b\": \"x\\/\\ud83d\\ude00\"\n}\n{\n\t\"c\":\t1e3 }\n[1]";

        let chunks = split(file);
        let nodes: Vec<_> = chunks.iter().map(|chunk| chunk.parse().unwrap()).collect();

        assert_eq!(chunks.iter().map(|chunk| chunk.line).collect::<Vec<_>>(), [1, 5, 7]);
        assert_eq!(nodes[0].to_value(), serde_json::json!({"a": 1, "b": "x/\u{1f600}"}));
        assert_eq!(nodes[1].to_value(), serde_json::json!({"c": 1000}));
        assert_eq!(nodes[1].entry("c").unwrap().line, 2);
        assert_eq!(&file[chunks[1].offset..chunks[1].offset + 1], "{");
        assert!(split("{\"a\": 1, \"a\": 2}")[0].parse().is_err(), "a duplicate key");
    }

    #[test]
    fn a_byte_order_mark_and_line_ends_of_other_systems_do_no_harm() {
        let file = "\u{feff}# first\r\n---\r\na: 1\r\n---\r\n# nothing\r\n---\r\nb: two\r\n";

        let chunks = split(file);

        assert_eq!(chunks.len(), 2);
        assert_eq!(chunks[1].parse().unwrap().to_value(), serde_json::json!({"b": "two"}));
        assert!(file[chunks[0].offset..].starts_with("\r\na: 1"));
        assert_eq!(split("\u{feff}a: 1\n")[0].parse().unwrap().entry("a").unwrap().line, 1);
        assert!(split("\u{feff}# only comments\n\n---\n...\n").is_empty());
    }
}
