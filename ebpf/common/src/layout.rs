//! Layout of what is pinned: the maps as the kernel describes them. One list, read by the programs
//! (number of entries), by the loader (are the pinned maps of this layout?) and by the test below.

use crate::{
    Admission, Counter, DnsPeer, LOCALS_PER_POD, LocalKey, PodConfig, ProbePorts, SocketKey, Tag, Tuple, names,
};

/// Version of the maps and of what their bytes mean. Part of the directory in which maps are pinned, so
/// that programs of one layout never open maps of another.
///
/// 5: DNS. 4: sockets between application and proxy are confined to `lo`. 3: probes that pods declare, a share of `LOCALS` for each pod. 2: what is pinned is compared with [`MAPS`]. 1: it was not, and maps with fewer counters have that number too.
pub const LAYOUT: u32 = 5;

/// `BPF_MAP_TYPE_HASH`.
const HASH: u32 = 1;
/// `BPF_MAP_TYPE_PERCPU_ARRAY`.
const PERCPU_ARRAY: u32 = 6;
/// `BPF_MAP_TYPE_LRU_HASH`.
const LRU_HASH: u32 = 9;
/// `BPF_MAP_TYPE_SOCKHASH`.
const SOCKHASH: u32 = 18;
/// `BPF_MAP_TYPE_SK_STORAGE`.
const SK_STORAGE: u32 = 24;

/// `BPF_F_NO_PREALLOC`.
const NO_PREALLOC: u32 = 1;
/// `BPF_F_CLONE`: accepted sockets get a copy. Needs Linux 5.4.
const CLONE: u32 = 1 << 9;

/// One map as `struct bpf_map_info` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapLayout {
    /// One of [`names::MAPS`].
    pub name: &'static str,
    /// A `BPF_MAP_TYPE_*`.
    pub kind: u32,
    /// Bytes of a key.
    pub key_bytes: u32,
    /// Bytes of a value.
    pub value_bytes: u32,
    /// Most elements; 0 where the kernel sets no limit.
    pub entries: u32,
    /// `BPF_F_*`.
    pub flags: u32,
}

/// Pods that can be enrolled on one node.
pub const PODS_ENTRIES: usize = 1024;
/// Listeners of the proxy that can be noted: four kinds and two families for each pod.
pub const SOCKS_ENTRIES: usize = 8192;
/// Connections that can be admitted past the proxy at a time.
pub const ADMITTED_ENTRIES: usize = 65536;
/// Further addresses of all pods together: each pod's share is there whatever the others have.
pub const LOCALS_ENTRIES: usize = PODS_ENTRIES * LOCALS_PER_POD as usize;
/// Flags of `LOCALS`: memory is allocated for each entry when it is made.
pub const LOCALS_FLAGS: usize = NO_PREALLOC as usize;
/// One for each [`Counter`].
pub const COUNTERS_ENTRIES: usize = Counter::ALL.len();
/// Flags of `DNS_PEERS`: accepted sockets get no copy.
pub const DNS_PEERS_FLAGS: usize = NO_PREALLOC as usize;
/// Flags of `TAGS`.
pub const TAGS_FLAGS: usize = (NO_PREALLOC | CLONE) as usize;

/// Every pinned map.
pub const MAPS: [MapLayout; names::MAPS.len()] = [
    map::<u64, PodConfig>(names::PODS, HASH, PODS_ENTRIES, 0),
    map::<SocketKey, u64>(names::SOCKS, SOCKHASH, SOCKS_ENTRIES, 0),
    map::<i32, Tag>(names::TAGS, SK_STORAGE, 0, TAGS_FLAGS),
    map::<Tuple, Admission>(names::ADMITTED, LRU_HASH, ADMITTED_ENTRIES, 0),
    map::<u64, ProbePorts>(names::PROBES, HASH, PODS_ENTRIES, 0),
    map::<LocalKey, u64>(names::LOCALS, HASH, LOCALS_ENTRIES, LOCALS_FLAGS),
    map::<u64, u64>(names::LOCALS_USED, HASH, PODS_ENTRIES, 0),
    map::<i32, DnsPeer>(names::DNS_PEERS, SK_STORAGE, 0, DNS_PEERS_FLAGS),
    map::<u32, u64>(names::COUNTERS, PERCPU_ARRAY, COUNTERS_ENTRIES, 0),
];

// The sizes come from the types, so that a changed struct is a changed layout.
const fn map<K, V>(name: &'static str, kind: u32, entries: usize, flags: usize) -> MapLayout {
    let (key_bytes, value_bytes) = (size_of::<K>() as u32, size_of::<V>() as u32);
    MapLayout { name, kind, key_bytes, value_bytes, entries: entries as u32, flags: flags as u32 }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::{env, fs, mem::offset_of, path::Path, string::String, vec::Vec};

    use super::*;
    use crate::{Address, F_BYPASS_IN, F_DNS, F_IN, F_OUT, Family, Kind, TAG_PROBER, TAG_PROXY};

    macro_rules! fields {
        ($type:ident: $($field:ident)*) => {
            std::format!("{}: {} bytes", stringify!($type), size_of::<$type>())
                + $(&std::format!(", {} at {}", stringify!($field), offset_of!($type, $field)) +)* "\n"
        };
    }

    /// Everything that two versions must agree upon to share maps.
    fn description() -> String {
        let maps = MAPS.map(|map| {
            let MapLayout { name, kind, key_bytes, value_bytes, entries, flags } = map;
            std::format!(
                "{name}: type {kind}, keys of {key_bytes} and values of {value_bytes} bytes, {entries} entries, flags {flags:#x}\n"
            )
        });
        let structs = [
            fields!(PodConfig: flags interface out_port in_port hbone_port dns_port ipv4 ipv6),
            fields!(SocketKey: netns_cookie kind family),
            fields!(Tag: flags kind confined_to),
            fields!(Tuple: source destination source_port destination_port),
            fields!(Admission: since_ns netns_cookie reason pad),
            fields!(ProbePorts: ports),
            fields!(LocalKey: netns_cookie address),
            fields!(DnsPeer: nameserver proxy proxy_port pad),
            fields!(Address: words_be),
        ];
        let flags = std::format!(
            "pod flags: out {F_OUT}, in {F_IN}, dns {F_DNS}, bypass_in {F_BYPASS_IN}\ntag flags: proxy {TAG_PROXY}, prober {TAG_PROBER}\n"
        );
        let kinds = Kind::ALL.map(|kind| std::format!("kind {}: {}\n", kind as u32, kind.name()));
        let families = Family::ALL.map(|family| std::format!("family {}: {family:?}\n", family as u32));
        let counters = Counter::ALL.iter().map(|one| std::format!("counter {}: {}\n", *one as u32, one.name()));
        let parts: Vec<String> =
            maps.into_iter().chain(structs).chain([flags]).chain(kinds).chain(families).chain(counters).collect();
        parts.concat()
    }

    #[test]
    fn a_layout_keeps_its_number_only_as_long_as_nothing_of_it_changes() {
        let recorded = Path::new(env!("CARGO_MANIFEST_DIR")).join(std::format!("layouts/{LAYOUT}.txt"));

        let known = fs::read_to_string(&recorded).unwrap_or_default();

        let now = description();
        if known != now {
            let draft = env::temp_dir().join(std::format!("layout-{}.txt", std::process::id()));
            fs::write(&draft, &now).unwrap();
            panic!(
                "this is not layout {LAYOUT}: raise LAYOUT and record the new one beside {} (it is in {})\n{now}",
                recorded.display(),
                draft.display()
            );
        }
    }

    #[test]
    fn every_map_that_is_pinned_has_a_layout() {
        assert_eq!(MAPS.map(|map| map.name), names::MAPS);
    }
}
