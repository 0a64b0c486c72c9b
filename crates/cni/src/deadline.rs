//! One request over a blocking socket, to a deadline that holds for all of it.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::http::{Answer, Malformed, Response};

/// Bytes that are read at a time.
const READ_BYTES: usize = 16 << 10;

/// A socket with limits for one call.
pub trait Timeouts {
    /// Sets the longest time of one read and of one write.
    ///
    /// # Errors
    /// When the kernel refuses it.
    fn limit(&self, time: Duration) -> io::Result<()>;
}

impl Timeouts for UnixStream {
    fn limit(&self, time: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(time))?;
        self.set_write_timeout(Some(time))
    }
}

impl Timeouts for TcpStream {
    fn limit(&self, time: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(time))?;
        self.set_write_timeout(Some(time))
    }
}

/// A stream whose calls all end at the deadline, with [`io::ErrorKind::TimedOut`].
#[derive(Debug)]
pub struct Bounded<S> {
    stream: S,
    deadline: Instant,
}

impl<S: Timeouts> Bounded<S> {
    pub const fn new(stream: S, deadline: Instant) -> Self {
        Self { stream, deadline }
    }

    fn limit(&self) -> io::Result<()> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        // The kernel takes no time at all for no limit.
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { self.stream.limit(left) }
    }
}

/// The kernel's answer to a call that took too long is that it would block.
fn in_time<T>(result: io::Result<T>) -> io::Result<T> {
    result.map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
        _ => error,
    })
}

impl<S: Read + Timeouts> Read for Bounded<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // Anew for each call: what is left of the deadline shrinks.
        self.limit()?;
        in_time(self.stream.read(buffer))
    }
}

impl<S: Write + Timeouts> Write for Bounded<S> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.limit()?;
        in_time(self.stream.write(buffer))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// Sends a request and reads the answer, of at most `max` bytes.
///
/// # Errors
/// Those of the stream, and [`io::ErrorKind::InvalidData`] with [`Malformed`] when what arrived is no answer.
pub fn exchange(stream: &mut (impl Read + Write), request: &[u8], max: usize) -> io::Result<Response> {
    let malformed = |error: Malformed| io::Error::new(io::ErrorKind::InvalidData, error);
    // A peer may answer and close without having read all of the request: its answer counts.
    match stream.write_all(request).and_then(|()| stream.flush()) {
        Err(error) if !matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
            return Err(error);
        }
        Ok(()) | Err(_) => {}
    }
    let mut answer = Answer::new(max);
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return answer.end().map_err(malformed),
            Ok(count) => {
                if let Some(response) = answer.push(&buffer[..count]).map_err(malformed)? {
                    return Ok(response);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // TLS that ends without a word: the length of the answer says whether all of it is here.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return answer.end().map_err(malformed),
            Err(error) => return Err(error),
        }
    }
}
