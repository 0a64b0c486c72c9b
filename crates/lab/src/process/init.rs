//! The first processes of a lab: `launch` leaves the caller's session and pid namespace, `init` is process 1
//! of the lab and its end is the lab's end, `pause` is the first process of a pod. They start nothing of their own.

use std::{
    fs::{self, File},
    io,
    path::Path,
    process::{Command, ExitCode},
};

use rustix::{
    mount::{MountFlags, MountPropagationFlags, mount, mount_change},
    process::{WaitOptions, setsid, wait},
};

use crate::{
    options::Options,
    paths::{Cgroups, HOME_VARIABLE, RunDir, current_cgroup},
};

/// Starts `init` in a new pid namespace and session, notes its process id and ends.
pub(super) fn launch(file: &Path) -> Result<ExitCode, String> {
    let options = read(file)?;
    setsid().map_err(|err| format!("cannot start a session: {err}"))?;
    runtime::sys::process::unshare_pids().map_err(|err| format!("cannot make a pid namespace (run as root): {err}"))?;
    // A new pid namespace holds for children only: the first of them is its process 1, and the kernel kills all others
    // when it ends (pid_namespaces(7)).
    let init = role("init", file).and_then(|mut command| command.spawn()).map_err(|err| err.to_string())?;
    fs::write(RunDir::of(&options.name).pid_file(), format!("{}\n", init.id())).map_err(|err| err.to_string())?;
    Ok(ExitCode::SUCCESS)
}

/// Process 1: runs the supervisor, reaps whoever is left without a parent, ends with the supervisor.
pub(super) fn run(file: &Path) -> Result<ExitCode, String> {
    let options = read(file)?;
    // Remembered before it leaves: the lab's own cgroup can only be removed from outside of it.
    let home = current_cgroup().map_err(|err| format!("cannot find its cgroup: {err}"))?;
    join_cgroup(&options.name).map_err(|err| format!("cannot join the cgroup of the lab: {err}"))?;
    own_mounts().map_err(|err| format!("cannot make a mount namespace: {err}"))?;
    let supervisor = role("supervisor", file)
        .and_then(|mut command| command.env(HOME_VARIABLE, home).spawn())
        .map_err(|err| err.to_string())?;
    loop {
        // Process 1 inherits every process whose parent has ended; those that nobody waits for would stay as zombies.
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, _))) if pid.as_raw_nonzero().get().cast_unsigned() == supervisor.id() => {
                return Ok(ExitCode::SUCCESS);
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(err) => return Err(format!("cannot wait for the supervisor: {err}")),
        }
    }
}

/// Does nothing until it is killed; its namespaces and cgroup are what it is for.
pub(super) fn pause() -> ! {
    loop {
        std::thread::park();
    }
}

fn read(file: &Path) -> Result<Options, String> {
    Options::read(file).map_err(|err| format!("{}: {err}", file.display()))
}

/// The same program in another role, with the lock of the lab as its input.
fn role(role: &str, file: &Path) -> io::Result<Command> {
    let lock = rustix::io::dup(rustix::stdio::stdin())?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["lab", "process", role]).arg(file).stdin(File::from(lock));
    Ok(command)
}

fn join_cgroup(name: &str) -> io::Result<()> {
    let cgroup = Cgroups::of(name)?.supervisor();
    fs::create_dir_all(&cgroup)?;
    fs::write(cgroup.join("cgroup.procs"), "0")
}

/// Mounts from here on are the lab's alone; `/proc` shows the lab's processes.
fn own_mounts() -> io::Result<()> {
    runtime::sys::process::unshare_mounts()?;
    // A new namespace still shares its mounts' events with the machine on most distributions; without this, the lab's
    // mounts would appear there.
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    mount("proc", "/proc", "proc", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, None)?;
    Ok(())
}
