//! Memory that is free goes back to the kernel, in programs whose global allocator is mimalloc (feature `mimalloc`).

use std::convert::Infallible;
use std::ffi::OsStr;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

pub use crate::sys::collect_memory as collect;

/// Milliseconds that mimalloc keeps free pages before the kernel gets them back; 1000 by default.
const PURGE_DELAY: &str = "MIMALLOC_PURGE_DELAY";

/// `0`: memory is taken in pages of 4 KiB and not of 2 MiB, so that a heap of many small objects takes what they need.
const ALLOW_HUGE_PAGES: &str = "MIMALLOC_ALLOW_THP";

/// Makes mimalloc give free memory back after `purge_delay` (whole milliseconds), and take none in huge pages. Call it first
/// in `main`: mimalloc reads its options from the environment before that, so the program is started anew with them, in
/// the same process. Options that the environment already has are left alone.
///
/// # Errors
/// Those of execve(2), and of reading `/proc/self/exe`. Nothing has changed then, and the program only uses more memory.
pub fn apply_options(purge_delay: Duration) -> io::Result<()> {
    let wanted = [(PURGE_DELAY, purge_delay.as_millis().to_string()), (ALLOW_HUGE_PAGES, "0".to_owned())];
    let missing = missing(wanted, |name| std::env::var_os(name).is_some());
    if missing.is_empty() {
        return Ok(());
    }
    let mut arguments = std::env::args_os();
    let name = arguments.next();
    let program = std::env::current_exe()?;
    let mut command = Command::new(&program);
    command.arg0(name.as_deref().unwrap_or(OsStr::new(&program))).args(arguments).envs(missing);
    Err(command.exec())
}

/// The options that the environment does not have yet.
fn missing<const N: usize>(
    wanted: [(&'static str, String); N],
    is_set: impl Fn(&str) -> bool,
) -> Vec<(&'static str, String)> {
    wanted.into_iter().filter(|(name, _)| !is_set(name)).collect()
}

/// Collects free memory of the thread that polls this, again and again. mimalloc does it only while a thread allocates:
/// without this, one that has become idle keeps what its last burst of work took.
pub async fn keep_collecting(every: Duration) -> Infallible {
    let mut tick = tokio::time::interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_the_environment_are_left_alone_and_the_others_are_added() {
        let wanted = || [(PURGE_DELAY, "10".to_owned()), (ALLOW_HUGE_PAGES, "0".to_owned())];

        assert_eq!(missing(wanted(), |_| false), wanted());
        assert_eq!(missing(wanted(), |name| name == PURGE_DELAY), [(ALLOW_HUGE_PAGES, "0".to_owned())]);
        assert!(missing(wanted(), |_| true).is_empty(), "the program would start itself without end");
    }
}
