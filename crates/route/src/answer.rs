//! Answers that a proxy gives itself.

use serde::Serialize;

use crate::grpc;

/// Answer without a destination: of a route, a fault or an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalAnswer {
    pub status: u16,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub body: String,
    /// Status code for gRPC clients; `None`: see [`grpc::status_of`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc_status: Option<u8>,
}

/// An answer as it is sent to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered<'a> {
    pub status: u16,
    /// `None` for an answer without body.
    pub content_type: Option<&'static str>,
    /// Value of `grpc-status`.
    pub grpc_status: Option<u8>,
    /// Value of `grpc-message`, percent-encoded.
    pub grpc_message: Option<String>,
    pub body: &'a str,
}

impl LocalAnswer {
    pub fn new(status: u16, body: impl Into<String>) -> Self {
        Self { status, body: body.into(), grpc_status: None }
    }

    /// Renders the answer. A gRPC client gets 200 with trailers only, and the body as `grpc-message`.
    pub fn render(&self, is_grpc: bool) -> Rendered<'_> {
        if !is_grpc {
            let content_type = (!self.body.is_empty()).then_some("text/plain");
            return Rendered {
                status: self.status,
                content_type,
                grpc_status: None,
                grpc_message: None,
                body: &self.body,
            };
        }
        Rendered {
            status: 200,
            content_type: Some("application/grpc"),
            grpc_status: Some(self.grpc_status.unwrap_or(grpc::status_of(self.status))),
            grpc_message: (!self.body.is_empty()).then(|| percent_encode(&self.body)),
            body: "",
        }
    }
}

/// Encodes a `grpc-message`: all but printable ASCII without `%` (gRPC over HTTP/2).
fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(byte.into()),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_with_a_body_is_text() {
        let teapot = LocalAnswer::new(418, "short and stout");
        let rendered = teapot.render(false);
        assert_eq!(
            (rendered.status, rendered.content_type, rendered.body),
            (418, Some("text/plain"), "short and stout")
        );
        assert_eq!(LocalAnswer::new(204, "").render(false).content_type, None);
    }

    #[test]
    fn a_grpc_client_gets_a_status_instead() {
        let unauthorized = LocalAnswer::new(401, "Jwt is missing");
        let rendered = unauthorized.render(true);
        assert_eq!((rendered.status, rendered.content_type), (200, Some("application/grpc")));
        assert_eq!((rendered.grpc_status, rendered.grpc_message.as_deref()), (Some(16), Some("Jwt is missing")));
        assert_eq!(rendered.body, "");
        let not_found = LocalAnswer::new(404, "");
        assert_eq!((not_found.render(true).grpc_status, not_found.render(true).grpc_message), (Some(12), None));
    }

    #[test]
    fn a_message_that_no_header_can_carry_is_encoded() {
        assert_eq!(LocalAnswer::new(500, "50 %\né").render(true).grpc_message.as_deref(), Some("50 %25%0A%C3%A9"));
    }
}
