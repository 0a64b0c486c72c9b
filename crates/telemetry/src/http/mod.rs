//! The small HTTP server of health, metrics and admin pages, over TCP and unix sockets. HTTP/1.1 only; not for mesh traffic.

mod connections;
mod server;

use std::{collections::HashMap, fmt, future::Future, pin::Pin};

use ::http::{HeaderValue, Method, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};

pub use server::{HEADER_TIMEOUT, Server};

/// A request whose body, at most 64 KiB, was read.
pub type Request = ::http::Request<Bytes>;
/// A whole answer.
pub type Response = ::http::Response<Full<Bytes>>;

type Answer = Pin<Box<dyn Future<Output = Response> + Send>>;
type Handler = Box<dyn Fn(Request) -> Answer + Send + Sync>;

/// Paths and who answers them. Exact paths only.
#[derive(Default)]
pub struct Router {
    routes: HashMap<&'static str, (Option<Method>, Handler)>,
}

impl Router {
    /// No path: everything is 404.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Answers `GET` (and `HEAD`); other methods get 405.
    #[must_use]
    pub fn get<F>(self, path: &'static str, handler: impl Fn(Request) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Response> + Send + 'static,
    {
        self.add(path, Some(Method::GET), handler)
    }

    /// Answers every method; the handler sees which.
    #[must_use]
    pub fn any<F>(self, path: &'static str, handler: impl Fn(Request) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Response> + Send + 'static,
    {
        self.add(path, None, handler)
    }

    fn add<F>(
        mut self,
        path: &'static str,
        method: Option<Method>,
        handler: impl Fn(Request) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Response> + Send + 'static,
    {
        let handler: Handler = Box::new(move |request| Box::pin(handler(request)));
        self.routes.insert(path, (method, handler));
        self
    }

    /// The answer to one request.
    pub async fn answer(&self, request: Request) -> Response {
        match self.routes.get(request.uri().path()) {
            None => text(404, "not found\n"),
            // `HEAD` needs no handler of its own: hyper sends the head of the answer and leaves out the body.
            Some((Some(Method::GET), _)) if !matches!(*request.method(), Method::GET | Method::HEAD) => {
                text(405, "method not allowed\n")
            }
            Some((_, handler)) => handler(request).await,
        }
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Router").field(&self.routes.keys()).finish()
    }
}

/// A plain-text answer. An invalid status becomes 500.
#[must_use]
pub fn text(status: u16, body: impl Into<Bytes>) -> Response {
    typed(status, "text/plain; charset=utf-8", body)
}

/// An answer of another type.
#[must_use]
pub fn typed(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A JSON answer; 500 when the value cannot be written.
#[must_use]
pub fn json(status: u16, value: &impl serde::Serialize) -> Response {
    match serde_json::to_vec_pretty(value) {
        Ok(body) => typed(status, "application/json", body),
        Err(error) => text(500, format!("cannot be written as JSON: {error}\n")),
    }
}

/// The value of a query parameter, percent-decoded; `Some("")` for a parameter without value.
#[must_use]
pub fn query(request: &Request, name: &str) -> Option<String> {
    let pairs = request.uri().query().unwrap_or_default().split('&');
    // The first of several values wins.
    let mut values = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    values.find(|(key, _)| *key == name).map(|(_, value)| percent_decoded(value))
}

fn percent_decoded(value: &str) -> String {
    let mut rest = value.as_bytes();
    let mut decoded = Vec::with_capacity(rest.len());
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        // An incomplete escape is taken as it stands: a reader of pages who mistypes one gets an answer about the
        // value, not an error.
        let escaped = match (first, after) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)).map(|(high, low)| high * 16 + low),
            _ => None,
        };
        match escaped {
            Some(byte) => {
                decoded.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            // As HTML forms encode a space; a real plus arrives as `%2B`.
            None if *first == b'+' => decoded.push(b' '),
            None => decoded.push(*first),
        }
    }
    // Not refused: the value is compared with names, and one with a replacement character matches none.
    String::from_utf8_lossy(&decoded).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// The body of an answer as text.
pub async fn body_text(response: Response) -> String {
    // A `Full` body cannot fail.
    let body = response.into_body().collect().await.map(|c| c.to_bytes()).unwrap_or_default();
    String::from_utf8_lossy(&body).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: Method, uri: &str) -> Request {
        ::http::Request::builder().method(method).uri(uri).body(Bytes::new()).unwrap()
    }

    #[tokio::test]
    async fn an_unknown_path_is_404_and_a_wrong_method_405() {
        let router = Router::new().get("/x", |_| async { text(200, "x") });

        assert_eq!(router.answer(request(Method::GET, "/y")).await.status(), 404);
        assert_eq!(router.answer(request(Method::POST, "/x")).await.status(), 405);
        assert_eq!(router.answer(request(Method::GET, "/x?a=b")).await.status(), 200);
    }

    #[test]
    fn query_parameters_are_decoded() {
        let request = request(Method::POST, "/logging?level=access%3Ddebug,rbac=info&reset&bad=%zz%4");

        assert_eq!(query(&request, "level").as_deref(), Some("access=debug,rbac=info"));
        assert_eq!(query(&request, "reset").as_deref(), Some(""));
        assert_eq!(query(&request, "bad").as_deref(), Some("%zz%4"));
        assert_eq!(query(&request, "other"), None);
    }
}
