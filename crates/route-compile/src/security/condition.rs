//! Conditions (`when`) of an AuthorizationPolicy.

use http::HeaderName;
use kube_types::istio::{Attribute, CONDITION_KEYS, ConditionKey, When};
use kube_types::similar::hint;
use policy::http::{Condition, Values};

use super::list::Reader;
use super::{Settings, value};
use crate::finding::Reason;

/// Reads a condition. One that cannot be evaluated is kept with its key.
pub(super) fn condition(settings: &Settings, namespace: &str, when: &When, reader: &mut Reader<'_>) -> Condition {
    if when.values.is_empty() && when.not_values.is_empty() {
        return unsupported(when, reader, Reason::Invalid, "expected values or notValues");
    }
    let Some(key) = ConditionKey::of(&when.key) else {
        let meant = hint(&when.key, CONDITION_KEYS.iter().map(|known| known.text));
        return unsupported(when, reader, Reason::Invalid, &format!("unknown condition {:?}{meant}", when.key));
    };
    match key.attribute {
        Attribute::SourceIp => Condition::SourceIp(read(when, reader, block)),
        Attribute::SourceNamespace => Condition::SourceNamespace(texts(when, reader)),
        Attribute::SourcePrincipal => {
            Condition::SourcePrincipal(read(when, reader, |text| value::principals(text, settings)))
        }
        Attribute::SourceTrustDomain => Condition::SourceTrustDomain(texts(when, reader)),
        Attribute::SourceServiceAccount => {
            Condition::SourceServiceAccount(read(when, reader, |text| one(value::service_account(text, namespace))))
        }
        Attribute::DestinationIp => Condition::DestinationIp(read(when, reader, block)),
        Attribute::DestinationPort => Condition::DestinationPort(read(when, reader, |text| one(value::port(text)))),
        Attribute::Request => request_condition(when, reader),
    }
}

fn request_condition(when: &When, reader: &mut Reader<'_>) -> Condition {
    let in_brackets = |of: &str| when.key.strip_prefix(of)?.strip_prefix('[')?.strip_suffix(']');
    if let Some(name) = in_brackets("request.headers") {
        return match name.parse::<HeaderName>() {
            Ok(name) => Condition::RequestHeader { name, values: texts(when, reader) },
            Err(_) => unsupported(when, reader, Reason::Invalid, &format!("invalid header name {name:?}")),
        };
    }
    if let Some(names) = in_brackets("request.auth.claims") {
        let path: Vec<_> = names.split("][").map(str::to_owned).collect();
        if path.iter().any(|name| name.is_empty() || name.contains(['[', ']'])) {
            let expected = "expected request.auth.claims[NAME] or request.auth.claims[NAME][NAME]";
            return unsupported(when, reader, Reason::Invalid, expected);
        }
        return Condition::RequestClaim { path, values: texts(when, reader) };
    }
    match when.key.as_str() {
        "remote.ip" => Condition::RemoteIp(read(when, reader, block)),
        "connection.sni" => Condition::ConnectionSni(texts(when, reader)),
        "request.auth.principal" => Condition::RequestPrincipal(texts(when, reader)),
        "request.auth.audiences" => Condition::RequestAudiences(texts(when, reader)),
        "request.auth.presenter" => Condition::RequestPresenter(texts(when, reader)),
        key => {
            let message = format!("condition {key:?} is not supported: it names a filter of Envoy");
            unsupported(when, reader, Reason::Unsupported, &message)
        }
    }
}

fn unsupported(when: &When, reader: &mut Reader<'_>, reason: Reason, message: &str) -> Condition {
    reader.unevaluable(reason, "key", message);
    Condition::Unsupported { key: when.key.clone() }
}

fn read<T, I: IntoIterator<Item = T>>(
    when: &When,
    reader: &mut Reader<'_>,
    read: impl Fn(&str) -> Result<I, String>,
) -> Values<T> {
    reader.values(("values", &when.values), ("notValues", &when.not_values), read)
}

fn texts(when: &When, reader: &mut Reader<'_>) -> Values<model::StringMatch> {
    read(when, reader, |text| one(value::text(text)))
}

/// A value that stands for itself alone.
pub(super) fn one<T>(value: Result<T, String>) -> Result<[T; 1], String> {
    value.map(|value| [value])
}

/// An address, or a block of addresses.
pub(super) fn block(text: &str) -> Result<impl IntoIterator<Item = ipnet::IpNet> + use<>, String> {
    let block = contract::address::parse_block(text).map(|block| block.trunc());
    one(block.ok_or_else(|| "expected an address or a block of addresses".to_owned()))
}
