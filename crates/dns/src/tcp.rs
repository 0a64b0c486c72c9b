//! Questions over one TCP connection of a pod: each has its length before it, several may be under way, and answers are sent
//! in the order in which they are found (RFC 7766).

use crate::exchange::framed;
use crate::report::{self, Reason};
use crate::{PodNetwork, Protocol, Server};
use bytes::{Buf, BytesMut};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use runtime::drain::Watch;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

/// Time after which a connection is closed on which there is neither a whole question nor an answer, or that does not take
/// an answer.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(5);
/// Questions of one connection under way. Further ones are not read yet.
const PIPELINED: usize = 32;
/// Most bytes of a question; as over UDP.
const QUESTION_BYTES: usize = 4096;

/// Answers the questions on `stream`, whose other end is `from`, until the client closes it, is idle, or the proxy drains:
/// then those that are read are still answered. It may be dropped at any point.
pub async fn serve_tcp<N: PodNetwork>(
    server: Rc<Server<N>>,
    mut stream: TcpStream,
    from: SocketAddr,
    mut drain: Watch,
) {
    let (mut reader, mut writer) = stream.split();
    let mut input = BytesMut::new();
    let mut answers = FuturesUnordered::new();
    let mut reading = true;
    let mut idle_at = Instant::now() + IDLE_TIMEOUT;
    loop {
        while answers.len() < PIPELINED {
            match take_question(&mut input) {
                Frame::Question(question) => {
                    let server = &server;
                    answers.push(async move { server.answer(&question, from, Protocol::Tcp).await });
                    idle_at = Instant::now() + IDLE_TIMEOUT;
                }
                Frame::Incomplete => break,
                // Where the next question begins is not worth finding out.
                Frame::TooLong => {
                    report::refused(Reason::Malformed, Protocol::Tcp);
                    (reading, input) = (false, BytesMut::new());
                }
            }
        }
        if !reading && answers.is_empty() {
            return;
        }
        // All may be dropped: what is read is in `input`, and answers stay in the set.
        tokio::select! {
            Some(answer) = answers.next() => {
                let Some(answer) = answer else { continue };
                let written = timeout(IDLE_TIMEOUT, writer.write_all(&framed(&answer))).await;
                if !matches!(written, Ok(Ok(()))) {
                    report::refused(Reason::Unsent, Protocol::Tcp);
                    return;
                }
                idle_at = Instant::now() + IDLE_TIMEOUT;
            }
            // Not while as many as may be are under way: the client waits with the kernel.
            read = reader.read_buf(&mut input), if reading && answers.len() < PIPELINED => {
                // A client that has closed its side may still want its answers.
                reading = matches!(read, Ok(1..));
            }
            () = sleep_until(idle_at), if answers.is_empty() => return,
            _ = drain.started(), if reading => reading = false,
        }
    }
}

enum Frame {
    Question(BytesMut),
    Incomplete,
    TooLong,
}

fn take_question(input: &mut BytesMut) -> Frame {
    let Some(length) = input.first_chunk::<2>().map(|bytes| usize::from(u16::from_be_bytes(*bytes))) else {
        return Frame::Incomplete;
    };
    if length > QUESTION_BYTES {
        return Frame::TooLong;
    }
    if input.len() < 2 + length {
        return Frame::Incomplete;
    }
    input.advance(2);
    Frame::Question(input.split_to(length))
}
