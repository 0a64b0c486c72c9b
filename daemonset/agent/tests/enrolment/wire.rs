//! Connections of a pod in both directions while its facts are disturbed: none goes past the proxy where the table of
//! `docs/design/0006-only-a-user-ends-encryption.md` says so.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use runtime::sys::Netns;
use strake_agent::enrol::Fact;

use crate::DESTINATION;
use crate::node::{ADDRESSES, Node, Pod};
use crate::world::{PLAIN, World, ip};

/// The application of the pod that its peer calls.
const APPLICATION: u16 = 8090;
/// Longest wait for a connection or an answer: while a fact does not hold, packets may be dropped.
const ANSWER: Duration = Duration::from_millis(300);
/// Between two calls, so that ports are not used up.
const CALL_PAUSE: Duration = Duration::from_millis(4);

/// Direction of a connection, seen from the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Outbound,
    Inbound,
}

/// Whether connections may go past the proxy until the fact is repaired. A new fact does not compile without an answer.
fn may_bypass(fact: Fact, direction: Direction) -> bool {
    match fact {
        Fact::PodEntry | Fact::NetnsCookie => true,
        Fact::SkLookup => direction == Direction::Inbound,
        Fact::Connect4
        | Fact::Connect6
        // About DNS questions, which are no connections of this test.
        | Fact::Sendmsg4
        | Fact::Sendmsg6
        | Fact::Recvmsg4
        | Fact::Recvmsg6
        | Fact::Getpeername4
        | Fact::Getpeername6
        | Fact::Bind4
        | Fact::Bind6
        | Fact::Egress
        | Fact::Sockops
        | Fact::Probes
        | Fact::Settings
        | Fact::Address
        | Fact::Rules
        | Fact::Outbound
        | Fact::Inbound
        | Fact::ProxyTag
        | Fact::ProxyCgroup
        | Fact::Listeners
        | Fact::Acknowledged => false,
    }
}

/// Answers of the calls of the pod's peer.
#[derive(Default)]
struct Answers {
    captured: AtomicUsize,
    plain: AtomicUsize,
}

/// A pod that calls [`DESTINATION`] all the time, and a peer at that address that calls the pod's application.
pub(crate) struct Wire {
    _world: World,
    caller: usize,
    inbound: Arc<Answers>,
    stop: Arc<AtomicBool>,
    peer: JoinHandle<()>,
    /// Calls and plaintext answers of the peer before the row.
    before: (usize, usize),
}

impl Wire {
    pub(crate) async fn start(node: &mut Node, pod: &Pod) -> Self {
        let world = World::of(pod).await;
        let application: SocketAddr = format!("{}:{APPLICATION}", ADDRESSES[0]).parse().unwrap();
        serve(&pod.netns, application.port());
        let (inbound, stop) = (Arc::<Answers>::default(), Arc::<AtomicBool>::default());
        let (netns, counts, stopped) = (world.netns().try_clone().unwrap(), inbound.clone(), stop.clone());
        let peer = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let answer = netns.run(|| call(application)).unwrap_or_default();
                counts.captured.fetch_add(usize::from(answer.starts_with("port 15006 ")), Ordering::Relaxed);
                counts.plain.fetch_add(usize::from(answer == PLAIN), Ordering::Relaxed);
                std::thread::park_timeout(CALL_PAUSE);
            }
        });
        let caller = node.start_calling_alone(pod);
        Self { _world: world, caller, inbound, stop, peer, before: (0, 0) }
    }

    /// A fact is disturbed next.
    pub(crate) fn begin(&mut self, node: &Node, pod: &Pod) {
        // The kernel has deleted it with the address, if that was gone: without it no call could go past the proxy.
        let peer = DESTINATION.parse::<SocketAddr>().unwrap().ip();
        ip(&pod.netns, &format!("route replace {peer}/32 dev eth0 src {}", ADDRESSES[0]));
        self.before = (node.calls().len(), self.inbound.plain.load(Ordering::Relaxed));
    }

    /// The fact was disturbed by `what` and holds again.
    pub(crate) fn assert_as_the_table_says(&self, node: &Node, fact: Fact, what: &str) {
        let before = self.inbound.captured.load(Ordering::Relaxed);
        node.until("the peer's calls are captured", |_| {
            (self.inbound.captured.load(Ordering::Relaxed) > before).then_some(())
        });
        let calls = node.calls();
        let outbound = calls.iter().skip(self.before.0).filter(|call| *call == PLAIN).count();
        let inbound = self.inbound.plain.load(Ordering::Relaxed) - self.before.1;
        for (direction, plain) in [(Direction::Outbound, outbound), (Direction::Inbound, inbound)] {
            assert!(plain == 0 || may_bypass(fact, direction), "{fact:?}, {what}: {plain} {direction:?} in plaintext");
        }
    }

    /// Asserts that calls in plaintext are seen at all: the pod leaves the mesh.
    pub(crate) fn leave(self, node: &mut Node) {
        let before = self.inbound.plain.load(Ordering::Relaxed);
        node.label_namespace(false);
        node.until("calls are direct", |node| {
            let inbound = self.inbound.plain.load(Ordering::Relaxed) > before;
            (inbound && node.calls().last()? == PLAIN).then_some(())
        });
        self.stop.store(true, Ordering::Relaxed);
        self.peer.join().unwrap();
        node.stop_calling(self.caller);
    }
}

/// The application, which answers whoever reaches it without the proxy.
fn serve(netns: &Netns, port: u16) {
    let listener = netns.run(|| TcpListener::bind(("0.0.0.0", port))).unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let _: std::io::Result<()> = stream.write_all(PLAIN.as_bytes());
        }
    });
}

/// Text of one answer.
pub(crate) fn call(to: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&to, ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}
