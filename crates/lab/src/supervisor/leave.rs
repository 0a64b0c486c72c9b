//! The end of a lab by its own hand: nothing is left even when nobody is there to sweep. What a killed lab leaves is
//! swept by `launch`.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use rustix::mount::{UnmountFlags, unmount};

use crate::paths::{Cgroups, HOME_VARIABLE, RunDir, remove_tree};

/// The cgroup to go back to, as `HOME_VARIABLE` names it.
pub(super) fn home() -> Option<PathBuf> {
    env::var_os(HOME_VARIABLE).map(PathBuf::from)
}

/// Something of a lab that could not be removed.
#[derive(Debug, thiserror::Error)]
#[error("{}: {err}", path.display())]
pub(super) struct Left {
    path: PathBuf,
    err: io::Error,
}

/// Remains so far. A step that fails does not keep the others from being tried.
#[derive(Debug, Default)]
struct Leaving(Vec<Left>);

impl Leaving {
    fn step(&mut self, path: &Path, done: io::Result<()>) {
        match done {
            Err(err) if err.kind() != io::ErrorKind::NotFound => self.0.push(Left { path: path.to_owned(), err }),
            _ => {}
        }
    }
}

/// Removes the lab's files and cgroups, after its pods and probers are gone, and returns what could not be. Then
/// the log that says so and the lock stay as well, for the next start or `down` to sweep.
pub(super) fn clean_up(run: &RunDir, cgroups: &Cgroups, nodes: &[String], home: Option<&Path>) -> Vec<Left> {
    let mut leaving = Leaving::default();
    for node in nodes {
        // Programs that are pinned there go with the file system.
        let bpffs = run.node(node).join("bpffs");
        leaving.step(&bpffs, unmount(&bpffs, UnmountFlags::DETACH).map_err(Into::into));
        leaving.step(&cgroups.node(node), remove_tree(&cgroups.node(node)));
    }
    if let Some(home) = home {
        // With whatever has not got as far as its own cgroup, but without this process and the first.
        leaving.step(cgroups.root(), move_to(home).and_then(|()| remove_tree(cgroups.root())));
    }
    if leaving.0.is_empty() {
        leaving.step(run.root(), fs::remove_dir_all(run.root()));
    } else {
        remove_all_but_the_log(run, &mut leaving);
    }
    if leaving.0.is_empty() {
        leaving.step(&run.lock(), fs::remove_file(run.lock()));
    }
    leaving.0
}

fn move_to(home: &Path) -> io::Result<()> {
    ["1", "0"].into_iter().try_for_each(|process| fs::write(home.join("cgroup.procs"), process))
}

fn remove_all_but_the_log(run: &RunDir, leaving: &mut Leaving) {
    let entries = match fs::read_dir(run.root()) {
        Ok(entries) => entries,
        Err(err) => return leaving.step(run.root(), Err(err)),
    };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| *path != run.supervisor_log()) {
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        leaving.step(&path, removed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_step_that_fails_keeps_none_of_the_others_from_being_done() {
        if !rustix::process::geteuid().is_root() {
            assert!(env::var_os("CI").is_none(), "skipped: cgroups need root");
            return;
        }
        let name = format!("test-leave-{}", std::process::id());
        let (run, cgroups) = (RunDir::of(&name), Cgroups::of(&name).unwrap());
        let nodes = ["node-1", "node-2"].map(str::to_owned);
        for node in &nodes {
            // No file system is mounted there, so it cannot be taken away.
            fs::create_dir_all(run.node(node).join("bpffs")).unwrap();
            fs::create_dir_all(cgroups.node(node).join("kubepods")).unwrap();
        }
        fs::write(run.supervisor_log(), "words").unwrap();
        fs::write(run.lock(), "").unwrap();

        let left = clean_up(&run, &cgroups, &nodes, None);

        let left: Vec<_> = left.iter().map(ToString::to_string).collect();
        assert_eq!(left.len(), 2, "{left:?}");
        assert!(left[0].contains("node-1/bpffs") && left[1].contains("node-2/bpffs"), "{left:?}");
        assert!(nodes.iter().all(|node| !cgroups.node(node).exists() && !run.node(node).exists()));
        assert!(run.supervisor_log().exists() && run.lock().exists(), "nobody can read what is left");
        fs::remove_dir(cgroups.root()).unwrap();
        assert!(clean_up(&run, &cgroups, &[], None).is_empty());
        assert!(!run.root().exists() && !run.lock().exists());
    }
}
