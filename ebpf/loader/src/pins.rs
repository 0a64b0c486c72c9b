//! Paths of pins, below one directory on bpffs:
//!
//! ```text
//! layout-<n>/maps/<map>
//! layout-<n>/root/<program>                 links at the cgroup root
//! layout-<n>/cgroups/<program>_<cgroup id>  links of proxy and probers
//! layout-<n>/pods/<netns cookie>            links of the pods' sk_lookup programs
//! ```

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use ebpf_common::layout::{self, LAYOUT};
use rustix::fs::statfs;

use crate::{LoadError, map};

/// `BPF_FS_MAGIC`.
const BPFFS_MAGIC: u64 = 0xcafe_4a11;

/// The directories of one layout.
#[derive(Debug, Clone)]
pub(crate) struct Pins {
    base: PathBuf,
}

impl Pins {
    /// Makes the directories, unless another layout is there or what is there is not what its number says.
    pub(crate) fn prepare(bpffs_dir: &Path) -> Result<Self, LoadError> {
        let failed = |path: &Path| LoadError::kernel("make the directory", path.display());
        fs::create_dir_all(bpffs_dir).map_err(failed(bpffs_dir))?;
        let filesystem = statfs(bpffs_dir).map_err(|err| failed(bpffs_dir)(err.into()))?;
        if filesystem.f_type as u64 != BPFFS_MAGIC {
            return Err(LoadError::NotBpffs { path: bpffs_dir.to_path_buf() });
        }
        // Before anything is pinned: links of another layout still steer, by maps that this version would never fill.
        if let Some(path) = other_layouts(bpffs_dir)?.into_iter().next() {
            return Err(LoadError::OtherLayout { path });
        }
        let pins = Self::at(bpffs_dir);
        for map in &layout::MAPS {
            map::check(map, &pins.map(map.name))?;
        }
        for directory in [pins.maps(), pins.root(), pins.cgroups(), pins.pods()] {
            fs::create_dir_all(&directory).map_err(failed(&directory))?;
        }
        Ok(pins)
    }

    /// The directories as they should be, whether they are there or not.
    pub(crate) fn at(bpffs_dir: &Path) -> Self {
        Self { base: bpffs_dir.join(format!("layout-{LAYOUT}")) }
    }

    pub(crate) fn maps(&self) -> PathBuf {
        self.base.join("maps")
    }

    pub(crate) fn map(&self, name: &str) -> PathBuf {
        self.maps().join(name)
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.base.join("root")
    }

    pub(crate) fn root_link(&self, program: &str) -> PathBuf {
        self.root().join(program)
    }

    pub(crate) fn cgroups(&self) -> PathBuf {
        self.base.join("cgroups")
    }

    pub(crate) fn cgroup_link(&self, program: &str, cgroup_id: u64) -> PathBuf {
        self.cgroups().join(format!("{program}_{cgroup_id}"))
    }

    /// Program and cgroup of every pinned tag link.
    pub(crate) fn cgroup_links(&self) -> Result<Vec<(String, u64, PathBuf)>, LoadError> {
        let parse = |path: PathBuf| {
            // From the right: names of programs have underscores, too.
            let (program, id) = path.file_name()?.to_str()?.rsplit_once('_')?;
            Some((program.to_owned(), id.parse().ok()?, path))
        };
        Ok(entries(&self.cgroups())?.into_iter().filter_map(parse).collect())
    }

    pub(crate) fn pods(&self) -> PathBuf {
        self.base.join("pods")
    }

    pub(crate) fn pod_link(&self, netns_cookie: u64) -> PathBuf {
        self.pods().join(netns_cookie.to_string())
    }

    /// The pods that have a pinned link.
    pub(crate) fn pod_links(&self) -> Result<Vec<u64>, LoadError> {
        let parse = |path: PathBuf| path.file_name()?.to_str()?.parse().ok();
        Ok(entries(&self.pods())?.into_iter().filter_map(parse).collect())
    }

    /// Removes what is left: maps and directories.
    pub(crate) fn remove_all(&self) -> Result<(), LoadError> {
        match fs::remove_dir_all(&self.base) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => {
                Err(LoadError::kernel("remove", self.base.display())(err))
            }
            _ => Ok(()),
        }
    }
}

/// Directories of pins with another layout than this version's.
pub(crate) fn other_layouts(bpffs_dir: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let own = Pins::at(bpffs_dir).base;
    Ok(entries(bpffs_dir)?.into_iter().filter(|path| is_layout(path) && *path != own).collect())
}

fn is_layout(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"layout-"))
}

/// Lists a directory; empty when there is none.
pub(crate) fn entries(directory: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let listed = match fs::read_dir(directory) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed.and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect()),
    };
    let mut paths: Vec<PathBuf> = listed.map_err(LoadError::kernel("list", directory.display()))?;
    paths.sort();
    Ok(paths)
}
