//! Requests, responses and trailers that are received (RFC 9113, section 8.1): header lists that are complete and decoded.

use crate::closed_streams::Absent;
use crate::content::Content;
use crate::exchanged_settings::ExchangedSettings;
use crate::fields::Fields;
use crate::header_blocks::Message;
use crate::outbox::Outbox;
use crate::store::Found;
use crate::streams::Streams;
use crate::{Error, Reason, RecvError, Role, Stream, StreamRef, code};
use http::{HeaderMap, Method, StatusCode};

/// Takes a request, a response or trailers (section 8.1).
#[inline]
pub(crate) fn recv(
    streams: &mut Streams,
    message: Message,
    settings: &ExchangedSettings,
    out: &mut Outbox,
) -> Result<(), RecvError> {
    let id = message.stream_id;
    match streams.store.find(id) {
        Found::Open(stream) => recv_stream_headers(streams, &stream, message, out),
        Found::Absent(Absent::Idle) if streams.role == Role::Server && id % 2 == 1 => {
            recv_request(streams, message, settings, out)
        }
        Found::Absent(Absent::Idle) => {
            Err(Error::protocol("received HEADERS on a stream that the peer cannot open").into())
        }
        Found::Absent(Absent::Skipped) => {
            Err(Error::protocol("received HEADERS on a stream below one that is used").into())
        }
        Found::Absent(Absent::Ignored) => Err(RecvError::Ignored),
        Found::Absent(Absent::Closed) => Err(Error::stream_closed("received HEADERS on a closed stream").into()),
    }
}

#[inline]
fn recv_request(
    streams: &mut Streams,
    message: Message,
    settings: &ExchangedSettings,
    out: &mut Outbox,
) -> Result<(), RecvError> {
    let Message { stream_id: id, end_stream, fields } = message;
    streams.store.recv_id(id);
    if streams.store.goaway.is_closing() {
        // The peer knows which stream was the last.
        return Ok(());
    }
    // REFUSED_STREAM says that nothing was processed: the peer may try again (section 8.7).
    if streams.store.len() >= settings.local.config.max_concurrent_streams as usize {
        return Err(RecvError::Stream { stream_id: id, code: Reason::Refused.into() });
    }
    // The list was decoded in full, so the dynamic table is right and the connection can go on.
    if fields.is_too_long {
        let stream = streams.store.insert(id, settings);
        if end_stream {
            stream.borrow_mut().state.recv_end_stream();
        }
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        streams.send_response(&stream, status, &HeaderMap::new(), true, settings, out);
        return Ok(());
    }
    let Some(head) = fields.into_request(end_stream) else {
        return Err(RecvError::Stream { stream_id: id, code: code::PROTOCOL_ERROR });
    };
    let stream_ref = streams.store.insert(id, settings);
    let mut stream = stream_ref.borrow_mut();
    // A tunnel carries nothing but DATA from here on (section 8.5), and no length limits it.
    stream.is_tunnel = head.method == Method::CONNECT;
    stream.content = Content::of_length(head.content_length);
    if end_stream {
        stream.state.recv_end_stream();
    }
    drop(stream);
    streams.requests.push(stream_ref, head);
    Ok(())
}

/// Takes HEADERS of an open stream: the response to a client, or trailers.
#[inline]
fn recv_stream_headers(
    streams: &mut Streams,
    stream: &StreamRef,
    message: Message,
    out: &mut Outbox,
) -> Result<(), RecvError> {
    let stream = &mut *stream.borrow_mut();
    let Message { stream_id, end_stream, fields } = message;
    if !stream.state.is_recv_open() {
        return Err(RecvError::Stream { stream_id, code: code::STREAM_CLOSED });
    }
    if streams.role == Role::Client && !stream.is_answered {
        return recv_response(streams, stream, end_stream, fields, out);
    }
    // A tunnel carries nothing but DATA (section 8.5). Elsewhere these are trailers, and the end (section 8.1).
    let is_well_formed = end_stream && !fields.is_too_long && fields.is_trailers() && !stream.content.is_wrong(true);
    if stream.is_tunnel || !is_well_formed {
        return Err(RecvError::Stream { stream_id, code: code::PROTOCOL_ERROR });
    }
    streams.recv_end_stream(stream, out);
    Ok(())
}

#[inline]
fn recv_response(
    streams: &mut Streams,
    stream: &mut Stream,
    end_stream: bool,
    fields: Fields,
    out: &mut Outbox,
) -> Result<(), RecvError> {
    let is_too_long = fields.is_too_long;
    match fields.into_response(end_stream) {
        // Interim responses say nothing about a tunnel (RFC 9110, section 15.2).
        Some(head) if head.status.is_informational() => {}
        Some(head) if !is_too_long => {
            stream.is_tunnel = head.status.is_success();
            stream.content = Content::of_length(head.content_length);
            stream.response = Some(Box::new(head));
            stream.is_answered = true;
            if end_stream {
                streams.recv_end_stream(stream, out);
            }
            stream.recv.wake();
        }
        _ => return Err(RecvError::Stream { stream_id: stream.id, code: code::PROTOCOL_ERROR }),
    }
    Ok(())
}
