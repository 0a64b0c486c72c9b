//! Conditions of a route.

use proto::waypoint as wire;
use route::{ClaimMatch, Conditions, HeaderMatch, QueryMatch};

use super::error::{Invalid, Problem, Within as _, each, optional};
use super::text::{decode_path, decode_pattern, decode_value, encode_path, encode_pattern, encode_value, header_name};

pub(super) fn encode(of: &Conditions) -> wire::Conditions {
    let Conditions { path, method, scheme, authority, headers, query, claims, source_labels, source_namespace } = of;
    wire::Conditions {
        path: Some(encode_path(path)),
        method: method.as_ref().map(encode_pattern),
        scheme: scheme.as_ref().map(encode_pattern),
        authority: authority.as_ref().map(encode_pattern),
        headers: headers.iter().map(encode_header).collect(),
        query: query.iter().map(encode_query).collect(),
        claims: claims.iter().map(encode_claim).collect(),
        source_labels: source_labels
            .iter()
            .map(|(key, value)| wire::Label { key: key.clone(), value: value.clone() })
            .collect(),
        source_namespace: source_namespace.clone(),
    }
}

fn encode_header(HeaderMatch { name, value, invert }: &HeaderMatch) -> wire::HeaderMatch {
    wire::HeaderMatch { name: name.to_string(), value: encode_value(value), invert: *invert }
}

fn encode_query(QueryMatch { name, value }: &QueryMatch) -> wire::QueryMatch {
    wire::QueryMatch { name: name.clone(), value: encode_value(value) }
}

fn encode_claim(ClaimMatch { path, value, invert }: &ClaimMatch) -> wire::ClaimMatch {
    wire::ClaimMatch { path: path.clone(), value: encode_value(value), invert: *invert }
}

pub(super) fn decode(of: wire::Conditions) -> Result<Conditions, Invalid> {
    let header = |of: wire::HeaderMatch| {
        Ok(HeaderMatch { name: header_name(&of.name)?, value: decode_value(of.value)?, invert: of.invert })
    };
    let query = |of: wire::QueryMatch| Ok(QueryMatch { name: of.name, value: decode_value(of.value)? });
    let claim =
        |of: wire::ClaimMatch| Ok(ClaimMatch { path: of.path, value: decode_value(of.value)?, invert: of.invert });
    let mut conditions = Conditions {
        path: decode_path(of.path)?,
        method: optional("method", of.method, decode_pattern)?,
        scheme: optional("scheme", of.scheme, decode_pattern)?,
        authority: optional("authority", of.authority, decode_pattern)?,
        headers: each("headers", of.headers, header)?,
        query: each("query", of.query, query)?,
        claims: each("claims", of.claims, claim)?,
        source_namespace: of.source_namespace,
        ..Conditions::default()
    };
    for (index, wire::Label { key, value }) in of.source_labels.into_iter().enumerate() {
        if conditions.source_labels.insert(key, value).is_some() {
            return Err(Problem::Twice).within(format!("source_labels[{index}]"));
        }
    }
    Ok(conditions)
}
