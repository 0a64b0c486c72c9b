//! Peers that send more than anybody needs of what costs them little (RFC 9113, section 10.5).

use super::*;
use crate::Flood;

/// Frames of one round of a flood; `n` counts the rounds.
type Round = fn(&mut Peer, u32) -> Result<(), Error>;

fn connect(peer: &mut Peer) -> Vec<u8> {
    peer.block(&[(":method", "CONNECT"), (":authority", "a:1")])
}

/// Rounds until the peer is disconnected, and why; all within no time.
fn flood(peer: &mut Peer, round: Round) -> Option<(u32, Error)> {
    (0..200_000).find_map(|n| {
        let refused = round(peer, n).err();
        peer.hears();
        while let Some((stream, _)) = peer.connection.next_request() {
            peer.connection.reset(&stream, Reason::Cancel);
            peer.connection.discard_data(&stream);
        }
        refused.map(|fault| (n, fault))
    })
}

#[tokio::test(start_paused = true)]
async fn whoever_floods_is_disconnected_and_the_kind_is_known() {
    let cases: [(&str, Flood, u32, Round); 15] = [
        ("SETTINGS", Flood::Settings, 100, |p, _| p.says(|out| encode_settings(out, &[]))),
        ("SETTINGS that change all streams", Flood::Settings, 100, |p, n| {
            p.says(|out| encode_settings(out, &[(setting::INITIAL_WINDOW_SIZE, n)]))
        }),
        ("acknowledgements of SETTINGS", Flood::Settings, 100, |p, _| {
            p.says(|out| encode(out, kind::SETTINGS, flag::ACK, 0, &[]))
        }),
        ("PING", Flood::Pings, 10_000, |p, _| p.says(|out| encode(out, kind::PING, 0, 0, &[0; 8]))),
        ("answers to no PING", Flood::Pings, 10_000, |p, _| {
            p.says(|out| encode(out, kind::PING, flag::ACK, 0, &[0; 8]))
        }),
        ("WINDOW_UPDATE of the connection", Flood::WindowUpdates, 10_000, |p, _| {
            p.says(|out| encode_u32(out, kind::WINDOW_UPDATE, 0, 1))
        }),
        ("WINDOW_UPDATE of a stream", Flood::WindowUpdates, 10_000, |p, _| {
            p.says(|out| encode_u32(out, kind::WINDOW_UPDATE, 1, 1))
        }),
        ("empty DATA", Flood::EmptyFrames, 1_000, |p, _| p.says(|out| encode(out, kind::DATA, 0, 1, &[]))),
        ("DATA that is padding", Flood::EmptyFrames, 1_000, |p, _| {
            p.says(|out| encode(out, kind::DATA, flag::PADDED, 1, &[1, 0]))
        }),
        ("empty CONTINUATION", Flood::EmptyFrames, 1_000, |p, n| {
            let block = connect(p);
            p.says(|out| {
                encode(out, kind::HEADERS, 0, 2 * n + 3, &block);
                for _ in 0..100 {
                    encode(out, kind::CONTINUATION, 0, 2 * n + 3, &[]);
                }
                encode(out, kind::CONTINUATION, flag::END_HEADERS, 2 * n + 3, &[]);
            })
        }),
        ("PRIORITY", Flood::IgnoredFrames, 10_000, |p, _| p.says(|out| encode(out, kind::PRIORITY, 0, 1, &[0; 5]))),
        ("frames of no type", Flood::IgnoredFrames, 10_000, |p, _| p.says(|out| encode(out, 0xee, 0, 1, &[]))),
        ("RST_STREAM of a closed stream", Flood::IgnoredFrames, 10_000, |p, _| {
            p.says(|out| encode_u32(out, kind::RST_STREAM, 3, 8))
        }),
        ("requests that are given up", Flood::Resets, 5_000, |p, n| {
            let block = connect(p);
            p.says(|out| {
                encode_headers(out, 2 * n + 5, &block, false, 1 << 14);
                encode_u32(out, kind::RST_STREAM, 2 * n + 5, 8);
            })
        }),
        ("requests that make us reset them", Flood::Resets, 5_000, |p, n| {
            let block = connect(p);
            p.says(|out| {
                encode_headers(out, 2 * n + 5, &block, false, 1 << 14);
                encode_u32(out, kind::WINDOW_UPDATE, 2 * n + 5, 0);
            })
        }),
    ];
    for (what, expected, least, round) in cases {
        let mut peer = server();
        peer.opens(1);
        if expected == Flood::IgnoredFrames {
            peer.opens(3);
            peer.says(|out| encode_u32(out, kind::RST_STREAM, 3, 8)).unwrap();
        }

        let (rounds, fault) = flood(&mut peer, round).unwrap_or_else(|| panic!("{what}: goes on for ever"));

        assert!(matches!(fault, Error::Flood(kind) if kind == expected), "{what}: {fault}");
        assert_eq!(fault.code(), Some(code::ENHANCE_YOUR_CALM), "{what}");
        let slack = if what == "empty CONTINUATION" { least } else { 2 };
        assert!((least - slack..=least).contains(&rounds), "{what}: {rounds} rounds");
    }
}

#[tokio::test(start_paused = true)]
async fn small_blocks_that_decode_to_much_have_a_budget() {
    let mut peer = server();
    // `x: 4000 bytes` goes into the dynamic table; then a block of three octets names it three times.
    let mut block = vec![0x40, 1, b'x', 0x7f, 0xa1, 0x1e];
    block.extend([b'v'; 4000]);
    peer.says(|out| encode_headers(out, 1, &block, true, 1 << 14)).unwrap();

    let round: Round = |p, n| {
        p.says(|out| {
            encode_headers(out, 2 * n + 3, &[0xbe; 3], true, 1 << 14);
            encode_u32(out, kind::RST_STREAM, 2 * n + 3, 8);
        })
    };
    let (rounds, fault) = flood(&mut peer, round).expect("goes on for ever");

    assert!(matches!(fault, Error::Flood(Flood::HeaderBytes)), "{fault}");
    assert!((8_000..9_000).contains(&rounds), "{rounds} rounds");
}

#[tokio::test(start_paused = true)]
async fn a_list_that_is_too_long_is_answered_and_a_block_that_is_much_too_long_ends_the_connection() {
    let limit = Settings::default().server_header_list_bytes as usize;
    assert_eq!(limit, 8 << 10);
    let settings = Settings::default();
    let mut peer = Peer::silent(Role::Server, &settings);
    let announced = [0, 6, 0, 0, 0x20, 0];
    assert!(peer.hears()[0].3.chunks(6).any(|parameter| parameter == announced), "SETTINGS_MAX_HEADER_LIST_SIZE");

    for (bytes, expected) in [(limit - 300, Some(0)), (limit, Some(1)), (3 * limit, Some(1)), (5 * limit, None)] {
        let mut peer = server();
        let value = "v".repeat(bytes);
        let block = peer.block(&[(":method", "CONNECT"), (":authority", "a:1"), ("x", &value)]);

        let sent = peer.says(|out| encode_headers(out, 1, &block, false, 1 << 14));

        let refusals = peer.hears().iter().filter(|f| f.0 == kind::HEADERS).count();
        assert_eq!(sent.ok().map(|()| refusals), expected, "{bytes}");
    }
}

#[tokio::test(start_paused = true)]
async fn much_honest_traffic_is_no_flood() {
    let mut peer = server();
    for n in 0..20_000 {
        let id = 2 * n + 1;
        let stream = peer.opens(id);
        peer.sends(&stream, 1000, true);
        peer.says(|out| {
            encode(out, kind::DATA, flag::END_STREAM, id, b"request");
            encode_u32(out, kind::WINDOW_UPDATE, id, 1000);
            encode_u32(out, kind::WINDOW_UPDATE, 0, 1000);
        })
        .unwrap();
        peer.hears();
        peer.connection.discard_data(&stream);
    }
}
