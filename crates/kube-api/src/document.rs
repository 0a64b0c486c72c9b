//! One YAML document with the place of everything in it. It does not know what the fields mean.

use std::fmt;
use std::ops::Range;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::{DuplicateKeyPolicy, NonFiniteFloatPolicy, Options, Spanned};

/// The text of one document of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chunk<'a> {
    pub(crate) text: &'a str,
    /// Byte offset of the text in the file.
    pub(crate) offset: usize,
    /// Line of the file on which the text begins, from 1.
    pub(crate) line: usize,
}

/// Cuts a file at its document markers. A line that begins with `---` is one everywhere, also inside
/// a block scalar: YAML forbids it there.
pub(crate) fn split(file: &str) -> Vec<Chunk<'_>> {
    let mut chunks = Vec::new();
    let (mut start, mut start_line) = (0, 1);
    let mut offset = 0;
    for (index, line) in file.split_inclusive('\n').enumerate() {
        if is_marker(line) {
            chunks.push(Chunk { text: &file[start..offset], offset: start, line: start_line });
            // What follows the marker on its own line belongs to the document.
            start = offset + 3;
            start_line = index + 1;
        }
        offset += line.len();
    }
    chunks.push(Chunk { text: &file[start..], offset: start, line: start_line });
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

/// A value with its place in the document.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) data: Data,
    /// Line in the document, from 1.
    pub(crate) line: usize,
    /// Byte range in the document, where it is known.
    pub(crate) span: Option<Range<usize>>,
}

#[derive(Clone, Debug)]
pub(crate) enum Data {
    Scalar(Value),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    /// Line of the key in the document, from 1.
    pub(crate) line: usize,
    pub(crate) key_span: Option<Range<usize>>,
    pub(crate) value: Node,
}

/// A document that is no YAML, or not the kind of YAML that can be an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    /// Line in the document, from 1; 0 when it is not known.
    pub(crate) line: usize,
    pub(crate) message: String,
}

impl Node {
    /// Reads one document.
    pub(crate) fn parse(text: &str) -> Result<Self, SyntaxError> {
        let mut options = Options::default();
        options.duplicate_keys = DuplicateKeyPolicy::Error;
        options.non_finite_float_policy = NonFiniteFloatPolicy::AsString;
        options.strict_booleans = true;
        options.with_snippet = false;
        serde_saphyr::from_str_with_options::<Spanned<Data>>(text, options).map(Self::from).map_err(|error| {
            SyntaxError {
                line: error.location().map_or(0, |location| count(location.line())),
                message: without_place(&one_line(&error.without_snippet().to_string())),
            }
        })
    }

    /// The value without places.
    pub(crate) fn to_value(&self) -> Value {
        match &self.data {
            Data::Scalar(value) => value.clone(),
            Data::List(items) => Value::Array(items.iter().map(Self::to_value).collect()),
            Data::Map(entries) => Value::Object(
                entries.iter().map(|entry| (entry.key.clone(), entry.value.to_value())).collect::<Map<_, _>>(),
            ),
        }
    }

    /// Entry of a mapping.
    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.data {
            Data::Map(entries) => entries.iter().find(|entry| entry.key == key),
            Data::Scalar(_) | Data::List(_) => None,
        }
    }

    /// Line of the deepest place that `path` reaches, in the document, from 1.
    pub(crate) fn line_of(&self, path: &[Step]) -> usize {
        let (mut node, mut line) = (self, self.line);
        for step in path {
            match (&node.data, step) {
                (Data::Map(_), Step::Field(name)) => match node.entry(name) {
                    Some(entry) => (node, line) = (&entry.value, entry.line),
                    None => break,
                },
                (Data::List(items), Step::Index(index)) => match items.get(*index) {
                    Some(item) => (node, line) = (item, item.line),
                    None => break,
                },
                _ => break,
            }
        }
        line
    }
}

/// One step of a path into a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Field(String),
    Index(usize),
}

/// A path as users write it: `spec.ports[0].port`; keys with dots are quoted.
pub(crate) fn display_path(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Index(index) => text.push_str(&format!("[{index}]")),
            Step::Field(name) if name.contains(['.', '/', '[']) => {
                text.push_str(&format!("[{name:?}]"));
            }
            Step::Field(name) => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(name);
            }
        }
    }
    text
}

impl From<Spanned<Data>> for Node {
    fn from(spanned: Spanned<Data>) -> Self {
        Self { line: count(spanned.referenced.line()), span: range(&spanned.referenced), data: spanned.value }
    }
}

fn count(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn range(location: &serde_saphyr::Location) -> Option<Range<usize>> {
    let span = location.span();
    let start = count(span.byte_offset()?);
    Some(start..start.checked_add(count(span.byte_len()?))?)
}

/// Messages of the parser may have several lines; a log line has one.
fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The message without the parser's `at line 1, column 2`: it counts from the document's beginning, while
/// a line that users are told counts from the file's.
fn without_place(message: &str) -> String {
    let is_place = |place: &str| {
        place.split_once(", column ").is_some_and(|(line, column)| {
            let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            is_number(line) && is_number(column)
        })
    };
    for before in [" at line ", "line "] {
        if let Some((rest, place)) = message.rsplit_once(before)
            && is_place(place)
        {
            return rest.to_owned();
        }
    }
    match message.strip_prefix("error: line ").and_then(|rest| rest.split_once(": ")) {
        Some((place, rest)) if place.contains(" column ") => rest.to_owned(),
        Some(_) | None => message.to_owned(),
    }
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DataVisitor)
    }
}

struct DataVisitor;

impl<'de> Visitor<'de> for DataVisitor {
    type Value = Data;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Data, E> {
        Ok(Data::Scalar(Value::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Data, E> {
        Ok(Data::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Data, E> {
        Ok(Data::Scalar(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Data, E> {
        Number::from_f64(value)
            .map(|number| Data::Scalar(Value::Number(number)))
            .ok_or_else(|| E::custom("not a finite number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Data, E> {
        Ok(Data::Scalar(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Data, E> {
        Ok(Data::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Data, E> {
        Ok(Data::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Data, D::Error> {
        Data::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Data, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element::<Spanned<Data>>()? {
            items.push(item.into());
        }
        Ok(Data::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Data, A::Error> {
        let mut entries = Vec::new();
        while let Some((key, value)) = map.next_entry::<Spanned<String>, Spanned<Data>>()? {
            entries.push(Entry {
                line: count(key.referenced.line()),
                key_span: range(&key.referenced),
                key: key.value,
                value: value.into(),
            });
        }
        Ok(Data::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_keys_and_values_are_known() {
        let text = "a: 1\nb:\n  - x: yes\n    y: {k: \"v\", 80: z}\n";

        let node = Node::parse(text).unwrap();

        let b = node.entry("b").unwrap();
        assert_eq!(b.line, 2);
        let Data::List(items) = &b.value.data else {
            panic!("not a list");
        };
        let y = items[0].entry("y").unwrap();
        let k = y.value.entry("k").unwrap();
        assert_eq!(&text[k.key_span.clone().unwrap()], "k");
        assert_eq!(&text[k.value.span.clone().unwrap()], "\"v\"");
        assert!(y.value.entry("80").is_some());
        let path = [Step::Field("b".into()), Step::Index(0), Step::Field("y".into())];
        assert_eq!(node.line_of(&path), 4);
        assert_eq!(display_path(&path), "b[0].y");
    }

    #[test]
    fn plain_scalars_are_typed_and_quoted_ones_are_text() {
        let node = Node::parse("a: 1\nb: 'true'\nc: true\nd: ~\ne: 1.5\nf: 0x10\ng: 1e3\nh:\ni: .nan\n").unwrap();

        assert_eq!(
            node.to_value(),
            serde_json::json!({"a": 1, "b": "true", "c": true, "d": null, "e": 1.5, "f": 16, "g": 1000.0, "h": null, "i": ".nan"})
        );
    }

    #[test]
    fn a_file_is_cut_at_markers() {
        let file = "# head\n---\na: 1\n--- # second\nb: |\n  text\n...\n---\n\n";

        let chunks = split(file);

        assert_eq!(chunks.len(), 2);
        assert_eq!((chunks[0].line, chunks[1].line), (2, 4));
        assert_eq!(Node::parse(chunks[0].text).unwrap().entry("a").unwrap().line, 2);
    }

    #[test]
    fn a_duplicate_key_and_bad_indentation_are_errors_with_a_line() {
        let duplicate = Node::parse("a: 1\na: 2\n").unwrap_err();
        let indentation = Node::parse("a:\n  b: 1\n c: 2\n").unwrap_err();

        assert_eq!(duplicate.line, 2, "{}", duplicate.message);
        assert_eq!(indentation.line, 3, "{}", indentation.message);
    }
}
