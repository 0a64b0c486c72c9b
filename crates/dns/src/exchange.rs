//! One question to one nameserver, and its answer: over UDP, and over TCP when the answer does not fit or the client asks so.
//! Only an answer to this very question counts (RFC 5452): from the server's address to a port and with a number that nobody
//! else can know.

use crate::message::{Question, TCP_BYTES};
use crate::own_sockets::OwnSockets;
use crate::{PodNetwork, Protocol};
use hickory_proto::op::{Header, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UdpSocket;
use tokio::time::timeout;

/// Room that an answer of a nameserver has over UDP, when the client takes more than 512 bytes: what passes every network in
/// one piece (DNS Flag Day 2020).
const UDP_PAYLOAD: u16 = 1232;
/// Time for the same question over TCP, after an answer over UDP that did not fit.
const TCP_RETRY_TIMEOUT: Duration = Duration::from_secs(2);

/// Reason for which a nameserver gives no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExchangeError {
    /// Often: nothing listens there, or there are no descriptors left for the pod.
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the answer cannot be read")]
    Unreadable,
}

/// The way of a pod to its nameservers.
pub(crate) struct Exchange<'a, N> {
    pub(crate) network: &'a N,
    pub(crate) own: &'a OwnSockets,
}

impl<N> Clone for Exchange<'_, N> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<N> Copy for Exchange<'_, N> {}

impl<N: PodNetwork> Exchange<'_, N> {
    /// Asks `server`. It may be dropped at any point.
    pub(crate) async fn ask(
        self,
        server: SocketAddr,
        question: &Question,
        protocol: Protocol,
    ) -> Result<Message, ExchangeError> {
        // A client that asks over TCP has its reason: mostly an answer that did not fit before.
        if protocol == Protocol::Tcp {
            return self.over_tcp(server, question).await;
        }
        let answer = self.over_udp(server, question).await?;
        if !answer.metadata.truncation {
            return Ok(answer);
        }
        let whole = timeout(TCP_RETRY_TIMEOUT, self.over_tcp(server, question)).await;
        // A server without TCP: the client learns that something is missing, as it would without this proxy.
        Ok(whole.ok().and_then(Result::ok).unwrap_or(answer))
    }

    async fn over_udp(self, server: SocketAddr, question: &Question) -> Result<Message, ExchangeError> {
        let (socket, _guard) = self.network.udp(server)?;
        let _own = self.own.add(socket.local_addr()?);
        let request = Request::new(question);
        socket.send(&request.bytes()?).await?;
        loop {
            // An error is no readiness to read: nothing listens there, and the ICMP message about it is all that comes.
            socket.ready(Interest::READABLE | Interest::ERROR).await?;
            take_error(&socket)?;
            // On the stack: a question that waits holds no buffer.
            let mut buffer = [0; 4096];
            match socket.try_recv(&mut buffer) {
                Ok(length) => match request.check(&buffer[..length]) {
                    Check::Answer(answer) => return Ok(*answer),
                    Check::Unreadable => return Err(ExchangeError::Unreadable),
                    // Late, or forged: the answer may still come.
                    Check::Other => {}
                },
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    async fn over_tcp(self, server: SocketAddr, question: &Question) -> Result<Message, ExchangeError> {
        let (mut stream, _guard) = self.network.tcp(server).await?;
        let _own = self.own.add(stream.local_addr()?);
        let request = Request::new(question);
        stream.write_all(&framed(&request.bytes()?)).await?;
        loop {
            let length = stream.read_u16().await?;
            let mut bytes = vec![0; length.into()];
            stream.read_exact(&mut bytes).await?;
            match request.check(&bytes) {
                Check::Answer(answer) => return Ok(*answer),
                Check::Unreadable => return Err(ExchangeError::Unreadable),
                Check::Other => {}
            }
        }
    }
}

/// Fails when the kernel has an error for the socket.
fn take_error(socket: &UdpSocket) -> io::Result<()> {
    let found = || Err(socket.take_error()?.unwrap_or_else(|| io::ErrorKind::WouldBlock.into()));
    match socket.try_io(Interest::ERROR, found) {
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(()),
        found => found,
    }
}

/// Puts the length before a message, as TCP needs it. A message has at most 65 535 bytes.
pub(crate) fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len().min(TCP_BYTES)).unwrap_or(u16::MAX);
    let mut bytes = Vec::with_capacity(message.len() + 2);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(message);
    bytes
}

/// A question as it is asked once.
struct Request<'a> {
    question: &'a Question,
    id: u16,
}

enum Check {
    Answer(Box<Message>),
    /// An answer to this question by its number, which cannot be read.
    Unreadable,
    /// An answer to something else.
    Other,
}

impl<'a> Request<'a> {
    fn new(question: &'a Question) -> Self {
        Self { question, id: rand::random() }
    }

    fn bytes(&self) -> io::Result<Vec<u8>> {
        self.question.request(self.id, UDP_PAYLOAD).to_vec().map_err(io::Error::other)
    }

    fn check(&self, packet: &[u8]) -> Check {
        let Ok(header) = Header::read(&mut BinDecoder::new(packet)) else { return Check::Other };
        let metadata = header.metadata;
        let is_answer = metadata.message_type == MessageType::Response && metadata.op_code == OpCode::Query;
        if metadata.id != self.id || !is_answer {
            return Check::Other;
        }
        let Ok(message) = Message::from_vec(packet) else { return Check::Unreadable };
        let is_same = match message.queries.as_slice() {
            [query] => self.is_same(query),
            // Servers that cannot read a question do not repeat it.
            [] => metadata.response_code != ResponseCode::NoError,
            [_, _, ..] => false,
        };
        if is_same { Check::Answer(Box::new(message)) } else { Check::Other }
    }

    /// Case does not count: some servers answer in lower case.
    fn is_same(&self, query: &Query) -> bool {
        let asked = &self.question.query;
        query.name == asked.name && query.query_type == asked.query_type && query.query_class == asked.query_class
    }
}
