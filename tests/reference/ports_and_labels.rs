//! `ports.md` and `labels.md`: numbers and names that programs, manifests and peers agree on, from the constants of the
//! crate `contract`.

use crate::{
    page,
    source::{self, Item},
};

const PORTS: &str = "\
# Ports

Ports of Strake's programs, from `crates/contract/src/ports.rs`. Those of a pod's proxy are in the network namespace of each enrolled pod; the
others are the defaults of the programs, which their settings change (`command-line.md`, `environment.md`).

";

const LABELS: &str = "\
# Labels and annotations

Labels and annotations that Strake's programs read or write, from `crates/contract/src/labels.rs`. Those that are Istio's have Istio's meaning, as far as
this mesh supports it: `docs/guide/findings.md` names the findings about the others.

";

fn is_number(item: &Item) -> bool {
    item.value.parse::<u16>().is_ok()
}

#[test]
fn every_port_is_on_its_page() {
    let code = source::read("crates/contract/src/ports.rs");
    let items = source::items(&code);
    let ports = items.iter().filter(|item| is_number(item));
    let mut rows: Vec<(u16, String)> = ports
        .map(|item| {
            let (program, purpose) = item.paragraphs[0].split_once(": ").unwrap_or(("", &item.paragraphs[0]));
            (item.value.parse().unwrap(), page::row(&[&item.value, program, purpose]))
        })
        .collect();
    rows.sort();
    assert_eq!(rows.len(), code.matches(": u16 = ").count(), "a port without a doc comment");

    let rows: String = rows.into_iter().map(|(_, row)| row).collect();
    page::check("ports.md", &(PORTS.to_owned() + &page::head(&["Port", "Program", "Purpose"]) + &rows));
}

/// Kind of a key, which the end of the constant's name says.
fn kind(item: &Item) -> &'static str {
    match item.name.rsplit('_').next() {
        Some("LABEL") => "label",
        Some("ANNOTATION") => "annotation",
        Some("TAINT") => "taint",
        _ => "label or annotation",
    }
}

#[test]
fn every_label_and_annotation_is_on_its_page() {
    let code = source::read("crates/contract/src/labels.rs");
    let items = source::items(&code);
    assert_eq!(items.len(), code.matches(": &str = ").count(), "a key without a doc comment");
    let text = |item: &Item| item.value.trim_matches('"').to_owned();
    let value_of = |item: &Item| item.paragraphs[0].strip_prefix("Value of `").map(str::to_owned);
    let (values, keys): (Vec<&Item>, Vec<&Item>) = items.iter().partition(|item| value_of(item).is_some());
    let row = |key: &&Item| {
        let own = values.iter().filter_map(|item| {
            let rest = value_of(item)?;
            let (_, meaning) = rest.split_once(&format!("{}`", key.name)).filter(|(before, _)| before.is_empty())?;
            Some(format!("`{}`{}", text(item), meaning.trim_end_matches('.').replacen(" for", ": for", 1)))
        });
        let own = own.collect::<Vec<_>>().join("; ");
        page::row(&[&format!("`{}`", text(key)), kind(key), &key.paragraphs[0], &own])
    };
    let rows: String = keys.iter().map(row).collect();

    page::check("labels.md", &(LABELS.to_owned() + &page::head(&["Key", "Kind", "Meaning", "Values"]) + &rows));
}
