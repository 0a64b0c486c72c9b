//! Contents of one file of manifests. The unit is the document, as for `kubectl apply`: one with a mistake is refused by
//! itself, the others are in force.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use serde_json::Value;

use crate::chunk::{self, Chunk};
use crate::decode::{self, Head};
use crate::document::{Data, Node, display_path};
use crate::known_kinds::Unread;
use crate::mistake::Mistake;
use kube_types::{Code, ObjectRef, Resource, Severity, SourceProblem, Subject};

/// An object with the value it was read from.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    pub(crate) key: ObjectRef,
    pub(crate) value: Value,
    pub(crate) resource: Resource,
    /// Line in the file where it begins, from 1.
    pub(crate) line: usize,
}

/// The contents of a file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Contents {
    pub(crate) objects: Vec<Object>,
    pub(crate) problems: Vec<SourceProblem>,
    /// Objects whose documents have a mistake.
    pub(crate) refused: HashSet<ObjectRef>,
    /// Some document has a mistake and does not tell which object it is: any that the file had may be it.
    pub(crate) has_unknown: bool,
}

impl Contents {
    /// Contents of a file that cannot be split into documents.
    pub(crate) fn unreadable(problem: SourceProblem) -> Self {
        Self { problems: vec![problem], has_unknown: true, ..Self::default() }
    }

    /// Returns true if an object that the file had before, and that these contents lack, may still be in it.
    pub(crate) fn may_have(&self, key: &ObjectRef) -> bool {
        self.has_unknown || self.refused.contains(key)
    }

    /// Returns true if every document is in force.
    pub(crate) fn is_good(&self) -> bool {
        !self.has_unknown && self.refused.is_empty()
    }
}

/// Reads the documents of a file.
pub(crate) fn parse(file: &Path, text: &str) -> Contents {
    let mut reader = Reader { file, contents: Contents::default(), lines: HashMap::new() };
    for chunk in chunk::split(text) {
        // Lines in a document count from the line its chunk begins on.
        let before = chunk.line - 1;
        match chunk.parse() {
            Ok(node) => reader.document(&node, before),
            Err(error) => {
                let line = if error.line == 0 { chunk.line } else { before + error.line };
                // The objects of a text that is not YAML are unknown.
                reader.contents.has_unknown = true;
                let subject = probable_subject(&chunk, error.line);
                reader.error(line, subject, String::new(), error.message, Code::Syntax);
            }
        }
    }
    reader.contents
}

/// Reads an overlay: one document, any mapping.
pub(crate) fn parse_overlay(file: &Path, text: &str) -> Result<Value, Box<SourceProblem>> {
    let refused = |line, message: String| {
        Box::new(SourceProblem { line, ..SourceProblem::of_file(file, Code::InvalidOverlay, message) })
    };
    match Node::parse(text) {
        Ok(node) if matches!(node.data, Data::Map(_)) => Ok(node.to_value()),
        Ok(node) => Err(refused(node.line, "expected a mapping".to_owned())),
        Err(error) => Err(refused(error.line, error.message)),
    }
}

struct Reader<'a> {
    file: &'a Path,
    contents: Contents,
    /// Line of each object.
    lines: HashMap<ObjectRef, usize>,
}

impl Reader<'_> {
    fn document(&mut self, node: &Node, before: usize) {
        match decode::head(node) {
            Ok(Head::Object(kind)) => {
                // `key` writes the default namespace into it, which the copies and overlays need.
                let mut value = node.to_value();
                let key = match decode::key(kind, &mut value) {
                    Ok(key) => key,
                    Err(mistake) => {
                        self.contents.has_unknown = true;
                        return self.mistake(node, before, subject(node), mistake);
                    }
                };
                match decode::object(kind, &value) {
                    Ok(decoded) => {
                        let line = before + node.line;
                        self.note_unread(&key, line, &decoded.unread);
                        self.object(Object { key, value, resource: decoded.resource, line });
                    }
                    Err(mistakes) => {
                        let mut mistakes = mistakes;
                        // In the order in which a reader meets them in the file.
                        mistakes.sort_by_key(|mistake| node.line_of(&mistake.path));
                        for mistake in mistakes {
                            self.mistake(node, before, Subject::from(&key), mistake);
                        }
                        // Not `has_unknown`: the document names its object, so that only this one keeps its last good
                        // state.
                        self.contents.refused.insert(key);
                    }
                }
            }
            // Each item is a document of its own: a mistake in one refuses that one.
            Ok(Head::List) => self.list(node, before),
            Ok(Head::Unread { api_version, effect, .. }) => {
                let (severity, code, message) = match effect {
                    Unread::Protects => {
                        let message = format!("{api_version} is not enforced here: it protects nothing");
                        (Severity::Warning, Code::NotEnforced, message)
                    }
                    Unread::Routes => {
                        let message = format!("{api_version} is not enforced here: it routes nothing");
                        (Severity::Warning, Code::NotEnforced, message)
                    }
                    Unread::Other => {
                        let message = format!("{api_version} is not supported here: it has no effect");
                        // Only a note: manifests of a whole application have many kinds that a mesh does not read.
                        (Severity::Note, Code::UnsupportedKind, message)
                    }
                };
                self.problem(before + node.line, subject(node), String::new(), message, (severity, code));
            }
            Err(mistake) => {
                self.contents.has_unknown = true;
                self.mistake(node, before, subject(node), mistake);
            }
        }
    }

    fn list(&mut self, node: &Node, before: usize) {
        match decode::items(node) {
            Some(items) => items.iter().for_each(|item| self.document(item, before)),
            None => {
                self.contents.has_unknown = true;
                let mistake = Mistake::at(&["items"], Code::InvalidValue, "expected a list");
                self.mistake(node, before, subject(node), mistake);
            }
        }
    }

    /// Takes a good object. Of two with the same key the first is in force.
    fn object(&mut self, object: Object) {
        if let Some(first) = self.lines.get(&object.key) {
            let message =
                format!("is already defined on line {first}, which is in force; this second definition is not");
            let subject = Subject::from(&object.key);
            return self.error(object.line, subject, "metadata.name".to_owned(), message, Code::Duplicate);
        }
        // After the check: the line that later messages name is the first one's.
        self.lines.insert(object.key.clone(), object.line);
        self.contents.objects.push(object);
    }

    fn note_unread(&mut self, key: &ObjectRef, line: usize, fields: &[String]) {
        if !fields.is_empty() {
            let message = format!("these fields have no effect here: {}", fields.join(", "));
            let sort = (Severity::Note, Code::UnsupportedField);
            self.problem(line, Subject::from(key), String::new(), message, sort);
        }
    }

    fn mistake(&mut self, node: &Node, before: usize, subject: Subject, mistake: Mistake) {
        let line = before + node.line_of(&mistake.path);
        self.error(line, subject, display_path(&mistake.path), mistake.message, mistake.code);
    }

    fn error(&mut self, line: usize, subject: Subject, field: String, message: String, code: Code) {
        self.problem(line, subject, field, message, (Severity::Error, code));
    }

    fn problem(
        &mut self,
        line: usize,
        subject: Subject,
        field: String,
        message: String,
        (severity, code): (Severity, Code),
    ) {
        let file = self.file.to_owned();
        let problem = SourceProblem { file, line, subject, field, message, severity, code, in_force: None };
        self.contents.problems.push(problem);
    }
}

/// The object that a document says it is, as far as it does.
fn subject(node: &Node) -> Subject {
    let text = |node: &Node, field: &str| match node.entry(field).map(|entry| &entry.value.data) {
        Some(Data::Scalar(Value::String(text))) => text.clone(),
        Some(Data::Scalar(_) | Data::List(_) | Data::Map(_)) | None => String::new(),
    };
    let of_metadata = |field| node.entry("metadata").map(|metadata| text(&metadata.value, field)).unwrap_or_default();
    let (namespace, name) = (of_metadata("namespace"), of_metadata("name"));
    Subject { kind: text(node, "kind"), namespace, name, uid: String::new() }
}

/// Most beginnings of a document that are tried to find out which object it is.
const MAX_GUESSES: usize = 8;

/// The object that a document with a syntax error on `line` probably is: as its text before the error says.
fn probable_subject(chunk: &Chunk<'_>, line: usize) -> Subject {
    let is_key = |line: &str| line.starts_with(|c: char| c.is_ascii_alphabetic());
    let lines: Vec<_> = chunk.text.split_inclusive('\n').take(line.max(1)).collect();
    // Up to the last field of the document itself that begins before the error.
    let ends = (0..lines.len()).rev().filter(|index| is_key(lines[*index]));
    let readable = ends.take(MAX_GUESSES).filter_map(|end| Node::parse(&lines[..end].concat()).ok());
    readable.map(|node| subject(&node)).find(|subject| !subject.is_unknown()).unwrap_or_default()
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
