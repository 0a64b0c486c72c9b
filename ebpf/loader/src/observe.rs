//! What of ours is in the kernel, for those who only look: nothing is loaded, attached or made.

use std::{os::fd::AsFd, path::Path};

use ebpf_common::{PodConfig, names};

use crate::{
    LoadError,
    map::Map,
    pins::Pins,
    survey::{described, links, lookup_at},
};

/// Programs of ours that are attached to a network namespace, each with its link.
///
/// # Errors
/// When the kernel's links cannot be listed (needs `CAP_SYS_ADMIN`).
pub fn links_at(netns: impl AsFd) -> Result<Vec<String>, LoadError> {
    let here = lookup_at(netns.as_fd())?;
    Ok(links()?.remove(&here).unwrap_or_default().iter().map(described).collect())
}

/// Netns cookies of the pods in the pinned map of a node.
///
/// # Errors
/// When nothing is pinned below `bpffs_dir`.
pub fn pods(bpffs_dir: &Path) -> Result<Vec<u64>, LoadError> {
    let pods: Map<u64, PodConfig> = Map::open(&Pins::at(bpffs_dir).map(names::PODS))?;
    pods.keys().map_err(LoadError::kernel("read", names::PODS))
}
