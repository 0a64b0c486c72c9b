//! The line about each connection, scope `access`. Field names and their order are Istio's; `code` is ours and comes last.

use std::{fmt, net::SocketAddr, time::Duration};

use tracing::{Level, event};

use crate::Direction;

/// One side of a connection. Empty texts are left out of the line.
#[derive(Debug, Clone, Copy)]
pub struct AccessPeer<'a> {
    /// Source: of the client. Destination: the next hop's TCP address.
    pub addr: Option<SocketAddr>,
    /// Pod name, else canonical service.
    pub workload: &'a str,
    /// Namespace.
    pub namespace: &'a str,
    /// SPIFFE id; only with mutual TLS.
    pub identity: Option<&'a str>,
    /// Cluster id.
    pub cluster: &'a str,
}

/// Facts that are known of a connection.
#[derive(Debug, Clone, Copy)]
pub struct AccessRecord<'a> {
    /// The client.
    pub source: AccessPeer<'a>,
    /// The server, or the next hop to it.
    pub destination: AccessPeer<'a>,
    /// `:authority`; only HBONE.
    pub hbone_addr: Option<&'a str>,
    /// Hostname of the service.
    pub service: &'a str,
    /// Side of the proxy.
    pub direction: Direction,
}

/// An error of a connection, with its stable code.
#[derive(Clone, Copy)]
pub struct AccessError<'a> {
    /// In words.
    pub error: &'a dyn fmt::Display,
    /// Stable; empty: none.
    pub code: &'static str,
}

impl fmt::Debug for AccessError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.error)
    }
}

// A macro: `event!` makes its level and the names of its fields part of a static, so a function cannot pass them.
macro_rules! line {
    ($level:expr, $record:ident, $message:literal $(, $name:ident = $value:expr)*) => {
        event!(
            target: "access",
            $level,
            src.addr = $record.source.addr.map(tracing::field::display),
            src.workload = some($record.source.workload),
            src.namespace = some($record.source.namespace),
            src.identity = $record.source.identity,
            src.cluster = some($record.source.cluster),
            dst.addr = $record.destination.addr.map(tracing::field::display),
            dst.hbone_addr = $record.hbone_addr.map(tracing::field::display),
            dst.service = some($record.service),
            dst.workload = some($record.destination.workload),
            dst.namespace = some($record.destination.namespace),
            dst.identity = $record.destination.identity,
            dst.cluster = some($record.destination.cluster),
            direction = $record.direction.as_str(),
            $($name = $value,)*
            $message
        )
    };
}

impl AccessRecord<'_> {
    /// The proxy has begun to work on the connection.
    pub fn opened(&self) {
        let record = self;
        line!(Level::DEBUG, record, "connection opened");
    }

    /// The connection has ended. Sent and received are seen from this proxy towards its peer: outbound, sent is client to
    /// server; inbound, sent is server to client.
    pub fn complete(&self, bytes_sent: u64, bytes_recv: u64, duration: Duration, error: Option<AccessError<'_>>) {
        let record = self;
        // Milliseconds as a text with the unit, as in Istio's lines, which users parse.
        let duration = format!("{}ms", duration.as_millis());
        match error {
            None => line!(
                Level::INFO,
                record,
                "connection complete",
                bytes_sent = bytes_sent,
                bytes_recv = bytes_recv,
                duration = duration.as_str()
            ),
            Some(AccessError { error, code }) => line!(
                Level::ERROR,
                record,
                "connection complete",
                bytes_sent = bytes_sent,
                bytes_recv = bytes_recv,
                duration = duration.as_str(),
                error = error.to_string().as_str(),
                code = some(code)
            ),
        }
    }
}

/// A connection that ended before anything was known about it.
pub fn refused(source: SocketAddr, destination: SocketAddr, direction: Direction, error: AccessError<'_>) {
    event!(
        target: "access",
        // Istio's level for a connection that ends this early.
        Level::WARN,
        src.addr = %source,
        dst.addr = %destination,
        direction = direction.as_str(),
        error = error.error.to_string().as_str(),
        code = some(error.code),
        "connection failed"
    );
}

fn some(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logging::{LogFormat, Sink, build};
    use std::sync::Arc;

    use parking_lot::Mutex;

    fn logged(act: impl FnOnce()) -> String {
        #[derive(Clone, Default)]
        struct Memory(Arc<Mutex<Vec<u8>>>);
        impl std::io::Write for Memory {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let memory = Memory::default();
        let (handle, subscriber) = build(LogFormat::Plain, Some("debug"), Sink::new(memory.clone())).unwrap();
        tracing::subscriber::with_default(subscriber, act);
        handle.flush();
        let bytes = memory.0.lock().clone();
        String::from_utf8(bytes).unwrap()
    }

    fn record(identity: &str) -> AccessRecord<'_> {
        let source = AccessPeer {
            addr: Some("10.0.0.1:4000".parse().unwrap()),
            workload: "shell",
            namespace: "shop",
            identity: Some(identity),
            cluster: "Kubernetes",
        };
        let destination =
            AccessPeer { addr: Some("10.0.0.2:15008".parse().unwrap()), workload: "web", identity: None, ..source };
        AccessRecord {
            source,
            destination,
            hbone_addr: Some("10.0.0.2:80"),
            service: "",
            direction: Direction::Inbound,
        }
    }

    #[test]
    fn a_finished_connection_is_one_line_in_istio_s_order() {
        let identity = "spiffe://cluster.local/ns/shop/sa/shell";

        let text = logged(|| record(identity).complete(84, 98, Duration::from_millis(12), None));

        let expected = "\tinfo\taccess\tconnection complete\tsrc.addr=10.0.0.1:4000 src.workload=\"shell\" \
             src.namespace=\"shop\" src.identity=\"spiffe://cluster.local/ns/shop/sa/shell\" src.cluster=\"Kubernetes\" \
             dst.addr=10.0.0.2:15008 dst.hbone_addr=10.0.0.2:80 dst.workload=\"web\" dst.namespace=\"shop\" \
             dst.cluster=\"Kubernetes\" direction=\"inbound\" bytes_sent=84 bytes_recv=98 duration=\"12ms\"\n";
        assert_eq!(&text[text.find('\t').unwrap()..], expected);
    }

    #[test]
    fn an_error_is_logged_as_error_with_its_code_last() {
        let identity = "";
        let error = AccessError { error: &"http status: 401", code: "status" };

        let text = logged(|| record(identity).complete(0, 0, Duration::ZERO, Some(error)));

        assert!(text.contains("\terror\taccess\tconnection complete\t"));
        assert!(text.ends_with("duration=\"0ms\" error=\"http status: 401\" code=\"status\"\n"), "{text}");
    }

    #[test]
    fn an_early_refusal_is_a_warning() {
        let error = AccessError { error: &"attempted recursive call to ourselves", code: "self_call" };
        let (a, b) = ("10.0.0.1:1".parse().unwrap(), "127.0.0.1:15008".parse().unwrap());

        let text = logged(|| refused(a, b, Direction::Outbound, error));

        assert!(text.contains("\twarn\taccess\tconnection failed\tsrc.addr=10.0.0.1:1 dst.addr=127.0.0.1:15008 "));
    }
}
