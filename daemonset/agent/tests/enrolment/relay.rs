//! A relay between the agent and a proxy that delays, repeats, splits and loses their messages.
//!
//! It runs in the proxy's process, because the agent knows a proxy by the cgroup of whoever connects.

use std::fs;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use contract::admin::agent::PodState;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType,
};

use crate::node::{Node, Pod};
use crate::world::{PLAIN, World};
use crate::{DESTINATION, PROXY_CGROUP, captured, enrolled, outside};

/// Longer than a proxy takes to answer, and shorter than the agent waits.
const LATE: Duration = Duration::from_millis(400);

/// Fate of a message. Answers are the proxy's, requests the agent's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    LateAnswer,
    LostAnswer,
    RepeatedAnswer,
    LateRequest,
    LostRequest,
    RepeatedRequest,
    SplitRequest,
    CutRequest,
    LostDescriptor,
    EndedConnection,
}

impl Fault {
    const OF_ANSWERS: [Self; 3] = [Self::LateAnswer, Self::LostAnswer, Self::RepeatedAnswer];
    const OF_REQUESTS: [Self; 7] = [
        Self::LateRequest,
        Self::LostRequest,
        Self::RepeatedRequest,
        Self::SplitRequest,
        Self::CutRequest,
        Self::LostDescriptor,
        Self::EndedConnection,
    ];

    fn parse(name: &str) -> Option<Self> {
        Self::OF_ANSWERS.into_iter().chain(Self::OF_REQUESTS).find(|fault| format!("{fault:?}") == name)
    }
}

/// The file in which a test says what is to happen, and how often it still is to.
struct Orders(PathBuf);

impl Orders {
    fn give(node: &Node, fault: Fault, times: usize) {
        let draft = node.path("orders.draft");
        fs::write(&draft, format!("{fault:?} {times}")).unwrap();
        fs::rename(draft, node.path("orders")).unwrap();
    }

    /// Returns true if all faults have happened.
    fn are_done(node: &Node) -> bool {
        fs::read_to_string(node.path("orders")).is_ok_and(|text| text.ends_with(" 0"))
    }

    /// Takes the fault for this message of one direction.
    fn take(&self, of: &[Fault], message: &Message) -> Option<Fault> {
        let text = fs::read_to_string(&self.0).ok()?;
        let (name, times) = text.split_once(' ')?;
        let (fault, times): (Fault, usize) = (Fault::parse(name)?, times.parse().ok()?);
        // An `Add` has a descriptor to lose, and other messages have none.
        let is_possible = fault != Fault::LostDescriptor || !message.descriptors.is_empty();
        if times == 0 || !of.contains(&fault) || !is_possible {
            return None;
        }
        fs::write(&self.0, format!("{fault:?} {}", times - 1)).ok()?;
        Some(fault)
    }
}

/// Begins to relay; returns where the proxy connects. `orders`: see [`Orders`].
pub(crate) fn start(agent: PathBuf, orders: PathBuf) -> PathBuf {
    let path = orders.with_file_name(format!("relay-{}.sock", std::process::id()));
    let listener = socket();
    rustix::net::bind(&listener, &SocketAddrUnix::new(&path).unwrap()).unwrap();
    rustix::net::listen(&listener, 4).unwrap();
    std::thread::spawn(move || {
        while let Ok(proxy) = rustix::net::accept(&listener) {
            let upstream = socket();
            // Without an agent the proxy's connection ends, and it connects again.
            if rustix::net::connect(&upstream, &SocketAddrUnix::new(&agent).unwrap()).is_ok() {
                relay(Arc::new(proxy), Arc::new(upstream), &orders);
            }
        }
    });
    path
}

fn relay(proxy: Arc<OwnedFd>, agent: Arc<OwnedFd>, orders: &Path) {
    let (orders, both) = (orders.to_owned(), (proxy.clone(), agent.clone()));
    let requests = Orders(orders.clone());
    std::thread::spawn(move || pump(&agent, &proxy, |message| requests.take(&Fault::OF_REQUESTS, message)));
    let (answers, mut said_hello) = (Orders(orders), false);
    std::thread::spawn(move || {
        pump(&both.0, &both.1, |message| {
            // The first message is no answer.
            if std::mem::replace(&mut said_hello, true) { answers.take(&Fault::OF_ANSWERS, message) } else { None }
        });
    });
}

/// Passes messages on until one side ends, then ends the other.
fn pump(from: &OwnedFd, to: &OwnedFd, mut fault: impl FnMut(&Message) -> Option<Fault>) {
    while let Some(message) = Message::read(from) {
        if message.pass(to, fault(&message)).is_err() {
            break;
        }
    }
    for side in [from, to] {
        let _: rustix::io::Result<()> = rustix::net::shutdown(side, Shutdown::Both);
    }
}

struct Message {
    bytes: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

impl Message {
    /// `None` at the end of the connection.
    fn read(socket: &OwnedFd) -> Option<Self> {
        let mut bytes = vec![0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let read =
            rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC);
        bytes.truncate(read.ok()?.bytes);
        let rights = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(rights) => Some(rights),
            _ => None,
        });
        let descriptors = rights.flatten().collect();
        if bytes.is_empty() { None } else { Some(Self { bytes, descriptors }) }
    }

    fn pass(&self, to: &OwnedFd, fault: Option<Fault>) -> rustix::io::Result<()> {
        let (half, rest) = self.bytes.split_at(self.bytes.len() / 2);
        match fault {
            None => self.send(to, &self.bytes),
            Some(Fault::LateAnswer | Fault::LateRequest) => {
                std::thread::park_timeout(LATE);
                self.send(to, &self.bytes)
            }
            Some(Fault::LostAnswer | Fault::LostRequest) => Ok(()),
            Some(Fault::RepeatedAnswer | Fault::RepeatedRequest) => {
                self.send(to, &self.bytes)?;
                self.send(to, &self.bytes)
            }
            Some(Fault::SplitRequest) => {
                self.send(to, half)?;
                self.send(to, rest)
            }
            Some(Fault::CutRequest) => self.send(to, half),
            Some(Fault::LostDescriptor) => Self { bytes: Vec::new(), descriptors: Vec::new() }.send(to, &self.bytes),
            Some(Fault::EndedConnection) => Err(rustix::io::Errno::CONNRESET),
        }
    }

    /// With the descriptors of this message.
    fn send(&self, to: &OwnedFd, bytes: &[u8]) -> rustix::io::Result<()> {
        let descriptors: Vec<_> = self.descriptors.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&descriptors));
        }
        rustix::net::sendmsg(to, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL).map(|_| ())
    }
}

fn socket() -> OwnedFd {
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
}

/// A pod outside the mesh that calls a server all the time, an agent, and a proxy behind a relay.
async fn calling() -> Option<(Node, Pod, World, usize, usize)> {
    let mut node = Node::new()?;
    node.label_namespace(false);
    let pod = node.start_pod("web").await;
    let world = World::of(&pod).await;
    let agent = node.start_agent();
    node.start_relayed_proxy(PROXY_CGROUP);
    node.until("the pod is known", |node| outside(node, &pod));
    let caller = node.start_calling(&pod);
    Some((node, pod, world, agent, caller))
}

/// Has the pod join, the agent restart and the pod leave, with this fault of one message each time.
fn join_restart_and_leave(node: &mut Node, pod: &Pod, agent: &mut usize, fault: Fault) {
    println!("{fault:?}: joining");
    Orders::give(node, fault, 1);
    node.label_namespace(true);
    node.until("the pod is enrolled", |node| enrolled(node, pod).filter(|()| Orders::are_done(node)));
    node.until("calls are captured", |node| (*node.calls().last()? == captured(DESTINATION)).then_some(()));
    let from = node.calls().len();

    println!("{fault:?}: restarting");
    Orders::give(node, fault, 1);
    node.kill(*agent);
    *agent = node.start_agent();
    node.until("the pod is enrolled again", |node| enrolled(node, pod).filter(|()| Orders::are_done(node)));
    assert!(node.is_annotated(pod));
    let calls = node.calls();
    let plain: Vec<_> = calls[from..].iter().filter(|call| *call == PLAIN).collect();
    assert!(calls.len() > from && plain.is_empty(), "{fault:?}: {} of {} in plaintext", plain.len(), calls.len());

    println!("{fault:?}: leaving");
    // A pod that leaves causes no message with a descriptor.
    let times = usize::from(fault != Fault::LostDescriptor);
    Orders::give(node, fault, times);
    node.label_namespace(false);
    node.until("the pod has left", |node| outside(node, pod).filter(|()| Orders::are_done(node)));
    node.until("calls are direct", |node| (node.calls().last()? == PLAIN).then_some(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_late_lost_or_repeated_put_no_call_in_plaintext() {
    let Some((mut node, pod, _world, mut agent, caller)) = calling().await else { return };

    for fault in Fault::OF_ANSWERS {
        join_restart_and_leave(&mut node, &pod, &mut agent, fault);
    }

    node.stop_calling(caller);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_late_lost_repeated_split_or_cut_put_no_call_in_plaintext() {
    let Some((mut node, pod, _world, mut agent, caller)) = calling().await else { return };

    for fault in Fault::OF_REQUESTS {
        join_restart_and_leave(&mut node, &pod, &mut agent, fault);
    }

    node.stop_calling(caller);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_its_acknowledgement_or_its_namespace_does_not_arrive_a_pod_is_neither_announced_nor_open() {
    let Some((node, pod, _world, ..)) = calling().await else { return };

    for fault in [Fault::LostDescriptor, Fault::LostAnswer] {
        Orders::give(&node, fault, usize::MAX);
        node.label_namespace(true);
        node.until("the reason is told", |node| {
            let report = node.report(&pod)?;
            (report.state == PodState::Failed && report.reason.starts_with("announce: ")).then_some(())
        });
        node.until("the pod is closed", |node| (node.connect(&pod, DESTINATION) != PLAIN).then_some(()));
        assert!(!node.is_annotated(&pod), "{fault:?}");

        Orders::give(&node, fault, 0);
        node.until("the pod is enrolled", |node| enrolled(node, &pod));
        node.label_namespace(false);
        node.until("the pod has left", |node| outside(node, &pod));
    }
}
