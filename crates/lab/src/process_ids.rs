//! Process ids of a pod as the caller sees them: the supervisor lives in a pid namespace of its own, the cgroups do not.

use std::{fs, path::Path};

use crate::{control::PodInfo, paths::PAUSE};

/// Looks up the process ids of a pod and its containers.
pub(crate) fn fill_in(pod: &mut PodInfo) {
    pod.pid = oldest_process(&pod.cgroup.join(PAUSE));
    for container in &mut pod.containers {
        container.pid = container.running.then(|| oldest_process(&pod.cgroup.join(&container.name))).flatten();
    }
}

/// The process of a cgroup that was started first.
fn oldest_process(cgroup: &Path) -> Option<u32> {
    let processes = fs::read_to_string(cgroup.join("cgroup.procs")).ok()?;
    let started = |pid: &u32| start_time(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?);
    // The numbers say nothing about the order: they start over when the largest is reached.
    processes.lines().filter_map(|line| line.parse().ok()).min_by_key(|pid| (started(pid), *pid))
}

/// Field 22 of `/proc/<pid>/stat` (proc(5)): clock ticks since boot.
fn start_time(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_is_found_behind_a_name_with_brackets() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 4711 100 200";

        assert_eq!(start_time(stat), Some(4711));
    }
}
