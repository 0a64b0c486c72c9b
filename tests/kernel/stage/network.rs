//! The two namespaces and the wire between them.

use std::{
    fs,
    net::{IpAddr, UdpSocket},
    path::{Path, PathBuf},
    process::{self, Command},
};

use runtime::sys::Netns;
use rustix::net::netdevice::name_to_index;

use super::{HOST_V4, HOST_V6, POD_V4, POD_V6};

const PREFIX: &str = "strake-kernel-";

/// Two named namespaces, `pod` with `eth0` and `host` with `wire`.
pub(crate) struct Network {
    pod: String,
    host: String,
}

impl Network {
    pub(crate) fn new(number: u32) -> Self {
        sweep();
        let network = Self {
            pod: format!("{PREFIX}{}-{number}-pod", process::id()),
            host: format!("{PREFIX}{}-{number}-host", process::id()),
        };
        let (pod, host) = (&network.pod, &network.host);
        for netns in [pod, host] {
            ip(&format!("netns add {netns}"));
            ip(&format!("-n {netns} link set lo up"));
        }
        ip(&format!("-n {pod} link add eth0 type veth peer name wire netns {host}"));
        for (netns, interface, v4, v6) in [(pod, "eth0", POD_V4, POD_V6), (host, "wire", HOST_V4, HOST_V6)] {
            ip(&format!("-n {netns} address add {v4}/24 dev {interface}"));
            ip(&format!("-n {netns} address add {v6}/64 dev {interface} nodad"));
            ip(&format!("-n {netns} link set {interface} up"));
        }
        ip(&format!("-n {pod} route add default via {HOST_V4}"));
        ip(&format!("-n {pod} route add default via {HOST_V6}"));
        network
    }

    pub(crate) fn pod(&self) -> Netns {
        Netns::open(path(&self.pod)).unwrap()
    }

    pub(crate) fn host(&self) -> Netns {
        Netns::open(path(&self.host)).unwrap()
    }

    pub(crate) fn pod_interface(&self) -> u32 {
        interface_index(&self.pod(), "eth0")
    }

    pub(crate) fn add_pod_address(&self, address: IpAddr) {
        let (length, flags) = if address.is_ipv4() { (24, "") } else { (64, "nodad") };
        ip(&format!("-n {} address add {address}/{length} dev eth0 {flags}", self.pod));
    }

    /// Runs `ip` with these words, its options first, inside the pod.
    pub(crate) fn ip_in_pod(&self, words: &str) {
        ip(&format!("-n {} {words}", self.pod));
    }

    pub(crate) fn add_pod_interface(&self, name: &str) {
        ip(&format!("-n {} link add {name} type veth peer name {name}-end", self.pod));
        ip(&format!("-n {} link set {name} up", self.pod));
    }

    /// Settings that the agent makes in an enrolled pod.
    pub(crate) fn add_rules(&self) {
        let pod = &self.pod;
        for (family, address, lo, eth0) in [("-4", POD_V4, 0, 10), ("-6", POD_V6, 1024, 4096)] {
            ip(&format!("{family} -n {pod} route add local default dev lo src {address} table 100 metric {lo}"));
            ip(&format!("{family} -n {pod} route add local default dev eth0 src {address} table 100 metric {eth0}"));
            // Last: only a rule makes IPv6 sockets forget the routes that they have cached.
            ip(&format!("{family} -n {pod} rule add pref 32764 fwmark 0x111/0xfff lookup 100"));
        }
        let settings = ["ipv4/tcp_fwmark_accept", "ipv4/fwmark_reflect", "ipv6/fwmark_reflect"];
        let set = || settings.iter().try_for_each(|name| fs::write(Path::new("/proc/sys/net").join(name), "1"));
        self.pod().run(set).unwrap();
    }
}

/// The index of an interface inside a namespace.
pub(crate) fn interface_index(netns: &Netns, name: &str) -> u32 {
    netns.run(|| Ok(name_to_index(UdpSocket::bind("0.0.0.0:0")?, name)?)).unwrap()
}

impl Drop for Network {
    fn drop(&mut self) {
        for netns in [&self.pod, &self.host] {
            let _ = Command::new("ip").args(["netns", "delete", netns]).output();
        }
    }
}

/// Runs `ip` with these words.
pub(crate) fn ip(words: &str) {
    let output = Command::new("ip").args(words.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
}

fn path(netns: &str) -> PathBuf {
    Path::new("/run/netns").join(netns)
}

/// Removes namespaces of test processes that were killed.
fn sweep() {
    for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            // Another test may be faster.
            let _ = Command::new("ip").args(["netns", "delete", &name]).output();
        }
    }
}
