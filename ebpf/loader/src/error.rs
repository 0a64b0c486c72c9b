//! Errors of setting up or changing steering.

use std::{io, path::PathBuf};

use ebpf_common::{LAYOUT, layout::MapLayout};

use crate::probe::Unsupported;

/// Nothing is half done when one of these comes back: what was attached before stays attached.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The kernel lacks something.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// The cgroup root is not a directory of a cgroup v2 hierarchy.
    #[error("{path} is not in a cgroup v2 hierarchy")]
    NotCgroup2 {
        /// Path that was configured.
        path: PathBuf,
    },
    /// Pins would not live there.
    #[error("{path} is not on a bpf file system: mount -t bpf bpf {path}")]
    NotBpffs {
        /// Path that was configured.
        path: PathBuf,
    },
    /// Another version's maps are pinned, whose contents this one cannot read.
    #[error(
        "{path} was pinned by a version with other map layouts (this one has layout {LAYOUT}): run \
         `strake-agent uninstall`, of this version or that one; pods then bypass the proxy until they are enrolled anew"
    )]
    OtherLayout {
        /// The pins found.
        path: PathBuf,
    },
    /// A map is pinned under this layout's number and is another: programs would count or look up in vain.
    #[error(
        "the map {path} is not the one of layout {LAYOUT} ({found:?}, expected {expected:?}): uninstall with the \
         version that pinned it, or remove the directory; pods then bypass the proxy until they are enrolled anew"
    )]
    OtherMap {
        /// Path of the pin.
        path: PathBuf,
        /// Map that is pinned.
        found: Box<MapLayout>,
        /// Map that this version would pin.
        expected: Box<MapLayout>,
    },
    /// Every socket of the node would count as the proxy's, and nothing would be captured.
    #[error("cgroup {path} holds the whole node: it must lie below the cgroup root")]
    TagsEverything {
        /// The cgroup that was to be tagged.
        path: PathBuf,
    },
    /// An object does not parse, or its maps cannot be made.
    #[error("kernel object {object} does not load")]
    Object {
        /// `mesh` or `sk_lookup`.
        object: &'static str,
        /// From aya.
        #[source]
        source: Box<aya::EbpfError>,
    },
    /// The verifier refuses a program.
    #[error("the kernel refuses program {program}")]
    Program {
        /// As `bpftool prog` would show it.
        program: String,
        /// From aya, with the verifier's words.
        #[source]
        source: Box<aya::programs::ProgramError>,
    },
    /// An object lacks a program or map, or one has another size: built from other sources.
    #[error("kernel object {object} and this program do not belong together: {what}")]
    Mismatch {
        /// `mesh` or `sk_lookup`.
        object: &'static str,
        /// Part that is missing or different.
        what: String,
    },
    /// Everything was taken off, and the kernel says otherwise.
    #[error("still attached: {}", left.join(", "))]
    StillAttached {
        /// Links and their programs.
        left: Vec<String>,
    },
    /// A system call failed.
    #[error("cannot {action} {subject}")]
    Kernel {
        /// Action that was tried.
        action: &'static str,
        /// On what.
        subject: String,
        /// Error of the kernel.
        #[source]
        source: io::Error,
    },
}

impl LoadError {
    /// For `map_err` of system calls.
    pub(crate) fn kernel(action: &'static str, subject: impl ToString) -> Box<dyn FnOnce(io::Error) -> Self> {
        let subject = subject.to_string();
        Box::new(move |source| Self::Kernel { action, subject, source })
    }
}
