//! Connections and addresses as keys.

use crate::Address;

/// Key of the map `ADMITTED`: a connection as its connecting side sees it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Address of the connecting side.
    pub source: Address,
    /// Address that it connects to.
    pub destination: Address,
    /// Port of the connecting side, host order.
    pub source_port: u16,
    /// Port that it connects to, host order.
    pub destination_port: u16,
}

const _: () = assert!(size_of::<Tuple>() == 36);

impl Tuple {
    /// The same connection as the other side sees it.
    #[inline(always)]
    #[must_use]
    pub const fn reversed(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
        }
    }
}

/// Value of the map `ADMITTED`: permission to bypass the proxy, with its reason.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Admission {
    /// Time of the admission, `CLOCK_MONOTONIC`, in nanoseconds.
    pub since_ns: u64,
    /// Cookie of the network namespace of the connecting side.
    pub netns_cookie: u64,
    /// The flags of the connecting socket's tag, such as [`crate::TAG_PROBER`].
    pub reason: u32,
    /// Zero.
    // Named, because the verifier refuses map values with uninitialised padding.
    pub pad: u32,
}

const _: () = assert!(size_of::<Admission>() == 24);

impl Admission {
    /// Lifetime of an admission, in nanoseconds: from the first SYN until the last retransmission that a prober
    /// waits for. Kubernetes allows a probe any `timeoutSeconds`; it is 1 by default.
    // An admission that is left behind must not serve a later connection of the same ports.
    pub const LIFETIME_NS: u64 = 60_000_000_000;
}

/// Further addresses that one pod can have in `LOCALS` at a time.
// A bound for each pod: one that learns many must not use up the map for others.
pub const LOCALS_PER_POD: u64 = 32;

/// Key of the map `LOCALS`: a further address of an enrolled pod.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LocalKey {
    /// Cookie of the pod's network namespace.
    pub netns_cookie: u64,
    /// The address.
    pub address: Address,
}

const _: () = assert!(size_of::<LocalKey>() == 24);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tuple_reversed_twice_is_itself() {
        let tuple = Tuple {
            source: Address::from_v4(1),
            destination: Address::from_v4(2),
            source_port: 3,
            destination_port: 4,
        };

        assert_ne!(tuple.reversed(), tuple);
        assert_eq!(tuple.reversed().reversed(), tuple);
    }
}
