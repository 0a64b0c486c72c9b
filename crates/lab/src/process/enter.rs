//! Brings a process into its pod: cgroup first, then namespaces and mounts, then `exec`. A socket
//! made by whatever runs afterwards belongs to the right cgroup from its first moment.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Write as _},
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use rustix::{
    fs::{Mode, OFlags},
    mount::{MountFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive, unmount},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};
use serde::{Deserialize, Serialize};

/// Exit code of shells for a command that was found but could not be started.
const CANNOT_START: u8 = 126;

/// Exit code of shells for a command that was not found.
const NOT_FOUND: u8 = 127;

/// Description of the process to become.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Entry {
    /// Cgroup to join, made when it is not there. Its parent must be: a command that comes late does not
    /// bring back the tree of a lab that has ended.
    pub(crate) cgroup: PathBuf,
    /// Network namespace to join.
    pub(crate) netns: Option<PathBuf>,
    /// Process whose mount and host name namespaces to join (`exec` into a container).
    pub(crate) like: Option<u32>,
    /// Host name, in a namespace of its own.
    pub(crate) hostname: Option<String>,
    /// Files and directories to put over others, in a mount namespace of its own.
    pub(crate) binds: Vec<Bind>,
    /// Directory for the upper sides of overlays, when a mount point has to be made.
    pub(crate) scratch: PathBuf,
    /// True if standard input is a terminal that the command is to control.
    pub(crate) terminal: bool,
    /// True if standard input is a pipe to report a failure on: it is closed without a message at `exec`,
    /// and the command reads `/dev/null`.
    pub(crate) report: bool,
    /// The command, searched in `PATH` of `env`.
    pub(crate) argv: Vec<String>,
    /// Its whole environment.
    pub(crate) env: Vec<(String, String)>,
    /// Its working directory, `/` by default.
    pub(crate) directory: Option<PathBuf>,
    /// Whom it runs as, root by default.
    pub(crate) user: Option<u32>,
    pub(crate) group: Option<u32>,
}

/// One path over another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bind {
    pub(crate) source: PathBuf,
    pub(crate) target: PathBuf,
    pub(crate) read_only: bool,
}

impl Entry {
    /// The process that becomes this, as `program`'s role.
    pub(crate) fn command(&self, program: &Path) -> io::Result<tokio::process::Command> {
        let mut command = tokio::process::Command::new(program);
        command.args(["lab", "process", "enter"]).arg(serde_json::to_string(self)?).env_clear();
        Ok(command)
    }
}

/// Becomes what the JSON argument says; returns only when that fails.
pub(super) fn run(argument: Option<OsString>) -> ExitCode {
    let entry = argument
        .and_then(|argument| argument.into_string().ok())
        .and_then(|text| serde_json::from_str::<Entry>(&text).ok());
    let Some(entry) = entry else {
        eprintln!("lab enter: invalid entry");
        return ExitCode::from(CANNOT_START);
    };
    // The pipe is put aside first: every step from here on can fail, and its message must reach whoever waits.
    let report = match entry.report.then(take_report).transpose() {
        Ok(report) => report,
        Err(err) => {
            eprintln!("lab enter: {err}");
            return ExitCode::from(CANNOT_START);
        }
    };
    let (message, code) = match become_entry(&entry) {
        Ok(never) => match never {},
        Err(failure) => failure,
    };
    match report {
        // Whoever waits at the other end passes it on.
        Some(mut report) => drop(report.write_all(message.as_bytes())),
        None => eprintln!("{message}"),
    }
    ExitCode::from(code)
}

/// The pipe that is standard input, out of the command's way.
fn take_report() -> io::Result<File> {
    let report: OwnedFd = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?.as_fd())?;
    Ok(report.into())
}

fn become_entry(entry: &Entry) -> Result<std::convert::Infallible, (String, u8)> {
    let step = |what: &str| {
        let what = what.to_owned();
        move |err: io::Error| (format!("{what}: {err}"), CANNOT_START)
    };
    // Before anything opens a socket: kernel programs know the proxy and the prober by the cgroup of the socket's maker.
    join_cgroup(&entry.cgroup).map_err(step("cannot join the cgroup"))?;
    join_namespaces(entry).map_err(step("cannot join the pod"))?;
    if let Some(name) = &entry.hostname {
        runtime::sys::process::unshare_hostname()
            .and_then(|()| Ok(rustix::system::sethostname(name.as_bytes())?))
            .map_err(step("cannot set the host name"))?;
    }
    if !entry.binds.is_empty() {
        runtime::sys::process::unshare_mounts().map_err(step("cannot make a mount namespace"))?;
        mount_all(&entry.binds, &entry.scratch)?;
    }
    let directory = entry.directory.as_deref().unwrap_or(Path::new("/"));
    std::env::set_current_dir(directory).map_err(step(&format!("cannot change to {}", directory.display())))?;
    // A process that leads no group already can always do this.
    let _ = rustix::process::setsid();
    if entry.terminal {
        let take = || Ok(rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?);
        take().map_err(step("cannot take the terminal"))?;
    }
    let [program, arguments @ ..] = entry.argv.as_slice() else {
        return Err(("no command is given".to_owned(), CANNOT_START));
    };
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(entry.env.iter().cloned());
    // With a user other than root, supplementary groups go as well.
    if let Some(user) = entry.user {
        command.uid(user);
    }
    if let Some(group) = entry.group {
        command.gid(group);
    }
    let err = command.exec();
    let code = if err.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { CANNOT_START };
    Err((format!("cannot start {program}: {err}"), code))
}

fn join_cgroup(cgroup: &Path) -> io::Result<()> {
    match fs::create_dir(cgroup) {
        Err(err) if err.kind() != io::ErrorKind::AlreadyExists => return Err(err),
        _ => {}
    }
    fs::write(cgroup.join("cgroup.procs"), "0")
}

fn join_namespaces(entry: &Entry) -> io::Result<()> {
    let like = entry.like.map(|pid| PathBuf::from(format!("/proc/{pid}/ns")));
    let open = |path: PathBuf| File::open(path);
    // All are opened before the first is joined: `/proc` may look different afterwards.
    let netns = entry.netns.clone().map(open).transpose()?;
    let uts = like.as_ref().map(|dir| open(dir.join("uts"))).transpose()?;
    let mnt = like.as_ref().map(|dir| open(dir.join("mnt"))).transpose()?;
    let join = |file: Option<File>, kind| match file {
        Some(file) => Ok(move_into_link_name_space(file.as_fd(), Some(kind))?),
        None => io::Result::Ok(()),
    };
    join(netns, LinkNameSpaceType::Network)?;
    join(uts, LinkNameSpaceType::HostNameAndNISDomainName)?;
    // The kernel refuses a mount namespace to a process that shares its root and working directory with other threads
    // (setns(2)).
    if mnt.is_some() {
        runtime::sys::process::unshare_directories()?;
    }
    join(mnt, LinkNameSpaceType::Mount)
}

/// Binds files and directories over others, outer ones first. Where nothing is to bind one over, the place is made in an
/// overlay, so that the machine's own files never change. Overlays come before all binds: they would hide them. They would
/// also hide what is bound (a lab's files are below `/run`), so that is opened before.
fn mount_all(binds: &[Bind], scratch: &Path) -> Result<(), (String, u8)> {
    let step = |bind: &Bind| {
        let what = format!("cannot mount {}", bind.target.display());
        move |err: io::Error| (format!("{what}: {err}"), CANNOT_START)
    };
    let mut binds: Vec<_> = binds.iter().collect();
    binds.sort_by_key(|bind| bind.target.components().count());
    let mut has_own_root = false;
    for bind in binds.iter().filter(|bind| existing(&bind.target) == Path::new("/") && bind.target != Path::new("/")) {
        if !has_own_root {
            own_root(scratch).map_err(step(bind))?;
            has_own_root = true;
        }
        make_target(bind).map_err(step(bind))?;
    }
    let open = |bind: &Bind| Ok(rustix::fs::open(&bind.source, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?);
    let sources: Result<Vec<OwnedFd>, _> = binds.iter().map(|bind| open(bind).map_err(step(bind))).collect();
    let sources = sources?;
    for bind in &binds {
        // An outer place may have brought it along.
        if !bind.target.exists() {
            overlay(existing(&bind.target), scratch).and_then(|()| make_target(bind)).map_err(step(bind))?;
        }
    }
    for (bind, source) in binds.iter().zip(&sources) {
        put_over(bind, source).map_err(step(bind))?;
    }
    // A bind mount takes the flags of its source; read-only needs a second call (mount(2)). It comes last because
    // places for inner binds are made in outer ones.
    for bind in binds.iter().filter(|bind| bind.read_only) {
        let flags = MountFlags::BIND | MountFlags::RDONLY;
        rustix::mount::mount_remount(&bind.target, flags, c"").map_err(|err| step(bind)(err.into()))?;
    }
    Ok(())
}

/// The innermost directory of a path that is there.
fn existing(target: &Path) -> &Path {
    target.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"))
}

fn put_over(bind: &Bind, source: &OwnedFd) -> io::Result<()> {
    if !bind.target.exists() {
        // It is in a volume that was bound just before, so this is a place in the volume.
        make_target(bind)?;
    }
    Ok(mount_bind(format!("/proc/self/fd/{}", source.as_raw_fd()), &bind.target)?)
}

fn make_target(bind: &Bind) -> io::Result<()> {
    if bind.source.is_dir() {
        return fs::create_dir_all(&bind.target);
    }
    if let Some(parent) = bind.target.parent() {
        fs::create_dir_all(parent)?;
    }
    File::create(&bind.target).map(drop)
}

/// Lays an empty writable layer over a directory.
fn overlay(directory: &Path, scratch: &Path) -> io::Result<()> {
    let own = own_tmpfs(scratch)?;
    let (upper, work) = (own.join("upper"), own.join("work"));
    fs::create_dir(&upper)?;
    fs::create_dir(&work)?;
    let text = format!("lowerdir={},upperdir={},workdir={}", directory.display(), upper.display(), work.display());
    let text = std::ffi::CString::new(text)?;
    mount("overlay", directory, "overlay", MountFlags::empty(), Some(text.as_c_str()))?;
    Ok(())
}

/// A new root in memory that shows everything of the old one, in which new names can be made.
fn own_root(scratch: &Path) -> io::Result<()> {
    let root = own_tmpfs(scratch)?;
    for entry in fs::read_dir("/")? {
        let entry = entry?;
        let (from, to) = (entry.path(), root.join(entry.file_name()));
        if entry.file_type()?.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(&from)?, &to)?;
        } else if entry.file_type()?.is_dir() {
            fs::create_dir(&to)?;
            mount_bind_recursive(&from, &to)?;
        } else {
            File::create(&to)?;
            mount_bind(&from, &to)?;
        }
    }
    rustix::process::chdir(&root)?;
    // With the same directory twice the old root lies on top of the new one and is taken off again, so no directory has
    // to be made for it (pivot_root(2)).
    rustix::process::pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")?;
    Ok(())
}

/// A directory in memory that only this mount namespace sees.
fn own_tmpfs(scratch: &Path) -> io::Result<PathBuf> {
    fs::create_dir_all(scratch)?;
    mount("tmpfs", scratch, "tmpfs", MountFlags::empty(), None)?;
    Ok(scratch.to_path_buf())
}
