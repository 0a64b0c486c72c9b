//! The stage of a kernel test: one enrolled pod and one host beside it, in namespaces and cgroups of
//! their own, with the programs attached and a small transparent proxy. All actors are threads of the
//! test. Nothing is shared between tests, and all of it goes when the stage is dropped.

mod acceptor;
mod cgroups;
mod client;
mod network;
pub(crate) mod pins;
pub(crate) mod proxy;
pub(crate) mod resolver;
pub(crate) mod wire;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsFd,
    panic,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use ebpf_common::{
    Address, Admission, Counter, F_DNS, F_IN, F_OUT, LOCALS_PER_POD, LocalKey, PodConfig, ProbePorts, TAG_PROBER,
    Tuple, layout::PODS_ENTRIES, names,
};
use ebpf_loader::{Config, Steering};
use runtime::sys::Netns;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

pub(crate) use acceptor::Acceptor;
pub(crate) use client::{ask, connect, connect_with, exchange};
pub(crate) use proxy::Proxy;

/// Port on which the proxy answers DNS.
pub(crate) const DNS_PORT: u16 = 15053;

/// Longer than anything here takes; what passes it has failed.
pub(crate) const DEADLINE: Duration = Duration::from_secs(5);

/// Time for bytes whose packets were dropped for up to [`DEADLINE`]: TCP doubles its pause with each retransmission
/// (RFC 6298), so the next one may follow as long after the repair.
pub(crate) const RETRANSMITTED: Duration = Duration::from_secs(20);

pub(crate) const POD_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2));
pub(crate) const POD_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2));
/// The host at the other end of the pod's wire.
pub(crate) const HOST_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1));
pub(crate) const HOST_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1));
/// Routed through the host, and nobody's.
pub(crate) const FAR_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10));
pub(crate) const FAR_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 10));

/// Pod and host address of both families.
pub(crate) const FAMILIES: [(IpAddr, IpAddr); 2] = [(POD_V4, HOST_V4), (POD_V6, HOST_V6)];

/// Actor in a test, with its cgroup and namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Actor {
    /// An application in the pod.
    App,
    /// The proxy, in the pod's namespace.
    Proxy,
    /// A process of the other host.
    Host,
    /// A prober (kubelet) on the other host.
    Prober,
}

/// See the module.
pub(crate) struct Stage {
    pub(crate) steering: Steering,
    pub(crate) pod: Netns,
    pub(crate) host: Netns,
    pub(crate) cookie: u64,
    // Dropped in this order: programs first, then what they are attached to.
    pub(crate) pins: pins::Pins,
    cgroups: cgroups::Cgroups,
    network: network::Network,
}

impl Stage {
    /// Everything but the enrolment of the pod; `None` when this machine cannot do it.
    pub(crate) fn new() -> Option<Self> {
        if let Err(reason) = possible() {
            assert!(std::env::var_os("CI").is_none(), "skipped: {reason}");
            eprintln!("skipped: {reason}");
            return None;
        }
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let network = network::Network::new(number);
        let cgroups = cgroups::Cgroups::new(number);
        let pins = pins::Pins::new(number);
        let (pod, host) = (network.pod(), network.host());
        let config = Config {
            cgroup_root: cgroups.root(),
            bpffs_dir: pins.directory(),
            host_netns_cookie: host.cookie().unwrap(),
        };
        let steering = Steering::open(config).unwrap();
        steering.tag_proxy(&cgroups.of(Actor::Proxy)).unwrap();
        steering.tag_prober(&cgroups.of(Actor::Prober)).unwrap();
        let cookie = pod.cookie().unwrap();
        Some(Self { steering, pod, host, cookie, pins, cgroups, network })
    }

    /// With the pod enrolled, and its DNS questions captured.
    pub(crate) fn with_dns() -> Option<Self> {
        let stage = Self::enrolled()?;
        stage.steering.put_pod(stage.cookie, &stage.pod_config_with_dns()).unwrap();
        Some(stage)
    }

    /// With the pod enrolled.
    pub(crate) fn enrolled() -> Option<Self> {
        let stage = Self::new()?;
        stage.enrol();
        Some(stage)
    }

    pub(crate) fn config(&self) -> Config {
        Config {
            cgroup_root: self.cgroups.root(),
            bpffs_dir: self.pins.directory(),
            host_netns_cookie: self.host.cookie().unwrap(),
        }
    }

    pub(crate) fn cgroup(&self, actor: Actor) -> std::path::PathBuf {
        self.cgroups.of(actor)
    }

    pub(crate) fn pod_config(&self) -> PodConfig {
        PodConfig {
            flags: F_OUT | F_IN,
            interface: self.network.pod_interface(),
            out_port: 15001,
            in_port: 15006,
            hbone_port: 15008,
            dns_port: 0,
            ipv4: Address::from(POD_V4),
            ipv6: Address::from(POD_V6),
        }
    }

    /// As [`Self::pod_config`], with DNS captured.
    pub(crate) fn pod_config_with_dns(&self) -> PodConfig {
        PodConfig { flags: F_OUT | F_IN | F_DNS, dns_port: DNS_PORT, ..self.pod_config() }
    }

    /// In the order of the agent: entry, rules, program. The pod declares probes on `APP_PORT` and on the port after it.
    pub(crate) fn enrol(&self) {
        self.steering.put_pod(self.cookie, &self.pod_config()).unwrap();
        self.steering.put_probes(self.cookie, &ProbePorts::of([APP_PORT, APP_PORT + 1])).unwrap();
        self.network.add_rules();
        self.steering.attach_pod(self.cookie, self.pod.as_fd()).unwrap();
    }

    /// Runs `ip` inside the pod, for each family.
    pub(crate) fn ip_in_pod(&self, words: &str) {
        for family in ["-4", "-6"] {
            self.network.ip_in_pod(&format!("{family} {words}"));
        }
    }

    /// The rule and the routes of an enrolled pod.
    pub(crate) fn add_rules(&self) {
        self.network.add_rules();
    }

    /// Gives the pod one more address.
    pub(crate) fn add_pod_address(&self, address: IpAddr) {
        self.network.add_pod_address(address);
    }

    /// Gives the pod one more interface, which leads nowhere.
    pub(crate) fn add_pod_interface(&self, name: &str) {
        self.network.add_pod_interface(name);
    }

    /// Runs `play` in a thread of its own in a prober's cgroup, but inside the pod.
    pub(crate) fn as_prober_in_pod<T: Send>(&self, play: impl FnOnce() -> T + Send) -> T {
        self.perform(Actor::Prober, &self.pod, play)
    }

    /// Starts the proxy with listeners for both families.
    pub(crate) fn proxy(&self) -> Proxy {
        Proxy::start(self)
    }

    /// The index of one of the pod's interfaces.
    pub(crate) fn pod_interface(&self, name: &str) -> u32 {
        network::interface_index(&self.pod, name)
    }

    /// Starts an application in the pod.
    pub(crate) fn application(&self, address: SocketAddr) -> Acceptor {
        self.as_app(|| Acceptor::application(address))
    }

    /// Runs `play` in a thread of its own, as `actor`.
    pub(crate) fn as_actor<T: Send>(&self, actor: Actor, play: impl FnOnce() -> T + Send) -> T {
        let netns = match actor {
            Actor::App | Actor::Proxy => &self.pod,
            Actor::Host | Actor::Prober => &self.host,
        };
        self.perform(actor, netns, play)
    }

    fn perform<T: Send>(&self, actor: Actor, netns: &Netns, play: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let player = scope.spawn(|| {
                self.cgroups.join(actor);
                move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                play()
            });
            player.join().unwrap_or_else(|cause| panic::resume_unwind(cause))
        })
    }

    pub(crate) fn as_app<T: Send>(&self, play: impl FnOnce() -> T + Send) -> T {
        self.as_actor(Actor::App, play)
    }

    pub(crate) fn as_host<T: Send>(&self, play: impl FnOnce() -> T + Send) -> T {
        self.as_actor(Actor::Host, play)
    }

    pub(crate) fn as_prober<T: Send>(&self, play: impl FnOnce() -> T + Send) -> T {
        self.as_actor(Actor::Prober, play)
    }

    /// Notes an admission as the kernel program does, but so long ago: at the machine's start.
    pub(crate) fn admit_long_ago(&self, client: SocketAddr, server: SocketAddr) {
        let connection = Tuple {
            source: client.ip().into(),
            destination: server.ip().into(),
            source_port: client.port(),
            destination_port: server.port(),
        };
        let admission = Admission { since_ns: 1, reason: TAG_PROBER, ..Admission::default() };
        let pin = self.pins.list().into_iter().find(|pin| pin.ends_with(names::ADMITTED)).unwrap();
        let map = aya::maps::Map::LruHashMap(aya::maps::MapData::from_pin(pin).unwrap());
        let mut admitted: aya::maps::HashMap<_, Tuple, Admission> = map.try_into().unwrap();
        admitted.insert(connection, admission, 0).unwrap();
    }

    /// Notes addresses of all other pods that a node can have, as the kernel program would: each has its whole share.
    pub(crate) fn fill_shares_of_neighbours(&self) {
        let pin = self.pins.list().into_iter().find(|pin| pin.ends_with(names::LOCALS)).unwrap();
        let map = aya::maps::Map::HashMap(aya::maps::MapData::from_pin(pin).unwrap());
        let mut locals: aya::maps::HashMap<_, LocalKey, u64> = map.try_into().unwrap();
        let neighbours = (1..PODS_ENTRIES as u64).map(|number| u64::MAX - number);
        for netns_cookie in neighbours {
            for last in 0..LOCALS_PER_POD as u32 {
                locals.insert(LocalKey { netns_cookie, address: Address::from_v4(last) }, 1, 0).unwrap();
            }
        }
    }

    pub(crate) fn count(&self, counter: Counter) -> u64 {
        self.steering.stats().unwrap().into_iter().find(|(one, _)| *one == counter).unwrap().1
    }
}

/// May this process do all that a stage needs?
fn possible() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("needs root".into());
    }
    ebpf_loader::probe::kernel().map_err(|err| err.to_string())
}

/// A free port is not needed in a namespace of one's own.
pub(crate) const APP_PORT: u16 = 8080;

pub(crate) fn at(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address, port)
}

/// Any address of the family of `like`.
pub(crate) fn any(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// A destination far away, of the family of `like`.
pub(crate) fn far(like: IpAddr) -> SocketAddr {
    at(if like.is_ipv4() { FAR_V4 } else { FAR_V6 }, 80)
}

/// Waits for what the kernel does a moment later.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        thread::yield_now();
    }
}
