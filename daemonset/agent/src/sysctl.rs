//! The three kernel settings of a pod's network namespace that steering needs, and their values before.
//! It knows no rules and no routes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use runtime::sys::Netns;

use crate::proc_sys;

/// Settings, relative to `/proc/sys`: a connection takes the mark of its SYN, and answers without a socket
/// (resets) take the mark of what they answer.
pub const SETTINGS: [&str; 3] = ["net/ipv4/tcp_fwmark_accept", "net/ipv4/fwmark_reflect", "net/ipv6/fwmark_reflect"];
const WANTED: &str = "1";

/// Directory in which the values from before enrolment are kept, so that a restarted agent can put them back.
#[derive(Debug, Clone)]
pub struct PreviousValues {
    directory: PathBuf,
}

impl PreviousValues {
    /// `directory` is made when the first value is kept. It must not outlive the kernel: cookies start over with it.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    fn file(&self, cookie: u64) -> PathBuf {
        self.directory.join(format!("{cookie}.json"))
    }

    /// A file that cannot be read is not an empty one: taken for it, our own values would be kept as those from before.
    fn load(&self, cookie: u64) -> io::Result<BTreeMap<String, String>> {
        let file = self.file(cookie);
        let unread = |error: io::Error| {
            io::Error::new(error.kind(), format!("settings from before in {}: {error}", file.display()))
        };
        match fs::read(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
            Err(error) => Err(unread(error)),
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| unread(error.into())),
        }
    }

    fn save(&self, cookie: u64, values: &BTreeMap<String, String>) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        let draft = self.directory.join(format!(".{cookie}.json"));
        fs::write(&draft, serde_json::to_vec(values)?)?;
        // Whole or not at all: half a file would be taken for unreadable at the next start, and the pod could not
        // leave.
        fs::rename(draft, self.file(cookie))
    }

    /// Returns whether values are kept to be put back in this namespace.
    ///
    /// # Errors
    /// When that cannot be told.
    pub fn holds(&self, cookie: u64) -> io::Result<bool> {
        self.file(cookie).try_exists()
    }

    /// Drops what was kept for namespaces that are not in `known`.
    ///
    /// # Errors
    /// When the directory cannot be read or a file not be removed; the others are.
    pub fn sweep(&self, known: &BTreeSet<u64>) -> io::Result<()> {
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        let mut outcome = Ok(());
        for entry in entries {
            let entry = entry?;
            let cookie = Path::new(&entry.file_name()).file_stem().and_then(|stem| stem.to_str()?.parse().ok());
            if cookie.is_none_or(|cookie: u64| !known.contains(&cookie)) {
                // The first error is returned after all files were tried.
                outcome = outcome.and(fs::remove_file(entry.path()));
            }
        }
        outcome
    }
}

/// Switches the settings on, keeping what they were. Idempotent. Blocks for a few file accesses.
///
/// # Errors
/// When a value cannot be kept or written.
pub fn apply(netns: &Netns, cookie: u64, previous: &PreviousValues) -> io::Result<()> {
    let now = read_all(netns)?;
    // Before anything is written: values that are kept already are those from before the mesh, whoever has changed the
    // settings since.
    let mut kept = previous.load(cookie)?;
    let changes: Vec<&str> = now.iter().filter(|(_, value)| value != WANTED).map(|(name, _)| *name).collect();
    if changes.is_empty() {
        return Ok(());
    }
    // All three, also those that were on already: `restore` puts back what it finds here.
    for (name, value) in &now {
        kept.entry((*name).to_owned()).or_insert_with(|| value.clone());
    }
    // Before the write: an agent that dies between the two must find what to put back.
    previous.save(cookie, &kept)?;
    netns.run(|| changes.iter().try_for_each(|name| proc_sys::write(name, WANTED)))
}

/// Returns the settings that are not on.
///
/// # Errors
/// When they cannot be read.
pub fn missing(netns: &Netns) -> io::Result<Vec<String>> {
    let off = read_all(netns)?.into_iter().filter(|(_, value)| value != WANTED);
    Ok(off.map(|(name, value)| format!("{} is {value}", name.replace('/', "."))).collect())
}

/// Puts back what [`apply`] found, and reads it back; settings it did not change stay. Idempotent.
///
/// # Errors
/// When a value cannot be written or is another afterwards; what was kept is then still there.
pub fn restore(netns: &Netns, cookie: u64, previous: &PreviousValues) -> io::Result<()> {
    let kept = previous.load(cookie)?;
    netns.run(|| {
        let ours = SETTINGS.iter().filter_map(|name| Some((name, kept.get(*name)?)));
        for (name, value) in ours {
            proc_sys::write(name, value)?;
            let now = proc_sys::read(name)?;
            // Success of the write is not taken as proof.
            if now.trim() != value {
                return Err(io::Error::other(format!("{name} is {} and was to be {value}", now.trim())));
            }
        }
        Ok(())
    })?;
    previous.forget(cookie)
}

impl PreviousValues {
    /// Nothing is kept for this namespace any more.
    fn forget(&self, cookie: u64) -> io::Result<()> {
        match fs::remove_file(self.file(cookie)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// The settings that exist: a kernel without IPv6 lacks the last one.
fn read_all(netns: &Netns) -> io::Result<Vec<(&'static str, String)>> {
    netns.run(|| {
        let mut values = Vec::new();
        for name in SETTINGS {
            match proc_sys::read(name) {
                Ok(value) => values.push((name, value.trim().to_owned())),
                Err(error) if error.kind() == io::ErrorKind::NotFound && name.starts_with("net/ipv6") => {}
                Err(error) => return Err(error),
            }
        }
        Ok(values)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_from_before_that_cannot_be_read_are_not_taken_for_none() {
        let Some(netns) = crate::testing::netns() else { return };
        let directory = tempfile::tempdir().unwrap();
        let (previous, file) = (PreviousValues::new(directory.path()), directory.path().join("7.json"));
        apply(&netns, 7, &previous).unwrap();
        fs::write(&file, "{").unwrap();
        netns.run(|| proc_sys::write(SETTINGS[0], "0")).unwrap();

        let (applied, restored) = (apply(&netns, 7, &previous), restore(&netns, 7, &previous));

        assert!(applied.unwrap_err().to_string().contains("7.json"));
        assert!(restored.is_err() && previous.holds(7).unwrap());
        assert_eq!(fs::read_to_string(&file).unwrap(), "{", "ours were kept as those from before");
    }
}
