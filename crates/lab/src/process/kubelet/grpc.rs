//! A call of `grpc.health.v1.Health/Check`, as a `grpc` probe makes it.

use std::net::SocketAddr;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, Request};
use tokio::net::TcpStream;

/// Most bytes of an answer: one field of one byte is expected.
const MAX_ANSWER: usize = 1 << 10;

/// Tag of field 1 with a length (`HealthCheckRequest.service`).
const SERVICE_TAG: u8 = 0x0a;

/// Tag of field 1 with a number (`HealthCheckResponse.status`).
const STATUS_TAG: u8 = 0x08;

/// Names of `HealthCheckResponse.ServingStatus`.
const STATUSES: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];

/// Status codes of gRPC that a health check meets.
const UNIMPLEMENTED: u32 = 12;
const NOT_FOUND: u32 = 5;

/// Asks whether a service is served; the words say why it is not.
pub(super) async fn check(stream: TcpStream, address: SocketAddr, service: &str) -> Result<(), String> {
    let failed = |err: h2::Error| format!("health rpc failed: {err}");
    let (client, connection) = h2::client::handshake(stream).await.map_err(failed)?;
    let call = async {
        let mut client = client.ready().await.map_err(failed)?;
        let request = Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
            .header("content-type", "application/grpc")
            // gRPC's HTTP/2 protocol asks for it.
            .header("te", "trailers")
            .header("user-agent", "kube-probe/1.34")
            .body(())
            .map_err(|err| err.to_string())?;
        let (response, mut body) = client.send_request(request, false).map_err(failed)?;
        body.send_data(request_of(service)?, true).map_err(failed)?;
        let (head, mut body) = response.await.map_err(failed)?.into_parts();
        if head.status != 200 {
            return Err(format!("health rpc failed: HTTP status {}", head.status));
        }
        let mut answer = BytesMut::new();
        while let Some(part) = body.data().await {
            let part = part.map_err(failed)?;
            let _ = body.flow_control().release_capacity(part.len());
            if answer.len() + part.len() > MAX_ANSWER {
                return Err("health rpc failed: the answer is too long".to_owned());
            }
            answer.put(part);
        }
        let trailers = body.trailers().await.map_err(failed)?;
        // An answer without a message has its status in the head ("Trailers-Only" in gRPC's HTTP/2 protocol).
        judge(trailers.as_ref().unwrap_or(&head.headers), &answer, service)
    };
    tokio::select! {
        // The connection only moves what the call waits for; both may be dropped, the socket with them.
        outcome = call => outcome,
        ended = connection => Err(match ended {
            Ok(()) => "health rpc failed: the connection was closed".to_owned(),
            Err(err) => failed(err),
        }),
    }
}

/// The message with its prefix: not compressed, then its length.
fn request_of(service: &str) -> Result<Bytes, String> {
    let mut message = BytesMut::new();
    // proto3 does not write an empty text.
    if !service.is_empty() {
        let length = u8::try_from(service.len()).ok().filter(|length| *length < 0x80);
        message.put_u8(SERVICE_TAG);
        message.put_u8(length.ok_or_else(|| format!("the service {service:?} is longer than 127 bytes"))?);
        message.put_slice(service.as_bytes());
    }
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).map_err(|err| err.to_string())?);
    frame.put(message);
    Ok(frame.freeze())
}

fn judge(trailers: &HeaderMap, answer: &[u8], service: &str) -> Result<(), String> {
    let text = |name: &str| trailers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let code: u32 = text("grpc-status").parse().map_err(|_| "health rpc failed: the answer is not gRPC".to_owned())?;
    match code {
        0 => {}
        UNIMPLEMENTED => {
            return Err("this server does not implement the grpc health protocol (grpc.health.v1.Health)".to_owned());
        }
        NOT_FOUND => return Err(format!("health rpc failed: unknown service {service:?}")),
        code => return Err(format!("health rpc failed: grpc-status {code}: {}", text("grpc-message"))),
    }
    // A prefix of five bytes; a status of 0 is not written.
    let status = match answer.get(5..) {
        Some([STATUS_TAG, status, ..]) => usize::from(*status),
        Some([]) => 0,
        _ => return Err("health rpc failed: the answer is not a HealthCheckResponse".to_owned()),
    };
    match STATUSES.get(status) {
        Some(&"SERVING") => Ok(()),
        name => Err(format!("service unhealthy (responded with {:?})", name.unwrap_or(&"an unknown status"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trailers(status: &str) -> HeaderMap {
        HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), status.parse().unwrap())])
    }

    #[test]
    fn only_serving_passes() {
        let answer = |status: u8| [0, 0, 0, 0, 2, STATUS_TAG, status];

        assert_eq!(judge(&trailers("0"), &answer(1), ""), Ok(()));
        assert!(judge(&trailers("0"), &answer(2), "").unwrap_err().contains("NOT_SERVING"));
        assert!(judge(&trailers("0"), &[0, 0, 0, 0, 0], "").unwrap_err().contains("UNKNOWN"));
        assert!(judge(&trailers("12"), &[], "").unwrap_err().contains("does not implement"));
        assert!(judge(&trailers("5"), &[], "s").unwrap_err().contains("\"s\""));
        assert!(judge(&HeaderMap::new(), &answer(1), "").unwrap_err().contains("not gRPC"));
        assert!(judge(&trailers("0"), b"short", "").is_err());
    }

    #[test]
    fn a_request_names_its_service() {
        assert_eq!(request_of("").unwrap().as_ref(), [0, 0, 0, 0, 0]);
        assert_eq!(request_of("ab").unwrap().as_ref(), [0, 0, 0, 0, 4, SERVICE_TAG, 2, b'a', b'b']);
        assert!(request_of(&"n".repeat(128)).is_err());
    }
}
