//! System calls without a safe wrapper elsewhere: the only place outside `ebpf/` where
//! `unsafe` is allowed. Thin functions, no policy.
#![allow(unsafe_code)]

#[cfg(feature = "mimalloc")]
mod allocator;
mod cgroup;
mod listener;
pub mod netns;
pub mod packet;
pub mod process;
mod rlimit;
pub mod route;
pub mod socket;

#[cfg(feature = "mimalloc")]
pub use allocator::collect_memory;
pub use cgroup::cgroup2_mount;
pub use listener::Listener;
pub use netns::Netns;
pub use rlimit::{nofile, raise_nofile};
