//! The byte stream of a client's application inside of its tunnel, and which protocol it speaks.

mod channel;
mod detect;
mod prefixed;

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use hbone::StreamIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use waypoint_config::AppProtocol;

use crate::context::WorkerContext;
use crate::http::HttpConnection;
use crate::tcp;
use crate::tunnel::Opened;
use crate::upstream::HttpVersion;

pub use channel::{ChannelIo, Far, channel};
pub use prefixed::Prefixed;

use detect::{Detected, detect};

/// Time for the first bytes on a port whose protocol is not declared. A server that speaks first has a client that waits: the
/// connection continues as bytes then. Ports with routes or policies for HTTP wait without end, so that nobody gets around them
/// by being slow.
const DETECTION_TIME: Duration = Duration::from_millis(100);

/// Byte stream of a client, on the thread of its tunnel or on another.
#[derive(Debug)]
pub enum ClientIo {
    Stream(StreamIo),
    Channel(ChannelIo),
}

/// Serves a client's connection in the protocol of its port.
pub async fn serve(context: Rc<WorkerContext>, opened: Opened, mut io: ClientIo) {
    let (protocol, wait) = context.shared.protocol(&opened.target);
    let (detected, read) = match protocol {
        AppProtocol::Http1 => (Detected::Http1, bytes::Bytes::new()),
        AppProtocol::Http2 => (Detected::Http2, bytes::Bytes::new()),
        AppProtocol::Tcp => (Detected::Other, bytes::Bytes::new()),
        AppProtocol::Undeclared => match detect(&mut io, wait).await {
            Ok(detected) => detected,
            // Gone before it said anything; dropping the stream resets it.
            Err(_) => return,
        },
    };
    let io = Prefixed::new(read, io);
    match detected {
        Detected::Http1 => HttpConnection::serve(context, opened, HttpVersion::Http1, io).await,
        Detected::Http2 => HttpConnection::serve(context, opened, HttpVersion::Http2, io).await,
        Detected::Other => tcp::serve(&context, &opened, io).await,
    }
}

/// Time for the detection of a protocol; `None`: without end, as there are rules for HTTP.
pub fn detection_time(has_rules: bool) -> Option<Duration> {
    (!has_rules).then_some(DETECTION_TIME)
}

impl AsyncRead for ClientIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Stream(stream) => Pin::new(stream).poll_read(cx, into),
            Self::Channel(channel) => Pin::new(channel).poll_read(cx, into),
        }
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Stream(stream) => Pin::new(stream).poll_write(cx, data),
            Self::Channel(channel) => Pin::new(channel).poll_write(cx, data),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Stream(stream) => Pin::new(stream).poll_flush(cx),
            Self::Channel(channel) => Pin::new(channel).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Stream(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Channel(channel) => Pin::new(channel).poll_shutdown(cx),
        }
    }
}
