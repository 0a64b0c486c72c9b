//! Lists Strake's programs and entries in the kernel, for readers: nothing is loaded, attached or made.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::Hash,
    os::fd::AsFd,
    path::Path,
};

use aya::Pod;
use ebpf_common::{LocalKey, PodConfig, ProbePorts, SocketKey, names};

use crate::{
    LoadError,
    map::Map,
    pins::Pins,
    survey::{described, links, lookup_at},
};

/// Strake's programs that are attached to a network namespace, each with its link.
///
/// # Errors
/// When the kernel's links cannot be listed (needs `CAP_SYS_ADMIN`).
pub fn links_at(netns: impl AsFd) -> Result<Vec<String>, LoadError> {
    let here = lookup_at(netns.as_fd())?;
    Ok(links()?.complete()?.at(here).iter().map(described).collect())
}

/// Netns cookies of which the maps pinned below a node's `bpffs_dir` hold something, by the name of the map: entered pods
/// (`PODS`), listeners (`SOCKS`), declared probes (`PROBES`), further addresses (`LOCALS`, `LOCALS_USED`).
///
/// # Errors
/// When nothing is pinned there.
pub fn cookies(bpffs_dir: &Path) -> Result<BTreeMap<&'static str, BTreeSet<u64>>, LoadError> {
    let pins = Pins::at(bpffs_dir);
    Ok(BTreeMap::from([
        (names::PODS, keys::<u64, PodConfig>(&pins, names::PODS)?.into_iter().collect()),
        (names::SOCKS, keys::<SocketKey, u64>(&pins, names::SOCKS)?.iter().map(|key| key.netns_cookie).collect()),
        (names::PROBES, keys::<u64, ProbePorts>(&pins, names::PROBES)?.into_iter().collect()),
        (names::LOCALS_USED, keys::<u64, u64>(&pins, names::LOCALS_USED)?.into_iter().collect()),
        (names::LOCALS, keys::<LocalKey, u64>(&pins, names::LOCALS)?.iter().map(|key| key.netns_cookie).collect()),
    ]))
}

/// A pod's entry in the map `PODS` of a node.
///
/// # Errors
/// When nothing is pinned below `bpffs_dir`.
pub fn pod(bpffs_dir: &Path, netns_cookie: u64) -> Result<Option<PodConfig>, LoadError> {
    let pods: Map<u64, PodConfig> = Map::open(&Pins::at(bpffs_dir).map(names::PODS))?;
    pods.get(&netns_cookie).map_err(LoadError::kernel("read pod", netns_cookie))
}

fn keys<K, V>(pins: &Pins, name: &'static str) -> Result<Vec<K>, LoadError>
where
    K: Pod + Default + Eq + Hash,
    V: Pod + Default,
{
    Map::<K, V>::open(&pins.map(name))?.keys().map_err(LoadError::kernel("list", name))
}
