//! Packets that pass the wire between pod and host.

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

    /// Number of TCP segments that passed with this destination port, either way.
    pub(crate) fn tcp_to(self, port: u16) -> usize {
        self.sum(|segment| usize::from(segment.destination_port() == port))
    }

    /// Number of bytes of payload that passed in TCP segments with this destination port, either way.
    pub(crate) fn payload_bytes_to(self, port: u16) -> usize {
        self.sum(|segment| if segment.destination_port() == port { segment.payload_bytes() } else { 0 })
    }

    fn sum(mut self, count: impl Fn(&Segment<'_>) -> usize) -> usize {
        self.stage.as_app(|| {
            let socket = UdpSocket::bind(at(POD_V4, 0)).unwrap();
            socket.send_to(END, at(HOST_V4, 9)).unwrap();
        });
        let mut sum = 0;
        let mut frame = [0; 65536];
        loop {
            let length = self.frames.read(&mut frame).unwrap();
            let frame = &frame[..length];
            if frame.ends_with(END) {
                return sum;
            }
            sum += Segment::of(frame).map_or(0, |segment| count(&segment));
        }
    }
}

/// A TCP segment, with its header.
struct Segment<'a>(&'a [u8]);

impl<'a> Segment<'a> {
    /// The segment in an Ethernet frame without IPv6 extension headers.
    fn of(frame: &'a [u8]) -> Option<Self> {
        let (start, end) = match frame.get(12..14)? {
            [0x08, 0x00] if frame.get(23)? == &6 => {
                let total = u16::from_be_bytes(frame.get(16..18)?.try_into().ok()?);
                (14 + usize::from(frame[14] & 15) * 4, 14 + usize::from(total))
            }
            [0x86, 0xdd] if frame.get(20)? == &6 => {
                let payload = u16::from_be_bytes(frame.get(18..20)?.try_into().ok()?);
                (54, 54 + usize::from(payload))
            }
            _ => return None,
        };
        // The rest of the frame is padding.
        frame.get(start..end).filter(|segment| segment.len() >= 20).map(Self)
    }

    fn destination_port(&self) -> u16 {
        u16::from_be_bytes([self.0[2], self.0[3]])
    }

    fn payload_bytes(&self) -> usize {
        self.0.len() - usize::from(self.0[12] >> 4) * 4
    }
}
