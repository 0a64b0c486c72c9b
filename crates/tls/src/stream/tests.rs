//! Records of peers after the handshake, allowed and forbidden ones.

#[path = "../../tests/common/configs.rs"]
#[allow(unreachable_pub)]
mod configs;

use super::*;
use configs::configs;
use std::task::Waker;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

type Tls = TlsStream<DuplexStream>;

/// A client and a server, each with the other's tickets read.
async fn pair() -> (Tls, Tls) {
    let (server, client) = configs(false);
    let (near, far) = duplex(1 << 20);
    let (near, far) = tokio::join!(connect(near, client, |_| ()), accept(far, server, |_| ()));
    let (mut near, mut far) = (near.unwrap().0, far.unwrap().0);
    far.send_record(DATA, b"hello").await;
    near.read_exact(&mut [0; 5]).await.unwrap();
    (near, far)
}

impl Tls {
    /// Sends one record.
    async fn send_record(&mut self, content: u8, payload: &[u8]) {
        self.sealer.seal(content, &[IoSlice::new(payload)]).unwrap();
        self.flush().await.unwrap();
    }

    /// Sends a new key and asks for one.
    async fn request_key_update(&mut self) {
        self.send_record(HANDSHAKE, &[KEY_UPDATE, 0, 0, 1, 1]).await;
        let (sequence, secrets) = self.keys.next_to_send().unwrap();
        self.sealer.renew(sequence, &secrets).unwrap();
    }

    /// Reads what is there and is not data.
    fn read_nothing(&mut self) {
        let (mut room, cx) = ([0; 8], &mut Context::from_waker(Waker::noop()));
        assert!(Pin::new(self).poll_read(cx, &mut ReadBuf::new(&mut room)).is_pending());
    }

    async fn expect(&mut self, data: &[u8]) {
        let mut got = vec![0; data.len()];
        self.read_exact(&mut got).await.unwrap();
        assert_eq!(got, data);
    }
}

#[tokio::test]
async fn many_requests_for_a_key_update_get_one_answer() {
    let (mut near, mut far) = pair().await;

    for _ in 0..CONTROL_IN_A_ROW {
        far.request_key_update().await;
    }
    near.read_nothing();
    assert!(near.sealer.waiting().is_empty());
    near.flush().await.unwrap();
    far.read_nothing();

    assert_eq!(far.control, 1);
    near.write_all(b"answer").await.unwrap();
    near.flush().await.unwrap();
    far.expect(b"answer").await;
    far.send_record(DATA, b"and on").await;
    near.expect(b"and on").await;
}

#[tokio::test]
async fn a_peer_that_sends_only_records_without_data_is_disconnected() {
    let (mut near, mut far) = pair().await;

    for _ in 0..=CONTROL_IN_A_ROW {
        far.request_key_update().await;
    }

    assert_eq!(near.read(&mut [0; 8]).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
}

#[tokio::test]
async fn a_client_without_a_required_certificate_gets_an_alert() {
    let (server, client) = configs(true);
    let (near, far) = duplex(1 << 20);

    let (near, far) = tokio::join!(connect(near, client, |_| ()), accept(far, server, |_| ()));

    assert!(far.unwrap_err().to_string().contains("certificate"), "the server says why");
    let read = near.unwrap().0.read(&mut [0; 1]).await;
    assert!(read.is_err(), "the client got {read:?} instead of an alert");
}

/// Returns the error of `near` for `record`, and the alert that `far`, which sent it, gets.
async fn complaint(near: &mut Tls, far: &mut Tls, record: &[u8]) -> (io::Error, Option<AlertDescription>) {
    far.io.write_all(record).await.unwrap();
    let refused = near.read(&mut [0; 8]).await.unwrap_err();
    let heard = far.read(&mut [0; 8]).await.unwrap_err();
    let alert = heard.get_ref().and_then(|e| match e.downcast_ref() {
        Some(rustls::Error::AlertReceived(alert)) => Some(*alert),
        _ => None,
    });
    (refused, alert)
}

#[tokio::test]
async fn an_invalid_record_is_answered_with_the_right_alert() {
    use AlertDescription::{BadRecordMac, RecordOverflow, UnexpectedMessage};
    let forged = [&[DATA, 3, 3, 0, 40][..], &[7; 40]].concat();
    let cases = [
        (forged, BadRecordMac),
        (vec![DATA, 3, 3, 0x41, 0x01], RecordOverflow),
        (vec![20, 3, 3, 0, 1, 1], UnexpectedMessage),
        (b"GET / HTTP/1.1".to_vec(), UnexpectedMessage),
    ];
    for (record, alert) in cases {
        let (mut near, mut far) = pair().await;

        let (refused, heard) = complaint(&mut near, &mut far, &record).await;

        assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
        assert_eq!(heard, Some(alert), "{refused}");
        assert!(near.write(b"more").await.is_err(), "data after the alert");
        assert_eq!(near.read(&mut [0; 8]).await.unwrap(), 0, "it reads on");
    }
}

#[tokio::test]
async fn a_message_may_be_split_over_records_but_not_interrupted() {
    let (mut near, mut far) = pair().await;
    let ticket = [&[4, 0, 0, 200][..], &[1; 200]].concat();

    far.send_record(HANDSHAKE, &ticket[..50]).await;
    far.send_record(HANDSHAKE, &ticket[50..]).await;
    far.send_record(ALERT, &[1, 90]).await;
    far.send_record(DATA, b"data").await;
    near.expect(b"data").await;

    far.send_record(HANDSHAKE, &ticket[..50]).await;
    far.send_record(DATA, b"data").await;
    assert_eq!(near.read(&mut [0; 8]).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
}

#[test]
fn an_idle_stream_and_its_handshake_are_small() {
    let (server, client) = configs(false);
    let stream = size_of::<TlsStream<()>>();
    let connecting = size_of_val(&connect(tokio::io::empty(), client, |_| ()));
    let accepting = size_of_val(&accept(tokio::io::empty(), server, |_| ()));

    assert!(stream <= 816, "a stream: {stream} bytes");
    assert!(connecting <= 2512, "a client's handshake: {connecting} bytes");
    assert!(accepting <= 2672, "a server's handshake: {accepting} bytes");
}
