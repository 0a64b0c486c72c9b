//! One object as several proxies know it.

use std::collections::BTreeMap;

/// Nodes whose proxies know an object, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known<T> {
    /// As the first proxy knows it.
    pub(crate) object: T,
    /// Nodes whose proxies know exactly that.
    pub(crate) nodes: Vec<String>,
    /// Nodes whose proxies know another version.
    pub(crate) differing: Vec<String>,
}

/// Objects by key, over the dumps of all nodes.
pub(crate) fn merge<T: PartialEq>(
    dumps: impl IntoIterator<Item = (String, Vec<T>)>,
    key: impl Fn(&T) -> String,
) -> BTreeMap<String, Known<T>> {
    let mut merged: BTreeMap<String, Known<T>> = BTreeMap::new();
    for (node, objects) in dumps {
        for object in objects {
            match merged.get_mut(&key(&object)) {
                Some(known) if known.object == object => known.nodes.push(node.clone()),
                Some(known) => known.differing.push(node.clone()),
                None => {
                    let (name, nodes) = (key(&object), vec![node.clone()]);
                    merged.insert(name, Known { object, nodes, differing: Vec::new() });
                }
            }
        }
    }
    merged
}

impl<T> Known<T> {
    /// Cell of a table: how many of the proxies that were asked know it so.
    pub(crate) fn count(nodes: &[String], differing: &[String], asked: usize) -> String {
        let differs = match differing {
            [] => String::new(),
            differing => format!(" (differs on {})", differing.join(", ")),
        };
        format!("{}/{asked}{differs}", nodes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_that_knows_another_version_is_named() {
        let dumps = [("n1", vec![("a", 1), ("b", 1)]), ("n2", vec![("a", 2)]), ("n3", vec![("a", 1)])];

        let merged = merge(dumps.map(|(node, objects)| (node.to_owned(), objects)), |(name, _)| (*name).to_owned());

        assert_eq!(
            (merged["a"].nodes.join(" "), merged["a"].differing.join(" ")),
            ("n1 n3".to_owned(), "n2".to_owned())
        );
        let a = &merged["a"];
        assert_eq!(Known::<()>::count(&a.nodes, &a.differing, 3), "2/3 (differs on n2)");
        assert_eq!(merged["b"].nodes, ["n1"]);
    }
}
