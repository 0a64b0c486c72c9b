//! Logs of containers, as the API server passes them on.

use bytes::Bytes;
use form_urlencoded::Serializer;
use futures::TryStreamExt as _;
use http_body_util::BodyStream;
use kube::client::Body;

use crate::answer::ApiError;
use crate::api::Api;
use crate::connect::ApiServer;
use crate::objects::{Collection, RequestError};
use crate::verb::Verb;

/// The part of a log to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// The container; not needed for a pod with one.
    pub container: Option<String>,
    /// Number of lines from the end; `None`: all.
    pub tail: Option<usize>,
    /// Seconds since when; `None`: from the beginning.
    pub since_seconds: Option<u64>,
    /// Lines that are written later come, too.
    pub follow: bool,
    /// The run of the container before this one.
    pub previous: bool,
}

impl LogOptions {
    fn query(&self) -> String {
        let Self { container, tail, since_seconds, follow, previous } = self;
        let mut query = Serializer::new(String::new());
        let numbers = [
            ("tailLines", tail.map(|lines| lines.to_string())),
            ("sinceSeconds", since_seconds.map(|seconds| seconds.to_string())),
        ];
        for (name, value) in numbers.into_iter().chain([("container", container.clone())]) {
            if let Some(value) = value {
                query.append_pair(name, &value);
            }
        }
        for (name, value) in [("follow", follow), ("previous", previous)] {
            if *value {
                query.append_pair(name, "true");
            }
        }
        query.finish()
    }
}

/// A log as it arrives.
pub struct Log {
    body: BodyStream<Body>,
    what: String,
}

impl Log {
    /// Opens the log of a container of a pod.
    ///
    /// # Errors
    /// [`RequestError`], when there is no such pod or container.
    pub async fn open(
        server: &ApiServer,
        (namespace, pod): (&str, &str),
        options: &LogOptions,
    ) -> Result<Self, RequestError> {
        let at = Collection::namespaced("v1", "pods", namespace).named(pod);
        let what = format!("the log of {at}");
        let path = format!("{}/log?{}", at.path(), options.query());
        let body = Api::new(server.client()).body(&path).await;
        let body = body.map_err(|error| RequestError::new(&error, Verb::Get, &what))?;
        Ok(Self { body: BodyStream::new(body), what })
    }

    /// Bytes as they come, not cut at ends of lines; `None` at the end.
    ///
    /// # Errors
    /// When the connection breaks. What came before is complete.
    pub async fn next(&mut self) -> Result<Option<Bytes>, RequestError> {
        loop {
            let frame = self.body.try_next().await.map_err(|error| ApiError::Unreachable(error.into()));
            match frame.map_err(|error| RequestError::new(&error, Verb::Get, &self.what))? {
                None => return Ok(None),
                Some(frame) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").field("what", &self.what).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_chosen_is_in_the_query() {
        let some = LogOptions { tail: Some(3), container: Some("a".to_owned()), follow: true, ..LogOptions::default() };

        assert_eq!(some.query(), "tailLines=3&container=a&follow=true");
        assert_eq!(LogOptions::default().query(), "");
    }
}
