//! IP addresses as map keys hold them.

/// An IPv4 or IPv6 address as four words in network order; IPv4 in its mapped form
/// `::ffff:a.b.c.d` (RFC 4291, 2.5.5.2), so that one key type serves both families.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Address {
    /// The 16 bytes, each word in network order.
    pub words_be: [u32; 4],
}

const _: () = assert!(size_of::<Address>() == 16);

/// Third word of a mapped IPv4 address.
// Big-endian like the words that it is compared with: nothing is swapped in the kernel.
const MAPPED: u32 = 0xffff_u32.to_be();

impl Address {
    /// `::`, which stands for "none".
    pub const NONE: Self = Self { words_be: [0; 4] };

    /// From an IPv4 address in network order.
    #[inline(always)]
    #[must_use]
    pub const fn from_v4(address_be: u32) -> Self {
        Self { words_be: [0, 0, MAPPED, address_be] }
    }

    /// From an IPv6 address in network order; a mapped one counts as IPv4.
    #[inline(always)]
    #[must_use]
    pub const fn from_v6(words_be: [u32; 4]) -> Self {
        Self { words_be }
    }

    /// Returns whether it is IPv4.
    #[inline(always)]
    #[must_use]
    pub const fn is_v4(&self) -> bool {
        self.words_be[0] == 0 && self.words_be[1] == 0 && self.words_be[2] == MAPPED
    }

    /// Equality without a call to `memcmp`, which BPF does not have.
    #[inline(always)]
    #[must_use]
    pub const fn same(&self, other: &Self) -> bool {
        let (a, b) = (&self.words_be, &other.words_be);
        // One comparison instead of four branches, each of which the verifier would follow.
        (a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]) == 0
    }

    /// `0.0.0.0` or `::`: a socket that is not bound; as a destination, the host itself.
    #[inline(always)]
    #[must_use]
    pub const fn is_unspecified(&self) -> bool {
        let w = &self.words_be;
        w[0] | w[1] | w[3] == 0 && (w[2] == 0 || w[2] == MAPPED)
    }

    /// `fe80::/10`.
    #[inline(always)]
    #[must_use]
    pub const fn is_link_local_v6(&self) -> bool {
        // The first 10 of 32 bits.
        u32::from_be(self.words_be[0]) >> 22 == 0xfe80 >> 6
    }

    /// `127.0.0.0/8` or `::1`.
    #[inline(always)]
    #[must_use]
    pub const fn is_loopback(&self) -> bool {
        let w = &self.words_be;
        if self.is_v4() { u32::from_be(w[3]) >> 24 == 127 } else { w[0] | w[1] | w[2] == 0 && w[3] == 1_u32.to_be() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(text: [u8; 4]) -> Address {
        Address::from_v4(u32::from_ne_bytes(text))
    }

    #[test]
    fn loopback_covers_the_whole_ipv4_block_and_one_ipv6_address() {
        assert!(v4([127, 0, 0, 1]).is_loopback());
        assert!(v4([127, 255, 1, 2]).is_loopback());
        assert!(!v4([128, 0, 0, 1]).is_loopback());
        assert!(Address::from_v6([0, 0, 0, 1_u32.to_be()]).is_loopback());
        assert!(!Address::from_v6([0, 0, 0, 2_u32.to_be()]).is_loopback());
        assert!(!Address::NONE.is_loopback());
    }

    #[test]
    fn the_first_ten_bits_make_an_address_link_local() {
        for (first, link_local) in
            [(0xfe80_u32, true), (0xfebf, true), (0xfec0, false), (0xfe7f, false), (0xfd00, false)]
        {
            assert_eq!(Address::from_v6([(first << 16).to_be(), 0, 0, 1]).is_link_local_v6(), link_local);
        }
        assert!(!v4([169, 254, 0, 1]).is_link_local_v6());
    }

    #[test]
    fn both_families_have_an_unspecified_address() {
        assert!(Address::NONE.is_unspecified());
        assert!(v4([0; 4]).is_unspecified());
        assert!(!v4([0, 0, 0, 1]).is_unspecified());
        assert!(!Address::from_v6([1, 0, 0, 0]).is_unspecified());
    }

    #[test]
    fn a_mapped_address_is_the_ipv4_address() {
        let mapped = Address::from_v6([0, 0, 0xffff_u32.to_be(), u32::from_ne_bytes([10, 0, 0, 1])]);

        assert!(mapped.is_v4());
        assert!(mapped.same(&v4([10, 0, 0, 1])));
        assert!(!mapped.same(&v4([10, 0, 0, 2])));
    }
}
