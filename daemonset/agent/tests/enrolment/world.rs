//! The other end of a pod's wire: a namespace with a server that answers whoever reaches it without a proxy.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::Command;

use runtime::sys::Netns;

use crate::DESTINATION;
use crate::node::{ADDRESSES, Pod};

/// Answer of the server.
pub(crate) const PLAIN: &str = "plain";

/// As long as it lives, the pod reaches [`DESTINATION`] and, for connections that stay, the port after it.
pub(crate) struct World {
    netns: Netns,
}

impl World {
    /// Connects the pod's interface with a new namespace.
    pub(crate) async fn of(pod: &Pod) -> Self {
        let netns = Netns::create().unwrap();
        let (connection, handle, _) = pod.netns.run(rtnetlink::new_connection).unwrap();
        let driver = tokio::spawn(connection);
        let descriptor = std::os::fd::AsRawFd::as_raw_fd(&std::os::fd::AsFd::as_fd(&netns));
        let moved = rtnetlink::LinkUnspec::new_with_name("peer0").setns_by_fd(descriptor).build();
        handle.link().set(moved).execute().await.unwrap();
        driver.abort();
        let server: SocketAddr = DESTINATION.parse().unwrap();
        ip(&netns, "link set lo up");
        ip(&netns, "link set peer0 up");
        ip(&netns, &format!("address add {}/32 dev peer0", server.ip()));
        ip(&netns, &format!("route add {}/32 dev peer0", ADDRESSES[0]));
        ip(&pod.netns, &format!("route add {}/32 dev eth0 src {}", server.ip(), ADDRESSES[0]));
        netns
            .run(|| {
                let once = TcpListener::bind(server)?;
                let held = TcpListener::bind(SocketAddr::new(server.ip(), server.port() + 1))?;
                std::thread::spawn(move || {
                    while let Ok((mut stream, _)) = once.accept() {
                        let _: std::io::Result<()> = stream.write_all(PLAIN.as_bytes());
                    }
                });
                std::thread::spawn(move || {
                    while let Ok((mut stream, _)) = held.accept() {
                        std::thread::spawn(move || {
                            let mut byte = [0];
                            while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
                        });
                    }
                });
                Ok(())
            })
            .unwrap();
        Self { netns }
    }

    pub(crate) const fn netns(&self) -> &Netns {
        &self.netns
    }
}

/// iproute2 in a namespace.
pub(crate) fn ip(netns: &Netns, arguments: &str) {
    ip_output(netns, arguments);
}

/// As [`ip`]; what it prints.
pub(crate) fn ip_output(netns: &Netns, arguments: &str) -> String {
    let output = netns.run(|| Command::new("ip").args(arguments.split(' ')).output()).unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
