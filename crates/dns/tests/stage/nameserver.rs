//! A nameserver that answers, refuses, lies or says nothing.

use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, rdata};
use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::spawn_local;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// 192.0.2.1, with an additional record.
    Answer,
    /// This code, with records in the other sections.
    Code(ResponseCode),
    /// As `Answer`, from the question after so many on.
    AnswerAfter(usize),
    Silent,
    /// Answers to other questions before the right one.
    Forge,
    /// A hundred addresses, which fit over TCP only.
    Long,
    /// The same, and nobody accepts over TCP.
    LongWithoutTcp,
}

/// One question as it arrived.
struct Seen {
    name: String,
    id: u16,
    from: SocketAddr,
}

/// A nameserver over UDP and TCP on one port.
pub struct Nameserver {
    pub address: SocketAddr,
    seen: Rc<RefCell<Vec<Seen>>>,
}

impl Nameserver {
    pub async fn start(behaviour: Behaviour) -> Self {
        let (udp, tcp) = sockets().await;
        let (address, seen) = (udp.local_addr().unwrap(), Rc::new(RefCell::new(Vec::new())));
        spawn_local(serve_udp(udp, behaviour, seen.clone()));
        match behaviour {
            Behaviour::LongWithoutTcp => drop(tcp),
            _ => drop(spawn_local(serve_tcp(tcp, behaviour))),
        }
        Self { address, seen }
    }

    /// Names that were asked for over UDP.
    pub fn questions(&self) -> Vec<String> {
        self.seen.borrow().iter().map(|seen| seen.name.clone()).collect()
    }

    /// Numbers and addresses of the questions.
    pub fn origins(&self) -> Vec<(u16, SocketAddr)> {
        self.seen.borrow().iter().map(|seen| (seen.id, seen.from)).collect()
    }
}

/// Both on one port, which must be free for both.
async fn sockets() -> (UdpSocket, TcpListener) {
    loop {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
            return (udp, tcp);
        }
    }
}

async fn serve_udp(socket: UdpSocket, behaviour: Behaviour, seen: Rc<RefCell<Vec<Seen>>>) {
    let mut buffer = [0; 4096];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
        let question = Message::from_vec(&buffer[..length]).unwrap();
        assert!(question.edns.as_ref().is_none_or(|edns| edns.max_payload() == 1232));
        let name = question.queries[0].name.to_ascii();
        seen.borrow_mut().push(Seen { name, id: question.metadata.id, from });
        let number = seen.borrow().len();
        for answer in answers(&question, behaviour, number) {
            socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
        }
    }
}

async fn serve_tcp(listener: TcpListener, behaviour: Behaviour) {
    loop {
        let (mut connection, _) = listener.accept().await.unwrap();
        let mut bytes = vec![0; connection.read_u16().await.unwrap().into()];
        connection.read_exact(&mut bytes).await.unwrap();
        let question = Message::from_vec(&bytes).unwrap();
        let answer = match behaviour {
            Behaviour::Long => long(&question),
            _ => answer(&question),
        };
        connection.write_all(&super::framed(&answer)).await.unwrap();
    }
}

fn answers(question: &Message, behaviour: Behaviour, number: usize) -> Vec<Message> {
    match behaviour {
        Behaviour::Answer => vec![answer(question)],
        Behaviour::AnswerAfter(ignored) if number > ignored => vec![answer(question)],
        Behaviour::AnswerAfter(_) | Behaviour::Silent => Vec::new(),
        Behaviour::Code(code) => {
            let mut refusal = response(question);
            refusal.metadata.response_code = code;
            refusal.authorities.push(record(&question.queries[0].name, 2));
            refusal.additionals.push(record(&question.queries[0].name, 3));
            vec![refusal]
        }
        Behaviour::Forge => {
            let forged = |change: &dyn Fn(&mut Message)| {
                let mut forged = response(question);
                forged.answers.push(record(&question.queries[0].name, 66));
                change(&mut forged);
                forged
            };
            vec![
                forged(&|m| m.metadata.id = m.metadata.id.wrapping_add(1)),
                forged(&|m| m.queries[0].name = Name::from_ascii("example.net.").unwrap()),
                forged(&|m| m.queries.clear()),
                forged(&|m| m.metadata.message_type = MessageType::Query),
                answer(question),
            ]
        }
        Behaviour::Long | Behaviour::LongWithoutTcp => {
            let mut cut = response(question);
            cut.metadata.truncation = true;
            vec![cut]
        }
    }
}

fn response(question: &Message) -> Message {
    let mut message = Message::response(question.metadata.id, question.metadata.op_code);
    message.queries.clone_from(&question.queries);
    message
}

fn record(name: &Name, n: u8) -> Record {
    Record::from_rdata(name.clone(), 60, RData::A(rdata::A(Ipv4Addr::new(192, 0, 2, n))))
}

fn answer(question: &Message) -> Message {
    let mut message = response(question);
    message.answers.push(record(&question.queries[0].name, 1));
    message.additionals.push(record(&question.queries[0].name, 9));
    message
}

fn long(question: &Message) -> Message {
    let mut message = response(question);
    message.answers = (0..100).map(|n| record(&question.queries[0].name, n)).collect();
    message
}
