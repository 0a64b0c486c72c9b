//! Names of maps and programs, as the kernel and `bpftool` show them (at most 15 bytes).

/// Maps that the programs share and that stay pinned. What each holds: `programs/src/maps.rs`.
pub const MAPS: [&str; 8] = [PODS, SOCKS, TAGS, ADMITTED, PROBES, LOCALS, LOCALS_USED, COUNTERS];
/// netns cookie -> [`crate::PodConfig`].
pub const PODS: &str = "PODS";
/// [`crate::SocketKey`] -> listener.
pub const SOCKS: &str = "SOCKS";
/// socket -> [`crate::Tag`].
pub const TAGS: &str = "TAGS";
/// [`crate::Tuple`] -> [`crate::Admission`].
pub const ADMITTED: &str = "ADMITTED";
/// netns cookie -> [`crate::ProbePorts`].
pub const PROBES: &str = "PROBES";
/// [`crate::LocalKey`] -> time.
pub const LOCALS: &str = "LOCALS";
/// netns cookie -> number.
pub const LOCALS_USED: &str = "LOCALS_USED";
/// [`crate::Counter`] -> number, per CPU.
pub const COUNTERS: &str = "COUNTERS";

/// All programs.
// The kernel cuts names at 15 bytes (`BPF_OBJ_NAME_LEN` is 16), and would show two long ones alike.
pub const PROGRAMS: [&str; 7] = [CONNECT4, CONNECT6, EGRESS, SOCKOPS, TAG_PROXY, TAG_PROBER, SK_LOOKUP];
/// `cgroup/connect4` at the root of the node's cgroups.
pub const CONNECT4: &str = "strake_connect4";
/// `cgroup/connect6` at the root of the node's cgroups.
pub const CONNECT6: &str = "strake_connect6";
/// `cgroup_skb/egress` at the root of the node's cgroups.
pub const EGRESS: &str = "strake_egress";
/// `sockops` at the root of the node's cgroups.
pub const SOCKOPS: &str = "strake_sockops";
/// `cgroup/sock_create` at the proxy's cgroup.
pub const TAG_PROXY: &str = "strake_proxy";
/// `cgroup/sock_create` at a prober's cgroup.
pub const TAG_PROBER: &str = "strake_prober";
/// `sk_lookup` in a pod's network namespace.
pub const SK_LOOKUP: &str = "strake_lookup";
/// Constant of [`SOCKOPS`]: the cookie of the node's own network namespace.
pub const HOST_NETNS_COOKIE: &str = "HOST_NETNS_COOKIE";
/// Constant of [`SK_LOOKUP`]: the cookie of the namespace it is attached to.
pub const NETNS_COOKIE: &str = "NETNS_COOKIE";
