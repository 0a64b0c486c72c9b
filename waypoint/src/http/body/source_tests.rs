use std::future::poll_fn;

use futures::stream;
use http_body_util::{BodyExt, StreamBody};

use super::super::RequestBody;
use super::*;

type Pieces = Vec<Result<Frame<Bytes>, BoxError>>;

/// Kept and received bytes of a worker.
type Counts = (Rc<Cell<usize>>, Rc<Cell<u64>>);

fn source(pieces: Pieces, is_kept: bool) -> (Source, Counts) {
    let (kept, received) = Counts::default();
    let body = StreamBody::new(stream::iter(pieces));
    (Source::new(body, is_kept, received.clone(), kept.clone(), 64 << 20), (kept, received))
}

fn data(text: &'static str) -> Result<Frame<Bytes>, BoxError> {
    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
}

async fn all(body: RequestBody) -> Result<Bytes, BoxError> {
    body.collect().await.map(|collected| collected.to_bytes())
}

#[tokio::test]
async fn a_second_try_reads_the_body_again() {
    let (source, (kept, received)) = source(vec![data("one "), data("two")], true);

    let mut first = RequestBody::of(&source);
    assert_eq!(first.frame().await.unwrap().unwrap().into_data().unwrap(), "one ");
    drop(first);
    assert!(source.can_replay());
    assert_eq!(all(RequestBody::of(&source)).await.unwrap(), "one two");
    assert_eq!((kept.get(), received.get()), (7, 7));

    source.stop_keeping();
    assert_eq!(kept.get(), 0);
    assert!(!source.can_replay());
}

#[tokio::test]
async fn a_body_that_is_too_long_is_passed_on_and_not_kept() {
    let piece = || Ok(Frame::data(Bytes::from(vec![7; MAX_REPLAY_BYTES / 2])));
    let (source, (kept, _)) = source(vec![piece(), piece(), piece(), piece()], true);

    let body = all(RequestBody::of(&source)).await.unwrap();

    assert_eq!(body.len(), MAX_REPLAY_BYTES * 2);
    assert_eq!(kept.get(), 0);
    assert!(!source.can_replay());
}

#[tokio::test]
async fn a_mirror_that_reads_nothing_is_cut_and_keeps_nobody_waiting() {
    let piece = || Ok(Frame::data(Bytes::from(vec![7; MAX_REPLAY_BYTES / 2])));
    let (source, (kept, _)) = source((0..8).map(|_| piece()).collect(), false);
    let mirror = RequestBody::for_mirror(&source);

    assert_eq!(all(RequestBody::of(&source)).await.unwrap().len(), MAX_REPLAY_BYTES * 4);

    assert_eq!(all(mirror).await.unwrap_err().downcast_ref(), Some(&Cut::Slow));
    assert_eq!(kept.get(), 0);
}

#[tokio::test]
async fn a_mirror_gets_the_rest_when_the_endpoint_needs_no_more() {
    let (source, _) = source(vec![data("one "), data("two")], false);
    let (main, mirror) = (RequestBody::of(&source), RequestBody::for_mirror(&source));
    let mut reading = std::pin::pin!(all(mirror));
    // Not faster than the endpoint.
    assert!(futures::poll!(reading.as_mut()).is_pending());

    drop(main);

    assert_eq!(reading.await.unwrap(), "one two");
}

#[tokio::test]
async fn trailers_come_last_and_to_every_reader() {
    let trailers: HeaderMap = [(http::HeaderName::from_static("x-end"), 1.into())].into_iter().collect();
    let (source, _) = source(vec![data("one"), Ok(Frame::trailers(trailers.clone()))], true);

    for _ in 0..2 {
        let collected = RequestBody::of(&source).collect().await.unwrap();
        assert_eq!(collected.trailers(), Some(&trailers));
        assert_eq!(collected.to_bytes(), "one");
    }
}

#[tokio::test]
async fn a_client_that_breaks_off_breaks_every_try() {
    let (source, _) = source(vec![data("one"), Err("gone".into())], true);

    assert_eq!(all(RequestBody::of(&source)).await.unwrap_err().downcast_ref(), Some(&Cut::Client));

    assert!(source.is_broken());
    poll_fn(|cx| source.poll_end(cx)).await;
}
