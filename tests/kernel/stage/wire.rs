//! Packets that pass the wire between pod and host.

use std::{io::Read, net::UdpSocket};

use ebpf_common::NAMESERVER_PORT;
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
        self.count(|packet| usize::from(packet.is_tcp && packet.destination_port() == port))
    }

    /// Number of packets of DNS that passed, UDP and TCP, either way.
    pub(crate) fn dns_packets(self) -> usize {
        self.count(|packet| usize::from(packet.destination_port() == NAMESERVER_PORT))
    }

    /// Number of bytes of payload that passed in TCP segments with this destination port, either way.
    pub(crate) fn payload_bytes_to(self, port: u16) -> usize {
        self.count(
            |packet| if packet.is_tcp && packet.destination_port() == port { packet.tcp_payload_bytes() } else { 0 },
        )
    }

    fn count(mut self, count: impl Fn(&Packet<'_>) -> usize) -> usize {
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
            sum += Packet::of(frame).map_or(0, |packet| count(&packet));
        }
    }
}

/// A TCP segment or UDP datagram, with its header.
struct Packet<'a> {
    is_tcp: bool,
    bytes: &'a [u8],
}

impl<'a> Packet<'a> {
    /// The packet in an Ethernet frame without IPv6 extension headers.
    fn of(frame: &'a [u8]) -> Option<Self> {
        let (protocol, start, end) = match frame.get(12..14)? {
            [0x08, 0x00] => {
                let total = u16::from_be_bytes(frame.get(16..18)?.try_into().ok()?);
                (*frame.get(23)?, 14 + usize::from(frame[14] & 15) * 4, 14 + usize::from(total))
            }
            [0x86, 0xdd] => {
                let payload = u16::from_be_bytes(frame.get(18..20)?.try_into().ok()?);
                (*frame.get(20)?, 54, 54 + usize::from(payload))
            }
            _ => return None,
        };
        let (is_tcp, header) = match protocol {
            6 => (true, 20),
            17 => (false, 8),
            _ => return None,
        };
        // The rest of the frame is padding.
        let bytes = frame.get(start..end).filter(|packet| packet.len() >= header)?;
        Some(Self { is_tcp, bytes })
    }

    fn destination_port(&self) -> u16 {
        u16::from_be_bytes([self.bytes[2], self.bytes[3]])
    }

    fn tcp_payload_bytes(&self) -> usize {
        self.bytes.len() - usize::from(self.bytes[12] >> 4) * 4
    }
}
