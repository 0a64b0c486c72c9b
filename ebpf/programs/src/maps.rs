//! The maps that the programs share, through pins made by the loader. What each holds, who
//! writes, who deletes, and what happens when it is full stands here and nowhere else.

use core::ptr::null;

use aya_ebpf::{
    bindings::bpf_map_type::{BPF_MAP_TYPE_SK_STORAGE, BPF_MAP_TYPE_SOCKHASH},
    btf_maps::{HashMap, LruHashMap, PerCpuArray},
    macros::btf_map,
};
use ebpf_common::{
    Admission, Counter, DnsPeer, LocalKey, PodConfig, ProbePorts, SocketKey, Tag, Tuple,
    layout::{
        ADMITTED_ENTRIES, COUNTERS_ENTRIES, DNS_PEERS_FLAGS, LOCALS_ENTRIES, LOCALS_FLAGS, PODS_ENTRIES, SOCKS_ENTRIES,
        TAGS_FLAGS,
    },
};

/// Enrolled pods.
///
/// Key: cookie of the pod's network namespace. Written by the loader (`put_pod`), before the pod's
/// `sk_lookup` program is attached and before the proxy gets the namespace. Deleted by the loader
/// (`remove_pod`, `sweep`). Full: enrolment fails with `E2BIG`.
#[btf_map]
pub(crate) static PODS: HashMap<u64, PodConfig, PODS_ENTRIES> = HashMap::new();

/// Listeners of the proxy in enrolled pods.
///
/// Key: namespace, kind, family. Value: the socket; user space reads its socket cookie, which is
/// why it has 8 bytes. Written by `sockops` when a tagged socket begins to listen (the newest
/// wins) and by the loader (`catch_up`). Deleted by the kernel when that socket closes. Full:
/// the listener is not noted, so its pod stays closed, and [`Counter::ListenerFailed`] counts.
#[btf_map]
pub(crate) static SOCKS: SocketHash<SocketKey, SOCKS_ENTRIES> = MapDefinition::new();

/// Owner of a socket, and the namespace in which its packets must stay.
///
/// Key: the socket. Written by `sock_create` in the cgroups of proxy and probers, by `connect4|6` (connections between
/// application and proxy), by `sockops` (the same, and listeners) and by the loader (`catch_up`); copied by the kernel to accepted
/// sockets (`BPF_F_CLONE`). Deleted by the kernel with the socket. Never full: memory of the socket.
#[btf_map]
#[allow(dead_code, reason = "only the cgroup programs know sockets by their tag")]
pub(crate) static TAGS: SocketStorage<Tag, TAGS_FLAGS> = MapDefinition::new();

/// Connections that may bypass the proxy where the pod declares a probe; see [`PROBES`].
///
/// Key: the connection as its connecting side sees it. Written by `sockops` when a prober
/// connects from the node's network namespace. Deleted by `sockops` when the pod's application has
/// accepted it, or when the connecting socket closes; does not count after
/// [`Admission::LIFETIME_NS`]. Full: the least recently used entry goes, and its connection to the proxy.
#[btf_map]
pub(crate) static ADMITTED: LruHashMap<Tuple, Admission, ADMITTED_ENTRIES> = LruHashMap::new();

/// Ports on which pods declare probes.
///
/// Key: cookie of the pod's network namespace. Written by the loader (`put_probes`) from the pod's own spec. Deleted by the
/// loader (`remove_pod`, `sweep`). Full: as `PODS`, which has as many entries; a pod's further ports go through the proxy.
#[btf_map]
#[allow(dead_code, reason = "only sk_lookup knows to which pod a connection comes")]
pub(crate) static PROBES: HashMap<u64, ProbePorts, PODS_ENTRIES> = HashMap::new();

/// Further addresses of enrolled pods, learnt from packets that arrived for them.
///
/// Key: namespace and address. Value: when a packet arrived for it last, `CLOCK_MONOTONIC`, nanoseconds. Written by `sk_lookup`,
/// `LOCALS_PER_POD` for each pod. Deleted by the loader (`age_locals`, `remove_pod`, `sweep`). A pod's share is used up:
/// connections to an address not yet in it time out, and [`Counter::LocalsFull`] counts. The map itself has room for all shares.
#[btf_map]
pub(crate) static LOCALS: HashMap<LocalKey, u64, LOCALS_ENTRIES, LOCALS_FLAGS> = HashMap::new();

/// Number of a pod's entries in `LOCALS`.
///
/// Key: cookie of the pod's network namespace. Written by the loader (`put_pod` with 0, `age_locals` with what it counted) and
/// by `sk_lookup`, which adds to it. Deleted by the loader (`remove_pod`, `sweep`). Full: as `PODS`. Without an entry nothing
/// is learnt for the pod.
#[btf_map]
#[allow(dead_code, reason = "only sk_lookup learns addresses")]
pub(crate) static LOCALS_USED: HashMap<u64, u64, PODS_ENTRIES> = HashMap::new();

/// Nameservers of applications that the proxy answers for.
///
/// Key: the application's socket. Written by `connect4|6` and `sendmsg4|6`, each question anew: an application that asks several
/// nameservers by one unconnected socket sees all answers come from the last. Deleted by the kernel with the socket. Never
/// full: memory of the socket; without it the question is refused and [`Counter::DnsRefused`] counts.
#[btf_map]
#[allow(dead_code, reason = "only the cgroup programs see what applications ask")]
pub(crate) static DNS_PEERS: SocketStorage<DnsPeer, DNS_PEERS_FLAGS> = MapDefinition::new();

/// Numbers for the metrics page.
///
/// Key: a [`Counter`]. Written by all programs. Never deleted, never full.
#[btf_map]
pub(crate) static COUNTERS: PerCpuArray<u64, COUNTERS_ENTRIES> = PerCpuArray::new();

/// Looks up the pod with this namespace; `None`: not enrolled.
#[inline(always)]
pub(crate) fn pod(netns_cookie: u64) -> Option<PodConfig> {
    let pod = PODS.get_ptr(netns_cookie)?;
    // SAFETY: the kernel gave the pointer to a value of this type, valid until the program ends.
    Some(unsafe { *pod })
}

/// Adds one to a counter.
#[inline(always)]
pub(crate) fn count(counter: Counter) {
    if let Some(slot) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: the slot belongs to this CPU, and programs of one CPU do not interrupt each other here.
        unsafe { *slot += 1 };
    }
}

/// Returns whether it is one of the pod's further addresses.
#[inline(always)]
pub(crate) fn is_known_local(key: LocalKey) -> bool {
    LOCALS.get_ptr(key).is_some()
}

/// Sockets by key, with 8-byte values.
pub(crate) type SocketHash<K, const ENTRIES: usize> =
    MapDefinition<K, u64, { BPF_MAP_TYPE_SOCKHASH as usize }, ENTRIES, 0>;

/// Memory of sockets, with `BPF_F_*`: of which accepted sockets get a copy with `BPF_F_CLONE`, Linux 5.4.
pub(crate) type SocketStorage<V, const FLAGS: usize> =
    MapDefinition<i32, V, { BPF_MAP_TYPE_SK_STORAGE as usize }, 0, FLAGS>;

/// A map in the form that the loader reads from BTF: the numbers are lengths of array types.
/// For the two maps that `aya_ebpf` cannot describe (8-byte values of a `SockHash`, `BPF_F_CLONE`).
#[repr(C)]
pub(crate) struct MapDefinition<K, V, const TYPE: usize, const ENTRIES: usize, const FLAGS: usize> {
    r#type: *const [i32; TYPE],
    key: *const K,
    value: *const V,
    max_entries: *const [i32; ENTRIES],
    map_flags: *const [i32; FLAGS],
}

// SAFETY: all fields are null and stay so; the kernel replaces the address by the map's.
unsafe impl<K, V, const TYPE: usize, const ENTRIES: usize, const FLAGS: usize> Sync
    for MapDefinition<K, V, TYPE, ENTRIES, FLAGS>
{
}

impl<K, V, const TYPE: usize, const ENTRIES: usize, const FLAGS: usize> MapDefinition<K, V, TYPE, ENTRIES, FLAGS> {
    const fn new() -> Self {
        Self { r#type: null(), key: null(), value: null(), max_entries: null(), map_flags: null() }
    }

    /// For helpers that take the map as a pointer.
    #[inline(always)]
    pub(crate) fn as_ptr(&'static self) -> *mut core::ffi::c_void {
        core::ptr::from_ref(self).cast_mut().cast()
    }
}
