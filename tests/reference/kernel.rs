//! `kernel-programs.md`: the kernel programs with their instruction counts, and the maps they share.
//!
//! Counts are those of the compiled objects. They differ a little between versions of the compiler, so a count on the page
//! that is within [`TOLERANCE_PERCENT`] of the real one stays; one that is further away fails the test.

use std::{env, fs, path::PathBuf};

use aya_obj::Object;
use ebpf_common::{layout, names};

use crate::{
    page,
    source::{self, Item},
};

const PROGRAMS: &str = "\
# Kernel programs

The programs of `ebpf/programs`, from their sources and from the compiled objects. `docs/architecture.md` shows what they do together.

Instructions are those of the object; the kernel's own count after rewriting is a little higher. They were counted when this page was written, with the
compiler that `cargo xtask ebpf` uses: a difference of up to 10 % does not change the page.

";

const MAPS: &str = "
## Maps

Pinned below the agent's directory on bpffs, in a directory of their own for each layout. A socket or namespace is known by its cookie.

";

/// Difference between a recorded and a real instruction count that is allowed.
const TOLERANCE_PERCENT: u64 = 10;

/// Sources of the programs.
const SOURCES: &str = "ebpf/programs/src";

/// Directory of the compiled objects, as for the build script of the loader.
fn objects() -> PathBuf {
    env::var_os("STRAKE_EBPF_OBJ_DIR").map_or_else(|| source::path("target/ebpf"), PathBuf::from)
}

/// Number of instructions of a program.
fn instructions(program: &str) -> u64 {
    for object in ["mesh", "sk_lookup"] {
        let path = objects().join(object);
        let bytes = fs::read(&path).unwrap_or_else(|error| {
            panic!("failed to read {}: {error}; `cargo xtask ebpf` compiles it", path.display())
        });
        let object = Object::parse(&bytes).unwrap();
        if let Some(found) = object.programs.get(program) {
            return object.functions[&found.function_key()].instructions.len() as u64;
        }
    }
    panic!("no object has the program {program}")
}

/// Count to write on the page: the recorded one as long as it is near the real one.
fn count(program: &str, recorded: &str) -> u64 {
    let real = instructions(program);
    let row = recorded.lines().find(|line| line.starts_with(&format!("| `{program}` |")));
    let number = row.and_then(|row| row.split('|').nth_back(1)).and_then(|cell| cell.trim().parse::<u64>().ok());
    number.filter(|number| real.abs_diff(*number) * 100 <= real * TOLERANCE_PERCENT).unwrap_or(real)
}

/// Module documentation of the file that has a program.
fn documentation(program: &str) -> Vec<String> {
    let needle = format!("fn {program}(");
    let files = source::files_below(SOURCES).into_iter().map(|path| source::read(&path));
    let code = files.into_iter().find(|code| code.contains(&needle));
    source::module_doc(&code.unwrap_or_else(|| panic!("no source has {needle}")))
}

fn program_row(name: &str, items: &[Item], recorded: &str) -> String {
    let item = items.iter().find(|item| item.value == format!("\"{name}\"")).unwrap();
    let doc = documentation(name).join(" ");
    let needs = doc
        .split_once("Hook: ")
        .or_else(|| doc.split_once("Hooks: "))
        .map_or("", |(_, needs)| needs.trim_end_matches('.'));
    let count = count(name, recorded).to_string();
    let hook = item.paragraphs[0].trim_end_matches('.');
    page::row(&[&format!("`{name}`"), hook, source::first_sentence(&doc), needs, &count])
}

fn map_row(map: &layout::MapLayout, items: &[Item]) -> String {
    let item = items.iter().find(|item| item.name == map.name).unwrap();
    let [content, life] = [0, 1].map(|index| item.paragraphs.get(index).map_or("", String::as_str));
    let entries = if map.entries == 0 { "no limit".to_owned() } else { map.entries.to_string() };
    let bytes = format!("{} -> {}", map.key_bytes, map.value_bytes);
    page::row(&[&format!("`{}`", map.name), content, &bytes, &entries, life])
}

#[test]
fn every_kernel_program_and_map_is_on_its_page() {
    let recorded = page::recorded("kernel-programs.md");
    let program_items = source::items(&source::read("ebpf/common/src/names.rs"));
    let map_items = source::items(&source::read("ebpf/programs/src/maps.rs"));
    let programs = names::PROGRAMS.map(|name| program_row(name, &program_items, &recorded));
    let maps = layout::MAPS.map(|map| map_row(&map, &map_items));

    let text = [
        PROGRAMS.to_owned(),
        page::head(&["Program", "Hook", "On failure", "Needs", "Instructions"]),
        programs.concat(),
        MAPS.to_owned(),
        format!("This is layout {}.\n\n", layout::LAYOUT),
        page::head(&["Map", "Content", "Bytes of key -> value", "Entries", "Life"]),
        maps.concat(),
    ];
    page::check("kernel-programs.md", &text.concat());
}
