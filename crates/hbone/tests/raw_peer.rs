//! Tunnels with a peer that writes its frames by hand, and does with its connection what no library does.

mod common;

use common::{wire, worker};
use hbone::{Server, Settings};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const END_HEADERS: u8 = 4;
/// `:method: CONNECT` and `:authority: a:1`.
const CONNECT: &[u8] = b"\x02\x07CONNECT\x01\x03a:1";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

#[test]
fn requests_behind_many_that_were_given_up_are_heard_at_once() {
    worker(false, async {
        let (mut near, far) = wire();
        let mut said = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, b"")].concat();
        for id in (1..20_000).step_by(2) {
            said.extend(frame(HEADERS, END_HEADERS, id, CONNECT));
            said.extend(frame(RST_STREAM, 0, id, &[0, 0, 0, 8]));
        }
        said.extend(frame(HEADERS, END_HEADERS, 20_001, CONNECT));
        near.write_all(&said).await.unwrap();
        let mut server = Server::handshake(far, &Settings::default()).await.unwrap();

        // Far less than until the next PING.
        let next = timeout(Duration::from_secs(3), server.accept()).await.expect("nobody reads on");

        assert_eq!(next.unwrap().unwrap().authority(), "a:1");
    });
}
