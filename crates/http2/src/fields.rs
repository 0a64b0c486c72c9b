//! Header lists as requests and responses (RFC 9113, section 8), in both directions.

use crate::hpack::{Decoded, Decoder, Encoder, FIELD_BYTES};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

/// Names that every tunnel carries and the crate `http` has no constants for.
const BAGGAGE: HeaderName = HeaderName::from_static("baggage");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Head of a request.
#[derive(Debug)]
pub struct RequestHead {
    pub method: Method,
    /// As sent; empty when there was none.
    pub authority: String,
    pub headers: HeaderMap,
    /// Value of `content-length`; `None` for a tunnel.
    pub(crate) content_length: Option<i64>,
}

/// Head of a response.
#[derive(Debug)]
pub struct ResponseHead {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// Value of `content-length`; `None` for a tunnel.
    pub(crate) content_length: Option<i64>,
}

/// Target of a request that is not CONNECT.
#[derive(Debug, Default)]
struct Target {
    scheme: Option<Vec<u8>>,
    path: Option<Vec<u8>>,
}

/// A decoded header list. Each field is checked as section 8.2 says; the caller decides whether it is a request, a
/// response or trailers.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    method: Option<Method>,
    /// Not in a CONNECT.
    target: Option<Box<Target>>,
    authority: Option<String>,
    status: Option<StatusCode>,
    headers: HeaderMap,
    /// A field other than a pseudo-header field has been read.
    regular: bool,
    malformed: bool,
    /// The list is longer than SETTINGS_MAX_HEADER_LIST_SIZE; only its begin is here.
    pub(crate) is_too_long: bool,
    /// Size of what was kept of the list, bytes, counted as SETTINGS_MAX_HEADER_LIST_SIZE is.
    pub(crate) list_bytes: usize,
}

impl Fields {
    /// Decodes a whole header block.
    ///
    /// # Errors
    /// The block cannot be decompressed, which is a connection error (section 4.3).
    pub(crate) fn decode(decoder: &mut Decoder, block: &[u8], limit_bytes: usize) -> Result<Self, crate::hpack::Error> {
        let mut fields = Self::default();
        let decoded = decoder.decode(block, limit_bytes, |name, value| {
            fields.list_bytes += name.len() + value.len() + FIELD_BYTES;
            let taken = match name {
                _ if !is_trimmed(value) => None,
                [b':', pseudo @ ..] => fields.pseudo(pseudo, value),
                _ => fields.regular(name, value),
            };
            // Noted, not returned: the rest of the block must be decoded, or the dynamic tables differ from here on.
            fields.malformed |= taken.is_none();
        })?;
        fields.is_too_long = matches!(decoded, Decoded::LimitExceeded);
        Ok(fields)
    }

    fn pseudo(&mut self, name: &[u8], value: &[u8]) -> Option<()> {
        let once = match name {
            b"method" => self.method.replace(Method::from_bytes(value).ok()?).is_none(),
            b"scheme" if is_text(value) => {
                self.target.get_or_insert_default().scheme.replace(value.to_owned()).is_none()
            }
            b"path" if is_text(value) => self.target.get_or_insert_default().path.replace(value.to_owned()).is_none(),
            b"authority" if is_text(value) => self.authority.replace(str::from_utf8(value).ok()?.to_owned()).is_none(),
            b"status" => self.status.replace(StatusCode::from_bytes(value).ok()?).is_none(),
            // Also `:protocol`: we do not announce SETTINGS_ENABLE_CONNECT_PROTOCOL (RFC 8441).
            _ => false,
        };
        (once && !self.regular).then_some(())
    }

    fn regular(&mut self, name: &[u8], value: &[u8]) -> Option<()> {
        self.regular = true;
        let of_http1: [&[u8]; 5] =
            [b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"];
        // Fields that concern an HTTP/1.1 connection would smuggle requests past a proxy that translates (section
        // 8.2.2).
        if name.iter().any(u8::is_ascii_uppercase) || of_http1.contains(&name) {
            return None;
        }
        // Section 8.2.2: the only value that is allowed.
        if name == b"te" && !value.eq_ignore_ascii_case(b"trailers") {
            return None;
        }
        // No allocation for the names that every tunnel carries.
        let known = [BAGGAGE, TRACEPARENT].into_iter().find(|known| known.as_str().as_bytes() == name);
        let name = known.map_or_else(|| HeaderName::from_bytes(name).ok(), Some)?;
        self.headers.try_append(name, HeaderValue::from_bytes(value).ok()?).ok()?;
        Some(())
    }

    /// Makes the message malformed for a reason beside its fields.
    pub(crate) const fn set_malformed(&mut self) {
        self.malformed = true;
    }

    /// Returns the request, or `None` if it is malformed. `end_stream` says whether it ends with its header block.
    ///
    /// A CONNECT without a usable `:authority` is returned: proxies answer it with 400, as Istio's does.
    pub(crate) fn into_request(self, end_stream: bool) -> Option<RequestHead> {
        // Checked for a tunnel too, where it means nothing: one that is not a number is malformed all the same.
        let content_length = self.content_length().ok()?;
        let method = self.method?;
        let is_tunnel = method == Method::CONNECT;
        if self.malformed || self.status.is_some() || (end_stream && content_length.is_some_and(|n| n > 0)) {
            return None;
        }
        let target = if is_tunnel {
            // A tunnel begins with its request, so that cannot be its end (RFC 9110, section 9.3.6).
            !end_stream && self.target.is_none()
        } else {
            let target = *self.target?;
            is_scheme(&target.scheme?) && is_path(&target.path?, &method)
        };
        let authority = self.authority.unwrap_or_default();
        // Sections 8.3.1: no userinfo, and `host` names nobody else.
        let host = self.headers.get(header::HOST);
        let host_differs = host.is_some_and(|h| !h.as_bytes().eq_ignore_ascii_case(authority.as_bytes()));
        if !target || authority.contains('@') || (!authority.is_empty() && host_differs) {
            return None;
        }
        let content_length = content_length.filter(|_| !is_tunnel);
        Some(RequestHead { method, authority, headers: self.headers, content_length })
    }

    /// Returns the response, or `None` if it is malformed. `end_stream` says whether it ends with its header block.
    pub(crate) fn into_response(self, end_stream: bool) -> Option<ResponseHead> {
        let of_requests = self.method.is_some() || self.authority.is_some() || self.target.is_some();
        if self.malformed || of_requests {
            return None;
        }
        let status = self.status?;
        // In an answer to CONNECT that begins a tunnel a length means nothing (RFC 9110, section 9.3.6).
        let content_length = if status.is_success() { None } else { self.content_length().ok()? };
        let is_cut = end_stream && content_length.is_some_and(|n| n > 0);
        if status == StatusCode::SWITCHING_PROTOCOLS || status.is_informational() && end_stream || is_cut {
            return None;
        }
        Some(ResponseHead { status, headers: self.headers, content_length })
    }

    /// Returns whether these can be trailers (section 8.1).
    pub(crate) const fn is_trailers(&self) -> bool {
        let pseudo =
            self.method.is_some() || self.authority.is_some() || self.target.is_some() || self.status.is_some();
        !self.malformed && !pseudo
    }

    /// Returns `content-length`, if there is one. An error if it is no number, or if there are several.
    fn content_length(&self) -> Result<Option<i64>, Malformed> {
        let mut all = self.headers.get_all(header::CONTENT_LENGTH).iter();
        let Some(value) = all.next() else { return Ok(None) };
        let digits = value.to_str().ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit())).ok_or(Malformed)?;
        // Several of the same value are allowed (RFC 9110, section 8.6); different ones are how requests are smuggled.
        if all.any(|other| other != value) { Err(Malformed) } else { digits.parse().map(Some).map_err(|_| Malformed) }
    }
}

/// A `content-length` that is not a number, or several that differ.
struct Malformed;

/// Returns whether a value neither begins nor ends with a space or tab (section 8.2.1).
fn is_trimmed(value: &[u8]) -> bool {
    let is_blank = |b: Option<&u8>| matches!(b, Some(b' ' | b'\t'));
    !is_blank(value.first()) && !is_blank(value.last())
}

/// Returns whether a value has no control characters (section 8.2.1). The types of other values see to that themselves.
fn is_text(value: &[u8]) -> bool {
    !value.iter().any(|b| b.is_ascii_control())
}

/// Returns whether this is a scheme (RFC 3986, section 3.1).
fn is_scheme(text: &[u8]) -> bool {
    text.first().is_some_and(u8::is_ascii_alphabetic)
        && text.iter().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(b))
}

/// Returns whether this is a path of a request with `method` (section 8.3.1).
fn is_path(text: &[u8], method: &Method) -> bool {
    text.starts_with(b"/") || (text == b"*" && method == Method::OPTIONS)
}

/// Encodes a CONNECT request to `authority`.
pub(crate) fn connect(encoder: &mut Encoder, authority: &str, headers: &HeaderMap) -> Vec<u8> {
    let mut block = begin(encoder);
    Encoder::field(&mut block, b":method", b"CONNECT");
    Encoder::field(&mut block, b":authority", authority.as_bytes());
    rest(block, headers)
}

/// Encodes a response.
pub(crate) fn response(encoder: &mut Encoder, status: StatusCode, headers: &HeaderMap) -> Vec<u8> {
    let mut block = begin(encoder);
    Encoder::field(&mut block, b":status", status.as_str().as_bytes());
    rest(block, headers)
}

fn begin(encoder: &mut Encoder) -> Vec<u8> {
    // A CONNECT of a proxy has about 400 bytes, so there is one allocation.
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
    use proptest::prelude::*;

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
        let told = HeaderMap::from_iter([(BAGGAGE, HeaderValue::from_static("a=b"))]);

        let block = connect(&mut encoder, "[fd00::1]:80", &told);
        let asked = Fields::decode(&mut decoder, &block, 1000).unwrap().into_request(false).unwrap();
        let block = response(&mut encoder, StatusCode::OK, &told);
        let head = Fields::decode(&mut decoder, &block, 1000).unwrap().into_response(false).unwrap();

        assert_eq!(
            (asked.method, asked.authority.as_str(), asked.headers),
            (Method::CONNECT, "[fd00::1]:80", told.clone())
        );
        assert_eq!((head.status, head.headers), (StatusCode::OK, told));
    }

    const CONNECT: &[(&str, &str)] = &[(":method", "CONNECT"), (":authority", "a:1")];
    const GET: &[(&str, &str)] = &[(":method", "GET"), (":scheme", "https"), (":authority", "a"), (":path", "/")];

    #[test]
    fn a_malformed_field_makes_requests_answers_and_trailers_malformed() {
        for (rule, name, value) in [
            ("8.2.1: upper case in a name", "Upper", "x"),
            ("8.2.1: a space in a name", "a b", "x"),
            ("8.2.1: a control character in a name", "a\u{1}b", "x"),
            ("8.2.1: a name that is not ASCII", "n\u{e4}me", "x"),
            ("8.2.1: a colon in a name", "a:b", "x"),
            ("8.2.1: an empty name", "", "x"),
            ("8.2.1: LF in a value", "x", "a\nb"),
            ("8.2.1: CR in a value", "x", "a\rb"),
            ("8.2.1: NUL in a value", "x", "a\0b"),
            ("8.2.1: DEL in a value", "x", "a\u{7f}b"),
            ("8.2.1: a value that begins with a space", "x", " a"),
            ("8.2.1: a value that begins with a tab", "x", "\ta"),
            ("8.2.1: a value that ends with a space", "x", "a "),
            ("8.2.1: a value that ends with a tab", "x", "a\t"),
            ("8.2.1: a value that is a space", "x", " "),
            ("8.2.2: connection", "connection", "close"),
            ("8.2.2: proxy-connection", "proxy-connection", "close"),
            ("8.2.2: keep-alive", "keep-alive", "timeout=5"),
            ("8.2.2: transfer-encoding", "transfer-encoding", "chunked"),
            ("8.2.2: upgrade", "upgrade", "websocket"),
            ("8.2.2: te that is not trailers", "te", "gzip"),
            ("8.2.2: te that is not only trailers", "te", "trailers, gzip"),
            ("8.3: an unknown pseudo-header field", ":foo", "x"),
            ("8.3: an empty pseudo-header field", ":", "x"),
        ] {
            let field = [(name, value)];
            assert!(decoded(&[CONNECT, &field].concat()).into_request(false).is_none(), "{rule}: request");
            assert!(
                decoded(&[&[(":status", "200")][..], &field].concat()).into_response(false).is_none(),
                "{rule}: answer"
            );
            assert!(!decoded(&field).is_trailers(), "{rule}: trailers");
        }
        for (name, value) in [("x", ""), ("x", "a b\tc"), ("te", "trailers"), ("te", "Trailers"), ("x", "n\u{e4}me")] {
            let field = [(name, value)];
            assert!(decoded(&[CONNECT, &field].concat()).into_request(false).is_some(), "{name}: {value}");
            assert!(
                decoded(&[&[(":status", "200")][..], &field].concat()).into_response(false).is_some(),
                "{name}: {value}"
            );
            assert!(decoded(&field).is_trailers(), "{name}: {value}");
        }
    }

    #[test]
    fn what_section_8_3_1_forbids_is_no_request() {
        let connect = |more: &[(&'static str, &'static str)]| [CONNECT, more].concat();
        let without = |of: &[(&'static str, &'static str)], name| -> Vec<(&str, &str)> {
            of.iter().copied().filter(|(n, _)| *n != name).collect()
        };
        let get = |name, value| [without(GET, name), vec![(name, value)]].concat();
        let cases: Vec<(&str, Vec<(&str, &str)>)> = vec![
            ("8.5: CONNECT with :scheme", connect(&[(":scheme", "http")])),
            ("8.5: CONNECT with :path", connect(&[(":path", "/")])),
            ("8.3: CONNECT with :protocol", connect(&[(":protocol", "connect-udp")])),
            ("8.3: CONNECT with :status", connect(&[(":status", "200")])),
            ("8.3: :method twice", connect(&[(":method", "CONNECT")])),
            ("8.3: :authority twice", connect(&[(":authority", "a:1")])),
            ("8.3: :scheme twice", [GET, &[(":scheme", "https")]].concat()),
            ("8.3: :path twice", [GET, &[(":path", "/")]].concat()),
            ("8.3: a pseudo-header field behind others", connect(&[("x", "y"), (":authority", "b:1")])),
            ("8.3: a pseudo-header field behind a malformed one", connect(&[("X", "y"), (":path", "/")])),
            ("8.3.1: no :method", without(CONNECT, ":method")),
            ("8.3.1: no :scheme", without(GET, ":scheme")),
            ("8.3.1: no :path", without(GET, ":path")),
            ("8.3.1: an empty :path", get(":path", "")),
            ("8.3.1: a :path without a slash", get(":path", "a")),
            ("8.3.1: * of another method than OPTIONS", get(":path", "*")),
            ("8.3.1: an empty :scheme", get(":scheme", "")),
            ("8.3.1: a :scheme that is none", get(":scheme", "1http")),
            ("8.3: a :method that is none", get(":method", "G T")),
            ("8.3: an empty :method", get(":method", "")),
            ("8.3.1: userinfo in :authority", get(":authority", "me@a")),
            ("8.2.1: a control character in :authority", get(":authority", "a\u{1}")),
            ("8.3.1: host that differs", connect(&[("host", "b:1")])),
            ("nothing", vec![]),
        ];
        for (rule, fields) in cases {
            assert!(decoded(&fields).into_request(false).is_none(), "{rule}");
        }
        for fields in [
            CONNECT.to_vec(),
            GET.to_vec(),
            without(CONNECT, ":authority"),
            without(GET, ":authority"),
            connect(&[("host", "A:1")]),
            [GET, &[("content-length", "5"), ("content-length", "5")]].concat(),
            [get(":path", "*"), vec![]]
                .concat()
                .into_iter()
                .map(|f| if f.1 == "GET" { (f.0, "OPTIONS") } else { f })
                .collect(),
        ] {
            assert!(decoded(&fields).into_request(false).is_some(), "{fields:?}");
        }
    }

    #[test]
    fn what_ends_with_its_header_block_has_no_content() {
        assert!(decoded(CONNECT).into_request(true).is_none(), "a tunnel that ends with its request");
        assert!(decoded(GET).into_request(true).is_some());
        for (length, is_well_formed) in [("0", true), ("1", false), ("+0", false), ("", false), ("x", false)] {
            let field = [("content-length", length)];
            assert_eq!(decoded(&[GET, &field].concat()).into_request(true).is_some(), is_well_formed, "{length:?}");
            let answer = decoded(&[&[(":status", "404")][..], &field].concat()).into_response(true);
            assert_eq!(answer.is_some(), is_well_formed, "{length:?}");
        }
        let different = [("content-length", "0"), ("content-length", "1")];
        assert!(decoded(&[GET, &different].concat()).into_request(true).is_none());
        assert!(
            decoded(&[(":status", "200"), ("content-length", "5")]).into_response(true).is_some(),
            "means nothing there"
        );
    }

    #[test]
    fn what_section_8_3_2_forbids_is_no_answer() {
        assert!(decoded(&[(":status", "404")]).into_response(true).is_some());
        let status = (":status", "200");
        for wrong in [
            vec![(":status", "x")],
            vec![(":status", "20")],
            vec![(":status", "2000")],
            vec![(":status", "101")],
            vec![("x", "y")],
            vec![],
            vec![status, status],
            vec![status, (":method", "CONNECT")],
            vec![status, (":authority", "a:1")],
            vec![status, (":path", "/")],
            vec![status, (":scheme", "http")],
            vec![("x", "y"), status],
        ] {
            assert!(decoded(&wrong).into_response(false).is_none(), "{wrong:?}");
        }
        assert!(decoded(&[(":status", "100")]).into_response(false).is_some());
        assert!(decoded(&[(":status", "100")]).into_response(true).is_none(), "an interim answer ends nothing");
    }

    #[test]
    fn trailers_have_no_pseudo_header_fields() {
        assert!(decoded(&[("x", "y")]).is_trailers());
        assert!(decoded(&[]).is_trailers());
        for name in [":method", ":scheme", ":path", ":authority"] {
            assert!(!decoded(&[("x", "y"), (name, "x")]).is_trailers(), "{name}");
            assert!(!decoded(&[(name, "x")]).is_trailers(), "{name}");
        }
        assert!(!decoded(&[(":status", "200")]).is_trailers());
    }

    /// Names and values that are mostly those of messages.
    fn field() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
        const NAMES: &[&str] =
            &[":method", ":scheme", ":path", ":authority", ":status", "content-length", "host", "te", "x"];
        const VALUES: &[&str] = &["CONNECT", "GET", "https", "/", "a:1", "200", "5", "trailers", ""];
        let any_bytes = || proptest::collection::vec(any::<u8>(), 0..12);
        let name =
            prop_oneof![6 => proptest::sample::select(NAMES).prop_map(|n| n.as_bytes().to_vec()), 1 => any_bytes()];
        let value =
            prop_oneof![6 => proptest::sample::select(VALUES).prop_map(|v| v.as_bytes().to_vec()), 1 => any_bytes()];
        (name, value)
    }

    proptest! {
        #[test]
        fn any_header_list_is_a_message_or_malformed(
            list in proptest::collection::vec(field(), 0..8),
            end_stream: bool,
            limit in 0..600_usize,
        ) {
            let mut block = Vec::new();
            Encoder::new().begin(&mut block);
            for (name, value) in &list {
                Encoder::field(&mut block, name, value);
            }
            let decoded = || Fields::decode(&mut Decoder::new(), &block, limit).unwrap();

            prop_assert!(decoded().list_bytes <= limit);
            let has = |name: &str| list.iter().any(|(n, _)| n == name.as_bytes());
            if let Some(request) = decoded().into_request(end_stream) {
                prop_assert!(!has(":status") || decoded().is_too_long);
                prop_assert!(!request.authority.contains('@'));
                prop_assert!(request.method != Method::CONNECT || !end_stream && request.content_length.is_none());
            }
            if let Some(response) = decoded().into_response(end_stream) {
                prop_assert!(!has(":method") || decoded().is_too_long);
                prop_assert!(!end_stream || !response.status.is_informational());
            }
        }
    }
}
