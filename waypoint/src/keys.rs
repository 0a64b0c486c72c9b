//! HTTP client for the key sets of token issuers. When and how often they are fetched is `jwt`'s.

use std::pin::pin;

use http::header::{ACCEPT, HOST, LOCATION};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use jwt::{FetchError, Fetcher, Fetching};
use tls::control_plane::{Connector, RootSource};

/// Redirects that are followed.
const REDIRECTS: usize = 3;

/// Fetches from `https` addresses, in HTTP/2 with the roots of the system, and from `http` addresses in HTTP/1.1.
#[derive(Clone, Debug)]
pub struct HttpFetcher(Connector);

impl Default for HttpFetcher {
    fn default() -> Self {
        Self(Connector::new(RootSource::System, None))
    }
}

impl Fetcher for HttpFetcher {
    fn fetch<'a>(&'a self, uri: &'a str, limit: usize) -> Fetching<'a> {
        Box::pin(async move { self.follow(uri, limit).await.map_err(FetchError) })
    }
}

impl HttpFetcher {
    async fn follow(&self, uri: &str, limit: usize) -> Result<Vec<u8>, String> {
        let mut uri: Uri = uri.parse().map_err(|error| format!("invalid address {uri:?}: {error}"))?;
        for _ in 0..=REDIRECTS {
            let response = self.get(&uri).await?;
            match response.status() {
                StatusCode::OK => return read(response, limit).await,
                status if status.is_redirection() => uri = redirected(&uri, &response)?,
                status => return Err(format!("status {status}, expected 200")),
            }
        }
        Err(format!("more than {REDIRECTS} redirects"))
    }

    async fn get(&self, uri: &Uri) -> Result<Response<Incoming>, String> {
        let failed = |error: hyper::Error| error.to_string();
        let io = TokioIo::new(self.0.connect(uri).await.map_err(|error| error.to_string())?);
        if uri.scheme_str() == Some("https") {
            let (mut sender, driver) = http2::handshake(TokioExecutor::new(), io).await.map_err(failed)?;
            tokio::spawn(driver);
            let request = Request::get(uri.clone()).header(ACCEPT, "application/json").body(Empty::<Bytes>::new());
            return sender.send_request(request.map_err(|error| error.to_string())?).await.map_err(failed);
        }
        let (mut sender, driver) = http1::handshake(io).await.map_err(failed)?;
        tokio::spawn(driver);
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        let host = uri.authority().map_or("", |authority| authority.as_str());
        let request = Request::get(target).header(HOST, host).header(ACCEPT, "application/json");
        let request = request.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
        sender.send_request(request).await.map_err(failed)
    }
}

async fn read(response: Response<Incoming>, limit: usize) -> Result<Vec<u8>, String> {
    let body = pin!(Limited::new(response.into_body(), limit));
    match body.collect().await {
        Ok(collected) => Ok(collected.to_bytes().to_vec()),
        Err(error) if error.is::<LengthLimitError>() => Err(format!("more than {limit} bytes")),
        Err(error) => Err(error.to_string()),
    }
}

/// Address of a redirect. It must not lead from `https` to `http`.
fn redirected(from: &Uri, response: &Response<Incoming>) -> Result<Uri, String> {
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let to: Uri = location.parse().map_err(|_| format!("invalid redirect to {location:?}"))?;
    if to.scheme() != from.scheme() {
        return Err(format!("redirect to {location:?}, expected an address of the same scheme"));
    }
    Ok(to)
}
