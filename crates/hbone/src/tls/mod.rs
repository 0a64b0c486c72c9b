//! TLS 1.3 over a byte stream, made for bulk: it reads much at once, seals and opens records in place,
//! and writes many of them in one call. rustls does the handshake and decides about peers, by the given
//! configuration, which must allow secrets to be extracted.

mod handshake;
mod record;
#[cfg(test)]
mod tests;

use handshake::{Finished, Keys};
use record::{ALERT, DATA, HANDSHAKE, Opened, Opener, Sealer, invalid};
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::{AlertDescription, ClientConfig, CommonState, ServerConfig};
use std::fmt;
use std::io::{self, IoSlice};
use std::net::Ipv4Addr;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Sealed bytes that may wait before a write stops taking more.
const SEALED_LIMIT_BYTES: usize = 1 << 20;
/// Sealed bytes from which on they are written at once and not at the next flush.
const WRITE_AT_BYTES: usize = 256 << 10;
/// Buffer for sealed bytes that is kept while nothing waits.
const KEEP_BYTES: usize = 512 << 10;
/// Bytes asked for by one read at first, and when the peer has much to say.
const READ_BYTES: (usize, usize) = (20 << 10, 256 << 10);
/// Reads in a row that would have fitted the small buffer before the big one is given up.
const SHRINK_AFTER: u8 = 64;

/// Records without application data that a peer may send in a row.
const CONTROL_IN_A_ROW: u8 = 32;

/// Handshake messages that come after the handshake.
const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;

/// A TLS connection over `IO`.
///
/// Writes seal at once and go out when enough is sealed or at a flush, so that one call carries what
/// many streams wrote. Owns `IO`. `poll_shutdown` sends `close_notify` and shuts down the write side. The end of the
/// peer's bytes without a `close_notify` reads as an end: HTTP/2 knows what is missing.
pub struct TlsStream<IO> {
    io: IO,
    keys: Keys,
    sealer: Sealer,
    opener: Opener,
    /// Payload that was opened and is not read yet.
    plain: Range<usize>,
    /// Opened during the handshake, goes first.
    early: Vec<u8>,
    reading: Reading,
    /// Records in a row that carried no application data.
    control: u8,
    /// The peer has asked for a new key of ours. One answers all that ask before it (RFC 8446, section 4.6.3).
    owes_key: bool,
    closed: bool,
}

/// How much to ask the socket for.
#[derive(Debug)]
struct Reading {
    want: usize,
    small: u8,
    ended: bool,
}

/// The client's handshake; `see` looks at the session at its end. No server name is sent: `config` decides who may answer.
pub async fn connect<IO, R>(
    mut io: IO,
    config: Arc<ClientConfig>,
    see: impl FnOnce(&CommonState) -> R,
) -> io::Result<(TlsStream<IO>, R)>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    // An address as name: rustls sends no SNI for it, and the verifier looks at identities only.
    let name = ServerName::IpAddress(Ipv4Addr::UNSPECIFIED.into());
    let role = UnbufferedClientConnection::new(config, name).map_err(io::Error::other)?;
    let finished = handshake::run(&mut io, role, see).await?;
    TlsStream::new(io, finished)
}

/// The server's handshake; `see` looks at the session at its end.
pub async fn accept<IO, R>(
    mut io: IO,
    config: Arc<ServerConfig>,
    see: impl FnOnce(&CommonState) -> R,
) -> io::Result<(TlsStream<IO>, R)>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let role = UnbufferedServerConnection::new(config).map_err(io::Error::other)?;
    let finished = handshake::run(&mut io, role, see).await?;
    TlsStream::new(io, finished)
}

impl<IO> TlsStream<IO> {
    fn new<R>(io: IO, finished: Finished<R>) -> io::Result<(Self, R)> {
        let Finished { secrets, keys, seen, early, received } = finished;
        let stream = Self {
            io,
            keys,
            sealer: Sealer::new(secrets.tx.0, &secrets.tx.1)?,
            opener: Opener::new(secrets.rx.0, &secrets.rx.1, &received)?,
            plain: 0..0,
            early,
            reading: Reading { want: READ_BYTES.0, small: 0, ended: false },
            control: 0,
            owes_key: false,
            closed: false,
        };
        Ok((stream, seen))
    }

    /// What is not application data. Returns false at the end of the peer's bytes.
    fn control(&mut self, opened: Opened) -> io::Result<bool> {
        self.count_control()?;
        let payload = self.opener.payload(opened.payload);
        match opened.content {
            HANDSHAKE => {
                let update = parse_messages(payload)?;
                if let Some(wants_ours) = update {
                    let (sequence, secrets) = self.keys.next_to_receive()?;
                    self.opener.renew(sequence, &secrets)?;
                    self.owes_key |= wants_ours;
                }
                Ok(true)
            }
            ALERT => match payload {
                [_, 0] => Ok(false),
                [_, code] => Err(io::Error::new(
                    io::ErrorKind::ConnectionAborted,
                    rustls::Error::AlertReceived(AlertDescription::from(*code)),
                )),
                _ => Err(invalid("an alert is malformed")),
            },
            _ => Err(invalid("a record of unknown content")),
        }
    }

    /// A peer that only sends records without data makes work and gets nothing done.
    fn count_control(&mut self) -> io::Result<()> {
        self.control += 1;
        if self.control > CONTROL_IN_A_ROW { Err(invalid("too many records without data")) } else { Ok(()) }
    }

    /// Tells the peer of our next key and uses it.
    fn renew_own_key(&mut self) -> io::Result<()> {
        self.owes_key = false;
        self.sealer.seal(HANDSHAKE, &[IoSlice::new(&[KEY_UPDATE, 0, 0, 1, 0])])?;
        let (sequence, secrets) = self.keys.next_to_send()?;
        self.sealer.renew(sequence, &secrets)
    }
}

/// Messages after the handshake. Tickets are of no use to us; a new key of the peer is returned with whether it wants one of ours.
fn parse_messages(mut payload: &[u8]) -> io::Result<Option<bool>> {
    let mut update = None;
    while let [kind, a, b, c, rest @ ..] = payload {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let (body, next) = rest.split_at_checked(length).ok_or_else(|| invalid("a handshake message is cut"))?;
        match (*kind, body) {
            (NEW_SESSION_TICKET, _) => {}
            // It changes the key of what follows, so nothing may follow in its record.
            (KEY_UPDATE, [request @ (0 | 1)]) if next.is_empty() => update = Some(*request == 1),
            _ => return Err(invalid("a handshake message has no place here")),
        }
        payload = next;
    }
    if payload.is_empty() { Ok(update) } else { Err(invalid("a handshake message is cut")) }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> TlsStream<IO> {
    /// Reads once into the opener's buffer.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let room = self.opener.room(self.reading.want);
        let asked = room.len();
        let mut into = ReadBuf::new(room);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut into))?;
        let n = into.filled().len();
        self.opener.filled(n);
        self.reading.note(n, asked);
        Poll::Ready(Ok(()))
    }

    /// Writes all sealed records.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.sealer.waiting().is_empty() {
            let n = ready!(Pin::new(&mut self.io).poll_write(cx, self.sealer.waiting()))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sealer.advance(n, KEEP_BYTES);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_seal(&mut self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if self.sealer.waiting().len() >= SEALED_LIMIT_BYTES {
            ready!(self.poll_drain(cx))?;
        }
        if self.owes_key || self.sealer.wants_new_key() {
            self.renew_own_key()?;
        }
        let n = self.sealer.seal(DATA, parts)?;
        if self.sealer.waiting().len() >= WRITE_AT_BYTES
            && let Poll::Ready(Err(e)) = self.poll_drain(cx)
        {
            return Poll::Ready(Err(e));
        }
        Poll::Ready(Ok(n))
    }

    /// Copies what is there; does not wait.
    fn take(&mut self, out: &mut ReadBuf<'_>) -> io::Result<()> {
        while out.remaining() > 0 && !self.reading.ended {
            if !self.early.is_empty() {
                let n = self.early.len().min(out.remaining());
                out.put_slice(&self.early[..n]);
                self.early.drain(..n);
            } else if !self.plain.is_empty() {
                let n = self.plain.len().min(out.remaining());
                out.put_slice(self.opener.payload(self.plain.start..self.plain.start + n));
                self.plain.start += n;
            } else {
                match self.opener.open()? {
                    Some(Opened { content: DATA, payload }) if payload.is_empty() => self.count_control()?,
                    Some(Opened { content: DATA, payload }) => {
                        self.plain = payload;
                        self.control = 0;
                    }
                    Some(other) => self.reading.ended = !self.control(other)?,
                    None => break,
                }
            }
        }
        Ok(())
    }
}

impl Reading {
    /// `n` of at most `asked` bytes came. The buffer grows when a read fills it and shrinks when many in a row did not need it.
    fn note(&mut self, n: usize, asked: usize) {
        self.ended = n == 0 && asked > 0;
        self.small = if n > READ_BYTES.0 { 0 } else { self.small.saturating_add(1) };
        if n == asked {
            self.want = READ_BYTES.1;
        } else if self.small > SHRINK_AFTER {
            self.want = READ_BYTES.0;
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = out.filled().len();
        loop {
            this.take(out)?;
            if out.filled().len() > before || out.remaining() == 0 || this.reading.ended {
                return Poll::Ready(Ok(()));
            }
            ready!(this.poll_fill(cx))?;
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_seal(cx, &[IoSlice::new(data)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_seal(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        // Only now, so that answers never pile up before a socket that takes nothing.
        if this.owes_key && !this.closed {
            this.renew_own_key()?;
            ready!(this.poll_drain(cx))?;
        }
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.closed {
            this.closed = true;
            // Level warning, close_notify.
            this.sealer.seal(ALERT, &[IoSlice::new(&[1, 0])])?;
        }
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}

impl<IO: fmt::Debug> fmt::Debug for TlsStream<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStream").field("io", &self.io).field("reading", &self.reading).finish_non_exhaustive()
    }
}
