//! A connection and a peer that says anything, frame by frame.

mod closed_streams;
mod floods;
mod memory;
mod random;

use super::batch::Batch;
use super::frame::{
    DEFAULT_INITIAL_WINDOW_SIZE, FRAME_HEADER_BYTES, FrameHeader, MAX_WINDOW_SIZE, PREFACE, encode, encode_goaway,
    encode_headers, encode_settings, encode_u32, flag, kind, setting,
};
use super::reader::{Limits, Reader};
use super::{Connection, Error, Role, StreamRef, code};
use crate::hpack::Encoder;
use crate::{Cause, Reason, Settings};
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

/// A frame as the peer sees it: type, flags, stream, payload.
type Seen = (u8, u8, u32, Vec<u8>);

struct Peer {
    role: Role,
    connection: Connection,
    reader: Reader,
    encoder: Encoder,
}

impl Peer {
    /// A peer of one in `role`, behind the exchange of SETTINGS.
    fn of(role: Role, settings: &Settings) -> Self {
        let mut peer = Self::silent(role, settings);
        peer.hears();
        peer.says(|out| {
            encode_settings(out, &[]);
            encode(out, kind::SETTINGS, flag::ACK, 0, &[]);
        })
        .unwrap();
        peer.hears();
        peer
    }

    /// As [`of`](Self::of), before it.
    fn silent(role: Role, settings: &Settings) -> Self {
        Self {
            role,
            connection: Connection::new(role, settings),
            reader: Reader::new(false, Limits { frame: settings.frame_bytes as usize, header_block: 1 << 20 }),
            encoder: Encoder::new(),
        }
    }

    fn says(&mut self, frames: impl FnOnce(&mut Vec<u8>)) -> Result<(), Error> {
        let mut bytes = Vec::new();
        frames(&mut bytes);
        let mut rest = &bytes[..];
        while let Some(event) = self.reader.next(&mut rest)? {
            self.connection.recv(event)?;
        }
        Ok(())
    }

    /// Returns the frames that the connection sends until it waits.
    fn hears(&mut self) -> Vec<Seen> {
        let mut bytes = Vec::new();
        let mut batch = Batch::default();
        loop {
            self.connection.fill(&mut batch);
            if batch.is_empty() {
                break;
            }
            assert!(batch.poll_write(&mut bytes, &mut Context::from_waker(Waker::noop())).is_ready());
        }
        let mut rest = bytes.strip_prefix(PREFACE).unwrap_or(&bytes);
        let mut all = Vec::new();
        while let Some((head, after)) = rest.split_first_chunk::<FRAME_HEADER_BYTES>() {
            let head = FrameHeader::parse(*head);
            let (payload, after) = after.split_at(head.length);
            all.push((head.kind, head.flags, head.stream_id, payload.to_vec()));
            rest = after;
        }
        all
    }

    /// A header block.
    fn block(&mut self, fields: &[(&str, &str)]) -> Vec<u8> {
        let mut block = Vec::new();
        self.encoder.begin(&mut block);
        for (name, value) in fields {
            Encoder::field(&mut block, name.as_bytes(), value.as_bytes());
        }
        block
    }

    /// Opens stream `id` of a server.
    fn asks(&mut self, id: u32) -> StreamRef {
        let block = self.block(&[(":method", "CONNECT"), (":authority", "10.0.0.1:80")]);
        self.says(|out| encode_headers(out, id, &block, false, 1 << 14)).unwrap();
        self.connection.next_request().expect("asked").0
    }

    /// Opens stream `id` of a server, which accepts it.
    fn opens(&mut self, id: u32) -> StreamRef {
        let stream = self.asks(id);
        self.connection.send_response(&stream, StatusCode::OK, &HeaderMap::new(), false);
        self.hears();
        stream
    }

    fn sends(&mut self, stream: &StreamRef, bytes: usize, end: bool) {
        stream.borrow_mut().send_data(Bytes::from(vec![7; bytes]));
        if end {
            stream.borrow_mut().send_end_stream();
        }
        self.connection.schedule(stream);
    }
}

fn server() -> Peer {
    Peer::of(Role::Server, &Settings::default())
}

/// Returns stream and payload length of each DATA frame, in order.
fn data(seen: &[Seen]) -> Vec<(u32, usize)> {
    seen.iter().filter(|f| f.0 == kind::DATA).map(|f| (f.2, f.3.len())).collect()
}

/// Room on the connection that the peer gets back.
fn given_back(seen: &[Seen]) -> u32 {
    let updates = seen.iter().filter(|f| f.0 == kind::WINDOW_UPDATE && f.2 == 0);
    updates.map(|f| u32::from_be_bytes(f.3[..].try_into().unwrap())).sum()
}

fn reset(id: u32, code: u32) -> Seen {
    (kind::RST_STREAM, 0, id, code.to_be_bytes().to_vec())
}

#[test]
fn each_side_begins_with_what_it_wants() {
    let settings = Settings::default();
    for role in [Role::Client, Role::Server] {
        let mut peer = Peer::silent(role, &settings);

        let seen = peer.hears();

        assert_eq!((seen[0].0, seen[0].2, seen.len()), (kind::SETTINGS, 0, 2), "{role:?}");
        let more = settings.connection_window_bytes - DEFAULT_INITIAL_WINDOW_SIZE;
        assert_eq!(seen[1], (kind::WINDOW_UPDATE, 0, 0, more.to_be_bytes().to_vec()), "{role:?}");
    }
}

#[test]
fn what_the_rfc_forbids_ends_the_connection_with_its_code() {
    type Frames = Box<dyn Fn(&mut Vec<u8>)>;
    let frame = |kind, flags, stream, payload: &'static [u8]| -> Frames {
        Box::new(move |out: &mut Vec<u8>| encode(out, kind, flags, stream, payload))
    };
    let cases: Vec<(&str, Frames, u32)> = vec![
        ("DATA of nothing", frame(kind::DATA, 0, 0, b"x"), code::PROTOCOL_ERROR),
        ("DATA before HEADERS", frame(kind::DATA, 0, 9, b"x"), code::PROTOCOL_ERROR),
        ("HEADERS of nothing", frame(kind::HEADERS, 4, 0, b""), code::PROTOCOL_ERROR),
        ("an even stream", frame(kind::HEADERS, 4, 2, b""), code::PROTOCOL_ERROR),
        ("HEADERS without room for a priority", frame(kind::HEADERS, 0x24, 9, b"1234"), code::FRAME_SIZE_ERROR),
        ("HEADERS without room for padding", frame(kind::HEADERS, 0xc, 9, b""), code::FRAME_SIZE_ERROR),
        ("more padding than HEADERS", frame(kind::HEADERS, 0xc, 9, b"\x05x"), code::PROTOCOL_ERROR),
        ("a block that is no HPACK", frame(kind::HEADERS, 4, 9, b"\xff\xff\xff\xff\xff\xff"), code::COMPRESSION_ERROR),
        ("CONTINUATION alone", frame(kind::CONTINUATION, 4, 9, b""), code::PROTOCOL_ERROR),
        (
            "CONTINUATION of another stream",
            Box::new(|out| {
                encode(out, kind::HEADERS, 0, 9, b"");
                encode(out, kind::CONTINUATION, 4, 11, b"");
            }),
            code::PROTOCOL_ERROR,
        ),
        (
            "a cut header block",
            Box::new(|out| {
                encode(out, kind::HEADERS, 0, 9, b"");
                encode(out, kind::PING, 0, 0, b"12345678");
            }),
            code::PROTOCOL_ERROR,
        ),
        (
            "a header block cut by DATA",
            Box::new(|out| {
                encode(out, kind::HEADERS, 0, 9, b"");
                encode(out, kind::DATA, 0, 1, b"");
            }),
            code::PROTOCOL_ERROR,
        ),
        ("RST_STREAM of nothing", frame(kind::RST_STREAM, 0, 0, b"1234"), code::PROTOCOL_ERROR),
        ("RST_STREAM before HEADERS", frame(kind::RST_STREAM, 0, 9, b"1234"), code::PROTOCOL_ERROR),
        ("a long RST_STREAM", frame(kind::RST_STREAM, 0, 1, b"12345"), code::FRAME_SIZE_ERROR),
        ("PRIORITY of nothing", frame(kind::PRIORITY, 0, 0, b"12345"), code::PROTOCOL_ERROR),
        ("PRIORITY of four bytes", frame(kind::PRIORITY, 0, 9, b"1234"), code::FRAME_SIZE_ERROR),
        ("PRIORITY on itself", frame(kind::PRIORITY, 0, 9, b"\0\0\0\x09\0"), code::PROTOCOL_ERROR),
        ("SETTINGS of a stream", frame(kind::SETTINGS, 0, 1, b""), code::PROTOCOL_ERROR),
        ("SETTINGS of five bytes", frame(kind::SETTINGS, 0, 0, b"12345"), code::FRAME_SIZE_ERROR),
        ("an acknowledgement with settings", frame(kind::SETTINGS, 1, 0, b"123456"), code::FRAME_SIZE_ERROR),
        ("a window beyond 2^31", frame(kind::SETTINGS, 0, 0, b"\0\x04\x80\0\0\0"), code::FLOW_CONTROL_ERROR),
        ("a frame size below 2^14", frame(kind::SETTINGS, 0, 0, b"\0\x05\0\0\x3f\xff"), code::PROTOCOL_ERROR),
        ("a frame size of 2^24", frame(kind::SETTINGS, 0, 0, b"\0\x05\x01\0\0\0"), code::PROTOCOL_ERROR),
        ("a push that is no boolean", frame(kind::SETTINGS, 0, 0, b"\0\x02\0\0\0\x02"), code::PROTOCOL_ERROR),
        ("a push", frame(kind::PUSH_PROMISE, 4, 1, b"\0\0\0\x02"), code::PROTOCOL_ERROR),
        ("PING of seven bytes", frame(kind::PING, 0, 0, b"1234567"), code::FRAME_SIZE_ERROR),
        ("PING of a stream", frame(kind::PING, 0, 1, b"12345678"), code::PROTOCOL_ERROR),
        ("a short GOAWAY", frame(kind::GOAWAY, 0, 0, b"1234567"), code::FRAME_SIZE_ERROR),
        ("GOAWAY of a stream", frame(kind::GOAWAY, 0, 1, b"12345678"), code::PROTOCOL_ERROR),
        ("WINDOW_UPDATE by nothing", frame(kind::WINDOW_UPDATE, 0, 0, b"\0\0\0\0"), code::PROTOCOL_ERROR),
        ("a window that overflows", frame(kind::WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff"), code::FLOW_CONTROL_ERROR),
        ("WINDOW_UPDATE before HEADERS", frame(kind::WINDOW_UPDATE, 0, 9, b"\0\0\0\x01"), code::PROTOCOL_ERROR),
    ];
    for (what, frames, expected) in cases {
        let mut peer = server();
        peer.opens(1);

        let refused = peer.says(frames);

        assert_eq!(refused.as_ref().err().and_then(Error::code), Some(expected), "{what}: {refused:?}");
    }

    for (what, kind, flags, payload) in
        [("a PING", kind::PING, 0, &[0; 8][..]), ("an acknowledgement", kind::SETTINGS, flag::ACK, &[])]
    {
        let first = Peer::silent(Role::Server, &Settings::default()).says(|out| encode(out, kind, flags, 0, payload));
        assert_eq!(first.err().and_then(|f| f.code()), Some(code::PROTOCOL_ERROR), "{what} before SETTINGS");
    }
}

#[test]
fn what_is_wrong_with_one_stream_ends_only_that_one() {
    type Act = fn(&mut Peer);
    let cases: [(&str, Act, u32); 8] = [
        (
            "PRIORITY of six bytes",
            |p| p.says(|o| encode(o, kind::PRIORITY, 0, 1, &[0; 6])).unwrap(),
            code::FRAME_SIZE_ERROR,
        ),
        (
            "PRIORITY on itself",
            |p| p.says(|o| encode(o, kind::PRIORITY, 0, 1, &[0, 0, 0, 1, 0])).unwrap(),
            code::PROTOCOL_ERROR,
        ),
        (
            "a request again",
            |p| {
                let block = p.block(&[(":method", "CONNECT"), (":authority", "a:1")]);
                p.says(|o| encode_headers(o, 1, &block, false, 1 << 14)).unwrap();
            },
            code::PROTOCOL_ERROR,
        ),
        (
            "a window that grows by nothing",
            |p| p.says(|o| encode_u32(o, kind::WINDOW_UPDATE, 1, 0)).unwrap(),
            code::PROTOCOL_ERROR,
        ),
        (
            "a window that overflows",
            |p| p.says(|o| encode_u32(o, kind::WINDOW_UPDATE, 1, MAX_WINDOW_SIZE)).unwrap(),
            code::FLOW_CONTROL_ERROR,
        ),
        (
            "DATA behind the end",
            |p| {
                p.says(|o| {
                    encode(o, kind::DATA, flag::END_STREAM, 1, b"x");
                    encode(o, kind::DATA, 0, 1, b"x");
                })
                .unwrap();
            },
            code::STREAM_CLOSED,
        ),
        (
            "more DATA than the window",
            |p| {
                for _ in 0..5 {
                    p.says(|o| encode(o, kind::DATA, 0, 1, &vec![0; 1 << 20])).unwrap();
                }
            },
            code::FLOW_CONTROL_ERROR,
        ),
        (
            "trailers that are no end",
            |p| {
                let block = p.block(&[("x", "y")]);
                p.says(|o| encode_headers(o, 1, &block, false, 1 << 14)).unwrap();
            },
            code::PROTOCOL_ERROR,
        ),
    ];
    for (what, act, expected) in cases {
        let mut peer = server();
        let wrong = peer.opens(1);
        let other = peer.opens(3);

        act(&mut peer);

        assert!(peer.hears().contains(&reset(1, expected)), "{what}");
        assert!(matches!(wrong.borrow().abort_cause(), Some(Cause::ResetByUs(_))), "{what}");
        peer.sends(&other, 5, true);
        assert_eq!(data(&peer.hears()), [(3, 5)], "{what}");
    }
}

#[test]
fn what_is_no_request_is_refused_alone() {
    let mut peer = server();
    let good = [(":method", "CONNECT"), (":authority", "a:1")];
    let long = "x".repeat(9_000);
    for (id, fields, expected) in [
        (1, vec![good[0], good[1], (":path", "/")], reset(1, code::PROTOCOL_ERROR)),
        (3, vec![("x", "y")], reset(3, code::PROTOCOL_ERROR)),
        (5, vec![good[0], good[1], ("long", &long)], reset(5, 0)),
    ] {
        let block = peer.block(&fields);
        peer.says(|out| encode_headers(out, id, &block, false, 1 << 20)).unwrap();

        assert!(peer.connection.next_request().is_none(), "{id}");
        assert!(peer.hears().contains(&expected), "{id}");
    }
    let block = peer.block(&good);
    peer.says(|out| encode_headers(out, 7, &block, false, 3)).unwrap();

    let (_line, asked) = peer.connection.next_request().unwrap();
    assert_eq!((asked.method, asked.authority.as_str()), (Method::CONNECT, "a:1"));
}

#[test]
fn streams_beyond_the_limit_are_refused_and_may_be_tried_again() {
    let mut peer = Peer::of(Role::Server, &Settings { max_concurrent_streams: 2, ..Settings::default() });
    let _first = peer.opens(1);
    let second = peer.opens(3);
    let block = peer.block(&[(":method", "CONNECT"), (":authority", "a:1")]);

    peer.says(|out| encode_headers(out, 5, &block, false, 1 << 14)).unwrap();
    assert_eq!(peer.hears(), [reset(5, Reason::Refused.into())]);

    peer.connection.reset(&second, Reason::Cancel);
    peer.opens(7);
}

#[test]
fn a_header_block_without_end_is_too_much() {
    for (what, payload) in [("empty", vec![]), ("full", vec![0; 1000])] {
        let mut peer = server();
        peer.says(|out| encode(out, kind::HEADERS, 0, 1, &[])).unwrap();

        let refused = (0..10_000).find_map(|_| peer.says(|out| encode(out, kind::CONTINUATION, 0, 1, &payload)).err());

        assert!(matches!(refused, Some(Error::Flood(_))), "{what}: {refused:?}");
    }
}

#[test]
fn a_peer_that_only_asks_for_answers_is_not_read_for_ever() {
    let mut peer = server();
    let pings = (0..).take_while(|_| {
        peer.says(|out| encode(out, kind::PING, 0, 0, b"12345678")).unwrap();
        !peer.connection.is_full()
    });
    assert!(pings.count() < 10_000);
    assert!(peer.hears().iter().all(|f| f.0 == kind::PING && f.1 == flag::ACK && f.3 == b"12345678"));
    assert!(!peer.connection.is_full(), "heard, and so read again");
}

#[test]
fn a_peer_that_opens_and_resets_is_not_read_for_ever() {
    let mut peer = server();
    let block = peer.block(&[(":method", "CONNECT"), (":authority", "a:1")]);
    let mut id = 1;
    while !peer.connection.is_full() {
        peer.says(|out| {
            encode_headers(out, id, &block, false, 1 << 14);
            encode_u32(out, kind::RST_STREAM, id, 8);
        })
        .unwrap();
        id += 2;
        assert!(id < 10_000);
    }

    assert!(peer.connection.next_request().is_none(), "nobody waits for an answer");
    assert!(!peer.connection.is_full());
    assert!(!peer.connection.has_streams());
}

#[test]
fn nothing_is_sent_beyond_the_windows() {
    let mut peer = server();
    peer.says(|out| encode_settings(out, &[(setting::INITIAL_WINDOW_SIZE, 100)])).unwrap();
    let stream = peer.opens(1);
    peer.sends(&stream, 250, true);
    assert_eq!(data(&peer.hears()), [(1, 100)]);

    // By 50 fewer, also for streams that have used theirs up already (RFC 9113, 6.9.2).
    peer.says(|out| encode_settings(out, &[(setting::INITIAL_WINDOW_SIZE, 50)])).unwrap();
    peer.says(|out| encode_u32(out, kind::WINDOW_UPDATE, 1, 50)).unwrap();
    assert_eq!(data(&peer.hears()), []);
    peer.says(|out| encode_u32(out, kind::WINDOW_UPDATE, 1, 20)).unwrap();
    assert_eq!(data(&peer.hears()), [(1, 20)]);
    peer.says(|out| encode_settings(out, &[(setting::INITIAL_WINDOW_SIZE, 1000)])).unwrap();

    let seen = peer.hears();
    assert_eq!(data(&seen), [(1, 130)]);
    assert_eq!(seen.last().unwrap().1, flag::END_STREAM);
}

#[test]
fn only_the_last_of_many_windows_in_one_frame_counts() {
    let mut peer = server();
    let stream = peer.opens(1);
    peer.says(|out| encode_u32(out, kind::WINDOW_UPDATE, 1, 1)).unwrap();

    // The first alone would make the stream's too large.
    let windows = [MAX_WINDOW_SIZE, 100, 0, 99].map(|bytes| (setting::INITIAL_WINDOW_SIZE, bytes));
    peer.says(|out| encode_settings(out, &windows)).unwrap();

    peer.sends(&stream, 200, false);
    assert_eq!(data(&peer.hears()), [(1, 100)]);
}

#[test]
fn streams_share_the_connection_and_an_end_needs_no_window() {
    let mut peer = server();
    peer.says(|out| encode_settings(out, &[(setting::INITIAL_WINDOW_SIZE, 1 << 20)])).unwrap();
    let streams: Vec<_> = (0..3).map(|i| peer.opens(2 * i + 1)).collect();
    for stream in &streams[..2] {
        peer.sends(stream, 100_000, true);
    }

    let seen = data(&peer.hears());
    assert_eq!(seen.iter().map(|(_, n)| n).sum::<usize>(), DEFAULT_INITIAL_WINDOW_SIZE as usize);
    peer.sends(&streams[2], 0, true);
    assert_eq!(data(&peer.hears()), [(5, 0)]);
    peer.says(|out| encode_u32(out, kind::WINDOW_UPDATE, 0, MAX_WINDOW_SIZE / 2)).unwrap();

    let mut sums = [0; 2];
    for (id, n) in seen.into_iter().chain(data(&peer.hears())) {
        sums[id as usize / 2] += n;
    }
    assert_eq!(sums, [100_000; 2]);
}

#[test]
fn streams_with_much_to_send_take_turns() {
    let mut peer = server();
    let large = [(setting::INITIAL_WINDOW_SIZE, 1 << 24), (setting::MAX_FRAME_SIZE, 1 << 20)];
    peer.says(|out| encode_settings(out, &large)).unwrap();
    peer.says(|out| encode_u32(out, kind::WINDOW_UPDATE, 0, 1 << 24)).unwrap();
    let streams: Vec<_> = (0..3).map(|i| peer.opens(2 * i + 1)).collect();
    for stream in &streams {
        peer.sends(stream, 200_000, false);
    }

    let order: Vec<_> = data(&peer.hears()).into_iter().map(|(id, _)| id).collect();

    assert_eq!(order[..6], [1, 3, 5, 1, 3, 5]);
}

#[test]
fn room_is_given_back_in_halves_of_a_window() {
    let settings = Settings { stream_window_bytes: 100_000, connection_window_bytes: 200_000, ..Settings::default() };
    let mut peer = Peer::of(Role::Server, &settings);
    let stream = peer.opens(1);
    peer.says(|out| encode(out, kind::DATA, flag::PADDED, 1, &[&[9][..], &[0; 60_009]].concat())).unwrap();
    assert_eq!(peer.hears(), [], "nothing has been read");

    let read = stream.borrow_mut().pop_data().unwrap().len();
    assert_eq!(read, 60_000);
    peer.connection.release_capacity(&mut stream.borrow_mut(), read);

    let update = |id, n: u32| (kind::WINDOW_UPDATE, 0, id, n.to_be_bytes().to_vec());
    // With the padding, which nobody reads.
    assert_eq!(peer.hears(), [update(1, 60_010)]);
    peer.says(|out| encode(out, kind::DATA, 0, 1, &[0; 40_000])).unwrap();
    peer.connection.discard_data(&stream);
    assert_eq!(peer.hears(), [update(0, 100_010)], "what was left unread too");
}

#[test]
fn streams_that_nobody_reads_leave_the_rest_of_the_window_to_the_others() {
    let settings = Settings { stream_window_bytes: 100_000, connection_window_bytes: 400_000, ..Settings::default() };
    let mut peer = Peer::of(Role::Server, &settings);
    let stream = peer.opens(1);
    for id in [3, 5, 7] {
        peer.opens(id);
        peer.says(|out| encode(out, kind::DATA, 0, id, &[0; 100_000])).unwrap();
    }

    let mut left = 100_000;
    for sent in 0..50 {
        assert!(left >= 10_000, "no room behind {sent} frames");
        peer.says(|out| encode(out, kind::DATA, 0, 1, &[0; 10_000])).unwrap();
        let read = stream.borrow_mut().pop_data().unwrap().len();
        peer.connection.release_capacity(&mut stream.borrow_mut(), read);
        left = left - 10_000 + given_back(&peer.hears());
    }
}

#[test]
fn a_peer_may_go_on_for_ever_on_a_stream_that_is_only_sent_on() {
    let settings = Settings { stream_window_bytes: 100_000, connection_window_bytes: 400_000, ..Settings::default() };
    let mut peer = Peer::of(Role::Server, &settings);
    let stream = peer.opens(1);
    peer.says(|out| encode(out, kind::DATA, 0, 1, &[0; 60_000])).unwrap();

    peer.connection.discard_data(&stream);

    let mut window = 40_000;
    for sent in 0..100 {
        let updates = peer.hears().into_iter().filter(|f| f.0 == kind::WINDOW_UPDATE && f.2 == 1);
        window += updates.map(|f| u32::from_be_bytes(f.3[..].try_into().unwrap())).sum::<u32>();
        assert!(window >= 10_000, "no room behind {sent} frames");
        peer.says(|out| encode(out, kind::DATA, 0, 1, &[0; 10_000])).unwrap();
        window -= 10_000;
    }
    assert!(stream.borrow_mut().pop_data().is_none(), "it is thrown away");
    peer.sends(&stream, 5, false);
    assert_eq!(data(&peer.hears()), [(1, 5)]);
}

#[test]
fn what_comes_for_a_stream_that_is_gone_costs_the_others_nothing() {
    let settings = Settings { connection_window_bytes: 100_000, ..Settings::default() };
    let mut peer = Peer::of(Role::Server, &settings);
    let stream = peer.opens(1);
    peer.connection.reset(&stream, Reason::Cancel);
    peer.connection.discard_data(&stream);

    for _ in 0..100 {
        peer.says(|out| encode(out, kind::DATA, 0, 1, &[0; 10_000])).unwrap();
    }

    let given = given_back(&peer.hears());
    assert!(given > 900_000, "{given}");
}

#[test]
fn a_stream_that_has_ended_on_both_sides_is_forgotten() {
    let mut peer = server();
    let stream = peer.opens(1);
    peer.sends(&stream, 5, true);
    peer.says(|out| encode(out, kind::DATA, flag::END_STREAM, 1, b"all")).unwrap();
    assert!(peer.connection.has_streams());

    peer.hears();

    assert!(!peer.connection.has_streams());
    assert!(stream.borrow().state.is_closed() && stream.borrow().abort_cause().is_none());
    assert_eq!(stream.borrow_mut().pop_data().unwrap(), "all");
    assert!(stream.borrow().is_end_stream_received());
    peer.connection.reset(&stream, Reason::InternalError);
    assert_eq!(peer.hears(), [], "too late");
}

#[test]
fn who_sends_on_to_one_that_has_said_all_and_gone_is_told_to_stop() {
    for (role, expected) in [(Role::Server, Reason::NoError), (Role::Client, Reason::Cancel)] {
        let mut peer = Peer::of(role, &Settings::default());
        let stream = match role {
            Role::Server => peer.opens(1),
            Role::Client => peer.connection.connect("10.0.0.1:80", &HeaderMap::new()),
        };
        peer.sends(&stream, 5, true);
        peer.connection.discard_data(&stream);

        let seen = peer.hears();

        assert_eq!(seen.last(), Some(&reset(1, expected.into())), "{role:?}");
        assert_eq!(data(&seen), [(1, 5)], "{role:?}: not before what it had to say");
    }
}

/// Tells whether it was woken.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn who_only_waits_for_a_reset_is_not_woken_by_each_frame_that_leaves() {
    let mut peer = server();
    let stream = peer.opens(1);
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(woken.clone());
    let is_woken = || woken.0.swap(false, Ordering::Relaxed);

    stream.borrow_mut().watch_reset(&Context::from_waker(&waker));
    peer.sends(&stream, 5, false);
    peer.hears();
    assert!(!is_woken());

    stream.borrow_mut().watch_capacity(&Context::from_waker(&waker));
    peer.sends(&stream, 5, false);
    peer.hears();
    assert!(is_woken());

    stream.borrow_mut().watch_reset(&Context::from_waker(&waker));
    peer.says(|out| encode_u32(out, kind::RST_STREAM, 1, 8)).unwrap();
    assert!(is_woken());
}

#[test]
fn bytes_that_come_one_by_one_and_wait_are_put_together() {
    let mut peer = server();
    let stream = peer.opens(1);
    let sent: Vec<u8> = (0..10_000).map(|i| (i % 251) as u8).collect();
    for byte in &sent {
        peer.says(|out| encode(out, kind::DATA, 0, 1, &[*byte])).unwrap();
    }

    let got: Vec<Bytes> = std::iter::from_fn(|| stream.borrow_mut().pop_data()).collect();

    assert!(got.len() < 100, "{} pieces", got.len());
    assert!(got.concat() == sent);
}

#[test]
fn a_reset_throws_away_what_is_queued() {
    let mut peer = server();
    let stream = peer.opens(1);
    peer.sends(&stream, 50_000, false);

    peer.connection.reset(&stream, Reason::InternalError);

    assert_eq!(peer.hears(), [reset(1, 2)]);
}

#[test]
fn an_end_that_comes_behind_a_reset_of_ours_is_none() {
    let mut peer = server();
    let stream = peer.opens(1);
    let mut frame = Vec::new();
    encode(&mut frame, kind::DATA, flag::END_STREAM, 1, b"half of it is thrown away");
    peer.says(|out| out.extend_from_slice(&frame[..20])).unwrap();

    peer.connection.reset(&stream, Reason::InternalError);
    peer.says(|out| out.extend_from_slice(&frame[20..])).unwrap();

    assert_eq!(stream.borrow_mut().pop_data().unwrap().len(), 20 - FRAME_HEADER_BYTES);
    let stream = stream.borrow();
    assert!(!stream.is_end_stream_received());
    assert!(matches!(stream.abort_cause(), Some(Cause::ResetByUs(Reason::InternalError))), "{stream:?}");
}

#[test]
fn interim_answers_are_no_answer() {
    let mut peer = Peer::of(Role::Client, &Settings::default());
    let stream = peer.connection.connect("10.0.0.1:80", &HeaderMap::new());
    for (status, answered) in [("103", false), ("100", false), ("404", true)] {
        let block = peer.block(&[(":status", status)]);
        peer.says(|out| encode_headers(out, 1, &block, false, 1 << 14)).unwrap();

        assert_eq!(stream.borrow().is_answered, answered, "{status}");
    }
    assert_eq!(stream.borrow_mut().take_response().unwrap().status, StatusCode::NOT_FOUND);
}

#[test]
fn an_answer_that_is_none_resets_the_stream() {
    for (what, fields) in [("no status", vec![("x", "y")]), ("of a request", vec![(":method", "GET")])] {
        let mut peer = Peer::of(Role::Client, &Settings::default());
        let stream = peer.connection.connect("10.0.0.1:80", &HeaderMap::new());
        peer.hears();
        let block = peer.block(&fields);

        peer.says(|out| encode_headers(out, 1, &block, false, 1 << 14)).unwrap();

        assert_eq!(peer.hears(), [reset(1, code::PROTOCOL_ERROR)], "{what}");
        assert!(stream.borrow().abort_cause().is_some(), "{what}");
    }
    let mut peer = Peer::of(Role::Client, &Settings::default());
    let _line = peer.connection.connect("10.0.0.1:80", &HeaderMap::new());
    peer.hears();
    peer.says(|out| encode(out, kind::DATA, 0, 1, b"early")).unwrap();
    assert_eq!(peer.hears(), [reset(1, code::PROTOCOL_ERROR)], "DATA before the answer");
}

#[test]
fn a_peer_that_goes_leaves_the_streams_it_has_seen() {
    let mut peer = Peer::of(Role::Client, &Settings::default());
    let streams: Vec<_> = (0..3).map(|_| peer.connection.connect("10.0.0.1:80", &HeaderMap::new())).collect();

    peer.says(|out| encode_goaway(out, 3, 0)).unwrap();

    let cut: Vec<_> = streams.iter().map(|stream| stream.borrow().abort_cause().is_some()).collect();
    assert_eq!(cut, [false, false, true]);
    assert!(!peer.connection.is_usable());
    assert!(!peer.connection.is_finished());
    for stream in &streams {
        peer.connection.reset(stream, Reason::Cancel);
    }
    assert!(peer.connection.is_finished());
}

#[test]
fn a_drain_says_the_last_stream_when_its_peer_has_heard_of_it() {
    let mut peer = server();
    let _first = peer.opens(1);
    peer.connection.drain();
    peer.connection.drain();
    let seen = peer.hears();
    assert_eq!(seen[0].3[..4], MAX_WINDOW_SIZE.to_be_bytes());
    assert_eq!((seen[1].0, seen.len()), (kind::PING, 2));
    // On its way when the peer heard of it.
    let late = peer.opens(3);

    let ping = seen[1].3.clone();
    peer.says(|out| encode(out, kind::PING, flag::ACK, 0, &ping)).unwrap();

    assert_eq!(peer.hears(), [(kind::GOAWAY, 0, 0, [3u32.to_be_bytes(), [0; 4]].concat())]);
    let block = peer.block(&[(":method", "CONNECT"), (":authority", "a:1")]);
    peer.says(|out| encode_headers(out, 5, &block, false, 1 << 14)).unwrap();
    assert!(peer.connection.next_request().is_none());
    assert!(late.borrow().state.is_recv_open() && !peer.connection.is_finished());

    peer.connection.send_goaway(0);
    let last = peer.hears().pop().unwrap();
    assert_eq!(last.3[..4], 3u32.to_be_bytes(), "no more than before (section 6.8)");
}

#[test]
fn whatever_a_peer_sends_does_no_harm() {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    for role in [Role::Client, Role::Server] {
        for _ in 0..3000 {
            let mut peer = Peer::of(role, &Settings { max_concurrent_streams: 5, ..Settings::default() });
            let mut streams = Vec::new();
            for _ in 0..40 {
                if role == Role::Client && peer.connection.is_usable() {
                    streams.push(peer.connection.connect("10.0.0.1:80", &HeaderMap::new()));
                }
                let block = peer.block(
                    &[(":method", "CONNECT"), (":authority", "a:1"), (":status", "200")][(next() % 3) as usize..],
                );
                let payload: Vec<u8> = match next() % 3 {
                    0 => block,
                    1 => (next() as u32 % 9).to_be_bytes().to_vec(),
                    _ => (0..next() % 40).map(|_| next() as u8).collect(),
                };
                let (kind, flags, stream) = ((next() % 11) as u8, next() as u8 & 0x2d, (next() % 8) as u32);
                if peer.says(|out| encode(out, kind, flags, stream, &payload)).is_err() {
                    break;
                }
                while let Some((stream, _)) = peer.connection.next_request() {
                    peer.connection.send_response(&stream, StatusCode::OK, &HeaderMap::new(), next() % 4 == 0);
                    streams.push(stream);
                }
                if let Some(stream) = streams.get(next() as usize % 7) {
                    match next() % 4 {
                        0 => peer.sends(stream, (next() % 1000) as usize, next() % 2 == 0),
                        1 => peer.connection.reset(stream, Reason::Cancel),
                        2 => peer.connection.discard_data(stream),
                        _ => {
                            let read = stream.borrow_mut().pop_data().map_or(0, |piece| piece.len());
                            peer.connection.release_capacity(&mut stream.borrow_mut(), read);
                        }
                    }
                }
                peer.hears();
            }
        }
    }
}
