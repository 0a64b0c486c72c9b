//! The question to the node agent before a pod's first process starts.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

use contract::cni::{ADD_PATH, ALIVE_PATH, AddRequest, AddResponse, PLUGIN_TIMEOUT};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::deadline::{Bounded, exchange};
use crate::http::{self, Response};

/// Longest answer that is read.
pub const MAX_ANSWER_BYTES: usize = 64 << 10;

/// Reason why there is no answer. It says nothing about the pod.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("cannot reach the node agent: {0}")]
    Unreachable(#[source] io::Error),
    #[error("the node agent broke off: {0}")]
    Broken(#[source] io::Error),
    #[error("the node agent did not answer within {PLUGIN_TIMEOUT:?}")]
    Timeout,
    /// Neither a permission nor a refusal of the agent's.
    #[error("unexpected answer of the node agent: {0}")]
    Unexpected(String),
}

/// The request for a pod, as it is sent.
///
/// # Errors
/// When it cannot be written as JSON.
pub fn request(request: &AddRequest) -> serde_json::Result<Vec<u8>> {
    Ok(http::request("POST", ADD_PATH, "localhost", "", &serde_json::to_vec(request)?))
}

/// Reads the answer to a request for a pod. Status and body must agree: half an answer is no permission.
///
/// # Errors
/// [`AskError::Unexpected`].
pub fn read_answer(response: &Response) -> Result<AddResponse, AskError> {
    let status = response.status;
    let text = || String::from_utf8_lossy(&response.body).trim().to_owned();
    let answer: AddResponse =
        serde_json::from_slice(&response.body).map_err(|_| AskError::Unexpected(format!("{status}: {}", text())))?;
    // A proxy or another server on this socket could answer 200 without knowing what it permits.
    if status == answer.outcome.status() {
        Ok(answer)
    } else {
        Err(AskError::Unexpected(format!("{status} with {:?}: {}", answer.outcome, answer.reason)))
    }
}

/// Asks the agent behind `socket` to enrol a pod, and waits for its answer until `deadline`.
///
/// # Errors
/// All of [`AskError`].
pub fn ask(socket: &Path, request: &AddRequest, deadline: Instant) -> Result<AddResponse, AskError> {
    let bytes = self::request(request).map_err(|error| AskError::Broken(error.into()))?;
    read_answer(&send(socket, &bytes, deadline)?)
}

/// Makes sure that an agent answers behind `socket`.
///
/// # Errors
/// All of [`AskError`].
pub fn alive(socket: &Path, deadline: Instant) -> Result<(), AskError> {
    let request = http::request("GET", ALIVE_PATH, "localhost", "", b"");
    let Response { status, .. } = send(socket, &request, deadline)?;
    if status == 200 { Ok(()) } else { Err(AskError::Unexpected(status.to_string())) }
}

fn send(socket: &Path, request: &[u8], deadline: Instant) -> Result<Response, AskError> {
    let stream = connect(socket, deadline).map_err(|error| match error.kind() {
        // `SO_SNDTIMEO` ended the wait of connect(2).
        io::ErrorKind::WouldBlock => AskError::Timeout,
        _ => AskError::Unreachable(error),
    })?;
    exchange(&mut Bounded::new(stream, deadline), request, MAX_ANSWER_BYTES).map_err(|error| match error.kind() {
        io::ErrorKind::TimedOut => AskError::Timeout,
        _ => AskError::Broken(error),
    })
}

/// Connects by the deadline: connect(2) waits as long as the queue of the listener is full, and no longer than SO_SNDTIMEO.
fn connect(path: &Path, deadline: Instant) -> io::Result<UnixStream> {
    let left = deadline.saturating_duration_since(Instant::now());
    // A time-out of zero means none to the kernel.
    if left.is_zero() {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_write_timeout(Some(left))?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(socket.into())
}
