//! Servers behind the waypoint, in plain TCP.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;
use waypoint::upstream::LocalExec;

/// A request as a server saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub target: String,
    pub authority: String,
    pub headers: http::HeaderMap,
    pub body: Bytes,
}

impl Seen {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// A server, with the requests and connections that it got.
#[derive(Clone)]
pub struct Server {
    pub address: SocketAddr,
    pub seen: Rc<RefCell<Vec<Seen>>>,
    pub connections: Rc<Cell<usize>>,
}

impl Server {
    pub fn count(&self) -> usize {
        self.seen.borrow().len()
    }

    pub fn last(&self) -> Seen {
        self.seen.borrow().last().cloned().unwrap()
    }

    /// Answers 200 with the server's name.
    pub async fn named(name: &'static str) -> Self {
        Self::answering(move |_| Response::new(Full::new(name.into()))).await
    }

    /// Reads each request to its end and answers it, in HTTP/1.1 or HTTP/2 as its client begins.
    pub async fn answering(answer: impl Fn(&Seen) -> Response<Full<Bytes>> + 'static) -> Self {
        let answer = Rc::new(answer);
        Self::with(move |request, server| {
            let answer = answer.clone();
            async move {
                let seen = read(request).await;
                server.seen.borrow_mut().push(seen.clone());
                Ok(answer(&seen).map(BodyExt::boxed_unsync))
            }
        })
        .await
    }

    /// Answers as `serve` does.
    pub async fn with<F>(serve: impl Fn(Request<Incoming>, Self) -> F + 'static) -> Self
    where
        F: Future<Output = Result<Response<Body>, Infallible>> + 'static,
    {
        let serve = Rc::new(serve);
        Self::raw(move |socket, server| {
            let serve = serve.clone();
            async move {
                let mut first = [0; 3];
                let _ = socket.readable().await;
                let n = socket.peek(&mut first).await.unwrap_or_default();
                let service = service_fn(move |request| serve(request, server.clone()));
                if first[..n] == *b"PRI" {
                    let _ = http2::Builder::new(LocalExec).serve_connection(TokioIo::new(socket), service).await;
                } else {
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(socket), service).await;
                }
            }
        })
        .await
    }

    /// Gives each connection to `serve`.
    pub async fn raw<F: Future<Output = ()> + 'static>(serve: impl Fn(TcpStream, Self) -> F + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Self { address, seen: Rc::default(), connections: Rc::default() };
        let this = server.clone();
        spawn_local(async move {
            while let Ok((socket, _)) = listener.accept().await {
                this.connections.set(this.connections.get() + 1);
                spawn_local(serve(socket, this.clone()));
            }
        });
        server
    }
}

pub type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible>;

pub async fn read(request: Request<Incoming>) -> Seen {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(|all| all.to_bytes()).unwrap_or_default();
    let host = parts.headers.get("host").map(|host| host.to_str().unwrap().to_owned());
    Seen {
        method: parts.method.to_string(),
        target: parts.uri.path_and_query().unwrap().to_string(),
        authority: host.or(parts.uri.authority().map(ToString::to_string)).unwrap_or_default(),
        headers: parts.headers,
        body,
    }
}

/// A port on which nobody listens.
pub async fn closed_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}
