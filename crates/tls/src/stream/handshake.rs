//! The handshake, by rustls, up to the traffic keys. Records after that are `record`'s.

use super::record::{HANDSHAKE, invalid};
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::kernel::KernelConnection;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus};
use rustls::{CommonState, ConnectionTrafficSecrets, ExtractedSecrets};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Room for the peer's bytes at first, bytes. It is not authenticated yet, so it gets little until its messages need
/// more.
const FIRST_INPUT_BYTES: usize = 4 << 10;
/// Largest room for the peer's bytes during its handshake, bytes.
const MAX_INPUT_BYTES: usize = 64 << 10;

/// Content type, version and length of a record; type and length of a handshake message, bytes.
const RECORD_HEAD_BYTES: usize = 5;
const MESSAGE_HEAD_BYTES: usize = 4;

/// Source of the traffic keys that follow the first ones (RFC 8446, section 7.2), of either role.
pub(super) enum Keys {
    Client(KernelConnection<ClientConnectionData>),
    Server(KernelConnection<ServerConnectionData>),
}

impl Keys {
    pub(super) fn next_to_send(&mut self) -> io::Result<(u64, ConnectionTrafficSecrets)> {
        let next = match self {
            Self::Client(k) => k.update_tx_secret(),
            Self::Server(k) => k.update_tx_secret(),
        };
        next.map_err(tls_error)
    }

    pub(super) fn next_to_receive(&mut self) -> io::Result<(u64, ConnectionTrafficSecrets)> {
        let next = match self {
            Self::Client(k) => k.update_rx_secret(),
            Self::Server(k) => k.update_rx_secret(),
        };
        next.map_err(tls_error)
    }
}

/// A finished handshake.
pub(super) struct Finished<R> {
    pub(super) secrets: ExtractedSecrets,
    pub(super) keys: Keys,
    /// Result of the caller's look at the session.
    pub(super) seen: R,
    /// Received behind the handshake: opened, and not yet opened.
    pub(super) early: Vec<u8>,
    pub(super) received: Vec<u8>,
}

/// One role of a handshake.
pub(super) trait Role: Sized {
    type Data;
    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
    fn common(&self) -> &CommonState;
    fn into_keys(self) -> Result<(ExtractedSecrets, Keys), rustls::Error>;
}

impl Role for UnbufferedClientConnection {
    type Data = ClientConnectionData;
    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(input)
    }
    fn common(&self) -> &CommonState {
        self
    }
    fn into_keys(self) -> Result<(ExtractedSecrets, Keys), rustls::Error> {
        self.dangerous_into_kernel_connection().map(|(secrets, keys)| (secrets, Keys::Client(keys)))
    }
}

impl Role for UnbufferedServerConnection {
    type Data = ServerConnectionData;
    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(input)
    }
    fn common(&self) -> &CommonState {
        self
    }
    fn into_keys(self) -> Result<(ExtractedSecrets, Keys), rustls::Error> {
        self.dangerous_into_kernel_connection().map(|(secrets, keys)| (secrets, Keys::Server(keys)))
    }
}

/// Received bytes that are not processed yet.
#[derive(Debug)]
pub(super) struct Input {
    bytes: Vec<u8>,
    filled: usize,
}

impl Input {
    pub(super) fn new() -> Self {
        Self { bytes: vec![0; FIRST_INPUT_BYTES], filled: 0 }
    }

    fn filled(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.filled]
    }

    fn discard(&mut self, n: usize) {
        // What is left is mostly nothing, or the begin of one message.
        self.bytes.copy_within(n..self.filled, 0);
        self.filled -= n;
    }

    /// Returns room for the next read, and doubles the buffer when it is full.
    fn room(&mut self) -> io::Result<&mut [u8]> {
        if self.filled == self.bytes.len() {
            if self.filled >= MAX_INPUT_BYTES {
                return Err(invalid("received a handshake message that is too long"));
            }
            // Never more than twice what the peer has sent: memory costs it bandwidth.
            self.bytes.resize(self.filled * 2, 0);
        }
        Ok(&mut self.bytes[self.filled..])
    }

    /// Reads once. The end of the peer's bytes is an error.
    async fn read<IO: AsyncRead + Unpin>(&mut self, io: &mut IO) -> io::Result<()> {
        match io.read(self.room()?).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            n => {
                self.filled += n;
                Ok(())
            }
        }
    }

    /// Reads until the first handshake message is whole, or cannot become one; rustls then tells the peer so.
    pub(super) async fn read_first_message<IO: AsyncRead + Unpin>(&mut self, io: &mut IO) -> io::Result<()> {
        while !is_first_message_whole(&self.bytes[..self.filled]) {
            self.read(io).await?;
        }
        Ok(())
    }
}

/// Returns whether `bytes` begin with records (RFC 8446, section 5.1) that hold a handshake message (section 4) with
/// its end, or with something else. The message may be cut by records.
fn is_first_message_whole(mut bytes: &[u8]) -> bool {
    let (mut head, mut missing) = (Vec::with_capacity(MESSAGE_HEAD_BYTES), None::<usize>);
    while let Some((record, rest)) = bytes.split_at_checked(RECORD_HEAD_BYTES) {
        let length = usize::from(u16::from_be_bytes([record[3], record[4]]));
        // Not a ClientHello: rustls finds the fault and makes the alert.
        if record[0] != HANDSHAKE || length == 0 {
            return true;
        }
        // The message may begin in one record and end in another, and its head may be cut too.
        let mut payload = &rest[..length.min(rest.len())];
        let is_cut = payload.len() < length;
        let n = payload.len().min(MESSAGE_HEAD_BYTES - head.len());
        head.extend_from_slice(&payload[..n]);
        payload = &payload[n..];
        if let [_, a, b, c] = head[..] {
            let left = missing.unwrap_or(u32::from_be_bytes([0, a, b, c]) as usize);
            if left <= payload.len() {
                return true;
            }
            missing = Some(left - payload.len());
        }
        if is_cut {
            return false;
        }
        bytes = &rest[length..];
    }
    false
}

enum Step {
    Again,
    Send,
    Read,
    Done,
}

/// Runs the handshake. `see` looks at the session at its end.
pub(super) async fn run<C, IO, R>(
    io: &mut IO,
    mut role: C,
    mut input: Input,
    see: impl FnOnce(&CommonState) -> R,
) -> io::Result<Finished<R>>
where
    C: Role,
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let (mut output, mut early) = (Vec::new(), Vec::new());
    loop {
        let UnbufferedStatus { mut discard, state } = role.process(input.filled());
        let step = match state {
            Ok(state) => advance(state, &mut output, &mut early, &mut discard)?,
            Err(e) => {
                input.discard(discard);
                send_alert(io, &mut role, &mut input).await;
                return Err(tls_error(e));
            }
        };
        input.discard(discard);
        // One write for all messages of a flight.
        if !matches!(step, Step::Again) && !output.is_empty() {
            io.write_all(&output).await?;
            io.flush().await?;
            output.clear();
        }
        match step {
            Step::Again | Step::Send => {}
            Step::Read => input.read(io).await?,
            Step::Done => break,
        }
    }
    // Before the session is taken apart: the keys no longer know the peer's certificate.
    let seen = see(role.common());
    let (secrets, keys) = role.into_keys().map_err(tls_error)?;
    Ok(Finished { secrets, keys, seen, early, received: input.filled().to_vec() })
}

fn advance<D>(
    state: ConnectionState<'_, '_, D>,
    output: &mut Vec<u8>,
    early: &mut Vec<u8>,
    discard: &mut usize,
) -> io::Result<Step> {
    match state {
        ConnectionState::EncodeTlsData(mut data) => encode(&mut data, output).map(|()| Step::Again),
        ConnectionState::TransmitTlsData(data) => {
            data.done();
            Ok(Step::Send)
        }
        ConnectionState::BlockedHandshake => Ok(Step::Read),
        ConnectionState::WriteTraffic(_) => Ok(Step::Done),
        ConnectionState::ReadTraffic(mut traffic) => {
            while let Some(record) = traffic.next_record() {
                let record = record.map_err(tls_error)?;
                *discard += record.discard;
                // The peer may send data right behind its Finished.
                early.extend_from_slice(record.payload);
            }
            Ok(Step::Again)
        }
        // Closed by the peer, or a state of 0-RTT, which is off.
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn encode<D>(data: &mut EncodeTlsData<'_, D>, output: &mut Vec<u8>) -> io::Result<()> {
    let begin = output.len();
    let mut room = 4096;
    loop {
        output.resize(begin + room, 0);
        match data.encode(&mut output[begin..]) {
            Ok(n) => {
                output.truncate(begin + n);
                return Ok(());
            }
            // Only long certificate chains need more than 4 KiB.
            Err(EncodeError::InsufficientSize(e)) => room = e.required_size,
            Err(e) => return Err(io::Error::other(e)),
        }
    }
}

/// Sends the alert that says why the handshake failed, if the socket takes it.
///
/// All that rustls has queued when it fails is one alert, so it is asked once: asked again, it would go on
/// with the messages after the failure. It remembers where in `input` its messages lie, and must see that again.
async fn send_alert<C: Role, IO: AsyncWrite + Unpin>(io: &mut IO, role: &mut C, input: &mut Input) {
    let mut output = Vec::new();
    let Ok(ConnectionState::EncodeTlsData(mut data)) = role.process(input.filled()).state else { return };
    if encode(&mut data, &mut output).is_err() {
        return;
    }
    // The caller gets the error of the handshake, whether or not the peer gets the alert.
    let _ = io.write_all(&output).await;
    let _ = io.flush().await;
}

fn tls_error(e: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, e)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    #[test]
    fn room_for_a_handshake_grows_with_what_came_and_has_an_end() {
        let mut input = Input::new();
        assert_eq!(input.room().unwrap().len(), 4 << 10);

        while let Ok(room) = input.room() {
            let n = room.len();
            assert!(n <= input.filled.max(4 << 10), "more room than the peer has used");
            input.filled += n;
        }

        assert_eq!(input.filled, 64 << 10);
    }

    #[test]
    fn a_first_message_is_whole_when_its_last_byte_has_come_however_records_cut_it() {
        let body: Vec<u8> = (0..100).collect();
        let message = [vec![1, 0, 0, 100], body].concat();
        for cut in [1, 2, 3, 4, 5, 50, 103, 104] {
            let record = |part: &[u8]| [vec![HANDSHAKE, 3, 1, 0, part.len() as u8], part.to_vec()].concat();
            let bytes: Vec<u8> = message.chunks(cut).flat_map(record).collect();

            for n in 0..bytes.len() {
                assert!(!is_first_message_whole(&bytes[..n]), "records of {cut}: {n} bytes of {}", bytes.len());
            }
            assert!(is_first_message_whole(&bytes), "records of {cut}");
            assert!(is_first_message_whole(&[bytes, vec![0; 9]].concat()), "records of {cut}, and more behind it");
        }
    }

    #[test]
    fn what_cannot_become_a_first_message_is_not_waited_for() {
        assert!(is_first_message_whole(b"GET / HTTP/1.1"));
        assert!(is_first_message_whole(&[HANDSHAKE, 3, 1, 0, 0]));
        assert!(!is_first_message_whole(b""));
    }

    #[test]
    fn what_is_processed_makes_room() {
        let mut input = Input::new();
        input.room().unwrap().fill(7);
        input.filled = 4 << 10;

        input.discard(4000);

        assert_eq!(input.filled(), [7; 96]);
        assert_eq!(input.room().unwrap().len(), 4000);
    }

    proptest! {
        #[test]
        fn a_first_message_that_is_whole_stays_whole(
            records in vec((prop_oneof![4 => Just(HANDSHAKE), 1 => any::<u8>()], vec(any::<u8>(), 0..30)), 0..6),
            begin in vec(any::<u8>(), 0..4),
        ) {
            let record = |(content, payload): &(u8, Vec<u8>)| [&[*content, 3, 1, 0, payload.len() as u8], &payload[..]].concat();
            let bytes = [begin, records.iter().flat_map(record).collect()].concat();

            let first = (0..=bytes.len()).find(|n| is_first_message_whole(&bytes[..*n]));

            for n in first.unwrap_or(bytes.len())..=bytes.len() {
                prop_assert_eq!(is_first_message_whole(&bytes[..n]), first.is_some(), "{} bytes", n);
            }
        }
    }
}
