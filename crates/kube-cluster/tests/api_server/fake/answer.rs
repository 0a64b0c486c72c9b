//! Answers to requests: lists, objects, discovery, and what faults make of them.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use kube_cluster::Verb;
use serde_json::{Value, json};

use super::Fake;
use super::fault::Fault;
use super::request::Asked;
use super::state::{forbidden, is_selected};
use super::{watch, write};

/// A body whose error cuts the connection.
pub(super) type AnswerBody = UnsyncBoxBody<Bytes, &'static str>;

/// Objects of a page, however many are asked for: few objects make many pages.
const PAGE: usize = 3;

/// Answers a request; `None` ends the connection.
pub(super) async fn to(fake: &Fake, request: Request<Incoming>) -> Option<Response<AnswerBody>> {
    let asked = Asked::parse(request.method(), request.uri());
    let content_type = request.headers().get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let content_type = content_type.to_owned();
    let body = request.into_body().collect().await.ok()?.to_bytes();
    let generation = fake.state.lock().generation;
    let fault = fake.state.lock().on_request(&asked);
    match fault {
        Some(Fault::Refuse(code, retry_after)) => {
            let mut response = refusal(code, "Scripted", "scripted fault");
            if let Some(seconds) = retry_after {
                response.headers_mut().insert("retry-after", seconds.into());
            }
            return Some(response);
        }
        Some(Fault::NotFound) => return Some(refusal(404, "NotFound", "scripted fault")),
        Some(Fault::NoAnswer) => return None,
        Some(Fault::Hang) => {
            healed(fake, generation).await;
            return None;
        }
        Some(Fault::Slow(pause)) => tokio::time::sleep(pause).await,
        _ => {}
    }
    let mut state = fake.state.lock();
    if !state.allows(&asked) {
        let verb = asked.verb.unwrap_or(Verb::Get);
        return Some(refusal(403, "Forbidden", &forbidden(&asked, verb)));
    }
    if asked.verb.is_some() && !state.is_served(&asked.resource, &asked.version) {
        return Some(text(404, "404 page not found"));
    }
    let answer = match asked.verb {
        None => state.discover(&asked.resource.group, &asked.version).ok_or((404, "", String::new())),
        Some(Verb::List) => list(&state, &asked),
        Some(Verb::Watch) => {
            drop(state);
            return Some(watch::open(fake, asked, fault));
        }
        Some(Verb::Get) => {
            let object = state.get(&asked.resource, &asked.namespace, &asked.name).cloned();
            object.ok_or((404, "NotFound", "not found".to_owned()))
        }
        Some(verb @ (Verb::Create | Verb::Update | Verb::Patch | Verb::Delete)) => {
            let body = serde_json::from_slice(&body).expect("a body");
            let written = match verb {
                Verb::Delete => write::delete(&mut state, &asked, &body),
                _ => write::apply(&mut state, &asked, &content_type, body),
            };
            drop(state);
            fake.changed.send_modify(|count| *count += 1);
            written
        }
    };
    Some(match answer {
        Ok(value) => faulty(&value, fault),
        Err((code, reason, message)) => refusal(code, reason, &message),
    })
}

pub(super) async fn healed(fake: &Fake, generation: u64) {
    let mut changed = fake.changed.subscribe();
    let healed = changed.wait_for(|_| fake.state.lock().generation != generation).await;
    assert!(healed.is_ok(), "the fake outlives its connections");
}

type Refused = (u16, &'static str, String);

fn list(state: &super::State, asked: &Asked) -> Result<Value, Refused> {
    let expired = || (410, "Expired", "The provided continue parameter is too old".to_owned());
    let (version, after) = match asked.query.get("continue") {
        Some(token) => {
            let (version, after) = token.split_once(':').expect("a token of ours");
            (version.parse().expect("a version"), after)
        }
        None => (state.version, ""),
    };
    if version < state.compacted {
        return Err(expired());
    }
    let objects = state.at(&asked.resource, version);
    let mut rest = objects.into_iter().filter(|(key, object)| key.as_str() > after && is_selected(object, asked));
    let size = if asked.query.contains_key("limit") { PAGE } else { usize::MAX };
    let page: Vec<_> = rest.by_ref().take(size).collect();
    let mut metadata = json!({ "resourceVersion": version.to_string() });
    if let (Some((last, _)), true) = (page.last(), rest.next().is_some()) {
        metadata["continue"] = format!("{version}:{last}").into();
    }
    let mut items: Vec<_> = page.into_iter().map(|(_, object)| object).collect();
    // Elements of lists of Kubernetes' own kinds do not say what they are.
    if !asked.resource.group.contains('.') {
        for fields in items.iter_mut().filter_map(Value::as_object_mut) {
            fields.retain(|name, _| !["apiVersion", "kind"].contains(&name.as_str()));
        }
    }
    Ok(json!({ "kind": "List", "metadata": metadata, "items": items }))
}

/// The answer, as a fault spoils it.
fn faulty(value: &Value, fault: Option<Fault>) -> Response<AnswerBody> {
    let bytes = Bytes::from(value.to_string());
    match fault {
        Some(Fault::Cut(size)) => pieces(vec![bytes.slice(..size.min(bytes.len() - 1))], true),
        Some(Fault::Split(size)) => pieces(split(&bytes, size), false),
        Some(Fault::Garbage(text)) => pieces(vec![Bytes::from_static(text.as_bytes())], false),
        _ => pieces(vec![bytes], false),
    }
}

pub(super) fn split(bytes: &Bytes, size: usize) -> Vec<Bytes> {
    bytes.chunks(size.max(1)).map(|piece| bytes.slice_ref(piece)).collect()
}

fn pieces(pieces: Vec<Bytes>, is_cut: bool) -> Response<AnswerBody> {
    let frames = pieces.into_iter().map(|piece| Ok(Frame::data(piece)));
    let end = is_cut.then_some(Err("cut")).into_iter();
    // One frame for each poll of the connection, so that pieces arrive as pieces.
    let frames = stream::iter(frames.chain(end)).then(|frame| async {
        tokio::time::sleep(Duration::from_micros(1)).await;
        frame
    });
    Response::new(BodyExt::boxed_unsync(StreamBody::new(frames)))
}

pub(super) fn refusal(code: u16, reason: &str, message: &str) -> Response<AnswerBody> {
    let status = json!({ "kind": "Status", "code": code, "reason": reason, "message": message });
    let mut response = text(code, &status.to_string());
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    response
}

fn text(code: u16, text: &str) -> Response<AnswerBody> {
    let body = http_body_util::Full::new(Bytes::from(text.to_owned()));
    let mut response = Response::new(body.map_err(|never: Infallible| match never {}).boxed_unsync());
    *response.status_mut() = StatusCode::from_u16(code).expect("a status");
    response
}
