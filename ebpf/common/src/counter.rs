//! Counters of the kernel programs. One list, so that the program that counts and the page
//! that shows the number cannot disagree.

macro_rules! counters {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// Index into the per-CPU map `COUNTERS`.
        // The index is a key of the map, which the kernel reads as 32 bits.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Counter { $($(#[$doc])* $variant,)* }

        impl Counter {
            /// All counters, in the order of their indexes.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Stable name, usable as a metric label.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

// A new one is a new layout (`layout::LAYOUT`): a map pinned by an earlier version has no slot for it.
counters! {
    /// A socket was made below the proxy's cgroup.
    ProxySocket = "proxy_socket",
    /// A socket was made below a prober's cgroup.
    ProberSocket = "prober_socket",
    /// A socket could not be tagged for want of memory and counts as an application's.
    TagFailed = "tag_failed",
    /// An application's connection was marked for the proxy.
    OutboundCaptured = "outbound_captured",
    /// An application's connection was refused: its socket cannot be marked.
    OutboundRefused = "outbound_refused",
    /// An application's connection was refused: its socket is bound to an interface that is not the pod's.
    ForeignInterface = "foreign_interface",
    /// A connection from the proxy to the application was bound to `lo`.
    AppLeg = "app_leg",
    /// A connection from the proxy to the application was refused: its socket cannot be marked or bound.
    AppLegRefused = "app_leg_refused",
    /// A listener of the proxy was noted.
    ListenerNoted = "listener_noted",
    /// A listener of the proxy could not be noted; its pod stays closed.
    ListenerFailed = "listener_failed",
    /// A connection that the proxy or the application accepted could not be marked or bound.
    AcceptedFailed = "accepted_failed",
    /// A prober's connection was admitted.
    ProbeAdmitted = "probe_admitted",
    /// A prober's connection could not be noted and goes to the proxy.
    ProbeFailed = "probe_failed",
    /// An admitted connection was accepted by the application.
    AdmissionUsed = "admission_used",
    /// A connection was given to the proxy's outbound listener.
    LookupOutbound = "lookup_outbound",
    /// A connection was given to the proxy's inbound listener.
    LookupInbound = "lookup_inbound",
    /// A connection was given to the proxy's tunnel listener.
    LookupHbone = "lookup_hbone",
    /// An admitted connection was left to the application's own listener.
    LookupAdmitted = "lookup_admitted",
    /// A connection was refused: the proxy has no listener for it.
    NoListener = "no_listener",
    /// A connection was refused: the kernel did not accept the proxy's listener for it.
    AssignFailed = "assign_failed",
    /// A further address of a pod could not be noted, because the pod has as many as it may have; connections to it time out.
    LocalsFull = "locals_full",
    /// A prober's connection from another network namespace than the node's was not admitted.
    ProbeForeign = "probe_foreign",
    /// An admission was too old to count, and its connection went to the proxy.
    AdmissionExpired = "admission_expired",
    /// An application's connection was refused: no rule would bring it to the proxy, because the pod has no
    /// address of its family or because it is link-local.
    OutboundUnroutable = "outbound_unroutable",
    /// A prober's connection went to the proxy: the pod declares no probe on that address and port.
    ProbeUndeclared = "probe_undeclared",
    /// A packet between an application and the proxy was dropped: it would have left the pod by another interface than `lo`.
    EgressDropped = "egress_dropped",
    /// An application's connection was marked when it sent its first packet, because no program had marked it at connect(2).
    OutboundMarkedLate = "outbound_marked_late",
    /// A connection went to the proxy although a program of somebody else had selected a socket for it.
    LookupReplaced = "lookup_replaced",
    /// A connection bypassed the proxy: it was refused, and a program of somebody else had selected a socket for it.
    LookupOverruled = "lookup_overruled",
    /// A connection from outside to a capture port of the proxy was refused, in a pod that is leaving.
    LookupRefused = "lookup_refused",
    /// A connection from outside was left to the application's own listener, because its pod asks for that.
    LookupBypassed = "lookup_bypassed",
    /// A DNS question of an application was sent to the proxy.
    DnsCaptured = "dns_captured",
    /// A DNS question of an application was refused: its pod has no address of the question's family, or its socket is bound to
    /// an interface that is not the pod's or cannot remember the nameserver.
    DnsRefused = "dns_refused",
    /// A DNS socket of the proxy was bound to its pod's address instead of loopback.
    DnsSocketBound = "dns_socket_bound",
    /// A packet from outside to the proxy's DNS port was refused.
    DnsOutsider = "dns_outsider",
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    #[test]
    fn indexes_follow_the_list_and_names_are_unique() {
        let mut names = std::collections::HashSet::new();

        for (index, counter) in Counter::ALL.iter().enumerate() {
            assert_eq!(*counter as usize, index);
            assert!(names.insert(counter.name()), "{} twice", counter.name());
        }
    }
}
