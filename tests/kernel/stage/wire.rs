//! What passes the wire between pod and host.

use std::{io::Read, net::UdpSocket};

use runtime::sys::packet::packet_socket;
use socket2::Socket;

use super::{DEADLINE, HOST_V4, POD_V4, Stage, at, network::interface_index};

/// Ends a recording: sent by the pod after everything else.
const END: &[u8] = b"the end of the recording";

/// Records every frame from now on, until [`Wire::tcp_to`].
pub(crate) struct Wire<'a> {
    stage: &'a Stage,
    frames: Socket,
}

impl<'a> Wire<'a> {
    pub(crate) fn record(stage: &'a Stage) -> Self {
        let index = interface_index(&stage.host, "wire");
        let frames = stage.host.run(|| packet_socket(index)).unwrap();
        frames.set_read_timeout(Some(DEADLINE)).unwrap();
        Self { stage, frames }
    }

    /// How many TCP segments passed with this destination port, either way.
    pub(crate) fn tcp_to(mut self, port: u16) -> usize {
        self.stage.as_app(|| {
            let socket = UdpSocket::bind(at(POD_V4, 0)).unwrap();
            socket.send_to(END, at(HOST_V4, 9)).unwrap();
        });
        let mut segments = 0;
        let mut frame = [0; 65536];
        loop {
            let length = self.frames.read(&mut frame).unwrap();
            let frame = &frame[..length];
            if frame.ends_with(END) {
                return segments;
            }
            segments += usize::from(tcp_destination(frame) == Some(port));
        }
    }
}

/// Destination port of a TCP segment in an Ethernet frame without IPv6 extension headers.
fn tcp_destination(frame: &[u8]) -> Option<u16> {
    let start = match frame.get(12..14)? {
        [0x08, 0x00] if frame.get(23)? == &6 => 14 + usize::from(frame[14] & 15) * 4,
        [0x86, 0xdd] if frame.get(20)? == &6 => 54,
        _ => return None,
    };
    Some(u16::from_be_bytes(frame.get(start + 2..start + 4)?.try_into().ok()?))
}
