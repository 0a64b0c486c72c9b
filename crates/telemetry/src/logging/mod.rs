//! Log lines in Istio's two formats, at levels that can be changed while the program runs.

mod format;
mod scopes;
mod writer;

use std::{str::FromStr, sync::Arc};

use parking_lot::Mutex;
use tracing_subscriber::{
    Registry, filter::Targets, layer::SubscriberExt, registry::LookupSpan, reload, util::SubscriberInitExt,
};

pub use format::LogFormat;
pub use scopes::ZTUNNEL_SCOPES;
pub use writer::Sink;

/// Always in force, unless a later directive says otherwise.
const BASE: &str = "hickory_server::server=off";

/// Source of a filter that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// Not a list of `level` and `scope=level`.
    #[error("invalid log filter {filter:?}: {reason}")]
    Filter { filter: String, reason: String },
    /// Another subscriber is installed.
    #[error("logging was already set up")]
    Twice,
}

/// Changes levels of the running program, and waits for its lines to be written. Clones share it.
#[derive(Clone)]
pub struct Handle(Arc<Inner>);

struct Inner {
    default: String,
    current: Mutex<String>,
    filter: reload::Handle<Targets, Registry>,
    sink: Sink,
}

/// Sets up logging to standard output, with `filter` (the value of `RUST_LOG`) or `info`.
///
/// # Errors
/// When the filter cannot be read, or logging is already set up.
pub fn init(format: LogFormat, filter: Option<&str>) -> Result<Handle, LoggingError> {
    let (handle, subscriber) = build(format, filter, Sink::stdout())?;
    subscriber.try_init().map_err(|_| LoggingError::Twice)?;
    Ok(handle)
}

type Subscriber = Box<dyn tracing::Subscriber + Send + Sync>;

/// Like [`init`], to any sink, and installs nothing: for tests and tools.
///
/// # Errors
/// When the filter cannot be read.
pub fn build(format: LogFormat, filter: Option<&str>, sink: Sink) -> Result<(Handle, Subscriber), LoggingError> {
    let default = format!("{BASE},{}", filter.filter(|f| !f.trim().is_empty()).unwrap_or("info"));
    let (layer, reload) = reload::Layer::new(scopes::with_implied(&parse(&default)?));
    let lines = format::Lines::new(format, sink.clone());
    let subscriber = tracing_subscriber::registry().with(layer).with(lines);
    let current = Mutex::new(default.clone());
    Ok((Handle(Arc::new(Inner { default, current, filter: reload, sink })), Box::new(subscriber)))
}

impl Handle {
    /// The filter in force, as a list of directives.
    #[must_use]
    pub fn current(&self) -> String {
        parse(&self.0.current.lock()).map_or_else(|_| String::new(), |targets| targets.to_string())
    }

    /// Adds `directives` (`debug`, or `access=debug,rbac=info`) to the filter in force.
    ///
    /// # Errors
    /// When they cannot be read; the filter stays.
    pub fn set(&self, directives: &str) -> Result<(), LoggingError> {
        // Held until the filter is in force: of two changes at once neither may undo the other.
        let mut current = self.0.current.lock();
        // The later of two directives for one scope wins.
        let next = format!("{current},{directives}");
        self.apply(&mut current, next)
    }

    /// Back to the filter of the start.
    pub fn reset(&self) {
        let mut current = self.0.current.lock();
        // It was read at the start, so it can be read now.
        let _ = self.apply(&mut current, self.0.default.clone());
    }

    /// Writes a line as it is, whatever the filter: for logs of a format of their own. The line has no line feed.
    pub fn write_line(&self, mut line: String) {
        line.push('\n');
        self.0.sink.write(line);
    }

    /// Returns when everything logged until now has been written. Blocks: call it last.
    pub fn flush(&self) {
        self.0.sink.flush();
    }

    fn apply(&self, current: &mut String, next: String) -> Result<(), LoggingError> {
        let targets = parse(&next)?;
        // Written back from the parsed form, so that it does not grow with every change; and without implied scopes, so
        // that it shows what a user has written, and `ztunnel=info` takes back all of `ztunnel=debug`.
        *current = targets.to_string();
        let failed = |e: reload::Error| LoggingError::Filter { filter: next.clone(), reason: e.to_string() };
        self.0.filter.reload(scopes::with_implied(&targets)).map_err(failed)
    }
}

fn parse(filter: &str) -> Result<Targets, LoggingError> {
    let refused = |reason: String| LoggingError::Filter { filter: filter.to_owned(), reason };
    // The library reads a misspelt level as the name of a scope, which then never logs anything. A user would only see
    // that nothing happens.
    for directive in filter.split(',').filter(|d| !d.trim().is_empty()) {
        let level = directive.rsplit_once('=').map_or(directive, |(_, level)| level);
        tracing_subscriber::filter::LevelFilter::from_str(level.trim())
            .map_err(|_| refused(format!("{level:?} is not one of off, error, warn, info, debug, trace")))?;
    }
    filter.parse().map_err(|e: tracing_subscriber::filter::ParseError| refused(e.to_string()))
}

/// Bounds of a subscriber whose lines show their spans.
pub(crate) trait Spans: tracing::Subscriber + for<'a> LookupSpan<'a> {}
impl<S: tracing::Subscriber + for<'a> LookupSpan<'a>> Spans for S {}

#[cfg(test)]
mod tests {
    use super::*;
    use writer::Memory;

    fn logged(format: LogFormat, filter: Option<&str>, act: impl FnOnce(&Handle)) -> String {
        let memory = Memory::default();
        let (handle, subscriber) = build(format, filter, Sink::new(memory.clone())).unwrap();
        tracing::subscriber::with_default(subscriber, || act(&handle));
        handle.flush();
        memory.text()
    }

    #[test]
    fn a_plain_line_has_time_level_scope_message_and_fields_between_tabs() {
        let text = logged(LogFormat::Plain, None, |_| {
            tracing::event!(target: "ztunnel::access", tracing::Level::INFO, src.addr = %"10.0.0.1:80", direction = "inbound", n = 3, "done");
        });

        let columns: Vec<&str> = text.trim_end_matches('\n').split('\t').collect();
        assert_eq!(columns[1..], ["info", "access", "done", r#"src.addr=10.0.0.1:80 direction="inbound" n=3"#]);
        assert_eq!(columns[0].len(), "2026-11-21T11:02:13.000000Z".len());
        assert!(columns[0].ends_with('Z'));
    }

    #[test]
    fn spans_are_shown_after_the_scope_from_the_outermost_on() {
        let text = logged(LogFormat::Plain, None, |_| {
            let outer = tracing::info_span!("proxy", wl = %"shop/web").entered();
            let inner = tracing::info_span!("inbound", id = tracing::field::Empty).entered();
            inner.record("id", tracing::field::display("7f"));
            tracing::warn!(target: "proxy", "slow");
            drop((inner, outer));
        });

        assert!(text.contains("\twarn\tproxy:proxy{wl=shop/web}:inbound{id=7f}\tslow\n"), "{text}");
    }

    #[test]
    fn a_json_line_keeps_types_and_nests_spans() {
        let text = logged(LogFormat::Json, None, |_| {
            let span = tracing::info_span!("inbound", id = "7f").entered();
            tracing::error!(target: "access", bytes_sent = 5_u64, ok = false, error = "a \"b\"", "done");
            drop(span);
        });

        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["level"], "error");
        assert_eq!(line["scope"], "access");
        assert_eq!(line["message"], "done");
        assert_eq!(line["bytes_sent"], 5);
        assert_eq!(line["ok"], false);
        assert_eq!(line["error"], "a \"b\"");
        assert_eq!(line["inbound"]["id"], "7f");
        assert!(text.starts_with(r#"{"level":"error","time":""#));
    }

    #[test]
    fn a_line_break_in_a_value_does_not_break_the_line() {
        let text = logged(LogFormat::Plain, None, |_| tracing::info!(error = %"a\nb", "x\ny"));

        assert_eq!(text.lines().count(), 1, "{text}");
    }

    #[test]
    fn levels_change_while_running_and_can_be_reset() {
        let text = logged(LogFormat::Plain, Some("info,access=off"), |handle| {
            tracing::info!(target: "access", "one");
            tracing::debug!(target: "rbac", "two");
            handle.set("access=debug,rbac=debug").unwrap();
            tracing::info!(target: "access", "three");
            tracing::debug!(target: "rbac", "four");
            handle.reset();
            tracing::info!(target: "access", "five");
        });

        let messages: Vec<&str> = text.lines().filter_map(|l| l.split('\t').nth(3)).collect();
        assert_eq!(messages, ["three", "four"]);
    }

    #[test]
    fn a_level_of_the_proxy_holds_for_all_its_crates_until_it_is_taken_back() {
        let text = logged(LogFormat::Plain, Some("info,ztunnel=debug"), |handle| {
            tracing::debug!(target: "proxy_core::discovery", "one");
            handle.set("ztunnel=info").unwrap();
            tracing::debug!(target: "proxy_core::discovery", "two");
            handle.set("ztunnel::discovery=debug").unwrap();
            tracing::debug!(target: "proxy_core::discovery", "three");
            tracing::debug!(target: "hbone::pool", "four");
            let written = ["hickory_server::server=off", "ztunnel::discovery=debug", "ztunnel=info", "info"];
            assert_eq!(handle.current().split(',').collect::<Vec<_>>(), written);
        });

        let messages: Vec<&str> = text.lines().filter_map(|l| l.split('\t').nth(3)).collect();
        assert_eq!(messages, ["one", "three"]);
    }

    #[test]
    fn a_wrong_level_is_refused_and_changes_nothing() {
        logged(LogFormat::Plain, None, |handle| {
            let before = handle.current();
            assert!(handle.set("access=loud").is_err());
            assert!(handle.set("notalevel").is_err());
            assert_eq!(handle.current(), before);
        });
    }
}
