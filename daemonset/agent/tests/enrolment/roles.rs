//! Roles of this program in processes of their own: the proxy and applications of a pod. None of it is a test.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use runtime::sys::Netns;
use runtime::sys::netns::NetnsId;
use socket2::{Domain, SockRef, Socket, Type};
use zds::client::{Client, Command};

use crate::HELD;
use crate::node::Node;

/// Set for the process that plays the proxy: the agent's socket.
pub(crate) const PROXY: &str = "STRAKE_TEST_PROXY";
/// Set for a proxy behind a relay: the file that says what happens to messages.
pub(crate) const RELAY: &str = "STRAKE_TEST_RELAY";
/// Set for the process that plays an application: where it connects, once.
pub(crate) const CLIENT: &str = "STRAKE_TEST_CLIENT";
/// Set for the process that plays a busy application: where it connects, again and again until its standard input ends.
pub(crate) const CALLER: &str = "STRAKE_TEST_CALLER";

/// Longest wait for an answer.
const ANSWER: Duration = Duration::from_secs(5);
/// Between two calls, so that ports are not used up.
const CALL_PAUSE: Duration = Duration::from_millis(4);

/// Not a test: this process when it plays the proxy.
#[tokio::test]
async fn proxy_process() {
    let Some(path) = std::env::var_os(PROXY) else { return };
    let path = match std::env::var_os(RELAY) {
        Some(orders) => crate::relay::start(path.into(), orders.into()).into(),
        None => path,
    };
    let mut pods: Vec<Served> = Vec::new();
    loop {
        let Ok(mut client) = Client::connect(Path::new(&path)).await else {
            std::thread::park_timeout(zds::RECONNECT_MIN);
            continue;
        };
        while let Ok(command) = client.next().await {
            let outcome = match command {
                Command::Add { .. } if Conduct::Refuses.is_wanted(&path) => Err(std::io::Error::other("refused")),
                Command::Add { uid, netns, .. } => {
                    Conduct::LateListeners.wait(&path);
                    let outcome = add(&mut pods, uid, netns);
                    Conduct::LateAnswer.wait(&path);
                    outcome
                }
                Command::Del { uid } => {
                    drop_pod(&mut pods, &uid);
                    Ok(())
                }
                Command::Keep { .. } | Command::SnapshotSent => Ok(()),
            };
            if client.ack(outcome.map_err(|error| error.to_string())).await.is_err() {
                break;
            }
        }
        std::thread::park_timeout(zds::RECONNECT_MIN);
    }
}

/// Conduct of a proxy towards a pod that is announced to it, other than to serve it at once.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Conduct {
    /// It answers with an error.
    Refuses,
    /// It opens its listeners, and answers, when the conduct ends.
    LateListeners,
    /// It opens its listeners at once and answers when the conduct ends.
    LateAnswer,
}

impl Conduct {
    /// File beside the agent's socket that names the conduct as long as it is wanted.
    const FILE: &str = "conduct";

    pub(crate) fn begin(self, node: &Node) {
        std::fs::write(node.path(Self::FILE), format!("{self:?}")).unwrap();
    }

    pub(crate) fn end(node: &Node) {
        std::fs::remove_file(node.path(Self::FILE)).unwrap();
    }

    fn is_wanted(self, socket: impl AsRef<Path>) -> bool {
        let wanted = std::fs::read_to_string(socket.as_ref().with_file_name(Self::FILE));
        wanted.is_ok_and(|wanted| wanted == format!("{self:?}"))
    }

    /// Waits for its end.
    fn wait(self, socket: impl AsRef<Path>) {
        while self.is_wanted(&socket) {
            std::thread::park_timeout(zds::RECONNECT_MIN);
        }
    }
}

/// A pod and the proxy's listeners in it.
struct Served {
    uid: zds::PodId,
    netns: NetnsId,
    listeners: Vec<TcpListener>,
}

/// As a proxy does it: nothing for a pod that it serves in this namespace; another namespace takes the place of the old one.
fn add(pods: &mut Vec<Served>, uid: zds::PodId, netns: std::os::fd::OwnedFd) -> std::io::Result<()> {
    let netns = Netns::from_fd(netns)?;
    if pods.iter().any(|pod| pod.uid == uid && pod.netns == netns.id()) {
        return Ok(());
    }
    drop_pod(pods, &uid);
    let listeners = listen(&netns)?;
    pods.push(Served { uid, netns: netns.id(), listeners });
    Ok(())
}

fn drop_pod(pods: &mut Vec<Served>, uid: &zds::PodId) {
    for pod in pods.extract_if(.., |pod| pod.uid == *uid) {
        pod.listeners.iter().for_each(|listener| {
            let _: std::io::Result<()> = SockRef::from(listener).shutdown(std::net::Shutdown::Both);
        });
    }
}

/// A proxy's listeners in a pod; each tells every connection where it was going.
fn listen(netns: &Netns) -> std::io::Result<Vec<TcpListener>> {
    netns.run(|| {
        let mut listeners = listen_dns()?;
        let captured = [15001, 15006, 15008]
            .into_iter()
            .map(|port| {
                let socket = Socket::new(Domain::IPV6, Type::STREAM, None)?;
                runtime::sys::socket::set_transparent(&socket)?;
                socket.set_reuse_address(true)?;
                socket.bind(&SocketAddr::from(([0_u16; 8], port)).into())?;
                socket.listen(16)?;
                let listener = TcpListener::from(socket);
                let accepting = listener.try_clone()?;
                std::thread::spawn(move || {
                    while let Ok((mut stream, _)) = accepting.accept() {
                        let to = stream.local_addr().map(runtime::sys::socket::canonical);
                        let _: std::io::Result<()> = write!(stream, "port {port} for {to:?}");
                        if to.is_ok_and(|to| to.to_string() == HELD) {
                            // Until the application ends it.
                            std::thread::spawn(move || stream.read(&mut [0]));
                        }
                    }
                });
                Ok(listener)
            })
            .collect::<std::io::Result<Vec<_>>>()?;
        listeners.extend(captured);
        Ok(listeners)
    })
}

/// Listeners for DNS, as a proxy has them; nobody asks them.
fn listen_dns() -> std::io::Result<Vec<TcpListener>> {
    let loopback: [SocketAddr; 2] = [(Ipv4Addr::LOCALHOST, 15053).into(), (Ipv6Addr::LOCALHOST, 15053).into()];
    let listeners = loopback.map(|address| {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(16)?;
        Ok(socket.into())
    });
    listeners.into_iter().collect()
}

/// Not a test: this process when it plays an application.
#[test]
fn client_process() {
    let Ok(to) = std::env::var(CLIENT) else { return };
    let connected = TcpStream::connect_timeout(&to.parse().unwrap(), Duration::from_secs(5));
    if to == HELD {
        let mut stream = connected.unwrap();
        stream.read_exact(&mut [0; 4]).unwrap();
        println!("client: holding");
        // Until the proxy, or whoever started us, ends it.
        let _: std::io::Result<usize> = stream.read_to_end(&mut Vec::new());
        return;
    }
    let answer = connected.and_then(|mut stream| {
        stream.set_read_timeout(Some(ANSWER))?;
        let mut text = String::new();
        stream.read_to_string(&mut text).map(|_| text)
    });
    match answer {
        Ok(text) => println!("client: {text}"),
        Err(error) => println!("client: error {error}"),
    }
}

/// Not a test: this process when it plays a busy application. Beside its calls it holds one connection to the port after
/// that of its calls, over which each byte comes back.
#[test]
fn caller_process() {
    let Ok(to) = std::env::var(CALLER) else { return };
    let to: SocketAddr = to.parse().unwrap();
    let ended = std::thread::spawn(|| std::io::stdin().read_to_end(&mut Vec::new()));
    let mut held = TcpStream::connect_timeout(&SocketAddr::new(to.ip(), to.port() + 1), ANSWER).unwrap();
    held.set_read_timeout(Some(ANSWER)).unwrap();
    let mut call = || -> std::io::Result<String> {
        let mut text = String::new();
        let mut stream = TcpStream::connect_timeout(&to, ANSWER)?;
        stream.set_read_timeout(Some(ANSWER))?;
        stream.read_to_string(&mut text)?;
        held.write_all(b"x")?;
        held.read_exact(&mut [0])?;
        Ok(text)
    };
    while !ended.is_finished() {
        match call() {
            Ok(text) => println!("client: {text}"),
            Err(error) => println!("client: error {error}"),
        }
        std::thread::park_timeout(CALL_PAUSE);
    }
}

/// As [`caller_process`], without the connection that stays: what breaks one hides no answer of the calls.
#[test]
fn lone_caller_process() {
    let Ok(to) = std::env::var(CALLER) else { return };
    let to: SocketAddr = to.parse().unwrap();
    let ended = std::thread::spawn(|| std::io::stdin().read_to_end(&mut Vec::new()));
    while !ended.is_finished() {
        match crate::wire::call(to) {
            Ok(text) => println!("client: {text}"),
            Err(error) => println!("client: error {error}"),
        }
        std::thread::park_timeout(CALL_PAUSE);
    }
}
