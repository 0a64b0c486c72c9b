//! One document of a manifest, YAML or JSON, with the place of everything in it. It does not know what the fields mean.

use std::fmt;
use std::ops::Range;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use serde_saphyr::{DuplicateKeyPolicy, NonFiniteFloatPolicy, Options, Spanned};

use crate::scalar::{self, NotFinite};

/// A value with its place in the document.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) data: Data,
    /// Line in the document, from 1.
    pub(crate) line: usize,
    /// Byte range in the document, where it is known.
    pub(crate) span: Option<Range<usize>>,
    /// Byte range of the text that gives the value: for an alias that of its anchor.
    defined: Option<Range<usize>>,
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
    key_defined: Option<Range<usize>>,
    pub(crate) value: Node,
}

/// A document that is neither YAML nor JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    /// Line in the document, from 1; 0 when it is not known.
    pub(crate) line: usize,
    pub(crate) message: String,
}

/// Most values in one document: 20 000 pods in a `List` have less than half of it.
const MAX_VALUES: usize = 4_000_000;

pub(crate) const DUPLICATE_KEY: &str = "duplicate mapping key";

impl Node {
    /// Reads one document.
    pub(crate) fn parse(text: &str) -> Result<Self, SyntaxError> {
        let mut options = Options::default();
        // kubectl refuses a duplicate key, too; the parser's default would silently take the last one.
        options.duplicate_keys = DuplicateKeyPolicy::Error;
        // The API has no such numbers; `resolve` refuses them, with their line.
        options.non_finite_float_policy = NonFiniteFloatPolicy::AsString;
        options.with_snippet = false;
        if let Some(budget) = &mut options.budget {
            budget.max_nodes = MAX_VALUES;
            // A mapping has two events of its own, and each entry has a key.
            budget.max_events = 4 * MAX_VALUES;
        }
        let parsed = serde_saphyr::from_str_with_options::<Spanned<Data>>(text, options);
        let mut node = parsed.map(Self::from).map_err(|error| SyntaxError {
            line: error.location().map_or(0, |location| count(location.line())),
            message: plain_message(&one_line(&error.without_snippet().to_string())),
        })?;
        // After parsing, because it needs the places of the scalars.
        node.resolve(text)?;
        Ok(node)
    }

    pub(crate) fn without_places(value: Value) -> Self {
        let data = match value {
            Value::Array(items) => Data::List(items.into_iter().map(Self::without_places).collect()),
            Value::Object(fields) => {
                let entry = |(key, value)| Entry {
                    key,
                    line: 1,
                    key_span: None,
                    key_defined: None,
                    value: Self::without_places(value),
                };
                Data::Map(fields.into_iter().map(entry).collect())
            }
            Value::Number(number) => {
                let whole = number.as_f64().filter(|_| number.is_f64()).and_then(scalar::whole_or_float);
                Data::Scalar(Value::Number(whole.unwrap_or(number)))
            }
            scalar @ (Value::Null | Value::Bool(_) | Value::String(_)) => Data::Scalar(scalar),
        };
        Self { data, line: 1, span: None, defined: None }
    }

    /// Gives plain scalars and keys the types that they have for kubectl.
    fn resolve(&mut self, text: &str) -> Result<(), SyntaxError> {
        let not_finite = |line| move |NotFinite| SyntaxError { line, message: "not a finite number".to_owned() };
        match &mut self.data {
            Data::Scalar(value) => {
                // The parser follows YAML 1.2, kubectl YAML 1.1: what a plain scalar means is decided once more, by its
                // text.
                if let Some(range) = &self.defined
                    && let Some(raw) = Scalar::at(text, range)
                {
                    raw.apply(value).map_err(not_finite(self.line))?;
                }
            }
            Data::List(items) => items.iter_mut().try_for_each(|item| item.resolve(text))?,
            Data::Map(entries) => {
                for entry in entries {
                    let mut key = Value::Null;
                    if let Some(range) = &entry.key_defined
                        && let Some(raw) = Scalar::at(text, range)
                    {
                        raw.apply(&mut key).map_err(not_finite(entry.line))?;
                    }
                    // JSON has only text as keys: `8080:` of a map of ports becomes "8080", as in kubectl.
                    if matches!(key, Value::Bool(_) | Value::Number(_)) {
                        // Only these: a key that is a string has its text already.
                        entry.key = key.to_string();
                    }
                    entry.value.resolve(text)?;
                }
            }
        }
        Ok(())
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

    /// The value at a path.
    pub(crate) fn at(&self, path: &[Step]) -> Option<&Self> {
        path.iter().try_fold(self, |node, step| match (&node.data, step) {
            (Data::Map(_), Step::Field(name)) => node.entry(name).map(|entry| &entry.value),
            (Data::List(items), Step::Index(index)) => items.get(*index),
            _ => None,
        })
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
                // The document has another form than the path: the line of the last step that fits is the nearest.
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
        Self {
            line: count(spanned.referenced.line()),
            span: range(&spanned.referenced),
            defined: range(&spanned.defined),
            data: spanned.value,
        }
    }
}

/// Bytes before a scalar in which its tag and its anchor are.
const LOOK_BACK: usize = 512;

/// A plain scalar in the text.
enum Scalar<'a> {
    Untagged(&'a str),
    /// A scalar with a tag of some application: a string.
    Tagged(&'a str),
}

impl<'a> Scalar<'a> {
    /// The scalar at this place; `None` when it is quoted or its type is written before it.
    fn at(text: &'a str, range: &Range<usize>) -> Option<Self> {
        let raw = text.get(range.clone())?.trim();
        // Quoted, a block scalar, an alias, a tag, or several words: all of them are strings, or typed by the parser.
        if raw.is_empty() || raw.starts_with(['"', '\'', '|', '>', '&', '*', '!']) || raw.contains(char::is_whitespace)
        {
            return None;
        }
        // As far back as tags and anchors reach; more would take quadratic time in a file of one line.
        let from = (0..=range.start.saturating_sub(LOOK_BACK)).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let mut before = text.get(from..range.start)?.trim_end();
        loop {
            let word = before.rsplit([' ', '\t', '\r', '\n', '{', '[', ',']).next().unwrap_or_default();
            if word.starts_with('&') {
                before = before[..before.len() - word.len()].trim_end();
            } else if word.starts_with("!!") || word.starts_with(['|', '>']) {
                return None;
            } else if word.starts_with('!') {
                return Some(Self::Tagged(raw));
            } else {
                return Some(Self::Untagged(raw));
            }
        }
    }

    fn apply(&self, value: &mut Value) -> Result<(), NotFinite> {
        match self {
            Self::Tagged(text) => *value = (*text).into(),
            Self::Untagged(text) => *value = scalar::resolve(text)?.unwrap_or_else(|| (*text).into()),
        }
        Ok(())
    }
}

fn count(number: u64) -> usize {
    // Only a message is wrong then.
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

/// The message in words that do not need the parser's documentation.
fn plain_message(message: &str) -> String {
    if let Some((_, key)) = message.split_once(DUPLICATE_KEY) {
        let key = key.split_once(", set ").map_or(key, |(key, _)| key);
        return without_place(&format!("{DUPLICATE_KEY}{key}"));
    }
    if message.contains("budget") {
        return "the document is too large or too deeply nested".to_owned();
    }
    without_place(message)
}

/// The message without the parser's `at line 1, column 2`: it counts from the document's beginning, while the line of a
/// problem counts from the file's.
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
        scalar::whole_or_float(value)
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
                key_defined: range(&key.defined),
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
        let text = "a: 1\nb:\n  - x: yes\n    w: {k: \"v\", 80: z}\n";

        let node = Node::parse(text).unwrap();

        let b = node.entry("b").unwrap();
        assert_eq!(b.line, 2);
        let Data::List(items) = &b.value.data else {
            panic!("not a list");
        };
        let w = items[0].entry("w").unwrap();
        let k = w.value.entry("k").unwrap();
        assert_eq!(&text[k.key_span.clone().unwrap()], "k");
        assert_eq!(&text[k.value.span.clone().unwrap()], "\"v\"");
        assert!(w.value.entry("80").is_some());
        let path = [Step::Field("b".into()), Step::Index(0), Step::Field("w".into())];
        assert_eq!(node.line_of(&path), 4);
        assert_eq!(display_path(&path), "b[0].w");
    }

    #[test]
    fn plain_scalars_are_typed_and_quoted_ones_are_text() {
        let node = Node::parse("a: 1\nb: 'true'\nc: true\nd: ~\ne: 1.5\nf: 0x10\ng: 1e3\nh:\n").unwrap();

        assert_eq!(
            node.to_value(),
            serde_json::json!({"a": 1, "b": "true", "c": true, "d": null, "e": 1.5, "f": 16, "g": 1000, "h": null})
        );
    }

    #[test]
    fn scalars_and_keys_have_the_types_that_kubectl_gives_them() {
        let text = "a: 0755\nb: &x yes\nc: *x\nd: !!str 0755\ne: !custom 5\nf: !!int \"5\"\n80: on\nno: '0755'\ng: {h: 1_000, i: [0o17, off]}\nj: 12:30\nk: 2001-01-01\nl: |\n  yes\nm: !!bool \"yes\"\np: &y !!str yes\no: 3.0\nq: |-\n  0755\nr: !!str\n  0755\ns: ['010', \"off\", 010]\n";

        assert_eq!(
            Node::parse(text).unwrap().to_value(),
            serde_json::json!({
                "a": 493, "b": true, "c": true, "d": "0755", "e": "5", "f": 5, "80": true, "false": "0755",
                "g": {"h": 1000, "i": [15, false]}, "j": "12:30", "k": "2001-01-01", "l": "yes\n", "m": true, "p": "yes",
                "o": 3, "q": "0755", "r": "0755", "s": ["010", "off", 8],
            })
        );
        assert_eq!(Node::parse("a: 1\nb: .inf\n").unwrap_err().line, 2);
    }

    #[test]
    fn merge_keys_and_anchors_are_opened() {
        let text = "base: &base {a: 1, b: 010}\nit:\n  <<: *base\n  a: 2\n";

        assert_eq!(
            Node::parse(text).unwrap().to_value(),
            serde_json::json!({"base": {"a": 1, "b": 8}, "it": {"a": 2, "b": 8}})
        );
    }

    #[test]
    fn a_duplicate_key_and_bad_indentation_are_errors_with_a_line() {
        let duplicate = Node::parse("a: 1\na: 2\n").unwrap_err();
        let indentation = Node::parse("a:\n  b: 1\n c: 2\n").unwrap_err();

        assert_eq!(duplicate.line, 2, "{}", duplicate.message);
        assert_eq!(indentation.line, 3, "{}", indentation.message);
    }
}
