//! Servers that send nonsense to a ztunnel: it says so, tries again, and neither dies nor becomes ready.

use std::{
    fs,
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpStream},
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use runtime::sys::Netns;
use testkit::{pki::Authority, prerequisites};

/// A second try must come by then.
pub(crate) const AGAIN: Duration = Duration::from_secs(30);

/// A ztunnel in a network namespace of its own; killed when dropped.
pub(crate) struct Ztunnel {
    child: Child,
    log: PathBuf,
}

impl Ztunnel {
    /// Starts it with this ZDS server and control plane; without the latter it reads an empty file instead.
    pub(crate) fn start(dir: &Path, zds: &Path, xds: Option<(&str, &Authority)>) -> Self {
        let log = dir.join("ztunnel.log");
        let out = fs::File::create(&log).unwrap();
        fs::write(dir.join("root.pem"), xds.map_or("", |(_, root)| root.pem())).unwrap();
        fs::write(dir.join("token"), "token").unwrap();
        fs::write(dir.join("local.yaml"), "workloads: []\n").unwrap();
        let child = Command::new(prerequisites::bin_dir().join("ztunnel"))
            .env_clear()
            .envs([("NODE_NAME", "node-1"), ("POD_NAME", "ztunnel"), ("POD_NAMESPACE", "istio-system")])
            .envs([("SERVICE_ACCOUNT", "ztunnel"), ("INSTANCE_IP", "127.0.0.1"), ("RUST_LOG", "debug")])
            .envs([("XDS_ADDRESS", xds.map_or("", |(address, _)| address)), ("CA_ADDRESS", "https://127.0.0.1:15012")])
            .envs(xds.is_none().then(|| ("LOCAL_XDS_PATH", dir.join("local.yaml"))))
            .env("XDS_ROOT_CA", dir.join("root.pem"))
            .env("CA_ROOT_CA", dir.join("root.pem"))
            .env("AUTH_TOKEN", dir.join("token"))
            .env("INPOD_UDS", zds)
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .unwrap();
        Self { child, log }
    }

    /// Its output.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until it has printed a line with all of `parts`: lines are written by a thread of their own.
    pub(crate) fn says(&self, parts: &[&str]) {
        let begun = Instant::now();
        while lab::output::line_with(&self.log(), parts).is_none() {
            assert!(begun.elapsed() < AGAIN, "no line with {parts:?}:\n{}", self.log());
            thread::sleep(Duration::from_millis(20));
        }
    }

    #[track_caller]
    pub(crate) fn assert_alive(&mut self) {
        let ended = self.child.try_wait().unwrap();
        assert!(ended.is_none(), "it ended: {ended:?}\n{}", self.log());
    }
}

impl Drop for Ztunnel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A network namespace with its loopback up.
pub(crate) fn own_netns() -> Netns {
    let netns = Netns::create().unwrap();
    let up = netns.run(|| Command::new("ip").args(["link", "set", "lo", "up"]).status()).unwrap();
    assert!(up.success());
    netns
}

/// Status and body of a page in the namespace.
pub(crate) fn page(netns: &Netns, port: u16, path: &str) -> io::Result<String> {
    let mut stream = netns.run(|| TcpStream::connect((Ipv4Addr::LOCALHOST, port)))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

pub(crate) fn is_ready(netns: &Netns) -> bool {
    page(netns, 15021, "/healthz/ready").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

/// Listens as ZDS does: SOCK_SEQPACKET; a stream socket is one more kind of nonsense, refused at connect.
pub(crate) fn seqpacket(path: &Path) -> UnixListener {
    let listener = rustix::net::socket_with(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::SEQPACKET,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    rustix::net::bind(&listener, &rustix::net::SocketAddrUnix::new(path).unwrap()).unwrap();
    rustix::net::listen(&listener, 8).unwrap();
    UnixListener::from(listener)
}

/// Sends each of `messages` to one connection after the other; reports every connection.
fn zds_that_says(path: &Path, messages: Vec<Vec<u8>>) -> mpsc::Receiver<usize> {
    use std::os::unix::net::UnixStream;

    let (seen, connections) = mpsc::channel();
    let listener = seqpacket(path);
    thread::spawn(move || {
        for (index, message) in messages.into_iter().cycle().enumerate() {
            let Ok((mut stream, _)): Result<(UnixStream, _), _> = listener.accept() else { return };
            let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(&message);
            if seen.send(index).is_err() {
                return;
            }
        }
    });
    connections
}

#[test]
fn a_zds_server_that_sends_nonsense_is_left_and_tried_again() {
    if !prerequisites::met(prerequisites::missing(true)) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("zds.sock");
    let messages = vec![
        b"\xff\xff\xff\xff\xff\xff".to_vec(),
        b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
        Vec::new(),
        vec![0x0a, 0x00],      // an add without a namespace descriptor
        vec![0x0a; 64 * 1024], // longer than any message
    ];
    let kinds = messages.len();
    let connections = zds_that_says(&socket, messages);

    let netns = own_netns();
    let mut ztunnel = netns.run(|| Ok(Ztunnel::start(dir.path(), &socket, None))).unwrap();

    for _ in 0..=kinds {
        connections.recv_timeout(AGAIN).unwrap_or_else(|_| {
            ztunnel.assert_alive();
            panic!("it does not try again:\n{}", ztunnel.log())
        });
    }
    ztunnel.says(&["warn", "no connection to the node agent"]);
    assert!(!is_ready(&netns), "ready without a word of the agent");
    ztunnel.assert_alive();
}

#[test]
fn an_xds_server_that_sends_nonsense_is_left_and_tried_again() {
    if !prerequisites::met(prerequisites::missing(true)) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("zds.sock");
    let (seen, connections) = mpsc::channel();

    let netns = own_netns();
    let listener = netns.run(|| std::net::TcpListener::bind("127.0.0.1:15012")).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.write_all(b"\x16\x03\x03\xff\xffthis is no handshake");
            if seen.send(()).is_err() {
                return;
            }
        }
    });
    let root = Authority::new("cluster.local").unwrap();
    let start = || Ok(Ztunnel::start(dir.path(), &socket, Some(("https://127.0.0.1:15012", &root))));
    let mut ztunnel = netns.run(start).unwrap();

    for _ in 0..3 {
        connections.recv_timeout(AGAIN).expect("it tries again");
    }
    ztunnel.says(&["warn", "connect to discovery", "TLS"]);
    assert!(!is_ready(&netns), "ready without a word of discovery");
    ztunnel.assert_alive();
}
