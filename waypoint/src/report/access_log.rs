//! Access log: one line for each request, in Envoy's default text format as Istio sets it.

use std::fmt::{self, Display};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Version;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use super::{Flags, Record};
use crate::tcp::Carried;
use crate::tunnel::Opened;

/// Format of `%START_TIME%`.
const TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// Receiver of lines, each without its line feed.
#[derive(Clone)]
pub struct AccessLog(Arc<dyn Fn(String) + Send + Sync>);

impl AccessLog {
    /// Passes each line to `write`.
    pub fn new(write: impl Fn(String) + Send + Sync + 'static) -> Self {
        Self(Arc::new(write))
    }

    pub(super) fn write(&self, line: String) {
        (self.0)(line);
    }
}

impl fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessLog")
    }
}

/// A request that has ended.
pub(super) struct Line<'a> {
    pub record: &'a Record,
    pub duration: Duration,
}

impl Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Record { method, target, status, flags, received, sent, .. } = self.record;
        let r = self.record;
        let start = start_time(r.start_time);
        let endpoint = r.endpoint.as_ref();
        let service_time = r.upstream_time.map(|time| time.as_millis().to_string()).unwrap_or_default();
        write!(
            f,
            "[{start}] \"{method} {} {}\" {status} {flags} {} - ",
            Quoted(target),
            protocol(r.version),
            OrDash(&r.details)
        )?;
        write!(
            f,
            "\"{}\" {} {sent} {} {} ",
            Quoted(&r.failure),
            received.get(),
            self.duration.as_millis(),
            OrDash(&service_time)
        )?;
        for text in [&r.forwarded_for, &r.user_agent, &r.request_id, &r.authority] {
            write!(f, "\"{}\" ", Quoted(text))?;
        }
        match endpoint {
            Some((_, address)) => write!(f, "\"{address}\" ")?,
            None => f.write_str("\"-\" ")?,
        }
        // The local addresses are those of pooled tunnels, which say nothing about the request.
        write!(f, "{} - {} {} - {}", OrDash(&r.cluster), r.original_dst, r.client.address, OrDash(&r.route_name))
    }
}

/// A connection that is not HTTP.
pub(super) struct TcpLine<'a> {
    pub start: String,
    pub flags: Flags,
    pub failure: &'a str,
    pub details: &'a str,
    pub carried: Carried,
    pub duration: Duration,
    pub endpoint: Option<SocketAddr>,
    pub opened: &'a Opened,
}

impl Display for TcpLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { start, flags, carried, opened, .. } = self;
        let endpoint = self.endpoint.map(|address| address.to_string()).unwrap_or_default();
        let details = OrDash(self.details);
        write!(f, "[{start}] \"- - -\" 0 {flags} {details} - \"{}\" ", Quoted(self.failure))?;
        write!(f, "{} {} {} - ", carried.to_server, carried.to_client, self.duration.as_millis())?;
        write!(f, "\"-\" \"-\" \"-\" \"-\" \"{}\" - - ", OrDash(&endpoint))?;
        write!(f, "{} {} - -", opened.original_dst, opened.client.address)
    }
}

/// `%START_TIME%`.
pub(super) fn start_time(time: OffsetDateTime) -> String {
    time.format(TIME).unwrap_or_default()
}

const fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_3 => "HTTP/3",
        // `Version` has no other.
        _ => "HTTP/1.1",
    }
}

/// A text, or `-` for an empty one.
struct OrDash<'a>(&'a str);

impl Display for OrDash<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "-" } else { self.0 })
    }
}

/// A text of a peer inside of quotes, which it must not be able to leave: `"`, `\` and controls are escaped.
struct Quoted<'a>(&'a str);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("-");
        }
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                c if c.is_control() => write!(f, "\\x{:02x}", u32::from(c))?,
                c => write!(f, "{c}")?,
            }
        }
        Ok(())
    }
}
