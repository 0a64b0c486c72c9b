//! Memory of idle streams and connections: a node has thousands of them.

use super::*;
use crate::{Engine, Stream};
use std::cell::RefCell;

#[test]
fn an_open_stream_and_a_tunnel_are_small() {
    let stream = size_of::<RefCell<Stream>>();
    let connection = size_of::<RefCell<Connection>>();
    let engine = size_of::<Engine<()>>();

    assert!(stream <= 208, "a stream: {stream} bytes");
    assert!(connection <= 576, "a connection: {connection} bytes");
    assert!(engine <= 208, "an engine: {engine} bytes");
}

#[test]
fn a_connection_that_waits_keeps_no_buffers_whatever_it_has_carried() {
    let mut peer = server();
    peer.says(|out| encode_u32(out, kind::WINDOW_UPDATE, 0, MAX_WINDOW_SIZE / 2)).unwrap();
    peer.says(|out| encode_settings(out, &[(setting::INITIAL_WINDOW_SIZE, 1 << 20)])).unwrap();
    let streams: Vec<_> = (0..100).map(|i| peer.opens(2 * i + 1)).collect();
    for stream in &streams {
        let id = stream.borrow().id;
        for _ in 0..20 {
            stream.borrow_mut().send_data(Bytes::from_static(&[7; 100]));
            peer.says(|out| encode(out, kind::DATA, 0, id, &[7; 1000])).unwrap();
        }
        peer.connection.schedule(stream);
    }
    for _ in 0..1000 {
        peer.says(|out| encode(out, kind::PING, 0, 0, &[0; 8])).unwrap();
    }
    peer.hears();
    for stream in &streams {
        let mut stream = stream.borrow_mut();
        while let Some(piece) = stream.pop_data() {
            peer.connection.release_capacity(&mut stream, piece.len());
        }
    }
    peer.hears();

    let kept = peer.connection.buffered_bytes();

    assert!(kept <= 1000, "{kept} bytes in buffers");
    assert!(streams.iter().all(|stream| stream.borrow().has_no_queues()));
}
