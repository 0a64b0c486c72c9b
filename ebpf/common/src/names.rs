//! Names of maps and programs, as the kernel and `bpftool` show them (at most 15 bytes).

/// Maps that the programs share and that stay pinned. What each holds: `programs/src/maps.rs`.
pub const MAPS: [&str; 9] = [PODS, SOCKS, TAGS, ADMITTED, PROBES, LOCALS, LOCALS_USED, DNS_PEERS, COUNTERS];
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
/// socket -> [`crate::DnsPeer`].
pub const DNS_PEERS: &str = "DNS_PEERS";
/// [`crate::Counter`] -> number, per CPU.
pub const COUNTERS: &str = "COUNTERS";

/// All programs.
// The kernel cuts names at 15 bytes (`BPF_OBJ_NAME_LEN` is 16), and would show two long ones alike.
pub const PROGRAMS: [&str; 15] = [
    CONNECT4, CONNECT6, SENDMSG4, SENDMSG6, RECVMSG4, RECVMSG6, PEERNAME4, PEERNAME6, BIND4, BIND6, EGRESS, SOCKOPS,
    TAG_PROXY, TAG_PROBER, SK_LOOKUP,
];
/// `cgroup/connect4` at the root of the node's cgroups.
pub const CONNECT4: &str = "strake_connect4";
/// `cgroup/connect6` at the root of the node's cgroups.
pub const CONNECT6: &str = "strake_connect6";
/// `cgroup/sendmsg4` at the root of the node's cgroups.
pub const SENDMSG4: &str = "strake_sendmsg4";
/// `cgroup/sendmsg6` at the root of the node's cgroups.
pub const SENDMSG6: &str = "strake_sendmsg6";
/// `cgroup/recvmsg4` at the root of the node's cgroups.
pub const RECVMSG4: &str = "strake_recvmsg4";
/// `cgroup/recvmsg6` at the root of the node's cgroups.
pub const RECVMSG6: &str = "strake_recvmsg6";
/// `cgroup/getpeername4` at the root of the node's cgroups.
pub const PEERNAME4: &str = "strake_getpeer4";
/// `cgroup/getpeername6` at the root of the node's cgroups.
pub const PEERNAME6: &str = "strake_getpeer6";
/// `cgroup/bind4` at the root of the node's cgroups.
pub const BIND4: &str = "strake_bind4";
/// `cgroup/bind6` at the root of the node's cgroups.
pub const BIND6: &str = "strake_bind6";
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
