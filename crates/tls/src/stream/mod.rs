//! TLS 1.3 over a byte stream, made for bulk: it reads much at once, seals and opens records in place,
//! and writes many of them in one call. rustls does the handshake and decides about peers, by the given
//! configuration, which must allow secrets to be extracted.

mod buffers;
mod control;
mod handshake;
mod record;
#[cfg(test)]
mod tests;

use control::{Alert, KEY_UPDATE, Messages};
use handshake::{Finished, Input, Keys};
use record::{ALERT, DATA, Fault, HANDSHAKE, Opened, Opener, Sealer};
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::{AlertDescription, ClientConfig, CommonState, ServerConfig};
use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::Ipv4Addr;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};

/// Sealed bytes that may wait before a write stops taking more.
const SEALED_LIMIT_BYTES: usize = 512 << 10;
/// Sealed bytes from which on they are written at once and not at the next flush.
const WRITE_AT_BYTES: usize = 256 << 10;

/// Levels of an alert.
const WARNING: u8 = 1;
const FATAL: u8 = 2;

/// Records without application data that a peer may send in a row.
const CONTROL_IN_A_ROW: u8 = 32;

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
    /// The peer's bytes have ended, or cannot be used any more.
    ended: bool,
    messages: Messages,
    /// Number of records in a row that carried no application data.
    control: u8,
    /// The peer has requested a KeyUpdate from us. One answers all requests before it (RFC 8446, section 4.6.3).
    key_update_requested: bool,
    /// Our last record is sealed: `close_notify`, or the alert that ends the connection.
    closed: bool,
}

/// Runs the client's handshake. `see` looks at the session at its end. No server name is sent: the verifier of `config`
/// decides which servers are accepted.
///
/// If `config` names protocols (ALPN), the server has to choose one of them.
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
    let wants_protocol = !config.alpn_protocols.is_empty();
    let role = UnbufferedClientConnection::new(config, name).map_err(io::Error::other)?;
    let finished = handshake::run(&mut io, role, Input::new(), |session| (has_protocol(session), see(session))).await?;
    let (mut stream, (has_protocol, seen)) = TlsStream::new(io, finished)?;
    // rustls refuses a peer that offers other protocols than ours, but not one that offers none.
    if wants_protocol && !has_protocol {
        return Err(stream.refuse_protocol().await);
    }
    Ok((stream, seen))
}

/// Runs the server's handshake. `see` looks at the session at its end.
///
/// If `config` names protocols (ALPN), the client has to offer one of them.
pub async fn accept<IO, R>(
    mut io: IO,
    config: Arc<ServerConfig>,
    see: impl FnOnce(&CommonState) -> R,
) -> io::Result<(TlsStream<IO>, R)>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let hello = client_hello(&mut io).await?;
    accept_after(io, hello, config, see).await
}

/// A client's first message, received and not parsed.
#[derive(Debug)]
pub struct ClientHello(Input);

/// Receives a client's whole first message, at most 64 KiB. A server that limits handshakes takes its permit after
/// this, so that clients that send nothing, or only a byte, cannot exhaust the permits.
pub async fn client_hello<IO: AsyncRead + Unpin>(io: &mut IO) -> io::Result<ClientHello> {
    let mut input = Input::new();
    input.read_first_message(io).await?;
    Ok(ClientHello(input))
}

/// Runs the rest of the server's handshake after `hello`. `see` looks at the session at its end.
pub async fn accept_after<IO, R>(
    mut io: IO,
    hello: ClientHello,
    config: Arc<ServerConfig>,
    see: impl FnOnce(&CommonState) -> R,
) -> io::Result<(TlsStream<IO>, R)>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let wants_protocol = !config.alpn_protocols.is_empty();
    let role = UnbufferedServerConnection::new(config).map_err(io::Error::other)?;
    let finished = handshake::run(&mut io, role, hello.0, |session| (has_protocol(session), see(session))).await?;
    let (mut stream, (has_protocol, seen)) = TlsStream::new(io, finished)?;
    // rustls refuses a peer that offers other protocols than ours, but not one that offers none.
    if wants_protocol && !has_protocol {
        return Err(stream.refuse_protocol().await);
    }
    Ok((stream, seen))
}

fn has_protocol(session: &CommonState) -> bool {
    session.alpn_protocol().is_some()
}

impl<IO> TlsStream<IO> {
    fn new<R>(io: IO, finished: Finished<R>) -> io::Result<(Self, R)> {
        let Finished { secrets, keys, seen, early, received } = finished;
        // Only servers send session tickets, so a client has to accept them and skips them.
        let tickets = matches!(keys, Keys::Client(_));
        let stream = Self {
            io,
            keys,
            sealer: Sealer::new(secrets.tx.0, &secrets.tx.1)?,
            opener: Opener::new(secrets.rx.0, &secrets.rx.1, &received)?,
            plain: 0..0,
            early,
            ended: false,
            messages: Messages::new(tickets),
            control: 0,
            key_update_requested: false,
            closed: false,
        };
        // What was received behind the handshake is opened by the first read.
        Ok((stream, seen))
    }

    /// Processes a record that is not application data.
    fn recv_control(&mut self, opened: Opened) -> io::Result<()> {
        self.count_control()?;
        let payload = self.opener.payload(opened.payload);
        match opened.content {
            HANDSHAKE => {
                // The peer's next record is sealed with its next key.
                if let Some(wants_ours) = self.messages.recv(payload)? {
                    let (sequence, secrets) = self.keys.next_to_receive()?;
                    self.opener.renew(sequence, &secrets)?;
                    self.key_update_requested |= wants_ours;
                }
            }
            _ if self.messages.is_open() => {
                return Err(unexpected("received another record inside a handshake message"));
            }
            ALERT => match control::alert(payload)? {
                Alert::End => self.ended = true,
                Alert::Notice => {}
                Alert::Fatal(e) => {
                    // The peer has closed; do not send close_notify.
                    self.closed = true;
                    return Err(e);
                }
            },
            _ => return Err(unexpected("received a record of unknown content type")),
        }
        Ok(())
    }

    /// Counts records without data: a peer that sends only such records makes work for nothing.
    fn count_control(&mut self) -> io::Result<()> {
        self.control += 1;
        if self.control > CONTROL_IN_A_ROW { Err(unexpected("received too many records without data")) } else { Ok(()) }
    }

    /// Seals the alert for the fault of the peer's bytes. No record may follow it.
    fn give_up(&mut self, e: &io::Error) {
        self.ended = true;
        let fault = e.get_ref().and_then(|inner| inner.downcast_ref::<Fault>());
        // Errors of the socket are not the peer's fault, and no alert would reach it.
        if let Some(fault) = fault
            && !self.closed
        {
            self.closed = true;
            // Fails only when nothing can be sealed any more; the caller gets `e`.
            let _ = self.sealer.seal(ALERT, &[IoSlice::new(&[FATAL, fault.alert.into()])]);
        }
    }

    /// Sends KeyUpdate and uses our next key.
    fn send_key_update(&mut self) -> io::Result<()> {
        self.key_update_requested = false;
        // A body of one byte, 0: we request no update in return, or two such peers would never stop.
        self.sealer.seal(HANDSHAKE, &[IoSlice::new(&[KEY_UPDATE, 0, 0, 1, 0])])?;
        let (sequence, secrets) = self.keys.next_to_send()?;
        self.sealer.renew(sequence, &secrets)
    }
}

fn unexpected(what: &'static str) -> io::Error {
    Fault { what, alert: AlertDescription::UnexpectedMessage }.into()
}

impl<IO: AsyncRead + AsyncWrite + Unpin> TlsStream<IO> {
    /// Ends a connection whose peer agreed on no application protocol. Returns the error for the caller.
    async fn refuse_protocol(&mut self) -> io::Error {
        let what = "received no application protocol (ALPN) in the handshake";
        let error = io::Error::from(Fault { what, alert: AlertDescription::NoApplicationProtocol });
        self.give_up(&error);
        // The caller gets this error, whether or not the peer gets the alert.
        let _ = poll_fn(|cx| self.poll_drain(cx)).await;
        error
    }

    /// Reads once into the opener's buffer.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut into = ReadBuf::new(self.opener.room());
        let Poll::Ready(read) = Pin::new(&mut self.io).poll_read(cx, &mut into) else {
            // Nothing to read: give the buffer back, so that an idle tunnel holds none.
            self.opener.rest();
            return Poll::Pending;
        };
        let n = into.filled().len();
        // The end without close_notify reads as an end: HTTP/2 knows whether its streams were complete.
        self.opener.filled(n);
        self.ended = n == 0;
        Poll::Ready(read)
    }

    /// Writes all sealed records.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.sealer.waiting().is_empty() {
            let n = ready!(Pin::new(&mut self.io).poll_write(cx, self.sealer.waiting()))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sealer.advance(n);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_seal(&mut self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if self.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        // Take no more while the socket takes nothing: this is what makes streams wait.
        if self.sealer.waiting().len() >= SEALED_LIMIT_BYTES {
            ready!(self.poll_drain(cx))?;
        }
        // KeyUpdate goes before the data that uses the new key.
        if self.key_update_requested || self.sealer.wants_new_key() {
            self.send_key_update()?;
        }
        // Sealed at once, so that the caller's buffers are free; written later, with what other streams have.
        let n = self.sealer.seal(DATA, parts)?;
        if self.sealer.waiting().len() >= WRITE_AT_BYTES
            && let Poll::Ready(Err(e)) = self.poll_drain(cx)
        {
            return Poll::Ready(Err(e));
        }
        Poll::Ready(Ok(n))
    }

    /// Opens records until there is payload to read, or the peer's direction has ended. Returns whether there is
    /// either.
    fn open(&mut self) -> io::Result<bool> {
        while !self.ended && self.early.is_empty() && self.plain.is_empty() {
            match self.opener.open()? {
                Some(Opened { content: DATA, payload }) if !payload.is_empty() && !self.messages.is_open() => {
                    // Nothing is copied: readers borrow the opener's buffer.
                    self.plain = payload;
                    self.control = 0;
                }
                Some(Opened { content: DATA, .. }) if !self.messages.is_open() => self.count_control()?,
                Some(other) => self.recv_control(other)?,
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match self.open() {
                Ok(true) => return Poll::Ready(Ok(())),
                Ok(false) => ready!(self.poll_fill(cx))?,
                Err(e) => {
                    self.give_up(&e);
                    // Try once to send the alert: the connection is over in any case.
                    let _ = self.poll_drain(cx);
                    return Poll::Ready(Err(e));
                }
            }
        }
    }

    /// Returns the payload that is opened and not read.
    fn opened(&self) -> &[u8] {
        if self.ended {
            &[]
        } else if self.early.is_empty() {
            self.opener.payload(self.plain.clone())
        } else {
            &self.early
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncBufRead for TlsStream<IO> {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        ready!(this.poll_open(cx))?;
        Poll::Ready(Ok(this.opened()))
    }

    fn consume(self: Pin<&mut Self>, n: usize) {
        let this = self.get_mut();
        if this.early.is_empty() {
            this.plain.start += n;
        } else {
            this.early.drain(..n);
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let n = {
            let there = ready!(self.as_mut().poll_fill_buf(cx))?;
            let n = there.len().min(out.remaining());
            out.put_slice(&there[..n]);
            n
        };
        self.consume(n);
        Poll::Ready(Ok(()))
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
        // Only now, so that KeyUpdates do not pile up in front of a socket that takes nothing.
        if this.key_update_requested && !this.closed {
            this.send_key_update()?;
            ready!(this.poll_drain(cx))?;
        }
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.closed {
            this.closed = true;
            this.sealer.seal(ALERT, &[IoSlice::new(&[WARNING, AlertDescription::CloseNotify.into()])])?;
        }
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}

impl<IO: fmt::Debug> fmt::Debug for TlsStream<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStream").field("io", &self.io).field("ended", &self.ended).finish_non_exhaustive()
    }
}
