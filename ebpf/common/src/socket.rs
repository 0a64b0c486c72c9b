//! Tags of sockets, as the kernel programs keep them: whose they are, and which are the proxy's listeners.

/// Made below the cgroup of the proxy.
pub const TAG_PROXY: u32 = 1;
/// Made below the cgroup of a prober, such as the kubelet.
pub const TAG_PROBER: u32 = 1 << 1;

/// Purpose of a listener of the proxy. The numbers are part of map keys.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Inbound plaintext.
    Inbound = 1,
    /// Outbound connections of the pod's applications.
    Outbound = 2,
    /// Tunnels (HBONE).
    Hbone = 3,
    /// DNS questions over TCP. Connections reach it by its address; it is noted so that it can be read back.
    Dns = 4,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Inbound, Self::Outbound, Self::Hbone, Self::Dns];

    /// Stable lower-case name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
            Self::Hbone => "hbone",
            Self::Dns => "dns",
        }
    }
}

/// Address family of a listener. The numbers are part of map keys.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// `AF_INET`.
    V4 = 4,
    /// `AF_INET6`; takes IPv4 too unless it is `IPV6_V6ONLY`.
    V6 = 6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];
}

/// Key of the map `SOCKS`. Plain numbers, because the kernel side must not trust bytes to be an enum.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SocketKey {
    /// Cookie of the network namespace of the listener.
    pub netns_cookie: u64,
    /// A [`Kind`].
    pub kind: u32,
    /// A [`Family`].
    pub family: u32,
}

const _: () = assert!(size_of::<SocketKey>() == 16);

impl SocketKey {
    /// The slot of one listener.
    // The cookie and not the inode number of the namespace: the kernel never uses a cookie twice.
    #[inline(always)]
    #[must_use]
    pub const fn new(netns_cookie: u64, kind: Kind, family: Family) -> Self {
        Self { netns_cookie, kind: kind as u32, family: family as u32 }
    }
}

/// Value of the map `TAGS`, kept by the kernel with the socket. A socket that a tagged listener
/// accepts has a copy of the listener's tag.
///
/// Plaintext between an application and the proxy must not leave the pod, whatever happens to the pod's routing. The sockets
/// at both ends of such a connection are confined: [`Tag::confined_to`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tag {
    /// [`TAG_PROXY`], [`TAG_PROBER`].
    pub flags: u32,
    /// The [`Kind`] of the listener that this socket is, or came from; 0: none.
    pub kind: u32,
    /// Cookie of the network namespace in which the packets of this socket stay while its pod is enrolled: they go by `lo`, or
    /// are dropped. 0: not confined.
    pub confined_to: u64,
}

const _: () = assert!(size_of::<Tag>() == 16);

impl Tag {
    /// The tag of a listener of the proxy. Applications connect to the outbound one, so what it accepts is confined.
    #[inline(always)]
    #[must_use]
    pub const fn listener(kind: Kind, netns_cookie: u64) -> Self {
        let confined_to = match kind {
            Kind::Outbound => netns_cookie,
            // Their peers are other pods, on the network; those of DNS have the pod's own address at both ends.
            Kind::Inbound | Kind::Hbone | Kind::Dns => 0,
        };
        Self { flags: TAG_PROXY, kind: kind as u32, confined_to }
    }
}
