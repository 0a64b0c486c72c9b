//! Answers that the proxy gives itself, with what the report says about them.

use std::borrow::Cow;

use http::header::{CONNECTION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use route::LocalAnswer;

use super::body::ResponseBody;
use crate::report::{Flag, Report};

/// An answer of the proxy.
#[derive(Debug)]
pub(super) struct Reply {
    pub answer: LocalAnswer,
    /// Besides those that every answer has; each replaces others of its name.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub flag: Option<Flag>,
    pub details: Cow<'static, str>,
    /// The connection ends with it.
    pub closes: bool,
}

impl Reply {
    /// An answer with this detail.
    pub(super) fn new(status: u16, body: impl Into<String>, details: impl Into<Cow<'static, str>>) -> Self {
        Self {
            answer: LocalAnswer::new(status, body),
            headers: Vec::new(),
            flag: None,
            details: details.into(),
            closes: false,
        }
    }

    /// Adds a flag.
    #[must_use]
    pub(super) fn flag(self, flag: Flag) -> Self {
        Self { flag: Some(flag), ..self }
    }

    /// Ends the connection.
    #[must_use]
    pub(super) fn closing(self) -> Self {
        Self { closes: true, ..self }
    }

    /// Adds a header, which replaces others of its name.
    #[must_use]
    pub(super) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// No route.
    pub(super) fn no_route() -> Self {
        Self::new(404, "", "route_not_found").flag(Flag::NoRoute)
    }

    /// The route names a service, port or subset that does not exist.
    pub(super) fn no_cluster() -> Self {
        Self::new(503, "", "cluster_not_found").flag(Flag::NoCluster)
    }

    /// The service has no endpoint.
    pub(super) fn no_endpoint() -> Self {
        Self::new(503, "no healthy upstream", "no_healthy_upstream").flag(Flag::NoHealthyUpstream)
    }

    /// Renders the answer and completes the report.
    pub(super) fn into_response(self, mut report: Report) -> Response<ResponseBody> {
        let record = &mut report.record;
        let rendered = self.answer.render(record.is_grpc);
        let mut headers = HeaderMap::new();
        for (name, value) in self.headers {
            headers.insert(name, value);
        }
        if let Some(content_type) = rendered.content_type
            && !headers.contains_key(CONTENT_TYPE)
        {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        if let Some(status) = rendered.grpc_status {
            headers.insert("grpc-status", HeaderValue::from(u16::from(status)));
            record.grpc_status = Some(status.into());
        }
        if let Some(message) = rendered.grpc_message.and_then(|message| HeaderValue::try_from(message).ok()) {
            headers.insert("grpc-message", message);
        }
        if self.closes {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let status = StatusCode::from_u16(rendered.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if let Some(flag) = self.flag {
            record.flags.raise(flag);
        }
        record.status = status.as_u16();
        record.details = self.details;
        let body = rendered.body.to_owned();
        let mut response = Response::new(ResponseBody::local(body, report));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }
}
