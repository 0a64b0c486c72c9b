//! Fails closed in enrolled pods: a new connection for which the proxy has no listener is refused.
//! Without an entry in `PODS` everything passes.
//!
//! The object `sk_lookup`: which listener a new connection of one pod gets. One instance per network
//! namespace, because `bpf_get_netns_cookie` is not to be had here; maps are shared through pins.
//! Hook: `sk_lookup`, Linux 5.9; `ingress_ifindex`, 5.17.
#![no_std]
#![no_main]

#[path = "../context.rs"]
mod context;
#[path = "../maps.rs"]
mod maps;
mod steer;

use aya_ebpf::{
    Global, bindings::bpf_sk_lookup, helpers::bpf_ktime_get_ns, macros::sk_lookup, programs::SkLookupContext,
};
use ebpf_common::{
    Address, Admission, Counter, F_BYPASS_IN, F_IN, Kind, LOCALS_PER_POD, LOOPBACK_INTERFACE, LocalKey, PodConfig,
    Tuple,
};

use crate::{
    context::{read, read_words},
    maps::{ADMITTED, LOCALS, LOCALS_USED, PROBES, count, is_known_local, pod},
    steer::{DROP, PASS, steer},
};

/// Set by the loader for each pod.
#[unsafe(no_mangle)]
static NETNS_COOKIE: Global<u64> = Global::new(0);

const AF_INET: u32 = 2;
const TCP: u32 = 6;
const UDP: u32 = 17;

/// Leaves an entry that is there (`BPF_NOEXIST`).
const NO_EXIST: u64 = 1;

/// A packet found no connection: for which listener is it?
#[sk_lookup]
pub(crate) fn strake_lookup(context: SkLookupContext) -> u32 {
    let netns_cookie = NETNS_COOKIE.load();
    let Some(pod) = pod(netns_cookie) else { return PASS };
    let arrival = Arrival::read(context.lookup);
    if arrival.protocol == UDP {
        return datagram(&pod, netns_cookie, &arrival);
    }
    if arrival.protocol != TCP || arrival.is_to_itself() {
        return PASS;
    }
    let target = if arrival.is_looped(&pod) {
        looped(netns_cookie, &pod, &arrival)
    } else {
        from_outside(netns_cookie, &pod, &arrival)
    };
    match target {
        Target::Proxy(kind) => steer(&context, netns_cookie, kind, arrival.is_v4),
        Target::Ordinary => PASS,
        Target::Nobody => {
            count(Counter::LookupRefused);
            DROP
        }
    }
}

/// A UDP packet. The proxy's DNS sockets have the pod's address, and answer nobody but the pod.
#[inline(always)]
fn datagram(pod: &PodConfig, netns_cookie: u64, arrival: &Arrival) -> u32 {
    let source = arrival.tuple.source;
    if !pod.is_dns_port(arrival.tuple.destination_port) || pod.owns(&source) || source.is_loopback() {
        return PASS;
    }
    if is_known_local(LocalKey { netns_cookie, address: source }) {
        return PASS;
    }
    count(Counter::DnsOutsider);
    DROP
}

/// Destination of a connection.
enum Target {
    /// To the proxy's listener of this kind.
    Proxy(Kind),
    /// To whoever listens there.
    Ordinary,
    /// Nowhere: it is refused.
    Nobody,
}

/// From an application of the pod to somewhere, or from the proxy to an application with the
/// client's address.
#[inline(always)]
fn looped(netns_cookie: u64, pod: &PodConfig, arrival: &Arrival) -> Target {
    let destination = arrival.tuple.destination;
    let own = pod.owns(&arrival.tuple.source);
    let to_application =
        pod.owns(&destination) || !own && is_known_local(LocalKey { netns_cookie, address: destination });
    // Only marked packets come this way, so F_OUT does not matter: what was captured stays captured.
    if to_application { Target::Ordinary } else { Target::Proxy(Kind::Outbound) }
}

/// Through the pod's interface.
#[inline(always)]
fn from_outside(netns_cookie: u64, pod: &PodConfig, arrival: &Arrival) -> Target {
    let port = arrival.tuple.destination_port;
    let is_captured = pod.flags & F_IN != 0;
    if is_captured && port == pod.hbone_port {
        return Target::Proxy(Kind::Hbone);
    }
    if !is_captured || pod.flags & F_BYPASS_IN != 0 {
        // The proxy listens for what it has captured, and must not take a stranger for the pod.
        if port == pod.out_port || port == pod.in_port || pod.is_dns_port(port) {
            return Target::Nobody;
        }
        if is_captured {
            count(Counter::LookupBypassed);
        }
        return Target::Ordinary;
    }
    if is_admitted(&arrival.tuple) {
        if is_declared(netns_cookie, pod, &arrival.tuple) {
            count(Counter::LookupAdmitted);
            return Target::Ordinary;
        }
        count(Counter::ProbeUndeclared);
    }
    if !pod.owns(&arrival.tuple.destination) {
        learn(LocalKey { netns_cookie, address: arrival.tuple.destination });
    }
    Target::Proxy(Kind::Inbound)
}

/// Returns whether the pod itself declares a probe there. The prober also connects on behalf of other pods (`httpGet.host`) and of users
/// (`pods/proxy` where API server and kubelet are one process): these must not have its privilege.
#[inline(always)]
fn is_declared(netns_cookie: u64, pod: &PodConfig, tuple: &Tuple) -> bool {
    let Some(probes) = PROBES.get_ptr(netns_cookie) else { return false };
    // SAFETY: the kernel gave the pointer to a value of this type, valid until the program ends.
    pod.owns(&tuple.destination) && unsafe { (*probes).contains(tuple.destination_port) }
}

/// Returns whether it is a prober's. An admission that was never used up must not wait for whoever has its addresses and ports next.
#[inline(always)]
fn is_admitted(tuple: &Tuple) -> bool {
    let Some(admission) = ADMITTED.get_ptr(tuple) else { return false };
    // SAFETY: the kernel gave the pointer to a value of this type, valid until the program ends.
    let since_ns = unsafe { (*admission).since_ns };
    // SAFETY: the helper has no precondition.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    let counts = now_ns.wrapping_sub(since_ns) <= Admission::LIFETIME_NS;
    if !counts {
        count(Counter::AdmissionExpired);
    }
    counts
}

/// Arrived through an interface, so it is an address of this namespace, though not the pod's.
#[inline(always)]
fn learn(key: LocalKey) {
    // SAFETY: the helper has no precondition.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    if let Some(seen_ns) = LOCALS.get_ptr_mut(key) {
        // SAFETY: the kernel gave the pointer to a value of this type, valid until the program ends; one aligned word.
        unsafe { seen_ns.write_volatile(now_ns) };
        return;
    }
    if !has_share_left(key.netns_cookie) || LOCALS.insert(key, now_ns, NO_EXIST).is_err() {
        count(Counter::LocalsFull);
        return;
    }
    if let Some(used) = LOCALS_USED.get_ptr_mut(key.netns_cookie) {
        // SAFETY: as above.
        let before = unsafe { used.read_volatile() };
        // SAFETY: as above. There is no atomic addition for this target: CPUs that add at the same moment count as one, so that a
        // pod gets at most its share once for each CPU. The loader counts again every few seconds.
        unsafe { used.write_volatile(before + 1) };
    }
}

/// Returns whether the pod may have one more address in `LOCALS`.
#[inline(always)]
fn has_share_left(netns_cookie: u64) -> bool {
    let Some(used) = LOCALS_USED.get_ptr(netns_cookie) else { return false };
    // SAFETY: the kernel gave the pointer to a value of this type, valid until the program ends; one aligned word.
    unsafe { used.read_volatile() < LOCALS_PER_POD }
}

/// The packet that looks for a listener.
struct Arrival {
    protocol: u32,
    is_v4: bool,
    interface: u32,
    tuple: Tuple,
}

impl Arrival {
    #[inline(always)]
    fn read(lookup: *mut bpf_sk_lookup) -> Self {
        let family = read!((*lookup).family);
        let protocol = read!((*lookup).protocol);
        let interface = read!((*lookup).ingress_ifindex);
        let source_port = u16::from_be(read!((*lookup).remote_port));
        let destination_port = read!((*lookup).local_port) as u16;
        let (remote_v4, local_v4) = (read!((*lookup).remote_ip4), read!((*lookup).local_ip4));
        let remote_v6 = read_words!((*lookup).remote_ip6);
        let local_v6 = read_words!((*lookup).local_ip6);
        let is_v4 = family == AF_INET;
        let (source, destination) = if is_v4 {
            (Address::from_v4(remote_v4), Address::from_v4(local_v4))
        } else {
            (Address::from_v6(remote_v6), Address::from_v6(local_v6))
        };
        let tuple = Tuple { source, destination, source_port, destination_port };
        Self { protocol, is_v4, interface, tuple }
    }

    /// From an address to the same one, or to loopback: never the mesh's.
    #[inline(always)]
    fn is_to_itself(&self) -> bool {
        self.tuple.source.same(&self.tuple.destination) || self.tuple.destination.is_loopback()
    }

    /// From within. The interface is the route's: packets of a socket bound to the pod's interface
    /// show that one; but from outside the pod's own address would be a martian.
    #[inline(always)]
    fn is_looped(&self, pod: &PodConfig) -> bool {
        self.interface == LOOPBACK_INTERFACE || pod.owns(&self.tuple.source)
    }
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
