use std::net::{IpAddr, SocketAddr};

use super::*;

const CLIENT: &str = "10.244.1.5:40000";
const SERVER: &str = "10.244.2.7:15008";

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// An Ethernet frame with one TCP segment; flags as in the header's byte.
fn frame(src: &str, dst: &str, seq: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let (src, dst) = (addr(src), addr(dst));
    let mut tcp = Vec::new();
    tcp.extend(src.port().to_be_bytes());
    tcp.extend(dst.port().to_be_bytes());
    tcp.extend(seq.to_be_bytes());
    tcp.extend([0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0]);
    tcp.extend(payload);
    let mut out = vec![0; 12];
    match (src.ip(), dst.ip()) {
        (IpAddr::V4(s), IpAddr::V4(d)) => {
            out.extend([0x08, 0x00, 0x45, 0]);
            out.extend((20 + tcp.len() as u16).to_be_bytes());
            out.extend([0, 0, 0, 0, 64, 6, 0, 0]);
            out.extend(s.octets());
            out.extend(d.octets());
        }
        (IpAddr::V6(s), IpAddr::V6(d)) => {
            out.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            out.extend((tcp.len() as u16).to_be_bytes());
            out.extend([6, 64]);
            out.extend(s.octets());
            out.extend(d.octets());
        }
        _ => panic!("mixed families"),
    }
    out.extend(tcp);
    out
}

fn record(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![kind, 3, 3];
    out.extend((body.len() as u16).to_be_bytes());
    out.extend(body);
    out
}

fn client_hello(versions: &[u16]) -> Vec<u8> {
    let mut list = vec![(versions.len() * 2) as u8];
    versions.iter().for_each(|v| list.extend(v.to_be_bytes()));
    let mut message = vec![1, 0, 0, 0, 3, 3];
    message.extend([7; 32]);
    message.extend([0, 0, 2, 0x13, 0x01, 1, 0]); // no session id, one suite, no compression
    let mut extensions = vec![0, 10, 0, 2, 0, 0]; // another extension first
    extensions.extend([0, 43]);
    extensions.extend((list.len() as u16).to_be_bytes());
    extensions.extend(list);
    message.extend((extensions.len() as u16).to_be_bytes());
    message.extend(extensions);
    record(22, &message)
}

fn server_hello(version: u16) -> Vec<u8> {
    let mut message = vec![2, 0, 0, 0, 3, 3];
    message.extend([7; 32]);
    message.extend([0, 0x13, 0x01, 0, 0, 6, 0, 43, 0, 2]);
    message.extend(version.to_be_bytes());
    record(22, &message)
}

fn refs(frames: &[Vec<u8>]) -> Vec<&[u8]> {
    frames.iter().map(Vec::as_slice).collect()
}

#[test]
fn a_segment_is_read_over_both_families() {
    for (src, dst) in [(CLIENT, SERVER), ("[fd00:10:244:1::5]:40000", "[fd00:10:244:2::7]:15008")] {
        let bytes = frame(src, dst, 9, 0x18, b"hello");

        let seg = segment(&bytes).unwrap();

        assert_eq!((seg.src, seg.dst, seg.seq, seg.payload), (addr(src), addr(dst), 9, b"hello".as_slice()));
    }
}

#[test]
fn padding_of_a_short_frame_is_not_payload() {
    let mut bytes = frame(CLIENT, SERVER, 9, 0x10, b"");
    bytes.extend([0; 6]);

    assert_eq!(segment(&bytes).unwrap().payload, b"");
}

#[test]
fn truncated_frames_are_no_segments_and_no_panic() {
    let whole = frame(CLIENT, SERVER, 9, 0x18, b"hello");

    for n in 0..54 {
        assert_eq!(segment(&whole[..n]), None, "{n} bytes");
    }
}

#[test]
fn a_stream_survives_reordering_retransmission_and_wrapping_numbers() {
    let seq = u32::MAX - 2;
    let frames = [
        frame(CLIENT, SERVER, seq, 0x02, b""),
        frame(CLIENT, SERVER, seq.wrapping_add(4), 0x18, b"def"),
        frame(CLIENT, SERVER, seq.wrapping_add(1), 0x18, b"abc"),
        frame(CLIENT, SERVER, seq.wrapping_add(1), 0x18, b"abcde"),
        frame(CLIENT, SERVER, seq.wrapping_add(7), 0x19, b"g"),
    ];

    let found = streams(refs(&frames));

    assert_eq!(found.len(), 1);
    assert_eq!(
        (found[0].bytes.as_slice(), found[0].from_start, found[0].lost_sync),
        (b"abcdefg".as_slice(), true, false)
    );
}

#[test]
fn a_hole_is_told() {
    let frames = [frame(CLIENT, SERVER, 0, 0x02, b""), frame(CLIENT, SERVER, 5, 0x18, b"late")];

    let found = streams(refs(&frames));

    assert!(found[0].lost_sync);
    assert!(found[0].bytes.is_empty());
}

#[test]
fn the_second_connection_on_the_same_ports_is_another_stream() {
    let frames = [
        frame(CLIENT, SERVER, 10, 0x02, b""),
        frame(CLIENT, SERVER, 11, 0x18, b"one"),
        frame(CLIENT, SERVER, 900, 0x02, b""),
        frame(CLIENT, SERVER, 901, 0x18, b"two"),
    ];

    let bytes: Vec<_> = streams(refs(&frames)).into_iter().map(|s| s.bytes).collect();

    assert_eq!(bytes, [b"one", b"two"]);
}

#[test]
fn hellos_tell_their_versions() {
    assert_eq!(tls(&client_hello(&[TLS13, 0x0303])).unwrap().client_versions, [TLS13, 0x0303]);
    assert_eq!(tls(&server_hello(TLS13)).unwrap().server_version, Some(TLS13));
}

#[test]
fn plain_text_is_not_tls() {
    let mut bytes = client_hello(&[TLS13]);
    let at = bytes.len();
    bytes.extend(b"GET / HTTP/1.1\r\n");

    assert_eq!(tls(&bytes).unwrap_err().at, at);
}

#[test]
fn a_tunnel_and_nothing_else_passes_the_audit() {
    let mut up = client_hello(&[TLS13]);
    up.extend(record(23, &[0; 100]));
    let mut down = server_hello(TLS13);
    down.extend(record(23, &[0; 50]));
    let frames = [
        frame(CLIENT, SERVER, 0, 0x02, b""),
        frame(SERVER, CLIENT, 0, 0x12, b""),
        frame(CLIENT, SERVER, 1, 0x18, &up),
        frame(SERVER, CLIENT, 1, 0x18, &down),
    ];

    let audit = audit(refs(&frames), 15008, |_| true);

    assert!(audit.only_tls13(), "{audit:?}");
    assert_eq!((audit.tunnels, audit.records, audit.protected_bytes), (1, 4, 150));
}

#[test]
fn payload_beside_the_tunnel_fails_the_audit() {
    let frames = [
        frame(CLIENT, "10.244.2.7:8080", 0, 0x02, b""),
        frame(CLIENT, "10.244.2.7:8080", 1, 0x18, b"GET / HTTP/1.1\r\n"),
    ];

    let audit = audit(refs(&frames), 15008, |_| true);

    assert!(!audit.only_tls13());
    assert_eq!(audit.plain[0].head, "GET / HTTP/1.1\r\n");
}

#[test]
fn older_tls_fails_the_audit() {
    let mut down = server_hello(0x0303);
    down.extend(record(23, &[0; 50]));
    let frames = [frame(SERVER, CLIENT, 0, 0x12, b""), frame(SERVER, CLIENT, 1, 0x18, &down)];

    assert!(!audit(refs(&frames), 15008, |_| true).broken.is_empty());
}

#[test]
fn markers_are_counted_wherever_they_stand() {
    let frames = [b"xxMARKxxMARK".to_vec(), b"MAR".to_vec()];

    assert_eq!(occurrences(refs(&frames), b"MARK"), 2);
}

#[test]
fn a_capture_file_is_read_to_its_last_whole_frame() {
    let mut file = 0xa1b2_3c4d_u32.to_le_bytes().to_vec();
    file.extend([0; 20]);
    for word in [2u32, 5, 3, 3] {
        file.extend(word.to_le_bytes());
    }
    file.extend(b"abc");
    file.extend([1, 0, 0, 0]); // the writer was stopped here

    let frames = read_pcap(&file).unwrap();

    assert_eq!(frames, [Frame { nanos: 2_000_000_005, bytes: b"abc".to_vec() }]);
    assert!(read_pcap(b"nothing").is_err());
}
