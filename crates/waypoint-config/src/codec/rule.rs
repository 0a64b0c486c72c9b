//! Rules: faults, CORS, changes of headers, and the action.

use std::time::Duration;

use http::HeaderValue;
use proto::waypoint::{self as wire, abort, origin_match};
use route::{Abort, AbortStatus, Cors, Delay, Fault, OriginMatch, Rule};

use super::action;
use super::error::{Invalid, Within as _, each, optional, required};
use super::table::{decode_origin, encode_origin};
use super::text::{
    decode_changes, decode_pattern, encode_changes, encode_pattern, header_value, nanoseconds, number, share,
};

pub(super) fn encode(of: &Rule) -> wire::Rule {
    let Rule { origin, name, fault, cors, action, request_headers, response_headers } = of;
    wire::Rule {
        origin: Some(encode_origin(origin)),
        name: name.clone(),
        fault: fault.as_ref().map(encode_fault),
        cors: cors.as_ref().map(encode_cors),
        request_headers: encode_changes(request_headers),
        response_headers: encode_changes(response_headers),
        action: Some(action::encode(action)),
    }
}

pub(super) fn decode(of: wire::Rule) -> Result<Rule, Invalid> {
    Ok(Rule {
        origin: decode_origin(of.origin)?,
        name: of.name,
        fault: optional("fault", of.fault, decode_fault)?,
        cors: optional("cors", of.cors, decode_cors)?,
        action: action::decode(required("action", of.action)?)?,
        request_headers: decode_changes("request_headers", of.request_headers)?,
        response_headers: decode_changes("response_headers", of.response_headers)?,
    })
}

fn encode_fault(Fault { delay, abort }: &Fault) -> wire::Fault {
    wire::Fault { delay: delay.as_ref().map(encode_delay), abort: abort.as_ref().map(encode_abort) }
}

fn encode_delay(Delay { duration, share }: &Delay) -> wire::Delay {
    wire::Delay { duration: nanoseconds(*duration), share: share.millionths() }
}

fn encode_abort(Abort { status, share }: &Abort) -> wire::Abort {
    let status = match status {
        AbortStatus::Http(status) => abort::Status::Http((*status).into()),
        AbortStatus::Grpc(status) => abort::Status::Grpc((*status).into()),
    };
    wire::Abort { status: Some(status), share: share.millionths() }
}

fn decode_fault(of: wire::Fault) -> Result<Fault, Invalid> {
    let delay = |of: wire::Delay| {
        Ok(Delay { duration: Duration::from_nanos(of.duration), share: share(of.share).within("share")? })
    };
    let abort = |of: wire::Abort| {
        let status = match required("status", of.status)? {
            abort::Status::Http(status) => AbortStatus::Http(number(status).within("http")?),
            abort::Status::Grpc(status) => AbortStatus::Grpc(number(status).within("grpc")?),
        };
        Ok(Abort { status, share: share(of.share).within("share")? })
    };
    Ok(Fault { delay: optional("delay", of.delay, delay)?, abort: optional("abort", of.abort, abort)? })
}

fn encode_cors(of: &Cors) -> wire::Cors {
    let Cors {
        origins,
        allow_methods,
        allow_headers,
        expose_headers,
        max_age,
        allow_credentials,
        ignore_unmatched_preflights,
    } = of;
    let origin = |of: &OriginMatch| {
        let pattern = match of {
            OriginMatch::Any => origin_match::Pattern::Any(wire::Nothing {}),
            OriginMatch::Text(text) => origin_match::Pattern::Text(encode_pattern(text)),
        };
        wire::OriginMatch { pattern: Some(pattern) }
    };
    let bytes = |value: &Option<HeaderValue>| value.as_ref().map(|value| value.as_bytes().to_vec());
    wire::Cors {
        origins: origins.iter().map(origin).collect(),
        allow_methods: bytes(allow_methods),
        allow_headers: bytes(allow_headers),
        expose_headers: bytes(expose_headers),
        max_age: *max_age,
        allow_credentials: *allow_credentials,
        ignore_unmatched_preflights: *ignore_unmatched_preflights,
    }
}

fn decode_cors(of: wire::Cors) -> Result<Cors, Invalid> {
    let origin = |of: wire::OriginMatch| {
        Ok(match required("pattern", of.pattern)? {
            origin_match::Pattern::Any(wire::Nothing {}) => OriginMatch::Any,
            origin_match::Pattern::Text(text) => OriginMatch::Text(decode_pattern(text)?),
        })
    };
    let value = |field, bytes: Option<Vec<u8>>| optional(field, bytes, |bytes| Ok(header_value(&bytes)?));
    Ok(Cors {
        origins: each("origins", of.origins, origin)?,
        allow_methods: value("allow_methods", of.allow_methods)?,
        allow_headers: value("allow_headers", of.allow_headers)?,
        expose_headers: value("expose_headers", of.expose_headers)?,
        max_age: of.max_age,
        allow_credentials: of.allow_credentials,
        ignore_unmatched_preflights: of.ignore_unmatched_preflights,
    })
}
