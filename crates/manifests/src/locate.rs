//! Finds the lines of fields in manifests, when somebody asks: no place is kept for what is in order.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::chunk;
use crate::decode;
use crate::document::{Node, Step};
use crate::load;
use kube_types::ObjectRef;

/// Place of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub file: PathBuf,
    /// Line, from 1, of the deepest part of the path that the manifest has.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// Places of fields of objects, in the order in which they are wanted; `None` where no manifest below `roots` defines the
/// object. A field is a path, as `spec.rules[0].from[0]`; an empty one is the object. It blocks on reading files.
pub fn locate(roots: &[PathBuf], wanted: &[(&ObjectRef, &str)]) -> Vec<Option<Place>> {
    let mut search = Search { found: vec![None; wanted.len()], wanted: BTreeMap::new() };
    for (index, (object, field)) in wanted.iter().enumerate() {
        search.wanted.entry(object).or_default().push((index, steps(field)));
    }
    for root in roots {
        search.path(root);
    }
    search.found
}

struct Search<'a> {
    /// Positions in the answer, and paths, by object.
    wanted: BTreeMap<&'a ObjectRef, Vec<(usize, Vec<Step>)>>,
    found: Vec<Option<Place>>,
}

impl Search<'_> {
    fn path(&mut self, path: &Path) {
        // A place is an addition to a message; what cannot be read is reported by the source.
        let Ok((files, _)) = load::texts(path) else { return };
        for (file, text) in files {
            if let Ok(text) = text {
                self.file(&file, &text);
            }
        }
    }

    fn file(&mut self, path: &Path, text: &str) {
        // Most files have none of the objects: they are not parsed.
        let mentions = |text: &str| self.wanted.keys().any(|object| text.contains(&object.name));
        if !mentions(text) {
            return;
        }
        let chunks: Vec<_> = chunk::split(text).into_iter().filter(|chunk| mentions(chunk.text)).collect();
        for chunk in chunks {
            // A document with a mistake defines nothing that is in force.
            if let Ok(node) = chunk.parse() {
                self.document(path, chunk.line, &node);
            }
        }
    }

    fn document(&mut self, path: &Path, line: usize, document: &Node) {
        for object in decode::objects(document) {
            let Ok(key) = decode::key(object.kind, &mut object.node.to_value()) else { continue };
            for (index, steps) in self.wanted.get(&key).into_iter().flatten() {
                // Both count from 1.
                let place = Place { file: path.to_owned(), line: line + object.node.line_of(steps).saturating_sub(1) };
                if let Some(found) = self.found.get_mut(*index) {
                    // Of several definitions the first is in force.
                    found.get_or_insert(place);
                }
            }
        }
    }
}

/// The steps of a path; what is not a path has none, so that it is the object's place.
fn steps(field: &str) -> Vec<Step> {
    let (mut steps, mut rest) = (Vec::new(), field);
    while !rest.is_empty() {
        let step;
        (step, rest) = match rest.strip_prefix('[') {
            Some(inner) if inner.starts_with('"') => match inner[1..].split_once("\"]") {
                Some((name, after)) => (Step::Field(name.to_owned()), after),
                None => return Vec::new(),
            },
            Some(inner) => match inner.split_once(']').and_then(|(index, after)| Some((index.parse().ok()?, after))) {
                Some((index, after)) => (Step::Index(index), after),
                None => return Vec::new(),
            },
            None => {
                let rest = rest.strip_prefix('.').unwrap_or(rest);
                let end = rest.find(['.', '[']).unwrap_or(rest.len());
                (Step::Field(rest[..end].to_owned()), &rest[end..])
            }
        };
        steps.push(step);
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::display_path;
    use kube_types::Kind;

    const MANIFEST: &str = "# policies
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: web
  namespace: shop
  labels:
    istio.io/rev: stable
spec:
  rules:
  - to:
    - operation:
        ports:
        - \"80\"
        - \"81\"
";

    #[test]
    fn a_field_is_found_by_its_path() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("sub")).unwrap();
        let file = directory.path().join("sub/web.yaml");
        std::fs::write(&file, MANIFEST).unwrap();
        std::fs::write(directory.path().join("broken.yaml"), "web: [").unwrap();
        let web = ObjectRef::new(Kind::AuthorizationPolicy, "shop", "web");
        let other = ObjectRef::new(Kind::AuthorizationPolicy, "shop", "other");

        let found = locate(
            &[directory.path().to_owned()],
            &[
                (&web, "spec.rules[0].to[0].operation.ports[1]"),
                (&web, "metadata.labels[\"istio.io/rev\"]"),
                (&web, ""),
                (&web, "spec.selector.matchLabels.app"),
                (&other, "spec"),
            ],
        );

        let lines: Vec<_> = found.iter().map(|place| place.as_ref().map(|place| place.line)).collect();
        assert_eq!(lines[..2], [Some(19), Some(12)]);
        assert!(lines[2].is_some_and(|line| (5..=6).contains(&line)), "{lines:?}");
        assert_eq!(lines[3..], [Some(13), None], "the deepest part that is there");
        assert!(found.iter().flatten().all(|place| place.file == file));
    }

    #[test]
    fn an_item_of_a_list_is_found_too() {
        let directory = tempfile::tempdir().unwrap();
        let items: String = MANIFEST
            .split("---\n")
            .map(|document| {
                let lines = document.lines().filter(|line| !line.starts_with('#')).enumerate();
                let lines = lines.map(|(number, line)| format!("{} {line}\n", if number == 0 { "-" } else { " " }));
                lines.collect::<String>()
            })
            .collect();
        std::fs::write(directory.path().join("all.yaml"), format!("apiVersion: v1\nkind: List\nitems:\n{items}"))
            .unwrap();
        let namespace = ObjectRef::new(Kind::Namespace, "", "shop");
        let web = ObjectRef::new(Kind::AuthorizationPolicy, "shop", "web");

        let wanted = [(&namespace, ""), (&web, "spec.rules[0].to[0].operation.ports[1]"), (&web, "")];
        let found = locate(&[directory.path().to_owned()], &wanted);

        let lines: Vec<_> = found.iter().map(|place| place.as_ref().map(|place| place.line)).collect();
        assert_eq!(lines, [Some(4), Some(20), Some(7)]);
    }

    #[test]
    fn a_path_is_read_as_it_is_written() {
        for path in ["spec.rules[0].to[1].operation.ports[2]", "metadata.labels[\"istio.io/rev\"]", "spec", ""] {
            assert_eq!(display_path(&steps(path)), path);
        }
        assert_eq!(steps("a[x]"), []);
    }
}
