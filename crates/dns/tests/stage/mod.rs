//! A server for one pod, its client, and nameservers that behave as a test wants; all on loopback and on one thread.
#![allow(dead_code, unreachable_pub)]

mod nameserver;

pub use nameserver::{Behaviour, Nameserver};

use dns::{Client, PodNetwork, Server, Settings, serve_tcp, serve_udp};
use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RData, RecordType};
use model::{Address, Change, State, StateConfig};
use runtime::drain::{Trigger, Watch, channel};
use serde_json::json;
use std::cell::Cell;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::timeout;

pub const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a test on a thread like a worker's.
pub fn on_one_thread(test: impl Future<Output = ()>) {
    runtime::sys::raise_nofile().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async { timeout(2 * PATIENCE, test).await.expect("the test ends in time") });
}

/// A question for the IPv4 addresses of `name`.
pub fn question(name: &str) -> Message {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    message
}

/// The name in the question of an answer.
pub fn asked(answer: &Message) -> String {
    answer.queries[0].name.to_ascii()
}

/// The address of an answer that has one.
pub fn address(answer: &Message) -> String {
    match answer.answers.iter().map(|record| &record.data).collect::<Vec<_>>().as_slice() {
        [RData::A(a)] => a.0.to_string(),
        other => panic!("{other:?} in {answer}"),
    }
}

pub fn framed(message: &Message) -> Vec<u8> {
    let bytes = message.to_vec().unwrap();
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], &bytes].concat()
}

/// The next message of a connection.
pub async fn read(connection: &mut TcpStream) -> Message {
    let read = async {
        let length = connection.read_u16().await.unwrap();
        let mut bytes = vec![0; length.into()];
        connection.read_exact(&mut bytes).await.unwrap();
        Message::from_vec(&bytes).unwrap()
    };
    timeout(PATIENCE, read).await.expect("answered in time")
}

/// The next message that a client gets.
pub async fn receive(client: &UdpSocket) -> Message {
    let mut buffer = [0; 65_535];
    let length = timeout(PATIENCE, client.recv(&mut buffer)).await.expect("answered in time").unwrap();
    Message::from_vec(&buffer[..length]).unwrap()
}

/// Sockets of this process towards nameservers.
#[derive(Clone)]
struct Loopback {
    made: Rc<watch::Sender<usize>>,
    refused: Rc<Cell<usize>>,
}

impl PodNetwork for Loopback {
    type Guard = ();

    fn udp(&self, to: SocketAddr) -> io::Result<(UdpSocket, ())> {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(to)?;
        socket.set_nonblocking(true)?;
        self.made.send_modify(|made| *made += 1);
        Ok((UdpSocket::from_std(socket)?, ()))
    }

    async fn tcp(&self, to: SocketAddr) -> io::Result<(TcpStream, ())> {
        Ok((TcpStream::connect(to).await?, ()))
    }

    fn refused(&self) {
        self.refused.set(self.refused.get() + 1);
    }
}

/// A pod's server.
pub struct Stage {
    pub udp: SocketAddr,
    pub tcp: SocketAddr,
    pub drain: Trigger,
    state: State,
    network: Loopback,
    receiving: Cell<Option<JoinHandle<()>>>,
}

impl Stage {
    /// For a client that discovery knows.
    pub async fn start(nameservers: &[SocketAddr]) -> Self {
        let stage = Self::start_with(nameservers.to_vec(), false).await;
        stage.discover_client();
        stage
    }

    /// For one that discovery does not know yet.
    pub async fn start_unknown() -> Self {
        Self::start_with(Vec::new(), false).await
    }

    /// With itself as nameserver.
    pub async fn start_looped() -> Self {
        let stage = Self::start_with(Vec::new(), true).await;
        stage.discover_client();
        stage
    }

    async fn start_with(mut nameservers: Vec<SocketAddr>, looped: bool) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (udp, tcp) = (socket.local_addr().unwrap(), listener.local_addr().unwrap());
        nameservers.extend(looped.then_some(udp));
        let state = State::new(StateConfig::default());
        let web = json!({
            "name": "web", "namespace": "ns", "hostname": "web.ns.svc.cluster.local", "vips": ["/10.96.0.1"],
        });
        state.apply_addresses(vec![Change::Upsert(Address::Service(serde_json::from_value(web).unwrap()))]);
        let settings = Settings {
            cluster_domain: "cluster.local".into(),
            preferred_namespace: None,
            ipv6: true,
            search: None,
            nameservers,
        };
        let client = Client { namespace: "ns".into(), name: "client".into(), service_account: "default".into() };
        let network = Loopback { made: Rc::new(watch::Sender::new(0)), refused: Rc::default() };
        let server = Rc::new(Server::new(state.clone(), Arc::new(settings), client, network.clone()));
        let (drain, watch) = channel();
        spawn_local(accept(server.clone(), listener, watch.clone()));
        let receiving = spawn_local(serve_udp(server, socket, watch, |answering| {
            spawn_local(answering);
        }));
        Self { udp, tcp, drain, state, network, receiving: Cell::new(Some(receiving)) }
    }

    /// Discovery sends the client.
    pub fn discover_client(&self) {
        let client = json!({"uid": "client", "name": "client", "namespace": "ns", "workloadIps": ["10.0.0.9"]});
        let client = serde_json::from_value(client).unwrap();
        self.state.apply_addresses(vec![Change::Upsert(Address::Workload(client))]);
    }

    /// A socket that is connected to the server.
    pub async fn client(&self) -> UdpSocket {
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.connect(self.udp).await.unwrap();
        client
    }

    /// Asks over UDP.
    pub async fn udp(&self, question: &Message) -> Message {
        let client = self.client().await;
        client.send(&question.to_vec().unwrap()).await.unwrap();
        let answer = receive(&client).await;
        assert_eq!((answer.metadata.id, answer.metadata.message_type), (question.metadata.id, MessageType::Response));
        answer
    }

    /// Asks over TCP.
    pub async fn tcp(&self, question: &Message) -> Message {
        let mut connection = TcpStream::connect(self.tcp).await.unwrap();
        connection.write_all(&framed(question)).await.unwrap();
        read(&mut connection).await
    }

    /// Waits until so many questions to nameservers were made.
    pub async fn until_forwarded(&self, count: usize) {
        let mut made = self.network.made.subscribe();
        timeout(PATIENCE, made.wait_for(|made| *made >= count)).await.expect("asked in time").unwrap();
    }

    /// Waits until the server receives no more.
    pub async fn until_ended(&self) {
        timeout(PATIENCE, self.receiving.take().unwrap()).await.expect("ended in time").unwrap();
    }

    /// Number of sockets towards nameservers.
    pub fn sockets_made(&self) -> usize {
        *self.network.made.borrow()
    }

    /// Number of questions that were too many.
    pub fn refused(&self) -> usize {
        self.network.refused.get()
    }
}

async fn accept(server: Rc<Server<Loopback>>, listener: TcpListener, drain: Watch) {
    while let Ok((connection, from)) = listener.accept().await {
        spawn_local(serve_tcp(server.clone(), connection, from, drain.clone()));
    }
}
