//! The headers that proxies tell each other on a CONNECT: `baggage`, `forwarded`, `traceparent`.
//! They are hints for telemetry; nothing here may decide about access.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use std::fmt::Write;
use std::net::SocketAddr;

/// Describes a workload for the telemetry of the other side.
pub const BAGGAGE: HeaderName = HeaderName::from_static("baggage");
/// One trace per application connection.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// The network a connection through gateways comes from.
pub const FORWARDED_NETWORK: HeaderName = HeaderName::from_static("x-forwarded-network");

/// A workload as `baggage` describes it. Empty fields are absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Baggage {
    pub cluster: String,
    pub namespace: String,
    /// `deployment`, `cronjob`, `pod` or `job`.
    pub workload_type: String,
    pub workload_name: String,
    pub service_name: String,
    pub service_version: String,
    pub region: String,
    pub zone: String,
}

impl Baggage {
    /// The header, or `None` when it would be empty or a field cannot be sent.
    pub fn to_header(&self) -> Option<HeaderValue> {
        // The type is part of the key, as OpenTelemetry's conventions have it: `k8s.deployment.name`.
        let workload_key = format!("k8s.{}.name", self.workload_type.to_ascii_lowercase());
        let mut text = String::new();
        for (key, value) in [
            ("k8s.cluster.name", &self.cluster),
            ("k8s.namespace.name", &self.namespace),
            (workload_key.as_str(), &self.workload_name),
            ("service.name", &self.service_name),
            ("service.version", &self.service_version),
            ("cloud.region", &self.region),
            ("cloud.availability_zone", &self.zone),
        ] {
            if !value.is_empty() {
                let _ = write!(text, "{}{key}={value}", if text.is_empty() { "" } else { "," });
            }
        }
        if text.is_empty() { None } else { HeaderValue::try_from(text).ok() }
    }

    /// Reads all `baggage` lines. `None` when there is none, or one is not ASCII.
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let mut lines = headers.get_all(BAGGAGE).iter().peekable();
        lines.peek()?;
        let mut out = Self::default();
        for line in lines {
            for pair in line.to_str().ok()?.split(',') {
                // Values are not percent-encoded, as Istio sends them; what is behind a second `=` is dropped.
                let mut parts = pair.split('=');
                let (Some(key), Some(value)) = (parts.next(), parts.next()) else { continue };
                out.set(key.trim(), value.trim());
            }
        }
        Some(out)
    }

    fn set(&mut self, key: &str, value: &str) {
        let field = match key {
            "k8s.cluster.name" => &mut self.cluster,
            "k8s.namespace.name" => &mut self.namespace,
            "service.name" => &mut self.service_name,
            "service.version" => &mut self.service_version,
            "cloud.region" => &mut self.region,
            "cloud.availability_zone" => &mut self.zone,
            "k8s.deployment.name" | "k8s.cronjob.name" | "k8s.pod.name" | "k8s.job.name" => {
                key["k8s.".len()..key.len() - ".name".len()].clone_into(&mut self.workload_type);
                &mut self.workload_name
            }
            _ => return,
        };
        value.clone_into(field);
    }
}

/// `forwarded` for a client's address and, when known, the service it asked for.
pub fn forwarded(client: SocketAddr, service: Option<&str>) -> Option<HeaderValue> {
    // Quoted, because of the colon before the port (RFC 7239, section 6).
    let mut text = format!("for=\"{client}\"");
    if let Some(host) = service {
        let _ = write!(text, ";host={host}");
    }
    HeaderValue::try_from(text).ok()
}

/// The service named by `forwarded`, if any.
pub fn forwarded_host(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(header::FORWARDED)?.to_str().ok()?;
    let host = text.split(';').find_map(|part| part.trim().strip_prefix("host="))?.trim_matches('"');
    (!host.is_empty()).then(|| host.to_owned())
}

/// Identifies one application connection across proxies: 128 random bits, and 64 for this hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    pub trace_id: u128,
    pub span_id: u64,
}

impl Trace {
    /// A fresh one.
    pub fn random() -> Self {
        Self { trace_id: rand::random(), span_id: rand::random() }
    }

    /// The one a peer sent. Anything that is not of the form that W3C Trace Context gives for version 00 counts as
    /// none, and so do several of them.
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let mut all = headers.get_all(TRACEPARENT).iter();
        let (Some(only), None) = (all.next(), all.next()) else { return None };
        let &[v1, v2, b'-', ref trace @ .., b'-', f1, f2] = only.as_bytes() else { return None };
        let (trace, [b'-', span @ ..]) = trace.split_at_checked(32)? else { return None };
        // Version ff is forbidden; later ones begin as 00 does, so what is known of them can be read.
        let version = hex(&[v1, v2])?;
        hex(&[f1, f2])?;
        if version == 0xff || span.len() != 16 {
            return None;
        }
        let trace = Self { trace_id: hex(trace)?, span_id: u64::try_from(hex(span)?).ok()? };
        // Zero stands for no identifier.
        (trace.trace_id != 0 && trace.span_id != 0).then_some(trace)
    }

    /// The header, flags 00.
    pub fn to_header(self) -> HeaderValue {
        let text = format!("00-{:032x}-{:016x}-00", self.trace_id, self.span_id);
        HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
    }
}

/// The value of lower-case hexadecimal digits, at most 32.
fn hex(digits: &[u8]) -> Option<u128> {
    if !digits.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    u128::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    #[test]
    fn baggage_survives_the_wire_and_leaves_out_what_is_empty() {
        let b = Baggage {
            cluster: "Kubernetes".into(),
            namespace: "ns".into(),
            workload_type: "deployment".into(),
            workload_name: "app".into(),
            service_name: "svc".into(),
            ..Baggage::default()
        };
        let text = b.to_header().unwrap();
        assert_eq!(
            text.to_str().unwrap(),
            "k8s.cluster.name=Kubernetes,k8s.namespace.name=ns,k8s.deployment.name=app,service.name=svc"
        );

        let headers = HeaderMap::from_iter([(BAGGAGE, text)]);

        assert_eq!(Baggage::from_headers(&headers), Some(b));
    }

    #[test]
    fn baggage_lines_accumulate_and_unknown_keys_are_ignored() {
        let mut headers = HeaderMap::new();
        headers.append(BAGGAGE, HeaderValue::from_static("k8s.namespace.name=a,x=y,junk"));
        headers.append(BAGGAGE, HeaderValue::from_static("service.name=s=t"));

        let b = Baggage::from_headers(&headers).unwrap();

        assert_eq!((b.namespace.as_str(), b.service_name.as_str()), ("a", "s"));
        assert_eq!(Baggage::from_headers(&HeaderMap::new()), None);
    }

    #[test]
    fn forwarded_names_the_service_when_there_is_one() {
        let client = "10.0.0.1:99".parse().unwrap();
        let with = forwarded(client, Some("a.b.svc")).unwrap();
        assert_eq!(with.to_str().unwrap(), "for=\"10.0.0.1:99\";host=a.b.svc");

        let read = |v| forwarded_host(&HeaderMap::from_iter([(header::FORWARDED, v)]));

        assert_eq!(read(with).as_deref(), Some("a.b.svc"));
        assert_eq!(read(forwarded(client, None).unwrap()), None);
        assert_eq!(read(HeaderValue::from_static("host=\"\"")), None);
        assert_eq!(read(HeaderValue::from_static("for=x; host=\"h\"")).as_deref(), Some("h"));
    }

    #[test]
    fn a_trace_of_another_form_counts_as_none() {
        let t = Trace::random();
        let read = |v| Trace::from_headers(&HeaderMap::from_iter([(TRACEPARENT, v)]));
        assert_eq!(read(t.to_header()), Some(t));
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert!(read(HeaderValue::from_static(good)).is_some());
        let with = |from: &str, to: &str| good.replacen(from, to, 1);
        for (what, text) in [
            ("short", "00-1-2-00".to_owned()),
            ("another separator behind the version", with("00-", "00_")),
            ("another separator behind the trace", with("-b7", "_b7")),
            ("another separator before the flags", with("-01", "_01")),
            ("upper case", with("0af", "0AF")),
            ("no digits in the version", with("00-", "0x-")),
            ("no digits in the trace", with("0af", "zzz")),
            ("no digits in the span", with("b7a", "+7a")),
            ("no digits in the flags", with("-01", "-+1")),
            ("version ff", with("00-", "ff-")),
            ("a trace of zeros", with("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32))),
            ("a span of zeros", with("b7ad6b7169203331", &"0".repeat(16))),
            ("more behind it", format!("{good}-x")),
            ("a separator in the trace", with("0af7", "0a-7")),
        ] {
            assert_eq!(read(HeaderValue::try_from(text).unwrap()), None, "{what}");
        }
        let mut headers = HeaderMap::from_iter([(TRACEPARENT, HeaderValue::from_static(good))]);
        headers.append(TRACEPARENT, HeaderValue::from_static(good));
        assert_eq!(Trace::from_headers(&headers), None, "several");
    }

    /// Values that are nearly those of proxies.
    fn value() -> impl Strategy<Value = Vec<u8>> {
        const VALUES: &[&str] = &[
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "k8s.namespace.name=a,k8s.job.name=b,service.name=s=t",
            "for=\"10.0.0.1:99\";host=a.b.svc",
        ];
        let changed = (proptest::sample::select(VALUES), any::<proptest::sample::Index>(), any::<u8>());
        let changed = changed.prop_map(|(text, at, byte)| {
            let mut value = text.as_bytes().to_vec();
            value[at.index(text.len())] = byte;
            value
        });
        prop_oneof![3 => changed, 1 => vec(any::<u8>(), 0..80)]
    }

    proptest! {
        #[test]
        fn any_header_value_is_read_or_ignored(values in vec(value(), 0..3)) {
            let mut headers = HeaderMap::new();
            for value in values.iter().filter_map(|value| HeaderValue::from_bytes(value).ok()) {
                for name in [BAGGAGE, TRACEPARENT, header::FORWARDED] {
                    headers.append(name, value.clone());
                }
            }

            if let Some(baggage) = Baggage::from_headers(&headers).filter(|b| b.workload_name.is_empty()) {
                let again = baggage.to_header().map(|value| HeaderMap::from_iter([(BAGGAGE, value)]));
                prop_assert_eq!(again.and_then(|h| Baggage::from_headers(&h)).unwrap_or_default(), baggage);
            }
            if let Some(trace) = Trace::from_headers(&headers) {
                let again = HeaderMap::from_iter([(TRACEPARENT, trace.to_header())]);
                prop_assert_eq!(Trace::from_headers(&again), Some(trace));
            }
            prop_assert!(forwarded_host(&headers).is_none_or(|host| !host.is_empty()));
        }
    }
}
