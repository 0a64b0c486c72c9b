//! A server of `grpc.health.v1.Health` and nothing else, for `grpc` probes.

use std::{path::PathBuf, sync::Arc};

use anyhow::Result;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use tokio::net::{TcpListener, TcpStream};

use super::GrpcHealthArgs;

/// Status codes of gRPC.
const OK: &str = "0";
const NOT_FOUND: &str = "5";
const UNIMPLEMENTED: &str = "12";

/// Serves until it is killed; the exit code.
pub fn run(args: GrpcHealthArgs) -> i32 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let served = runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(serve(args)));
    match served {
        Ok(()) => 0,
        Err(err) => {
            eprintln!("{err:#}");
            1
        }
    }
}

async fn serve(args: GrpcHealthArgs) -> Result<()> {
    let listener = super::server::listen(args.listen)?;
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let args = Arc::new(args);
    loop {
        let (stream, _) = listener.accept().await?;
        let args = Arc::clone(&args);
        tokio::spawn(async move {
            // A client that breaks off is the test's business.
            let _ = connection(stream, &args).await;
        });
    }
}

async fn connection(stream: TcpStream, args: &GrpcHealthArgs) -> Result<(), h2::Error> {
    let mut server = h2::server::handshake(stream).await?;
    while let Some(request) = server.accept().await {
        let (request, mut respond) = request?;
        // `Watch` and other services are not implemented: the kubelet calls `Check` only.
        let check = request.uri().path() == "/grpc.health.v1.Health/Check";
        let (status, serving) = answer(check, &message(request.into_body()).await?, args);
        let mut response = Response::new(());
        response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
        let mut send = respond.send_response(response, false)?;
        if status == OK {
            // The prefix of gRPC (not compressed, two bytes long), then field 1: SERVING or NOT_SERVING.
            send.send_data(Bytes::from(vec![0, 0, 0, 0, 2, 0x08, if serving { 1 } else { 2 }]), false)?;
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static(status));
        send.send_trailers(trailers)?;
    }
    Ok(())
}

/// Whole message, with its prefix.
async fn message(mut body: h2::RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut all = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        // h2 sends WINDOW_UPDATE only after `release_capacity`.
        body.flow_control().release_capacity(chunk.len())?;
        all.extend_from_slice(&chunk);
    }
    Ok(all)
}

/// Status of the call, and whether the service is served.
fn answer(check: bool, request: &[u8], args: &GrpcHealthArgs) -> (&'static str, bool) {
    // A prefix of five bytes, then field 1 with its length where a service is named.
    let asked = request.get(7..).unwrap_or_default();
    let known = asked.is_empty() || args.service.as_deref().is_some_and(|service| service.as_bytes() == asked);
    let failing = args.failing_while.as_ref().is_some_and(|file: &PathBuf| file.exists());
    match (check, known) {
        (false, _) => (UNIMPLEMENTED, false),
        (true, false) => (NOT_FOUND, false),
        (true, true) => (OK, !failing),
    }
}
