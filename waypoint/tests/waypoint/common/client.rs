//! A node proxy of clients: it opens tunnels to the waypoint, and speaks the application's protocol on their streams.

use super::{Lab, WEB, identity, root};
use bytes::Bytes;
use hbone::{Settings, StreamIo, Tunnel};
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use waypoint::upstream::LocalExec;

pub type Http1 = http1::SendRequest<Full<Bytes>>;
pub type Http2 = http2::SendRequest<Full<Bytes>>;

/// A tunnel of a client.
pub struct Client(pub Tunnel);

/// An answer with its whole body.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
    pub trailers: Option<HeaderMap>,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Lab {
    /// A tunnel of the workload `client`.
    pub async fn client(&self) -> Client {
        self.client_with(Settings::default()).await
    }

    pub async fn client_with(&self, settings: Settings) -> Client {
        let certificate = root().certificate(&identity("client")).unwrap();
        let config = tls::client_config(&certificate, &[identity("waypoint")]).unwrap();
        let socket = TcpStream::connect(self.address).await.unwrap();
        let (tls, ()) = tls::stream::connect(socket, config, |_| ()).await.unwrap();
        let (tunnel, driver) = hbone::client::start(tls, &settings);
        spawn_local(driver);
        Client(tunnel)
    }
}

impl Client {
    /// A connection of the application to the service `web`.
    pub async fn open(&self) -> StreamIo {
        self.open_to(WEB).await.unwrap()
    }

    pub async fn open_to(&self, authority: &str) -> Result<StreamIo, hbone::ConnectError> {
        let accepted = self.0.connect(authority, HeaderMap::new()).await?;
        Ok(StreamIo::new(accepted.stream))
    }

    pub async fn http1(&self) -> Http1 {
        let (sender, driver) = http1::handshake(TokioIo::new(self.open().await)).await.unwrap();
        spawn_local(driver);
        sender
    }

    pub async fn http2(&self) -> Http2 {
        let (sender, driver) = http2::handshake(LocalExec, TokioIo::new(self.open().await)).await.unwrap();
        spawn_local(driver);
        sender
    }

    /// One request on a connection of its own.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(request(Method::GET, path)).await
    }

    pub async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        let mut sender = self.http1().await;
        answer(sender.send_request(request).await.unwrap()).await.unwrap()
    }

    pub async fn send2(&self, request: Request<Full<Bytes>>) -> Answer {
        let mut sender = self.http2().await;
        answer(sender.send_request(request).await.unwrap()).await.unwrap()
    }

    /// Sends bytes as they are, and reads until the connection ends, or is reset.
    pub async fn raw(&self, text: &str) -> String {
        let mut stream = self.open().await;
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all).await;
        String::from_utf8_lossy(&all).into_owned()
    }
}

pub fn request(method: Method, path: &str) -> Request<Full<Bytes>> {
    Request::builder().method(method).uri(path).header("host", "web").body(Full::default()).unwrap()
}

pub fn post(path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::builder().method(Method::POST).uri(path).header("host", "web").body(Full::new(body.into())).unwrap()
}

/// A gRPC call, in the form of HTTP/2.
pub fn call(path: &str) -> Request<Full<Bytes>> {
    let request = Request::builder().method(Method::POST).uri(format!("http://web{path}"));
    request.header("content-type", "application/grpc").header("te", "trailers").body(Full::default()).unwrap()
}

pub async fn answer(response: Response<Incoming>) -> hyper::Result<Answer> {
    let (parts, body) = response.into_parts();
    let collected = body.collect().await?;
    let trailers = collected.trailers().cloned();
    let body = String::from_utf8_lossy(&collected.to_bytes()).into_owned();
    Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body, trailers })
}
