//! Watches: events after a position, bookmarks, and their end.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http::Response;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::sync::watch as channel;
use tokio::time::{Instant, sleep_until};

use super::Fake;
use super::answer::{AnswerBody, refusal, split};
use super::fault::Fault;
use super::request::Asked;
use super::state::{Change, is_selected};

/// Time between two bookmarks, as a real one has it.
const BOOKMARK: Duration = Duration::from_secs(60);

/// An open watch.
struct Watch {
    fake: Fake,
    asked: Asked,
    position: u64,
    changed: channel::Receiver<u64>,
    generation: u64,
    bookmarks: u64,
    fault: Option<Fault>,
    /// Lines that are to be sent, in pieces.
    pieces: VecDeque<Bytes>,
    sent: usize,
    next_bookmark: Instant,
    end: Instant,
    is_cut: bool,
    is_over: bool,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.fake.state.lock().open_watches -= 1;
    }
}

pub(super) fn open(fake: &Fake, asked: Asked, fault: Option<Fault>) -> Response<AnswerBody> {
    let number = |name: &str| asked.query.get(name).and_then(|text| text.parse::<u64>().ok());
    let position = number("resourceVersion").expect("a position");
    let seconds = number("timeoutSeconds").expect("a time");
    let mut state = fake.state.lock();
    if position < state.compacted {
        return refusal(410, "Expired", "too old resource version");
    }
    state.open_watches += 1;
    let now = Instant::now();
    let again = if let Some(Fault::Again(count)) = fault { count } else { 0 };
    let watch = Watch {
        fake: fake.clone(),
        asked,
        position: position.saturating_sub(again),
        changed: fake.changed.subscribe(),
        generation: state.generation,
        bookmarks: state.bookmarks,
        fault,
        pieces: VecDeque::new(),
        sent: 0,
        next_bookmark: now + BOOKMARK,
        end: now + Duration::from_secs(seconds),
        is_cut: false,
        is_over: false,
    };
    drop(state);
    let frames = stream::unfold(watch, |mut watch| async move { watch.next().await.map(|frame| (frame, watch)) });
    Response::new(BodyExt::boxed_unsync(StreamBody::new(frames.map(|piece| piece.map(Frame::data)))))
}

impl Watch {
    async fn next(&mut self) -> Option<Result<Bytes, &'static str>> {
        loop {
            if self.is_over {
                return None;
            }
            if let Some(piece) = self.pieces.pop_front() {
                return Some(Ok(self.piece(piece).await));
            }
            if self.is_cut || self.fake.state.lock().generation != self.generation {
                self.is_over = true;
                return Some(Err("cut"));
            }
            self.look();
            if !self.pieces.is_empty() {
                continue;
            }
            tokio::select! {
                changed = self.changed.changed() => assert!(changed.is_ok(), "the fake outlives its watches"),
                () = sleep_until(self.next_bookmark) => self.bookmark(),
                () = sleep_until(self.end) => return None,
            }
        }
    }

    /// A piece of the stream, or its beginning before a cut.
    async fn piece(&mut self, piece: Bytes) -> Bytes {
        // One frame for each poll of the connection, so that pieces arrive as pieces.
        tokio::time::sleep(Duration::from_micros(1)).await;
        self.sent += piece.len();
        match self.fault {
            Some(Fault::Cut(size)) if self.sent >= size => {
                self.pieces.clear();
                self.is_cut = true;
                piece.slice(..piece.len().saturating_sub(self.sent - size))
            }
            _ => piece,
        }
    }

    /// Takes the changes since the last look.
    fn look(&mut self) {
        let state = self.fake.state.lock();
        if matches!(self.fault, Some(Fault::ExpiredInStream)) {
            drop(state);
            self.fault = None;
            let status = json!({ "kind": "Status", "code": 410, "reason": "Expired", "message": "too old" });
            return self.line("ERROR", status);
        }
        let history = state.history.iter();
        let new: Vec<Change> = history
            .filter(|change| change.version > self.position && change.resource == self.asked.resource)
            .cloned()
            .collect();
        self.position = state.version.max(self.position);
        let wants_bookmark = state.bookmarks != self.bookmarks;
        self.bookmarks = state.bookmarks;
        drop(state);
        for change in new {
            self.change(&change);
        }
        if wants_bookmark {
            self.bookmark();
        }
    }

    fn change(&mut self, change: &Change) {
        let selected = |object: &Option<Value>| object.clone().filter(|object| is_selected(object, &self.asked));
        match (selected(&change.before), selected(&change.after)) {
            (None, Some(after)) => self.line("ADDED", after),
            (Some(_), Some(after)) => self.line("MODIFIED", after),
            (Some(before), None) => {
                let mut last = change.after.clone().unwrap_or(before);
                last["metadata"]["resourceVersion"] = change.version.to_string().into();
                self.line("DELETED", last);
            }
            (None, None) => {}
        }
    }

    fn bookmark(&mut self) {
        self.next_bookmark = Instant::now() + BOOKMARK;
        let version = self.position.to_string();
        self.line("BOOKMARK", json!({ "metadata": { "resourceVersion": version } }));
    }

    fn line(&mut self, r#type: &str, object: Value) {
        let line = Bytes::from(format!("{}\n", json!({ "type": r#type, "object": object })));
        match &self.fault {
            Some(Fault::Split(size)) => self.pieces.extend(split(&line, *size)),
            Some(Fault::Twice) => self.pieces.extend([line.clone(), line]),
            Some(Fault::Garbage(text)) => {
                self.pieces.push_back(Bytes::from(format!("{text}\n")));
                self.fault = None;
                self.pieces.push_back(line);
            }
            _ => self.pieces.push_back(line),
        }
    }
}
