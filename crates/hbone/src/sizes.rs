//! Sizes of what a node has thousands of: halves of streams, and futures that use them.

use crate::{RecvHalf, SendHalf, Settings, Tunnel, client};
use bytes::Bytes;
use http::HeaderMap;
use tokio::io::{BufReader, duplex};

/// Size of the future that `make` returns for a half, bytes.
const fn size_of_future<T, F>(_make: &impl Fn(T) -> F) -> usize {
    size_of::<F>()
}

#[tokio::test]
async fn halves_of_streams_and_their_futures_are_small() {
    let (tunnel, _driver) = client::start(BufReader::new(duplex(1).0), &Settings::default());
    let connect = size_of_val(&tunnel.connect("10.0.0.1:80", HeaderMap::new()));
    let send = size_of_future(&|mut half: SendHalf| async move { half.send(Bytes::new()).await });
    let data = size_of_future(&|mut half: RecvHalf| async move { half.data().await });
    let types = [size_of::<Tunnel>(), size_of::<SendHalf>(), size_of::<RecvHalf>()];

    let limits = [32, 24, 24];
    assert!(types.iter().zip(limits).all(|(size, limit)| *size <= limit), "tunnel and halves: {types:?} bytes");
    assert!(connect <= 432, "connect: {connect} bytes");
    assert!(send <= 136, "a half and its send: {send} bytes");
    assert!(data <= 56, "a half and its data: {data} bytes");
}
