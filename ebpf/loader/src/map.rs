//! A pinned map with typed keys and values.

use std::{
    collections::HashSet,
    hash::Hash,
    io,
    marker::PhantomData,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use aya::Pod;
use ebpf_common::layout::MapLayout;

use crate::{
    LoadError,
    kernel::{self, MapInfo, Write},
};

/// Owns a descriptor of the map. All calls are single system calls and may come from any thread.
#[derive(Debug)]
pub(crate) struct Map<K, V> {
    fd: OwnedFd,
    /// Values per key: 1, or the number of possible CPUs.
    width: usize,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K: Pod + PartialEq, V: Pod + Default> Map<K, V> {
    /// Opens a pinned map and proves that its sizes are those of `K` and `V`.
    pub(crate) fn open(path: &Path) -> Result<Self, LoadError> {
        Self::open_wide(path, 1)
    }

    /// Opens a pinned per-CPU map.
    pub(crate) fn open_per_cpu(path: &Path) -> Result<Self, LoadError> {
        let width = aya::util::nr_cpus().map_err(|(file, err)| LoadError::kernel("read", file)(err))?;
        Self::open_wide(path, width)
    }

    fn open_wide(path: &Path, width: usize) -> Result<Self, LoadError> {
        let fd = kernel::get(path).map_err(LoadError::kernel("open the map", path.display()))?;
        let info = info(fd.as_fd(), path)?;
        // The kernel reads and writes as many bytes as the map has, whatever the caller's types are: other sizes would
        // corrupt memory.
        if info.key_size as usize != size_of::<K>() || info.value_size as usize != size_of::<V>() {
            let what =
                format!("{} has keys of {} and values of {} bytes", path.display(), info.key_size, info.value_size);
            return Err(LoadError::Mismatch { object: "mesh", what });
        }
        Ok(Self { fd, width, types: PhantomData })
    }

    pub(crate) fn get(&self, key: &K) -> io::Result<Option<V>> {
        Ok(self.get_all(key)?.and_then(|values| values.first().copied()))
    }

    /// The values of all CPUs.
    pub(crate) fn get_all(&self, key: &K) -> io::Result<Option<Vec<V>>> {
        let mut values = vec![V::default(); self.width];
        match kernel::map_lookup(self.fd.as_fd(), key, &mut values) {
            Ok(()) => Ok(Some(values)),
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(err) => Err(err),
        }
    }

    pub(crate) fn put(&self, key: &K, value: &V) -> io::Result<()> {
        debug_assert_eq!(self.width, 1, "only programs write per-CPU maps");
        kernel::map_update(self.fd.as_fd(), key, value, Write::Any)
    }

    /// Leaves a value that is there as it is.
    pub(crate) fn put_new(&self, key: &K, value: &V) -> io::Result<()> {
        match kernel::map_update(self.fd.as_fd(), key, value, Write::New) {
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            done => done,
        }
    }

    /// Changes a value unless it has gone meanwhile.
    pub(crate) fn replace(&self, key: &K, value: &V) -> io::Result<()> {
        match kernel::map_update(self.fd.as_fd(), key, value, Write::Existing) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    /// Was it there?
    pub(crate) fn delete(&self, key: &K) -> io::Result<bool> {
        match kernel::map_delete(self.fd.as_fd(), key) {
            Ok(()) => Ok(true),
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(err) => Err(err),
        }
    }

    /// All keys at about this moment.
    pub(crate) fn keys(&self) -> io::Result<Vec<K>>
    where
        K: Default + Eq + Hash,
    {
        let (mut keys, mut seen): (Vec<K>, HashSet<K>) = Default::default();
        let mut next = K::default();
        while kernel::map_next_key(self.fd.as_fd(), keys.last(), &mut next)? {
            // A key that went in between makes the walk start again.
            if !seen.insert(next) {
                break;
            }
            keys.push(next);
        }
        Ok(keys)
    }
}

/// Checks that the pinned map is the one of this layout. A map that is not pinned yet will be.
///
/// # Errors
/// [`LoadError::OtherMap`] when it is another; kernel errors.
pub(crate) fn check(layout: &MapLayout, path: &Path) -> Result<(), LoadError> {
    let fd = match kernel::get(path) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened.map_err(LoadError::kernel("open the map", path.display()))?,
    };
    let MapInfo { kind, key_size, value_size, max_entries, flags, .. } = info(fd.as_fd(), path)?;
    let name = layout.name;
    let found = MapLayout { name, kind, key_bytes: key_size, value_bytes: value_size, entries: max_entries, flags };
    if found == *layout {
        return Ok(());
    }
    Err(LoadError::OtherMap { path: path.to_path_buf(), found: Box::new(found), expected: Box::new(*layout) })
}

fn info(map: BorrowedFd<'_>, path: &Path) -> Result<MapInfo, LoadError> {
    kernel::info(map).map_err(LoadError::kernel("inspect the map", path.display()))
}

impl<K, V> AsFd for Map<K, V> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
