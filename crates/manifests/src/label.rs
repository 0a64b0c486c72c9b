//! Changes one label in the text of a document: comments, order and style of everything else stay.
//! The caller proves the result by reading it again.

use std::ops::Range;

use crate::document::{Data, Entry, Node, Step};

/// Reason why a document is not edited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EditError {
    #[error("it cannot be read")]
    Syntax,
    #[error("metadata is not written as a mapping")]
    Metadata,
    #[error("metadata has an anchor, an alias, a merge key or a tag, which this command does not edit")]
    Anchor,
    #[error("a part of metadata cannot be found in the text")]
    NoPlace,
}

/// The document with `label` of the object at `place` set, or removed. Unchanged text is returned as it was.
pub(crate) fn edit(text: &str, place_of: &[Step], label: &str, value: Option<&str>) -> Result<String, EditError> {
    // Tabs are white space in JSON and forbidden in YAML; one byte for one byte, so that all places stay.
    let node = Node::parse(&text.replace('\t', " ")).map_err(|_| EditError::Syntax)?;
    let object = node.at(place_of).ok_or(EditError::NoPlace)?;
    let metadata = object.entry("metadata").ok_or(EditError::Metadata)?;
    check_plain(text, metadata)?;
    let Data::Map(fields) = &metadata.value.data else {
        return Err(EditError::Metadata);
    };
    let editor = Editor { text };
    let labels = metadata.value.entry("labels");
    let entries = match labels.map(|labels| &labels.value.data) {
        Some(Data::Map(entries)) => entries.as_slice(),
        Some(Data::Scalar(_) | Data::List(_)) | None => &[],
    };
    let existing = entries.iter().position(|entry| entry.key == label);
    match (labels, existing, value) {
        (_, None, None) => Ok(text.to_owned()),
        (_, Some(index), Some(value)) => Ok(editor.replace(place(&entries[index].value)?, &scalar(value))),
        (Some(labels), Some(index), None) => editor.remove(labels, entries, index),
        (Some(labels), None, Some(value)) if !entries.is_empty() => editor.append(labels, entries, label, value),
        (Some(labels), None, Some(value)) => editor.fill(labels, label, value),
        (None, _, Some(value)) => editor.create(metadata, fields, label, value),
        (None, Some(_), None) => Ok(text.to_owned()),
    }
}

/// Fails if an entry to edit has an anchor or an alias: a change of it would take effect elsewhere too.
fn check_plain(text: &str, metadata: &Entry) -> Result<(), EditError> {
    let labels = metadata.value.entry("labels");
    let own = [Some(metadata), labels].into_iter().flatten();
    let entries = labels.into_iter().chain([metadata]).flat_map(|entry| match &entry.value.data {
        Data::Map(entries) => entries.as_slice(),
        Data::Scalar(_) | Data::List(_) => &[],
    });
    for entry in own.chain(entries) {
        let key = key_place(entry)?;
        // The place of a merged entry is that of its merge key.
        if text.get(key.clone()).is_none_or(|text| text.trim_matches(['"', '\'']) != entry.key) {
            return Err(EditError::Anchor);
        }
        let behind = text[key.end..].trim_start_matches(['"', '\'']).trim_start().trim_start_matches(':').trim_start();
        if behind.starts_with(['&', '*', '!']) {
            return Err(EditError::Anchor);
        }
    }
    Ok(())
}

struct Editor<'a> {
    text: &'a str,
}

impl Editor<'_> {
    fn replace(&self, range: Range<usize>, with: &str) -> String {
        let mut text = self.text.to_owned();
        text.replace_range(range, with);
        text
    }

    /// Returns true if the value of this entry is written with braces.
    fn is_flow(&self, entry: &Entry) -> Result<bool, EditError> {
        let after = key_place(entry)?.end;
        let rest = self.text[after..].trim_start().trim_start_matches(':');
        Ok(rest.trim_start().starts_with('{'))
    }

    fn line_start(&self, at: usize) -> usize {
        self.text[..at].rfind('\n').map_or(0, |newline| newline + 1)
    }

    /// Just behind the end of the line, or the end of the text.
    fn line_end(&self, at: usize) -> usize {
        self.text[at..].find('\n').map_or(self.text.len(), |newline| at + newline + 1)
    }

    fn newline(&self) -> &'static str {
        if self.text.contains("\r\n") { "\r\n" } else { "\n" }
    }

    /// Adds lines behind the line that `at` is on.
    fn insert_lines(&self, at: usize, lines: &[String]) -> String {
        let position = self.line_end(at);
        let newline = self.newline();
        let mut block = String::new();
        if !self.text[..position].ends_with('\n') {
            block.push_str(newline);
        }
        for line in lines {
            block.push_str(line);
            block.push_str(newline);
        }
        self.replace(position..position, &block)
    }

    fn indent(&self, entry: &Entry) -> Result<&str, EditError> {
        let start = key_place(entry)?.start;
        Ok(&self.text[self.line_start(start)..start])
    }

    /// `key: value` in the style of a neighbour: JSON keeps its quotes.
    fn pair(&self, neighbour: &Entry, key: &str, value: &str) -> Result<String, EditError> {
        let quoted = self.text[key_place(neighbour)?].starts_with('"');
        Ok(if quoted { format!("{key:?}: {value:?}") } else { format!("{key}: {}", scalar(value)) })
    }

    fn append(&self, labels: &Entry, entries: &[Entry], label: &str, value: &str) -> Result<String, EditError> {
        let last = entries.last().ok_or(EditError::NoPlace)?;
        let pair = self.pair(last, label, value)?;
        let end = place(&last.value)?.end;
        if self.is_flow(labels)? {
            return Ok(self.replace(end..end, &format!(", {pair}")));
        }
        let line = format!("{}{pair}", self.indent(last)?);
        Ok(self.insert_lines(end, &[line]))
    }

    /// `labels:` is there and empty.
    fn fill(&self, labels: &Entry, label: &str, value: &str) -> Result<String, EditError> {
        let pair = self.pair(labels, label, value)?;
        let key_end = key_place(labels)?.end;
        let colon = self.text[key_end..].find(':').ok_or(EditError::NoPlace)? + key_end + 1;
        if self.is_flow(labels)? {
            let brace = self.text[colon..].find('{').ok_or(EditError::NoPlace)? + colon + 1;
            return Ok(self.replace(brace..brace, &pair));
        }
        let rest = self.text[colon..self.line_end(colon)].trim_start();
        let word = ["null", "Null", "NULL", "~"].iter().find(|word| rest.starts_with(**word));
        let start = self.text[colon..].len() - self.text[colon..].trim_start_matches([' ', '\t']).len();
        let range = word.map_or(colon..colon, |word| colon..colon + start + word.len());
        Ok(self.replace(range, &format!(" {{{pair}}}")))
    }

    /// Adds `labels`, which does not exist yet.
    fn create(&self, metadata: &Entry, fields: &[Entry], label: &str, value: &str) -> Result<String, EditError> {
        let Some(last) = fields.last() else {
            return Err(EditError::Metadata);
        };
        if self.is_flow(metadata)? {
            let pair = self.pair(last, label, value)?;
            let key = if self.text[key_place(last)?].starts_with('"') { "\"labels\"" } else { "labels" };
            // Behind the name: it is a scalar, so its end is where its text ends.
            let name = fields.iter().find(|field| field.key == "name").unwrap_or(last);
            let end = place(&name.value)?.end;
            return Ok(self.replace(end..end, &format!(", {key}: {{{pair}}}")));
        }
        let behind = fields
            .iter()
            .rfind(|field| matches!(field.key.as_str(), "name" | "namespace"))
            .ok_or(EditError::Metadata)?;
        let indent = self.indent(behind)?;
        let lines = [format!("{indent}labels:"), format!("{indent}  {}", self.pair(behind, label, value)?)];
        Ok(self.insert_lines(place(&behind.value)?.end, &lines))
    }

    fn remove(&self, labels: &Entry, entries: &[Entry], index: usize) -> Result<String, EditError> {
        let (key, end) = (key_place(&entries[index])?.start, place(&entries[index].value)?.end);
        if self.is_flow(labels)? {
            let range = match (entries.get(index + 1), index.checked_sub(1)) {
                (Some(next), _) => key..key_place(next)?.start,
                (None, Some(before)) => place(&entries[before].value)?.end..end,
                (None, None) => key..end,
            };
            return Ok(self.replace(range, ""));
        }
        let line = self.line_start(key)..self.line_end(end);
        let without = self.replace(line, "");
        if entries.len() > 1 {
            return Ok(without);
        }
        // Nothing is left below `labels:`, whose line comes before the one removed.
        let heading = key_place(labels)?.start;
        let editor = Editor { text: &without };
        Ok(editor.replace(editor.line_start(heading)..editor.line_end(heading), ""))
    }
}

fn place(node: &Node) -> Result<Range<usize>, EditError> {
    node.span.clone().ok_or(EditError::NoPlace)
}

fn key_place(entry: &Entry) -> Result<Range<usize>, EditError> {
    entry.key_span.clone().ok_or(EditError::NoPlace)
}

/// The value as YAML text: plain where every YAML reader treats it as text.
pub(crate) fn scalar(value: &str) -> String {
    const OLD_BOOLEANS: [&str; 8] = ["y", "n", "yes", "no", "on", "off", "true", "false"];
    let lower = value.to_ascii_lowercase();
    let plain = value.starts_with(|c: char| c.is_ascii_alphabetic())
        && value.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/'))
        && !OLD_BOOLEANS.contains(&lower.as_str())
        && !matches!(lower.as_str(), "null" | "nan" | "inf");
    if plain { value.to_owned() } else { format!("{value:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> String {
        edit(text, &[], "istio.io/dataplane-mode", Some("ambient")).unwrap()
    }

    fn unset(text: &str, label: &str) -> String {
        edit(text, &[], label, None).unwrap()
    }

    #[test]
    fn labels_are_made_behind_the_name() {
        let text = "# top\nkind: Namespace\nmetadata: # m\n  name: app # the app\n  annotations: {a: b}\nspec: {}\n";

        assert_eq!(
            set(text),
            "# top\nkind: Namespace\nmetadata: # m\n  name: app # the app\n  labels:\n    istio.io/dataplane-mode: ambient\n  annotations: {a: b}\nspec: {}\n"
        );
    }

    #[test]
    fn a_label_is_added_behind_the_last_one() {
        let text = "metadata:\n    labels:\n      # one\n      a: b # two\n    name: x";

        assert_eq!(
            set(text),
            "metadata:\n    labels:\n      # one\n      a: b # two\n      istio.io/dataplane-mode: ambient\n    name: x"
        );
    }

    #[test]
    fn a_value_is_replaced_where_it_stands() {
        let text = "metadata: {name: x, labels: {istio.io/dataplane-mode: 'none', b: c}} # end\n";

        assert_eq!(set(text), "metadata: {name: x, labels: {istio.io/dataplane-mode: ambient, b: c}} # end\n");
    }

    #[test]
    fn flow_and_json_keep_their_style() {
        assert_eq!(set("metadata: {name: x}\n"), "metadata: {name: x, labels: {istio.io/dataplane-mode: ambient}}\n");
        assert_eq!(
            set("{\"metadata\": {\"name\": \"x\", \"labels\": {\"a\": \"b\"}}}"),
            "{\"metadata\": {\"name\": \"x\", \"labels\": {\"a\": \"b\", \"istio.io/dataplane-mode\": \"ambient\"}}}"
        );
    }

    #[test]
    fn empty_labels_are_filled() {
        assert_eq!(
            set("metadata:\n  labels: {}\n  name: x\n"),
            "metadata:\n  labels: {istio.io/dataplane-mode: ambient}\n  name: x\n"
        );
        assert_eq!(
            set("metadata:\n  labels: # none yet\n  name: x\n"),
            "metadata:\n  labels: {istio.io/dataplane-mode: ambient} # none yet\n  name: x\n"
        );
        assert_eq!(
            set("metadata:\n  labels: ~ # none\n  name: x\n"),
            "metadata:\n  labels: {istio.io/dataplane-mode: ambient} # none\n  name: x\n"
        );
    }

    #[test]
    fn removal_takes_the_line_and_an_empty_heading() {
        assert_eq!(
            unset("metadata:\n  labels:\n    a: b\n    # stays\n    c: \"d\" # goes\n  name: x\n", "c"),
            "metadata:\n  labels:\n    a: b\n    # stays\n  name: x\n"
        );
        assert_eq!(unset("metadata:\n  labels:\n    a: b\n  name: x\n", "a"), "metadata:\n  name: x\n");
        assert_eq!(unset("metadata: {labels: {a: b, c: d}, name: x}\n", "a"), "metadata: {labels: {c: d}, name: x}\n");
        assert_eq!(unset("metadata: {labels: {a: b, c: d}, name: x}\n", "c"), "metadata: {labels: {a: b}, name: x}\n");
        assert_eq!(unset("metadata: {labels: {a: b}}\n", "a"), "metadata: {labels: {}}\n");
        assert_eq!(unset("metadata: {name: x}\n", "a"), "metadata: {name: x}\n");
    }

    #[test]
    fn values_that_yaml_takes_for_something_else_are_quoted() {
        assert_eq!(
            edit("metadata:\n  name: x\n", &[], "a", Some("true")).unwrap(),
            "metadata:\n  name: x\n  labels:\n    a: \"true\"\n"
        );
        assert_eq!(scalar("1.0"), "\"1.0\"");
        assert_eq!(scalar(""), "\"\"");
        assert_eq!(scalar("v1"), "v1");
    }

    #[test]
    fn line_ends_of_other_systems_are_kept() {
        assert_eq!(
            set("metadata:\r\n  name: x\r\n"),
            "metadata:\r\n  name: x\r\n  labels:\r\n    istio.io/dataplane-mode: ambient\r\n"
        );
    }

    #[test]
    fn an_item_of_a_list_is_edited_in_its_place() {
        let text = "kind: List\nitems:\n- metadata: {name: a}\n- metadata:\n    name: b\n";
        let place = [Step::Field("items".to_owned()), Step::Index(1)];

        let edited = edit(text, &place, "x", Some("z")).unwrap();

        assert_eq!(
            edited,
            "kind: List\nitems:\n- metadata: {name: a}\n- metadata:\n    name: b\n    labels:\n      x: z\n"
        );
    }

    #[test]
    fn anchors_aliases_and_merge_keys_are_left_alone() {
        for text in [
            "metadata:\n  name: x\n  labels: &l {a: b}\n",
            "metadata:\n  name: x\n  labels: &l\n    a: b\n",
            "base: &b {a: b}\nmetadata:\n  name: x\n  labels: *b\n",
            "base: &b {a: b}\nmetadata:\n  name: x\n  labels:\n    <<: *b\n",
            "metadata: &m\n  name: x\n",
            "metadata:\n  name: x\n  labels:\n    a: &v b\n",
            "metadata:\n  name: x\n  labels: !!map {a: b}\n",
        ] {
            assert_eq!(edit(text, &[], "k", Some("v")), Err(EditError::Anchor), "{text}");
        }
    }
}
