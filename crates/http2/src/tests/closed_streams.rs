//! Frames for streams that are closed, were skipped or have not begun (RFC 9113, sections 5.1 and 5.1.1).

use super::*;

/// Answer to a frame.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Nothing,
    StreamError(u32),
    ConnectionError(u32),
}
use Answer::{ConnectionError, Nothing, StreamError};

/// Brings stream 1 into a state, or another that it returns.
type Arrange = fn(&mut Peer) -> u32;

fn frame_for(peer: &mut Peer, kind: u8, id: u32) -> Answer {
    let role = peer.role;
    let block = match role {
        Role::Server => peer.block(&[(":method", "CONNECT"), (":authority", "a:1")]),
        Role::Client => peer.block(&[(":status", "200")]),
    };
    let sent = peer.says(|out| match kind {
        kind::HEADERS => encode_headers(out, id, &block, false, 1 << 14),
        kind::DATA => encode(out, kind, 0, id, b"x"),
        kind::PRIORITY => encode(out, kind, 0, id, &[0; 5]),
        _ => encode_u32(out, kind, id, 8),
    });
    if let Err(fault) = sent {
        return ConnectionError(fault.code().unwrap());
    }
    let resets = peer.hears().into_iter().filter(|f| f.0 == kind::RST_STREAM && f.2 == id);
    let codes: Vec<_> = resets.map(|f| u32::from_be_bytes(f.3[..].try_into().unwrap())).collect();
    codes.first().map_or(Nothing, |code| StreamError(*code))
}

/// Returns the answers to DATA, HEADERS, RST_STREAM, WINDOW_UPDATE and PRIORITY.
fn answers(role: Role, arrange: Arrange) -> [Answer; 5] {
    [kind::DATA, kind::HEADERS, kind::RST_STREAM, kind::WINDOW_UPDATE, kind::PRIORITY].map(|kind| {
        let mut peer = Peer::of(role, &Settings::default());
        let id = arrange(&mut peer);
        peer.hears();
        frame_for(&mut peer, kind, id)
    })
}

const PROTOCOL_ERROR: Answer = ConnectionError(code::PROTOCOL_ERROR);
const STREAM_CLOSED: Answer = ConnectionError(code::STREAM_CLOSED);
/// PRIORITY, which has no effect, is allowed anywhere.
const NOT_BEGUN: [Answer; 5] = [PROTOCOL_ERROR, PROTOCOL_ERROR, PROTOCOL_ERROR, PROTOCOL_ERROR, Nothing];
/// Frames that only stop a stream may have crossed what closed it.
const CLOSED: [Answer; 5] = [STREAM_CLOSED, STREAM_CLOSED, Nothing, Nothing, Nothing];
const IGNORED: [Answer; 5] = [Nothing, Nothing, Nothing, Nothing, Nothing];
const HALF_CLOSED: [Answer; 5] =
    [StreamError(code::STREAM_CLOSED), StreamError(code::STREAM_CLOSED), Nothing, Nothing, Nothing];

fn answer_pings(peer: &mut Peer) {
    peer.connection.send_ping();
    let pings: Vec<_> = peer.hears().into_iter().filter(|f| f.0 == kind::PING).collect();
    for (_, _, _, payload) in pings {
        peer.says(|out| encode(out, kind::PING, flag::ACK, 0, &payload)).unwrap();
    }
}

#[test]
fn a_server_answers_frames_for_streams_that_are_not_open_as_section_5_1_says() {
    let cases: [(&str, Arrange, [Answer; 5]); 9] = [
        ("even", |_| 2, NOT_BEGUN),
        (
            "skipped",
            |p| {
                p.opens(1);
                p.opens(7);
                5
            },
            NOT_BEGUN,
        ),
        (
            "half-closed (remote)",
            |p| {
                p.opens(1);
                p.says(|out| encode(out, kind::DATA, flag::END_STREAM, 1, b"all")).unwrap();
                1
            },
            HALF_CLOSED,
        ),
        (
            "closed by both ends",
            |p| {
                let stream = p.opens(1);
                p.sends(&stream, 0, true);
                p.says(|out| encode(out, kind::DATA, flag::END_STREAM, 1, b"all")).unwrap();
                p.hears();
                1
            },
            CLOSED,
        ),
        (
            "reset by the peer",
            |p| {
                p.opens(1);
                p.says(|out| encode_u32(out, kind::RST_STREAM, 1, 8)).unwrap();
                1
            },
            CLOSED,
        ),
        (
            "reset by us",
            |p| {
                let stream = p.opens(1);
                p.connection.reset(&stream, Reason::Cancel);
                1
            },
            IGNORED,
        ),
        (
            "refused",
            |p| {
                let block = p.block(&[(":method", "GET")]);
                p.says(|out| encode_headers(out, 1, &block, false, 1 << 14)).unwrap();
                1
            },
            IGNORED,
        ),
        (
            "reset by us, as the peer knows",
            |p| {
                let stream = p.opens(1);
                p.connection.reset(&stream, Reason::Cancel);
                answer_pings(p);
                1
            },
            CLOSED,
        ),
        (
            "beyond the last of a GOAWAY",
            |p| {
                p.opens(1);
                p.connection.drain();
                let ping = p.hears().pop().unwrap();
                p.says(|out| encode(out, kind::PING, flag::ACK, 0, &ping.3)).unwrap();
                let block = p.block(&[(":method", "CONNECT"), (":authority", "a:1")]);
                p.says(|out| encode_headers(out, 3, &block, false, 1 << 14)).unwrap();
                3
            },
            IGNORED,
        ),
    ];
    for (what, arrange, expected) in cases {
        assert_eq!(answers(Role::Server, arrange), expected, "{what}");
    }
}

fn answered(peer: &mut Peer) -> StreamRef {
    let stream = peer.connection.connect("10.0.0.1:80", &HeaderMap::new());
    let block = peer.block(&[(":status", "200")]);
    peer.says(|out| encode_headers(out, 1, &block, false, 1 << 14)).unwrap();
    stream
}

#[test]
fn a_client_answers_frames_for_streams_that_are_not_open_as_section_5_1_says() {
    let cases: [(&str, Arrange, [Answer; 5]); 8] = [
        ("even", |_| 2, NOT_BEGUN),
        ("not opened", |_| 3, NOT_BEGUN),
        (
            "half-closed (remote)",
            |p| {
                answered(p);
                p.says(|out| encode(out, kind::DATA, flag::END_STREAM, 1, b"all")).unwrap();
                1
            },
            HALF_CLOSED,
        ),
        (
            "closed by both ends",
            |p| {
                let stream = answered(p);
                p.sends(&stream, 0, true);
                p.says(|out| encode(out, kind::DATA, flag::END_STREAM, 1, b"all")).unwrap();
                p.hears();
                1
            },
            CLOSED,
        ),
        (
            "reset by the peer",
            |p| {
                answered(p);
                p.says(|out| encode_u32(out, kind::RST_STREAM, 1, 8)).unwrap();
                1
            },
            CLOSED,
        ),
        (
            "reset by us",
            |p| {
                let stream = answered(p);
                p.connection.reset(&stream, Reason::Cancel);
                1
            },
            IGNORED,
        ),
        (
            "reset by us, as the peer knows",
            |p| {
                let stream = answered(p);
                p.connection.reset(&stream, Reason::Cancel);
                answer_pings(p);
                1
            },
            CLOSED,
        ),
        (
            "not processed, as the peer said",
            |p| {
                p.connection.connect("10.0.0.1:80", &HeaderMap::new());
                p.says(|out| encode_goaway(out, 0, 0)).unwrap();
                1
            },
            CLOSED,
        ),
    ];
    for (what, arrange, expected) in cases {
        assert_eq!(answers(Role::Client, arrange), expected, "{what}");
    }
}

#[test]
fn a_tunnel_carries_nothing_but_data() {
    for role in [Role::Server, Role::Client] {
        let mut peer = Peer::of(role, &Settings::default());
        if role == Role::Server {
            peer.opens(1);
        } else {
            answered(&mut peer);
        }
        peer.hears();
        let block = peer.block(&[("x", "y")]);

        peer.says(|out| encode_headers(out, 1, &block, true, 1 << 14)).unwrap();

        assert_eq!(peer.hears(), [reset(1, code::PROTOCOL_ERROR)], "{role:?}");
    }
}

#[test]
fn trailers_end_a_request_that_is_no_tunnel_if_they_are_well_formed() {
    type Fields = &'static [(&'static str, &'static str)];
    let cases: [(&str, Fields, bool, Option<u32>); 4] = [
        ("well-formed", &[("x", "y")], true, None),
        ("no end", &[("x", "y")], false, Some(code::PROTOCOL_ERROR)),
        ("a pseudo-header field", &[(":path", "/")], true, Some(code::PROTOCOL_ERROR)),
        ("a field of HTTP/1", &[("connection", "close")], true, Some(code::PROTOCOL_ERROR)),
    ];
    for (what, trailers, end, expected) in cases {
        let mut peer = server();
        let block = peer.block(&[(":method", "POST"), (":scheme", "http"), (":path", "/")]);
        peer.says(|out| encode_headers(out, 1, &block, false, 1 << 14)).unwrap();
        let (stream, _) = peer.connection.next_request().unwrap();
        let block = peer.block(trailers);

        peer.says(|out| encode_headers(out, 1, &block, end, 1 << 14)).unwrap();

        let resets: Vec<_> = expected.into_iter().map(|code| reset(1, code)).collect();
        assert_eq!(peer.hears(), resets, "{what}");
        assert_eq!(stream.borrow().state.is_end_stream_received(), expected.is_none(), "{what}");
    }
}

#[test]
fn content_is_as_long_as_its_length_says() {
    for (what, sent, expected) in [
        ("all of it", vec![(2, false), (3, true)], None),
        ("all of it, and an empty end", vec![(5, false), (0, true)], None),
        ("less", vec![(4, true)], Some(code::PROTOCOL_ERROR)),
        ("more", vec![(6, false)], Some(code::PROTOCOL_ERROR)),
    ] {
        let mut peer = server();
        let fields = [(":method", "POST"), (":scheme", "http"), (":path", "/"), ("content-length", "5")];
        let block = peer.block(&fields);
        peer.says(|out| encode_headers(out, 1, &block, false, 1 << 14)).unwrap();
        let _request = peer.connection.next_request().unwrap();

        for (bytes, end) in sent {
            let flags = if end { flag::END_STREAM } else { 0 };
            peer.says(|out| encode(out, kind::DATA, flags, 1, &vec![0; bytes])).unwrap();
        }

        let resets: Vec<_> = expected.into_iter().map(|code| reset(1, code)).collect();
        assert_eq!(peer.hears(), resets, "{what}");
    }
}
