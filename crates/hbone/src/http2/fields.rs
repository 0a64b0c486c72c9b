//! Header lists as requests and answers (RFC 9113, section 8), both ways.

use crate::headers;
use crate::hpack::{Decoder, Encoder, Fits};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

/// What a request asks for.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    /// As sent; empty when there was none.
    pub(crate) authority: String,
    pub(crate) headers: HeaderMap,
}

/// The head of an answer.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
}

/// A header list, not yet judged.
#[derive(Debug, Default)]
pub(super) struct Fields {
    method: Option<Method>,
    authority: Option<String>,
    status: Option<StatusCode>,
    /// `:scheme` or `:path`, which no CONNECT has.
    has_target: bool,
    headers: HeaderMap,
    regular: bool,
    /// Not of the form that section 8.2 and 8.3 want.
    malformed: bool,
    /// Longer than we said we take; what is here is its begin.
    pub(super) too_long: bool,
}

impl Fields {
    /// Reads a whole block. An error is of the compression, and so the connection's.
    pub(super) fn decode(decoder: &mut Decoder, block: &[u8], limit_bytes: usize) -> Result<Self, crate::hpack::Error> {
        let mut fields = Self::default();
        let fits = decoder.decode(block, limit_bytes, |name, value| {
            let taken = match name {
                [b':', pseudo @ ..] => fields.pseudo(pseudo, value),
                _ => fields.regular(name, value),
            };
            fields.malformed |= taken.is_none();
        })?;
        fields.too_long = matches!(fits, Fits::No);
        Ok(fields)
    }

    fn pseudo(&mut self, name: &[u8], value: &[u8]) -> Option<()> {
        let once = match name {
            b"method" => self.method.replace(Method::from_bytes(value).ok()?).is_none(),
            b"authority" => self.authority.replace(str::from_utf8(value).ok()?.to_owned()).is_none(),
            b"status" => self.status.replace(StatusCode::from_bytes(value).ok()?).is_none(),
            b"scheme" | b"path" => {
                self.has_target = true;
                true
            }
            _ => false,
        };
        (once && !self.regular).then_some(())
    }

    fn regular(&mut self, name: &[u8], value: &[u8]) -> Option<()> {
        self.regular = true;
        let of_http1: [&[u8]; 5] =
            [b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"];
        if name.iter().any(u8::is_ascii_uppercase) || of_http1.contains(&name) {
            return None;
        }
        // Without an allocation for those that every tunnel carries.
        let known =
            [headers::BAGGAGE, headers::TRACEPARENT].into_iter().find(|known| known.as_str().as_bytes() == name);
        let name = known.map_or_else(|| HeaderName::from_bytes(name).ok(), Some)?;
        self.headers.try_append(name, HeaderValue::from_bytes(value).ok()?).ok()?;
        Some(())
    }

    /// As a request; `None` if it cannot be one.
    pub(super) fn request(self) -> Option<Asked> {
        let method = self.method?;
        if self.malformed || self.status.is_some() || (method == Method::CONNECT) == self.has_target {
            return None;
        }
        Some(Asked { method, authority: self.authority.unwrap_or_default(), headers: self.headers })
    }

    /// As an answer; `None` if it cannot be one.
    pub(super) fn answer(self) -> Option<Head> {
        let of_requests = self.method.is_some() || self.authority.is_some() || self.has_target;
        if self.malformed || of_requests {
            return None;
        }
        Some(Head { status: self.status?, headers: self.headers })
    }
}

/// The block of a CONNECT to `authority`.
pub(super) fn connect(encoder: &mut Encoder, authority: &str, headers: &HeaderMap) -> Vec<u8> {
    let mut block = begin(encoder);
    Encoder::field(&mut block, b":method", b"CONNECT");
    Encoder::field(&mut block, b":authority", authority.as_bytes());
    rest(block, headers)
}

/// The block of an answer.
pub(super) fn answer(encoder: &mut Encoder, status: StatusCode, headers: &HeaderMap) -> Vec<u8> {
    let mut block = begin(encoder);
    Encoder::field(&mut block, b":status", status.as_str().as_bytes());
    rest(block, headers)
}

fn begin(encoder: &mut Encoder) -> Vec<u8> {
    let mut block = Vec::with_capacity(512);
    encoder.begin(&mut block);
    block
}

fn rest(mut block: Vec<u8>, headers: &HeaderMap) -> Vec<u8> {
    for (name, value) in headers {
        Encoder::field(&mut block, name.as_str().as_bytes(), value.as_bytes());
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(fields: &[(&str, &str)]) -> Fields {
        let mut block = Vec::new();
        Encoder::new().begin(&mut block);
        for (name, value) in fields {
            Encoder::field(&mut block, name.as_bytes(), value.as_bytes());
        }
        Fields::decode(&mut Decoder::new(), &block, 1000).unwrap()
    }

    #[test]
    fn a_connect_and_its_answer_come_back() {
        let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
        let told = HeaderMap::from_iter([(headers::BAGGAGE, HeaderValue::from_static("a=b"))]);

        let block = connect(&mut encoder, "[fd00::1]:80", &told);
        let asked = Fields::decode(&mut decoder, &block, 1000).unwrap().request().unwrap();
        let block = answer(&mut encoder, StatusCode::OK, &told);
        let head = Fields::decode(&mut decoder, &block, 1000).unwrap().answer().unwrap();

        assert_eq!(
            (asked.method, asked.authority.as_str(), asked.headers),
            (Method::CONNECT, "[fd00::1]:80", told.clone())
        );
        assert_eq!((head.status, head.headers), (StatusCode::OK, told));
    }

    #[test]
    fn what_section_8_forbids_is_no_request() {
        let connect = [(":method", "CONNECT"), (":authority", "a:1")];
        let with = |more: &[(&str, &str)]| decoded(&[&connect, more].concat()).request().is_some();

        assert!(with(&[]));
        assert!(with(&[("x", "y"), ("te", "trailers")]));
        assert!(decoded(&[(":method", "GET"), (":scheme", "http"), (":path", "/")]).request().is_some());
        for wrong in [
            [(":scheme", "http")],
            [(":protocol", "connect-udp")],
            [(":method", "CONNECT")],
            [(":status", "200")],
            [("Upper", "x")],
            [("connection", "close")],
            [("x", "a\nb")],
            [("", "x")],
        ] {
            assert!(!with(&wrong), "{wrong:?}");
        }
        assert!(!with(&[("x", "y"), (":path", "/")]), "a pseudo-header behind others");
        assert!(decoded(&[(":authority", "a:1")]).request().is_none());
    }

    #[test]
    fn what_section_8_forbids_is_no_answer() {
        assert!(decoded(&[(":status", "404")]).answer().is_some());
        for wrong in [[(":status", "x")], [("x", "y")], [(":method", "CONNECT")]] {
            assert!(decoded(&wrong).answer().is_none(), "{wrong:?}");
        }
    }
}
