//! Lists as every `strake get` prints them: a table, a wider one, JSON or YAML, once or again with every change.

use std::{collections::BTreeMap, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::table;
use crate::mesh::ByNode;

/// Pause between two looks of `--watch`.
const INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    Wide,
    Json,
    Yaml,
}

impl Format {
    pub(crate) const fn is_table(self) -> bool {
        matches!(self, Self::Table | Self::Wide)
    }
}

/// Something that is listed.
pub(crate) trait Item: Serialize {
    /// Key of the list in JSON, and word for it in messages.
    const KIND: &'static str;
    const HEADER: &'static [&'static str];
    /// Columns that `-o wide` adds.
    const WIDE: &'static [&'static str];

    /// Name that no other item of a list has.
    fn key(&self) -> String;
    fn cells(&self) -> Vec<String>;
    fn wide_cells(&self) -> Vec<String>;

    /// Lines below the table.
    fn footer(items: &[Self]) -> String
    where
        Self: Sized,
    {
        let _ = items;
        String::new()
    }
}

/// A program that was not heard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Unreachable {
    pub(crate) node: String,
    pub(crate) reason: String,
}

/// A list, and the nodes that it lacks.
#[derive(Debug)]
pub(crate) struct Listing<T> {
    pub(crate) items: Vec<T>,
    pub(crate) unreachable: Vec<Unreachable>,
}

impl<T> Listing<T> {
    /// A list that lacks nothing.
    pub(crate) const fn of(items: Vec<T>) -> Self {
        Self { items, unreachable: Vec::new() }
    }
}

/// The answers of those nodes that gave one, and the others.
pub(crate) fn answers<T>(all: ByNode<T>) -> (Vec<(String, T)>, Vec<Unreachable>) {
    let (mut answers, mut unreachable) = (Vec::new(), Vec::new());
    for (node, answer) in all {
        match answer {
            Ok(answer) => answers.push((node, answer)),
            Err(error) => unreachable.push(Unreachable { node, reason: format!("{error:#}") }),
        }
    }
    (answers, unreachable)
}

/// The options of every list but that of pods.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code: 0; 1 when the mesh or one of its programs does not answer, or a name does not exist; 2 for a wrong command
line. A program that does not answer is named on standard error, and under `unreachable` in JSON and YAML"
)]
pub(crate) struct Options {
    /// Only these names
    pub(crate) names: Vec<String>,
    /// Namespace [default: default; for certificates and connections: all]
    #[arg(short, long, conflicts_with = "all_namespaces")]
    pub(crate) namespace: Option<String>,
    /// All namespaces
    #[arg(short = 'A', long)]
    pub(crate) all_namespaces: bool,
    /// Only as the ztunnel of this node knows it
    #[arg(long, value_name = "NODE")]
    pub(crate) node: Option<String>,
    /// Output format
    #[arg(short, long, default_value = "table")]
    pub(crate) output: Format,
    /// Go on, and print what changes
    #[arg(short, long)]
    pub(crate) watch: bool,
}

impl Options {
    /// The namespace to list; `None`: all.
    pub(crate) fn scope(&self, default: Option<&'static str>) -> Option<&str> {
        if self.all_namespaces { None } else { self.namespace.as_deref().or(default) }
    }

    /// Keeps the answer of the node that is wanted.
    ///
    /// # Errors
    /// When there is no such node.
    pub(crate) fn of_node<T>(&self, mut all: ByNode<T>) -> Result<ByNode<T>> {
        let Some(node) = &self.node else { return Ok(all) };
        if all.iter().all(|(name, _)| name != node) {
            let known: Vec<_> = all.iter().map(|(name, _)| name.as_str()).collect();
            bail!("node {node} not found; there are {}", known.join(", "));
        }
        all.retain(|(name, _)| name == node);
        Ok(all)
    }

    /// A misspelt name must not look like an empty list.
    ///
    /// # Errors
    /// For a name that no item has.
    pub(crate) fn reject_unknown<T: Item>(&self, listing: &Listing<T>, name: impl Fn(&T) -> &str) -> Result<()> {
        let Some(missing) = self.names.iter().find(|wanted| listing.items.iter().all(|item| name(item) != **wanted))
        else {
            return Ok(());
        };
        let silent = match listing.unreachable.as_slice() {
            [] => String::new(),
            [first, ..] => format!("; not every node has answered ({}: {})", first.node, first.reason),
        };
        bail!("{missing} not found among the {}{silent}", T::KIND)
    }
}

/// Prints a list, and with `watch` every change of it until it is stopped.
///
/// # Errors
/// When it cannot be shown. While it is watched, a list that fails is tried again.
pub(crate) async fn show<T: Item>(
    first: Listing<T>,
    output: Format,
    watch: bool,
    list: impl AsyncFn() -> Result<Listing<T>>,
) -> Result<ExitCode> {
    print!("{}", render(&first, output)?);
    if first.items.is_empty() && output.is_table() {
        eprintln!("no {} found", T::KIND);
    }
    warn(&first.unreachable);
    if !watch {
        return Ok(if first.unreachable.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let mut known = first;
    let mut failure = String::new();
    loop {
        sleep(INTERVAL).await;
        let listing = match list().await {
            Ok(listing) => listing,
            Err(error) => {
                let said = format!("{error:#}");
                if said != failure {
                    eprintln!("strake: {said}; trying again");
                    failure = said;
                }
                continue;
            }
        };
        failure.clear();
        if listing.unreachable != known.unreachable {
            warn(&listing.unreachable);
        }
        print!("{}", changes(&known, &listing, output)?);
        known = listing;
    }
}

fn warn(unreachable: &[Unreachable]) {
    for Unreachable { node, reason } in unreachable {
        eprintln!("strake: not in the list: what {node} knows: {reason}");
    }
}

/// The list as it is printed.
///
/// # Errors
/// When an item is not serialisable.
pub(crate) fn render<T: Item>(listing: &Listing<T>, output: Format) -> Result<String> {
    Ok(match output {
        Format::Json => serde_json::to_string_pretty(&value(listing)?)? + "\n",
        Format::Yaml => serde_saphyr::to_string(&value(listing)?)?,
        Format::Table | Format::Wide if listing.items.is_empty() => String::new(),
        Format::Table => table::render(T::HEADER, &rows(listing, output)) + &T::footer(&listing.items),
        Format::Wide => table::render(&[T::HEADER, T::WIDE].concat(), &rows(listing, output)),
    })
}

/// The part of a list that differs from an earlier one; in JSON and YAML all of it, when something does.
fn changes<T: Item>(old: &Listing<T>, new: &Listing<T>, output: Format) -> Result<String> {
    let (before, after) = (by_key(old)?, by_key(new)?);
    if before == after {
        return Ok(String::new());
    }
    match output {
        Format::Json => return Ok(serde_json::to_string(&value(new)?)? + "\n"),
        Format::Yaml => return Ok(format!("---\n{}", serde_saphyr::to_string(&value(new)?)?)),
        Format::Table | Format::Wide => {}
    }
    let header = if output == Format::Wide { [T::HEADER, T::WIDE].concat() } else { T::HEADER.to_vec() };
    // As wide as the whole list, so that columns stay where they are.
    let text = table::render(&header, &rows(new, output));
    let changed = new.items.iter().zip(text.lines().skip(1)).filter(|(item, _)| {
        let key = item.key();
        before.get(&key) != after.get(&key)
    });
    let mut lines: String = changed.map(|(_, line)| format!("{line}\n")).collect();
    for key in before.keys().filter(|key| !after.contains_key(*key)) {
        lines.push_str(&format!("gone: {key}\n"));
    }
    Ok(lines)
}

fn by_key<T: Item>(listing: &Listing<T>) -> Result<BTreeMap<String, Value>> {
    listing.items.iter().map(|item| Ok((item.key(), serde_json::to_value(item)?))).collect()
}

fn value<T: Item>(listing: &Listing<T>) -> Result<Value> {
    let mut value = json!({});
    value[T::KIND] = serde_json::to_value(&listing.items).context("failed to write the list")?;
    if !listing.unreachable.is_empty() {
        value["unreachable"] = json!(listing.unreachable);
    }
    Ok(value)
}

fn rows<T: Item>(listing: &Listing<T>, output: Format) -> Vec<Vec<String>> {
    let cells =
        |item: &T| if output == Format::Wide { [item.cells(), item.wide_cells()].concat() } else { item.cells() };
    listing.items.iter().map(cells).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Serialize)]
    struct Thing {
        name: &'static str,
        size: u32,
    }

    impl Item for Thing {
        const KIND: &'static str = "things";
        const HEADER: &'static [&'static str] = &["NAME"];
        const WIDE: &'static [&'static str] = &["SIZE"];

        fn key(&self) -> String {
            self.name.to_owned()
        }

        fn cells(&self) -> Vec<String> {
            vec![self.name.to_owned()]
        }

        fn wide_cells(&self) -> Vec<String> {
            vec![self.size.to_string()]
        }
    }

    fn things(of: &[(&'static str, u32)]) -> Listing<Thing> {
        Listing::of(of.iter().map(|(name, size)| Thing { name, size: *size }).collect())
    }

    #[test]
    fn a_change_is_a_line_and_what_is_gone_is_named() {
        let (old, new) = (things(&[("a", 1), ("long", 2), ("c", 3)]), things(&[("a", 1), ("c", 4), ("d", 5)]));

        assert_eq!(changes(&old, &new, Format::Wide).unwrap(), "c      4\nd      5\ngone: long\n");
        assert_eq!(changes(&new, &new, Format::Wide).unwrap(), "");
        assert_eq!(changes(&old, &things(&[]), Format::Json).unwrap(), "{\"things\":[]}\n");
    }

    #[test]
    fn who_did_not_answer_is_part_of_the_list() {
        let unreachable = vec![Unreachable { node: "n1".to_owned(), reason: "no".to_owned() }];
        let listing = Listing { unreachable, ..things(&[("a", 1)]) };

        let text = render(&listing, Format::Json).unwrap();

        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["unreachable"][0]["node"], "n1");
        assert_eq!(render(&things(&[]), Format::Table).unwrap(), "");
        assert_eq!(render(&listing, Format::Table).unwrap(), "NAME\na\n");
    }

    #[test]
    fn a_name_that_nothing_has_is_an_error() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            options: Options,
        }
        let options = |words: &[&str]| <Line as clap::Parser>::parse_from([&["x"], words].concat()).options;

        assert!(options(&["a"]).reject_unknown(&things(&[("a", 1)]), |thing| thing.name).is_ok());
        let error = options(&["a", "b"]).reject_unknown(&things(&[("a", 1)]), |thing| thing.name).unwrap_err();
        assert_eq!(error.to_string(), "b not found among the things");
        assert_eq!(options(&["-A"]).scope(Some("default")), None);
        assert_eq!(options(&["-n", "x"]).scope(Some("default")), Some("x"));
        assert_eq!(options(&[]).scope(Some("default")), Some("default"));
        let error = options(&["--node", "n3"]).of_node(vec![("n1".to_owned(), Ok(()))]).unwrap_err();
        assert_eq!(error.to_string(), "node n3 not found; there are n1");
    }
}
