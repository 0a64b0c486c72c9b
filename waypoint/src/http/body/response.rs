//! Body of an answer on its way to the client. Its end, whichever it is, ends the report of its request.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use route::grpc;

use super::BoxError;
use crate::http::deadline::Deadline;
use crate::http::failure;
use crate::report::{Flag, Report};
use crate::upstream::Lease;

/// Body of an answer.
pub struct ResponseBody {
    content: Content,
    /// `None` for an answer whose request continues behind it.
    report: Option<Report>,
}

enum Content {
    /// Of the proxy itself.
    Local(Option<Bytes>),
    Upstream {
        body: Incoming,
        /// Until the end of the body.
        lease: Option<Lease>,
        /// Of the whole request, and of its last try.
        deadlines: Vec<Deadline>,
    },
}

impl ResponseBody {
    /// An answer of the proxy itself.
    pub fn local(body: String, mut report: Report) -> Self {
        let body = Some(Bytes::from(body)).filter(|body| !body.is_empty());
        report.record.sent = body.as_ref().map_or(0, |body| body.len() as u64);
        report.complete();
        Self { content: Content::Local(body), report: Some(report) }
    }

    /// No body, and no end of the request.
    pub const fn none() -> Self {
        Self { content: Content::Local(None), report: None }
    }

    /// The answer of an endpoint, whose connection is free again at its end.
    pub fn upstream(body: Incoming, lease: Lease, deadlines: Vec<Deadline>, report: Report) -> Self {
        let content = Content::Upstream { body, lease: Some(lease), deadlines };
        let mut response = Self { content, report: Some(report) };
        response.notice_end();
        response
    }

    /// Notes the end when there is nothing left: nobody needs to poll again then.
    fn notice_end(&mut self) {
        if let Content::Upstream { body, lease, deadlines } = &mut self.content
            && body.is_end_stream()
        {
            if let Some(lease) = lease.take() {
                lease.finish();
            }
            deadlines.clear();
            if let Some(report) = &mut self.report {
                report.complete();
            }
        }
    }

    fn on_frame(&mut self, frame: &Frame<Bytes>) {
        let Some(Report { record, .. }) = &mut self.report else { return };
        if let Some(data) = frame.data_ref() {
            record.sent += data.len() as u64;
        }
        if let Some(trailers) = frame.trailers_ref() {
            record.grpc_status = grpc::status_in(trailers).or(record.grpc_status);
        }
    }

    fn on_error(&mut self, error: &hyper::Error) {
        let Some(Report { record, .. }) = &mut self.report else { return };
        let reason = failure::Reset::of(error);
        // Behind the head of an answer, a connection that ended early broke its own framing.
        record.flags.raise(reason.flag_after_head());
        record.details = format!("upstream_reset_after_response_started{{{}}}", reason.detail_after_head()).into();
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let (body, deadlines) = match &mut this.content {
            Content::Local(data) => return Poll::Ready(data.take().map(|data| Ok(Frame::data(data)))),
            Content::Upstream { body, deadlines, .. } => (body, deadlines),
        };
        if deadlines.iter_mut().any(|deadline| deadline.poll(cx).is_ready()) {
            if let Some(Report { record, .. }) = &mut this.report {
                record.flags.raise(Flag::UpstreamTimeout);
                record.details = "response_timeout".into();
            }
            return Poll::Ready(Some(Err("the time for the request is over".into())));
        }
        match std::task::ready!(Pin::new(body).poll_frame(cx)) {
            Some(Ok(frame)) => {
                this.on_frame(&frame);
                this.notice_end();
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                this.on_error(&error);
                Poll::Ready(Some(Err(error.into())))
            }
            None => {
                this.notice_end();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Local(data) => data.is_none(),
            Content::Upstream { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Local(data) => SizeHint::with_exact(data.as_ref().map_or(0, |data| data.len() as u64)),
            Content::Upstream { body, .. } => body.size_hint(),
        }
    }
}
