//! The limit of open descriptors.

use std::io;

use rustix::process::{Resource, getrlimit, setrlimit};

/// The soft limit of open descriptors; `None`: unlimited.
#[must_use]
pub fn nofile() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// Raises the soft limit of open descriptors to the hard one and returns it; `None`: unlimited.
///
/// # Errors
/// Those of setrlimit(2).
pub fn raise_nofile() -> io::Result<Option<u64>> {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        setrlimit(Resource::Nofile, limit)?;
    }
    Ok(limit.current)
}
